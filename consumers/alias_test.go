package consumers

import "testing"

// A key has one spelling, the one that PostgreSQL gives the changed row's. Another
// that PostgreSQL reads as the same value would be an entry that no change reaches:
//
//  1. a reader asks for 007, and the row of 7 is cached under 007;
//  2. the row changes, and its event names 7;
//  3. 007 stays as it is until its TTL.
func TestOnlyOneSpellingOfAKeyHasARow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, `
views:
  number: {key: [id], load: "SELECT to_json(n) FROM numbers WHERE n = $1"}
  uuid: {key: [id], load: "SELECT to_json(u) FROM numbers WHERE u = $1"}
  flag: {key: [id], load: "SELECT to_json(b) FROM numbers WHERE b = $1"}
  pair: {key: [a, b], load: "SELECT to_json(n) FROM numbers WHERE n = $2 AND t = $1"}
  cast: {key: [id], load: "SELECT to_json(n) FROM numbers WHERE n::text = $1"}
`)
	w.exec("CREATE TABLE numbers (n int, u uuid, b boolean, t text)")
	w.exec("INSERT INTO numbers VALUES (7, 'abcdefab-0000-0000-0000-000000000001', true, 'a:b'), (8, NULL, NULL, 'a%b')")
	for _, c := range []struct {
		view, key string
		found     bool
	}{
		{"number", "7", true},
		{"number", "007", false},
		{"number", " 7", false},
		{"uuid", "abcdefab-0000-0000-0000-000000000001", true},
		{"uuid", "ABCDEFAB-0000-0000-0000-000000000001", false},
		{"uuid", "abcdefab000000000000000000000001", false},
		{"flag", "true", true},
		{"flag", "t", false},
		{"pair", "a%3Ab:7", true},
		{"pair", "a%3ab:7", false},
		{"pair", "%61%3Ab:7", false},
		{"pair", "a%25b:8", true},
		{"pair", "a%b:8", false},
		{"pair", "a%3Ab:07", false},
		{"cast", "7", true},
		{"cast", "07", false},
	} {
		loaded, err := w.loader.Load(w.ctx, w.view(c.view), c.key)
		if err != nil || loaded.Found != c.found || loaded.Version.IsZero() {
			t.Errorf("%s of %q: found %t, version %s, %v", c.view, c.key, loaded.Found, loaded.Version, err)
		}
	}
}
