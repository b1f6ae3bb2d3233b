package stream_test

import (
	"fmt"
	"testing"

	"mythiccache/producers/stream"
)

// Each kind of wrong is found in books that else balance.
func TestTheStreamsBooksShowEveryWrong(t *testing.T) {
	t.Parallel()
	reject := fmt.Sprintf("handler: %v", stream.ErrReject)
	even := func() *books {
		return &books{
			groups: map[string][]string{"both": {"note", "order"}, "notes": {"note"}},
			events: map[string]*published{
				"durable":   {topic: "note", durable: true, certain: true},
				"straight":  {topic: "order", certain: true},
				"uncertain": {topic: "note"},
				"excused":   {topic: "note", certain: true, excused: true},
				"rejected":  {topic: "order", durable: true, rejected: true},
			},
			handled: map[string]map[string]int{"both": {"durable": 2, "straight": 1}, "notes": {"durable": 1}},
			poison: map[place]*poisoned{
				{"order", "1-1"}: {name: "bad", fields: map[string]string{"a": "b"}, says: "type"},
				{"note", "1-1"}:  {name: "gone", excused: true},
			},
			letters: []stream.DeadLetter{
				{Topic: "order", Group: "both", Entry: "1-1", Reason: "no type", Deliveries: 1, Fields: map[string]string{"a": "b"}},
				{Topic: "order", Group: "both", Entry: "1-3", Reason: reject, Deliveries: 2, Fields: map[string]string{"id": "rejected"}},
			},
		}
	}
	for name, c := range map[string]struct {
		spoil func(b *books)
		wrong string
	}{
		"nothing":                       {func(*books) {}, ""},
		"uncertain and handled":         {func(b *books) { b.handled["notes"]["uncertain"] = 1 }, ""},
		"excused and handled":           {func(b *books) { b.handled["notes"]["excused"] = 1 }, ""},
		"dead twice":                    {func(b *books) { b.letters = append(b.letters, b.letters...) }, ""},
		"durable, by one group of two":  {func(b *books) { delete(b.handled["notes"], "durable") }, wrongLost},
		"durable, excused all the same": {func(b *books) { b.events["durable"].excused = true; delete(b.handled["both"], "durable") }, wrongLost},
		"straight":                      {func(b *books) { delete(b.handled["both"], "straight") }, wrongLost},
		"straight and excused":          {func(b *books) { b.events["straight"].excused = true; delete(b.handled["both"], "straight") }, ""},
		"nobody's":                      {func(b *books) { b.handled["both"]["nobody's"] = 1 }, wrongForeign},
		"of a topic that is not read":   {func(b *books) { b.handled["notes"]["straight"] = 1 }, wrongForeign},
		"rejected and handled":          {func(b *books) { b.handled["both"]["rejected"] = 1 }, wrongRejected},
		"rejected and gone":             {func(b *books) { b.letters = b.letters[:1] }, wrongAlive},
		"poison and gone":               {func(b *books) { b.letters = b.letters[1:] }, wrongAlive},
		"poison, in another group":      {func(b *books) { b.letters[0].Group = "notes" }, wrongAlive},
		"poison, its fields lost":       {func(b *books) { b.letters[0].Fields = nil }, wrongLetter},
		"poison, its reason lost":       {func(b *books) { b.letters[0].Reason = "" }, wrongLetter},
		"rejected at once":              {func(b *books) { b.letters[1].Deliveries = 1 }, wrongLetter},
		"a good event":                  {func(b *books) { b.letters[1].Fields = map[string]string{"id": "durable"} }, wrongDead},
		"an unknown event":              {func(b *books) { b.letters[1].Fields = nil }, wrongDead},
	} {
		t.Run(name, func(t *testing.T) {
			b := even()
			c.spoil(b)
			wrong := b.weigh()
			if c.wrong == "" && len(wrong) > 0 || c.wrong != "" && len(wrong[c.wrong]) == 0 {
				t.Errorf("%q is to be found, and what is found is: %s", c.wrong, wrong)
			}
		})
	}
}
