package view_test

import (
	"slices"
	"testing"
	"time"

	"mythiccache/cache/view"
)

func mythic(t *testing.T, vars map[string]string) *view.Set {
	t.Helper()
	set, err := view.Parse("mythic.yaml", view.Mythic(), func(name string) (string, bool) {
		value, ok := vars[name]
		return value, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestMythicIsWhole(t *testing.T) {
	set := mythic(t, nil)
	var names []string
	for _, v := range set.All() {
		names = append(names, v.Name)
	}
	if want := []string{"user_books", "run_status", "ai_answer"}; !slices.Equal(names, want) {
		t.Errorf("views %v, want %v in the file's order", names, want)
	}
	books, ok := set.Lookup("user_books")
	if !ok || books.TTL != 30*time.Minute || books.Negative != 10*time.Second || books.OnChange != view.Invalidate ||
		books.Mapped("users") == nil || books.HTTP.Key != view.Caller || books.Line != 3 {
		t.Errorf("user_books reads as %+v", books)
	}
	status, _ := set.Lookup("run_status")
	if status.OnChange != view.Precompute || len(status.Owners) != 1 || status.Owners[0].Line == 0 || status.HTTP.Path != "/status/{run_id}" || status.HTTP.Watch != "status" || books.HTTP.Watch != "" {
		t.Errorf("run_status reads as %+v", status)
	}
	if answer, _ := set.Lookup("ai_answer"); !answer.Model || answer.Load != "" || answer.TTL != time.Hour {
		t.Errorf("ai_answer reads as %+v", answer)
	}
	if _, ok := set.Lookup("nobody"); ok {
		t.Error("a view that is not there was found")
	}
	for what, c := range map[string]struct{ got, want []string }{
		"table topics":      {set.TableTopics(), []string{"books", "owners", "processing_sessions", "run_events", "users"}},
		"precompute topics": {set.PrecomputeTopics(), []string{"owners", "processing_sessions", "run_events", "users"}},
		"event topics":      {set.EventTopics(), []string{"books"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s %v, want %v", what, c.got, c.want)
		}
	}
	if named := set.ForEvent("books.changed"); len(named) != 1 || named[0] != books {
		t.Errorf("books.changed concerns %v", named)
	}
}

func TestStaleIsAllowedUnlessAViewSaysNo(t *testing.T) {
	for said, fresh := range map[string]bool{"": false, "stale: true, ": false, "stale: false, ": true} {
		set, err := view.Parse("v.yaml", []byte("views: {a: {key: [k], "+said+"load: SELECT $1}}"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if v, _ := set.Lookup("a"); v.Fresh != fresh {
			t.Errorf("%q: always fresh: %v", said, v.Fresh)
		}
	}
}

func TestVariablesAreTakenFromOutside(t *testing.T) {
	set := mythic(t, map[string]string{"USER_BOOKS_TTL": "90", "RUN_STATUS_TTL": "5s", "REDIS_CACHE_TTL": ""})
	for name, want := range map[string]time.Duration{"user_books": 90 * time.Second, "run_status": 5 * time.Second, "ai_answer": time.Hour} {
		if v, _ := set.Lookup(name); v.TTL != want || v.Negative != min(want, 10*time.Second) {
			t.Errorf("%s: TTL %v, negative %v", name, v.TTL, v.Negative)
		}
	}
}

func TestDigestIsOverWhatTriggersDependOn(t *testing.T) {
	const base = `views:
  a: {key: [k], ttl: 1m, load: SELECT $1, tables: {t: SELECT k FROM changed, u: SELECT k FROM changed}}
  b: {key: [k], load: SELECT $1}
`
	digest := func(text string) string {
		set, err := view.Parse("v.yaml", []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		return set.Digest()
	}
	want := digest(base)
	for name, c := range map[string]struct {
		text string
		same bool
	}{
		"another ttl": {`views:
  b: {key: [k], load: SELECT $1}
  a: {key: [k], ttl: 2m, load: SELECT 1 WHERE $1 = 1, tables: {u: SELECT k FROM changed, t: SELECT k FROM changed}, http: {path: /a, key: caller}}
`, true},
		"another mapping": {`views:
  a: {key: [k], ttl: 1m, load: SELECT $1, tables: {t: SELECT k FROM changed WHERE true, u: SELECT k FROM changed}}
  b: {key: [k], load: SELECT $1}
`, false},
		"an owner": {`views:
  a: {key: [k], ttl: 1m, load: SELECT $1, tables: {t: SELECT k FROM changed, u: SELECT k FROM changed}, owners: {t: 'SELECT k, o FROM changed'}}
  b: {key: [k], load: SELECT $1}
`, false},
	} {
		if got := digest(c.text); (got == want) != c.same {
			t.Errorf("%s: digest the same: %v, want %v", name, got == want, c.same)
		}
	}
}

func TestTopicIsTheTableWithoutItsSchema(t *testing.T) {
	for table, want := range map[string]string{"books": "books", "public.books": "books", `app."Order"`: "Order"} {
		if got := (view.Mapping{Table: table}).Topic(); got != want {
			t.Errorf("topic of %s is %s, want %s", table, got, want)
		}
	}
}

func TestKeysRoundTrip(t *testing.T) {
	for _, parts := range [][]string{{"a:b%c"}, {"a", "b"}, {"a:b", "%3A", "%25", ""}} {
		key := view.JoinKey(parts...)
		if got, ok := view.SplitKey(key, len(parts)); !ok || !slices.Equal(got, parts) {
			t.Errorf("%q became %q, then %q", parts, key, got)
		}
	}
	if _, ok := view.SplitKey("a:b:c", 2); ok {
		t.Error("a key of three parts was taken for one of two")
	}
}
