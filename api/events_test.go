package api

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

const (
	structured = "application/cloudevents+json"
	batch      = "application/cloudevents-batch+json"
)

// post sends to /events as the app.
func (w *world) post(media, body string, headers ...string) *answer {
	w.t.Helper()
	headers = append(headers, "Authorization", "Bearer "+eventsToken)
	if media != "" {
		headers = append(headers, "Content-Type", media)
	}
	return w.do(http.MethodPost, "/events", body, headers...)
}

// cloud is a structured event of a type, with more members.
func cloud(eventType, more string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":"e1","source":"app","type":%q%s}`, eventType, more)
}

func TestEventsReachTheirStreams(t *testing.T) {
	w := begin(t)
	when := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	want := event.Event{
		ID: "e1", Type: "run.progress", Source: "app", Subject: "RUN1", Time: when,
		Data: []byte(`{"current_stage":"scraping"}`), Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	attributes := `,"subject":"RUN1","time":"2026-01-02T04:04:05.6+01:00","traceparent":"` + trace + `"`
	asJSON := cloud("run.progress", attributes+`, "data" : { "current_stage" : "scraping" }`)
	encoded := base64.StdEncoding.EncodeToString([]byte(`{"current_stage":"scraping"}`))
	for name, send := range map[string]func() *answer{
		"structured":     func() *answer { return w.post(structured, asJSON) },
		"with a charset": func() *answer { return w.post(structured+"; charset=UTF-8", asJSON) },
		"batch":          func() *answer { return w.post(batch, "["+asJSON+"]") },
		"base64": func() *answer {
			return w.post(structured, cloud("run.progress", attributes+`,"data_base64":"`+encoded+`"`))
		},
		"json":       func() *answer { return w.post("application/json", asJSON) },
		"json, many": func() *answer { return w.post("application/json", " ["+asJSON+"]") },
		"curl -d":    func() *answer { return w.post("application/x-www-form-urlencoded", asJSON) },
		"no type":    func() *answer { return w.post("", asJSON) },
		"unknown and null": func() *answer {
			return w.post(structured, cloud("run.progress", attributes+`,"dataschema":null,"priority":3,"data":{"current_stage":"scraping"}`))
		},
		"structured, with copies in headers": func() *answer {
			return w.post(structured, asJSON, "ce-specversion", "1.0", "ce-id", "other", "ce-source", "other", "ce-type", "run.failed", "ce-subject", "other")
		},
		"binary, as version 1.0 quoted": func() *answer {
			return w.post("application/json", `{"current_stage": "scraping"}`, "ce-specversion", "1.0", "ce-id", `"e\1"`, "ce-source", `"%61pp"`,
				"ce-type", "run.progress", "ce-subject", `"RUN1"`, "ce-time", "2026-01-02T03:04:05.6Z", "ce-traceparent", trace)
		},
		"binary": func() *answer {
			return w.post("application/json", `{"current_stage": "scraping"}`, "ce-specversion", "1.0", "ce-id", "e1", "ce-source", "app",
				"ce-type", "run.progress", "ce-subject", "RUN%31", "ce-time", "2026-01-02T03:04:05.6Z", "traceparent", trace)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.client.Del(t.Context(), stream.NewKeys("mythic:").Once("app", "e1")) // as if none had come before
			before := len(w.events.all())
			a := send()
			a.wants(t, 202, map[string]string{"Cache-Control": "no-store"})
			all := w.events.all()
			if len(all) != before+1 {
				t.Fatalf("%d events appended", len(all)-before)
			}
			if got := all[before]; fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
				t.Errorf("appended %+v\nwant     %+v", got, want)
			}
			last, err := w.client.XRevRangeN(t.Context(), "mythic:{stream}:run", "+", "-", 1).Result()
			if err != nil || len(last) != 1 || string(a.body) != fmt.Sprintf(`{"accepted":[{"index":0,"id":"e1","entry":%q}]}`, last[0].ID) {
				t.Errorf("%v %v; answered %s", last, err, a.body)
			}
		})
	}
}

func TestAnEventByHandNeedsOnlyAType(t *testing.T) {
	w := begin(t)
	for i := range 2 { // each time another, since none has a name
		a := w.post("application/json", `{"type":"ai.forget"}`)
		a.wants(t, 202, nil)
		last, err := w.client.XRevRangeN(t.Context(), "mythic:{stream}:ai", "+", "-", 1).Result()
		if err != nil || string(a.body) != fmt.Sprintf(`{"accepted":[{"index":0,"id":%q,"entry":%[1]q}]}`, last[0].ID) {
			t.Errorf("%v %v; answered %s", last, err, a.body)
		}
		all := w.events.all()
		if e := all[i]; len(all) != i+1 || e.ID != "" || e.Source != "http" || e.Time.IsZero() || e.Data != nil {
			t.Errorf("%+v", all)
		}
	}
	w.post(structured, `{"type":"ai.forget"}`).wants(t, 400, nil)
	w.post(batch, `[]`).wants(t, 202, nil)
}

func TestEventsThatAreRefused(t *testing.T) {
	w := begin(t)
	deep := strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1)
	for name, c := range map[string]struct {
		media, body string
		code        int
		says        string
	}{
		"no JSON":         {structured, `{`, 400, "not JSON"},
		"empty":           {structured, ``, 400, "not JSON"},
		"no object":       {structured, `"x"`, 400, "not a JSON object"},
		"null":            {structured, `null`, 400, "not a JSON object"},
		"array":           {structured, `[]`, 400, "not a JSON object"},
		"no array":        {batch, `{}`, 400, "not a JSON array"},
		"no id":           {structured, `{"specversion":"1.0","source":"a","type":"run.started","subject":"r"}`, 400, "id is missing"},
		"no source":       {structured, `{"specversion":"1.0","id":"a","type":"run.started","subject":"r"}`, 400, "source is missing"},
		"no type":         {structured, `{"specversion":"1.0","id":"a","source":"a","subject":"r"}`, 400, "type is missing"},
		"old specversion": {structured, `{"specversion":"0.3","id":"a","source":"a","type":"run.started","subject":"r"}`, 400, `specversion is "0.3"`},
		"upper case":      {structured, `{"specversion":"1.0","ID":"a","source":"a","type":"run.started","subject":"r"}`, 400, "id is missing"},
		"id is a number":  {structured, `{"specversion":"1.0","id":7,"source":"a","type":"run.started","subject":"r"}`, 400, "id is not a string"},
		"no subject":      {structured, cloud("run.started", ""), 400, "run.started needs a subject"},
		"no topic":        {structured, cloud("started", `,"subject":"r"`), 400, "not of the form"},
		"time":            {structured, cloud("run.started", `,"subject":"r","time":"today"`), 400, "time is not"},
		"no time":         {structured, cloud("run.started", `,"subject":"r","time":""`), 400, "time is not"},
		"deep in base64": {structured, cloud("run.started", `,"subject":"r","data_base64":"`+
			base64.StdEncoding.EncodeToString([]byte(deep))+`"`), 400, "nested 65 deep"},
		"not UTF-8":            {structured, cloud("run.started", `,"subject":"r","data":"`+"\xff"+`"`), 400, "data is not UTF-8"},
		"another format":       {"application/cloudevents+avro", "x", 415, "events come as"},
		"not JSON data":        {structured, cloud("run.started", `,"subject":"r","datacontenttype":"text/xml","data":"<a/>"`), 400, "datacontenttype"},
		"bad base64":           {structured, cloud("run.started", `,"subject":"r","data_base64":"*"`), 400, "not base64"},
		"base64 of no JSON":    {structured, cloud("run.started", `,"subject":"r","data_base64":"eA=="`), 400, "data is not JSON"},
		"both datas":           {structured, cloud("run.started", `,"subject":"r","data":1,"data_base64":"MQ=="`), 400, "exclude one another"},
		"NUL":                  {structured, cloud("run.started", `,"subject":"a\u0000b"`), 400, "not text"},
		"long subject":         {structured, cloud("run.started", `,"subject":"`+strings.Repeat("x", 513)+`"`), 400, "513 bytes"},
		"a table's topic":      {structured, cloud("processing_sessions.changed", `,"subject":"r"`), 400, `nobody consumes the topic "processing_sessions"`},
		"a fill":               {structured, cloud("fill.requested", `,"subject":"r"`), 400, "fill"},
		"unknown topic":        {structured, cloud("order.paid", `,"subject":"r"`), 400, `nobody consumes the topic "order"`},
		"unknown of a run":     {structured, cloud("run.paused", `,"subject":"r"`), 400, `no event of type "run.paused"`},
		"unknown type":         {structured, cloud("books.deleted", `,"subject":"r"`), 400, `no view names the type "books.deleted"`},
		"unknown of a session": {structured, cloud("session.paused", `,"subject":"r"`), 400, `a session has no event of type "session.paused"`},
		"a session's token":    {structured, cloud("session.created", `,"data":{"sha256":"aa","sub":"u","token":"t"}`), 400, `data has the member "token"`},
		"a revoked token":      {structured, cloud("session.revoked", `,"data_base64":"`+base64.StdEncoding.EncodeToString([]byte(`{"Token":null}`))+`"`), 400, `data has the member "Token"`},
		"a view":               {structured, cloud("books.changed", `,"subject":"r","view":"user_books"`), 400, "view is the worker's own"},
		"a version":            {structured, cloud("books.changed", `,"subject":"r","version":"ffff"`), 400, "version is the worker's own"},
		"too deep":             {structured, cloud("run.started", `,"subject":"r","data":`+deep), 400, "nested 66 deep"},
		"too deep, batch":      {batch, deep, 400, "nested"},
		"too long":             {structured, cloud("run.started", `,"subject":"`+strings.Repeat("x", maxEventsBody)+`"`), 413, "longer than"},
		"too much data":        {structured, cloud("run.started", `,"subject":"r","data":"`+strings.Repeat("x", event.MaxData)+`"`), 400, "at most 1048576"},
		"too many":             {batch, "[" + strings.Repeat("1,", maxBatch) + "1]", 413, "at most 1000"},
		"media type":           {"text/plain", "x", 415, "events come as"},
		"no media type":        {"/", "x", 415, "cannot be read"},
		"charset":              {structured + "; charset=latin1", "{}", 415, "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.post(c.media, c.body)
			a.wants(t, c.code, nil)
			p := a.problem(t)
			if text := fmt.Sprint(p.Detail, p.Errors); !strings.Contains(text, c.says) {
				t.Errorf("%q does not say %q", text, c.says)
			}
		})
	}
	binary := func(headers ...string) *answer { return w.post("application/json", "{}", headers...) }
	binary("ce-specversion", "1.0", "ce-id", "a", "ce-id", "b", "ce-source", "a", "ce-type", "ai.forget").wants(t, 400, nil)
	binary("ce-specversion", "1.0", "ce-id", "a", "ce-source", "a").wants(t, 400, nil)
	binary("ce-type", "ai.forget", "ce-id", "a", "ce-source", "a").wants(t, 400, nil)
	w.post("text/plain", "x", "ce-specversion", "1.0", "ce-id", "a", "ce-source", "a", "ce-type", "ai.forget").wants(t, 400, nil)
	w.post("", deep, "ce-specversion", "1.0", "ce-id", "a", "ce-source", "a", "ce-type", "ai.forget").wants(t, 400, nil)
	packed := w.post(structured, "x", "Content-Encoding", "gzip")
	packed.wants(t, 415, map[string]string{"Accept-Encoding": "identity"})
	w.post("application/cloudevents+avro", "x", "ce-specversion", "1.0", "ce-id", "a", "ce-source", "a", "ce-type", "ai.forget").wants(t, 415, nil)
	binary("ce-id", "a", "ce-source", "a").wants(t, 400, nil)
	if n := len(w.events.all()); n != 0 {
		t.Errorf("%d events were taken", n)
	}
}

func TestAnEventThatIsSentAgain(t *testing.T) {
	w := begin(t)
	body := func(id string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"app","type":"run.started","subject":"RUN1"}`, id)
	}
	first := accepted(t, w.post(structured, body("a")))
	if len(first) != 1 || first[0].Duplicate {
		t.Fatalf("%+v", first)
	}
	again := accepted(t, w.post(structured, body("a")))
	if want := (Accepted{ID: "a", Entry: first[0].Entry, Duplicate: true}); len(again) != 1 || again[0] != want {
		t.Errorf("%+v, want %+v", again, want)
	}
	many := accepted(t, w.post(batch, "["+body("b")+","+body("a")+","+body("b")+"]"))
	if len(many) != 3 || many[0].Duplicate || !many[1].Duplicate || !many[2].Duplicate || many[1].Entry != first[0].Entry || many[2].Entry != many[0].Entry {
		t.Errorf("%+v", many)
	}
	if n := w.client.XLen(t.Context(), "mythic:{stream}:run").Val(); n != 2 {
		t.Errorf("%d entries", n)
	}
}

// accepted reads the list of what was taken.
func accepted(t *testing.T, a *answer) []Accepted {
	t.Helper()
	a.wants(t, 202, nil)
	var list struct{ Accepted []Accepted }
	if err := json.Unmarshal(a.body, &list); err != nil {
		t.Fatal(err)
	}
	return list.Accepted
}

// What an event of a session says, its consumer reads; it has a place for no token.
func TestEventsOfSessions(t *testing.T) {
	w := begin(t)
	for i, body := range []string{
		cloud("session.created", `,"data":{"sha256":"aa","sub":"token","nested":{"token":"of another kind"}}`),
		`{"type":"session.revoked","subject":"user_1"}`,
		`{"type":"session.revoked","data":["token"]}`,
		`{"type":"ai.forget","data":{"token":"of another kind"}}`,
	} {
		w.post("application/json", body).wants(t, 202, nil)
		if n := len(w.events.all()); n != i+1 {
			t.Errorf("%s: %d events were taken", body, n)
		}
	}
}

func TestABatchIsTakenWholeOrNotAtAll(t *testing.T) {
	w := begin(t)
	good := func(id string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"app","type":"run.started","subject":"RUN1"}`, id)
	}
	a := w.post(batch, "["+strings.Join([]string{good("a"), `{"specversion":"1.0","id":"b","source":"app","type":"no.such","subject":"x"}`, good("c"), `7`}, ",")+"]")
	a.wants(t, 400, nil)
	p := a.problem(t)
	if p.Type != "/docs#events-refused" || !strings.Contains(p.Detail, "2 of 4 events are wrong; none was taken") ||
		len(p.Errors) != 2 || p.Errors[0].Index != 1 || p.Errors[0].ID != "b" || p.Errors[1].Index != 3 {
		t.Errorf("problem %+v", p)
	}
	if n := len(w.events.all()); n != 0 {
		t.Errorf("%d events were taken", n)
	}
	w.post(batch, "["+good("a")+","+good("b")+"]").wants(t, 202, nil)
	if n := len(w.events.all()); n != 2 {
		t.Errorf("%d events were taken", n)
	}
	// Redis goes away after one of them.
	w.events.failWith(errors.New("dial tcp 10.1.2.3:6379"), 1)
	a = w.post(batch, "["+good("d")+","+good("e")+"]")
	a.wants(t, 503, map[string]string{"Retry-After": "1"})
	p = a.problem(t)
	if len(p.Accepted) != 1 || p.Accepted[0].Index != 0 || p.Accepted[0].Entry == "" || !strings.Contains(p.Detail, "1 of 2") || strings.Contains(string(a.body), "10.1.2.3") {
		t.Errorf("problem %s", a.body)
	}
	w.events.failWith(nil, 0)
	if list := accepted(t, w.post(batch, "["+good("d")+","+good("e")+"]")); len(list) != 2 || list[0].Entry != p.Accepted[0].Entry || !list[0].Duplicate || list[1].Duplicate {
		t.Errorf("sent again: %+v", list)
	}
}

func TestEventsAreForTheApp(t *testing.T) {
	w := begin(t)
	body := cloud("run.started", `,"subject":"r"`)
	for _, authorization := range []string{"", token(t, "user_1"), "Bearer x", "Bearer " + adminToken} {
		headers := []string{"Content-Type", structured}
		if authorization != "" {
			headers = append(headers, "Authorization", authorization)
		}
		w.do(http.MethodPost, "/events", body, headers...).wants(t, 401, map[string]string{"WWW-Authenticate": "Bearer .*"})
	}
	if n := len(w.events.all()); n != 0 {
		t.Errorf("%d events were taken", n)
	}
	w = begin(t, func(o *Options) { o.EventsToken = "" })
	for _, authorization := range []string{"Bearer ", "Bearer x", ""} {
		a := w.do(http.MethodPost, "/events", body, "Authorization", authorization, "Content-Type", structured)
		if a.StatusCode != http.StatusForbidden && a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%q: %d", authorization, a.StatusCode)
		}
	}
}
