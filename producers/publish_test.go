package producers

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
)

// What SQL refuses and what Go refuses is the same.
func TestPublishRefusesWhatEventsRefuse(t *testing.T) {
	b := newBed(t)
	for _, e := range []event.Event{
		{Type: "run.started", Subject: "r"},
		{Type: "run.started", Subject: strings.Repeat("é", 256)},
		{Type: "ai.requested", Data: json.RawMessage(`{"prompt": "x"}`)},
		{Type: "ai.answered"}, {Type: "ai.forget"}, {Type: "session.created"}, {Type: "session.revoked"},
		{Type: "books.changed", Subject: "ann"},
		{Type: "a.b.c", Subject: "x", Data: json.RawMessage(`[1, null]`)},
		{Type: "run.started"},
		{Type: "run", Subject: "r"}, {Type: "run.", Subject: "r"}, {Type: ".started", Subject: "r"}, {Type: "", Subject: "r"}, {Type: ".", Subject: "r"},
		{Type: "a b.c", Subject: "r"}, {Type: "a{b.c", Subject: "r"}, {Type: "a}b.c", Subject: "r"}, {Type: "a:b.c", Subject: "r"},
		{Type: "run.started", Subject: strings.Repeat("é", 257)},
		{Type: "run." + strings.Repeat("x", 509), Subject: "r"},
		{Type: "fill.requested", Subject: "r"},
		{Type: "run.progress", Subject: "r", Data: json.RawMessage(`"` + strings.Repeat("x", event.MaxData) + `"`)},
		{Type: "run.progress", Subject: "r", Data: json.RawMessage(`{`)},
	} {
		want := e.Validate()
		var data any
		if len(e.Data) > 0 {
			data = string(e.Data)
		}
		_, sql := b.conn.Exec(t.Context(), `SELECT mythic_cache.publish($1, $2, $3::text::jsonb)`, e.Type, e.Subject, data)
		if (want == nil) != (sql == nil) {
			t.Errorf("%.40s %.20s: SQL says %v, Go %v", e.Type, e.Subject, sql, want)
		}
		if _, err := Publish(t.Context(), b.conn, e); (want == nil) != (err == nil) || want != nil && !errors.Is(err, event.ErrMalformed) {
			t.Errorf("%.40s %.20s: Publish says %v, Go %v", e.Type, e.Subject, err, want)
		}
	}
	if _, err := b.conn.Exec(t.Context(), `SELECT mythic_cache.publish(NULL, 'r')`); err == nil {
		t.Error("a type of NULL was accepted")
	}
}

func TestPublishedEventsArriveWhole(t *testing.T) {
	b := newBed(t)
	b.relay()
	e := event.Event{Type: "run.progress", Subject: "RUN1", Data: json.RawMessage(`{"n": 12345678901234567890}`)}
	var id string
	err := pgx.BeginFunc(t.Context(), b.conn, func(tx pgx.Tx) (err error) {
		id, err = Publish(t.Context(), tx, e)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b.sync()
	for _, got := range b.entries() {
		if got.Type == e.Type && got.ID == id && got.Subject == e.Subject && string(got.Data) == string(e.Data) && got.Source == "postgres" && got.View == "" && got.Version == "" && !got.Time.IsZero() {
			return
		}
	}
	t.Errorf("not found: %+v", b.entries())
}

func TestVersionTextAgrees(t *testing.T) {
	b := newBed(t)
	rapid.Check(t, func(r *rapid.T) {
		s := version.Snapshot{Epoch: rapid.Uint64Range(1, 1<<48-1).Draw(r, "epoch"), Xmin: rapid.Uint64Range(3, 1<<31).Draw(r, "xmin")}
		s.Xmax = s.Xmin
		for range rapid.IntRange(0, 6).Draw(r, "open") {
			s.Xip = append(s.Xip, s.Xmax)
			s.Xmax += rapid.Uint64Range(1, 99).Draw(r, "gap")
		}
		var text string
		if err := b.conn.QueryRow(context.Background(), `SELECT mythic_cache.version_text($1, $2::text::pg_snapshot)`, int64(s.Epoch), s.String()).Scan(&text); err != nil {
			r.Fatal(err)
		}
		if want := s.Version().String(); text != want {
			r.Fatalf("%s: SQL %s, Go %s", s, text, want)
		}
	})
}

func TestJoinKeyAgrees(t *testing.T) {
	b := newBed(t)
	rapid.Check(t, func(r *rapid.T) {
		parts := rapid.SliceOfN(rapid.StringMatching(`[a-c:%é23A5]{0,6}`), 1, 4).Draw(r, "parts")
		var key string
		if err := b.conn.QueryRow(context.Background(), `SELECT mythic_cache.join_key(VARIADIC $1)`, parts).Scan(&key); err != nil {
			r.Fatal(err)
		}
		if want := view.JoinKey(parts...); key != want {
			r.Fatalf("%q: SQL %q, Go %q", parts, key, want)
		}
	})
	if !one[bool](b, `SELECT mythic_cache.join_key('a', NULL) IS NULL`) {
		t.Error("a key with a part of NULL")
	}
}

// RFC 7396, appendix A.
func TestMergePatch(t *testing.T) {
	b := newBed(t)
	for _, c := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`}, {`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`}, {`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`}, {`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`}, {`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`}, {`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`}, {`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`}, {`{"a":"foo"}`, `null`, `null`}, {`{"a":"foo"}`, `"bar"`, `"bar"`}, {`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`}, {`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		if !one[bool](b, `SELECT mythic_cache.merge_patch($1::text::jsonb, $2::text::jsonb) = $3::text::jsonb`, c[0], c[1], c[2]) {
			t.Errorf("%s with %s is not %s", c[0], c[1], c[2])
		}
	}
}
