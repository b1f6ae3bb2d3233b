package main

import (
	"math/rand/v2"
	"slices"
)

// fault is one way for things to go wrong for a nemesis. When cause returns, what it
// broke works again, though nobody need have noticed yet.
type fault[Nemesis any] struct {
	kind, name string
	cause      func(n Nemesis)
}

// onlyLong is no kind of the short form.
const onlyLong = "only in the long form"

// deal returns the faults to come, in a random order: for 0, one of each kind; else
// as many as are wanted, each of the deck as often as any other.
func deal[Nemesis any](deck []fault[Nemesis], random *rand.Rand, wanted int) []fault[Nemesis] {
	shuffle := func() { random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] }) }
	shuffle()
	if wanted == 0 {
		met := map[string]bool{onlyLong: true}
		return slices.DeleteFunc(deck, func(f fault[Nemesis]) bool {
			again := met[f.kind]
			met[f.kind] = true
			return again
		})
	}
	var dealt []fault[Nemesis]
	for len(dealt) < wanted {
		dealt = append(dealt, deck...)
		shuffle()
	}
	return dealt[:wanted]
}
