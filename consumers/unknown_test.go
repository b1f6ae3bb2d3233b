package consumers

import (
	"testing"

	"mythiccache/cache/view"
	"mythiccache/producers/event"
)

// While a release with a new view is rolled out, processes of the old one are in the
// group too, and get its events.
func TestAViewOfAnotherReleaseIsInvalidatedToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	older, err := view.Parse("views.yaml", []byte(`views: {other: {key: [id], load: "SELECT to_json($1::text)"}}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	i, err := NewInvalidator(w.store, older, InvalidatorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.set("a", 1)
	w.fill("thing", "a")
	w.ends(i.Handle(w.ctx, messages(changed("thing", "a", w.set("a", 2)))), nil)
	w.wants("thing", "a", "")

	w.fill("thing", "a")
	whole := changed("thing", "", w.set("a", 3))
	w.ends(i.Handle(w.ctx, messages(whole)), nil)
	w.wants("thing", "a", "")

	odd := changed("no view: at all", "a", w.now())
	ours := changed("rate", "a", w.now())
	w.ends(i.Handle(w.ctx, messages(odd, ours, event.Event{Type: "things.changed", View: "newer", Subject: "a"})), nil, nil, nil)
	if names := w.store.Client().Keys(w.ctx, "mythic:[nr]*").Val(); len(names) != 0 {
		t.Errorf("%q were made", names)
	}
}
