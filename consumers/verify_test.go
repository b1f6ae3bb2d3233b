package consumers

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"mythiccache/cache/version"
)

func (w *world) verify(o VerifyOptions) Audit {
	w.Helper()
	o.Settle, o.Patience = time.Millisecond, 50*time.Millisecond // there is neither relay nor group to wait for
	audit, err := Verify(w.ctx, w.store, w.loader, w.views, o)
	if err != nil {
		w.Fatal(err)
	}
	return audit
}

func TestVerifyTellsBehindFromWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	for _, id := range []string{"same", "gone", "born", "late", "remapped", "wrong*[a]"} {
		if id != "born" {
			w.set(id, 1)
		}
		w.fill("thing", id)
	}
	if audit := w.verify(VerifyOptions{}); audit.Checked != 6 || audit.Fresh != 6 {
		t.Fatalf("of fresh entries: %+v", audit)
	}
	// No triggers are installed here, so what is not put into the outbox by hand
	// is a change that nobody saw.
	w.exec("DELETE FROM things WHERE id = 'gone'")
	w.set("born", 1)
	w.set("wrong*[a]", 2)
	w.exec("WITH changed AS (UPDATE things SET n = 2 WHERE id = 'late' RETURNING id) INSERT INTO mythic_cache.outbox (type, view, subject) SELECT 'things.changed', 'thing', id FROM changed")
	want := map[string]Verdict{"gone": Wrong, "born": Wrong, "wrong*[a]": Wrong, "late": Behind}
	audit := w.verify(VerifyOptions{})
	if audit.Checked != 6 || audit.Fresh != 2 || audit.Behind != 1 || audit.Wrong != 3 || len(audit.Findings) != 4 {
		t.Errorf("%+v", audit)
	}
	for _, f := range audit.Findings {
		if f.View != "thing" || f.Verdict != want[f.Key] || f.Why == "" || f.Truth.Compare(f.Entry) <= 0 {
			t.Errorf("%+v", f)
		}
	}
	w.exec("INSERT INTO mythic_cache.outbox (type, view) VALUES ('things.changed', 'slow')")
	if audit := w.verify(VerifyOptions{Repair: true}); audit.Wrong != 3 {
		t.Errorf("%+v", audit)
	}
	w.wants("thing", "born", "")
	if audit := w.verify(VerifyOptions{}); audit.Wrong != 0 || audit.Behind != 1 {
		t.Errorf("after the repair: %+v", audit)
	}
	// A change of the whole view that is on its way explains any difference.
	w.set("same", 2)
	w.exec("INSERT INTO mythic_cache.outbox (type, view) VALUES ('things.changed', 'thing')")
	if audit := w.verify(VerifyOptions{}); audit.Wrong != 0 || audit.Behind != 2 {
		t.Errorf("with the view on its way: %+v", audit)
	}
}

// Whoever asks may send a key that is no value of the column's type. That there
// is no such row is cached, and is no reason to end the audit.
func TestVerifyOfAKeyThatNoRowCanHave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, `
views:
  number: {key: [n], load: "SELECT to_json(id) FROM things WHERE n = $1"}
`)
	w.set("a", 1)
	w.fill("number", "1")
	w.fill("number", "one")
	if audit := w.verify(VerifyOptions{}); audit.Checked != 2 || audit.Fresh != 2 {
		t.Errorf("%+v", audit)
	}
}

func TestVerifySamples(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	for n := range 30 {
		w.set(strconv.Itoa(n), n)
		w.fill("thing", strconv.Itoa(n))
	}
	if audit := w.verify(VerifyOptions{Sample: 7}); audit.Checked != 7 || audit.Fresh != 7 {
		t.Errorf("%+v", audit)
	}
}

func TestDocumentsAreComparedByWhatTheySay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{`{"a":1,"b":[1,2]}`, `{ "b": [1, 2], "a": 1 }`, true},
		{`[1,2]`, `[2,1]`, false},
		{`{"a":null}`, `{}`, false},
		{`12345678901234567890`, `12345678901234567891`, false},
		{`"a"`, `"\u0061"`, true},
		{`1`, ``, false},
		{`{"n":1}`, `{"n":1} and more`, false},
		{`{"n":1}`, `{"n":1}{"n":1}`, false},
		{`{"n":1}`, "{\"n\":1} \n", true},
	} {
		if got := sameJSON([]byte(c.a), []byte(c.b)); got != c.same {
			t.Errorf("%s and %s are the same: %v", c.a, c.b, got)
		}
	}
}

// Bytes that somebody appended readers would get, and whose ETag is not theirs.
func TestAuditFindsWhatWasAppended(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	client := w.redis.Client(t)
	for id, more := range map[string]string{"plain": "", "text": ` and more`, "spaces": " \n"} {
		w.set(id, 1)
		w.fill("thing", id)
		if err := client.Append(w.ctx, "mythic:thing:{"+id+"}", more).Err(); err != nil {
			t.Fatal(err)
		}
	}
	w.wants("thing", "text", `{"n":1} and more`)
	audit := w.verify(VerifyOptions{Repair: true})
	if audit.Checked != 3 || audit.Fresh != 1 || audit.Wrong != 2 {
		t.Errorf("%+v", audit)
	}
	w.wants("thing", "plain", `{"n":1}`)
	for _, id := range []string{"text", "spaces"} {
		w.wants("thing", id, "")
	}
}

// One load that fails is no reason to pass by all others, nor to say that all is well.
func TestVerifyGoesOnPastWhatItCannotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, `
views:
  inverse: {key: [id], load: "SELECT to_json(1 / n) FROM things WHERE id = $1", tables: {things: SELECT id FROM changed}}
  thing: {key: [id], load: "SELECT json_build_object('n', n) FROM things WHERE id = $1", tables: {things: SELECT id FROM changed}}
`)
	for _, id := range []string{"good", "zero"} {
		w.set(id, 1)
		w.fill("thing", id)
		w.fill("inverse", id)
	}
	w.set("zero", 0)
	audit := w.verify(VerifyOptions{})
	if audit.Checked != 3 || audit.Fresh != 2 || audit.Wrong != 1 || audit.Unread != 1 {
		t.Errorf("%+v", audit)
	}
	for _, f := range audit.Findings {
		if f.Verdict == Unread && (f.View != "inverse" || f.Key != "zero" || !strings.Contains(f.Why, "division by zero")) {
			t.Errorf("%+v", f)
		}
	}
}

// A load may come to fail while an entry is under suspicion.
func TestVerifySaysWhatItCouldNotReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, `
views:
  inverse: {key: [id], load: "SELECT to_json(1 / n) FROM things WHERE id = $1", tables: {things: SELECT id FROM changed}}
`)
	w.set("a", 1)
	w.fill("inverse", "a")
	w.set("a", 2)
	sent := w.snapshot()
	road := w.examine(&sent, 0).road
	road.Sent = func(context.Context) (version.Snapshot, error) {
		w.set("a", 0)
		return sent, nil
	}
	audit := w.verify(VerifyOptions{Road: road})
	if audit.Checked != 0 || audit.Unread != 1 || len(audit.Findings) != 1 {
		t.Errorf("%+v", audit)
	}
}

// Without a relay nobody knows whether a difference is about to be noticed, and verify
// says so.
func TestVerifyWithoutARelayCannotTell(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	w.fill("thing", "a")
	w.set("a", 2)
	sent := w.snapshot()
	road, leads := w.examine(&sent, 0).road, false
	road.Leads = func(context.Context, time.Time) (bool, error) { return leads, nil }
	audit := w.verify(VerifyOptions{Road: road})
	if audit.Behind != 1 || len(audit.Findings) != 1 || !strings.Contains(audit.Findings[0].Why, "no relay leads") {
		t.Errorf("%+v", audit)
	}
	leads = true
	if audit := w.verify(VerifyOptions{Road: road}); audit.Wrong != 1 || strings.Contains(audit.Findings[0].Why, "relay") {
		t.Errorf("with a relay: %+v", audit)
	}
}
