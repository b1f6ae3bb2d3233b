package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"mythiccache/cache/version"
)

// interleavingOracle knows which transactions a value of a key must have seen. It
// knows exactly, since each transaction leaves its own id where the value is read
// from: a value is the list of the transactions that it has seen.
type interleavingOracle struct {
	mu      sync.Mutex
	written map[string][]uint64 // of each key, the transactions that are at their COMMIT or past it
	done    map[string][]uint64 // those whose COMMIT has returned
	applied map[string][]uint64 // those that a change which has been applied told of; only ever appended to
	known   map[keyedXid]bool   // the same
}

type keyedXid struct {
	key string
	xid uint64
}

func newInterleavingOracle() *interleavingOracle {
	return &interleavingOracle{
		written: map[string][]uint64{}, done: map[string][]uint64{}, applied: map[string][]uint64{}, known: map[keyedXid]bool{},
	}
}

// committing notes a transaction just before its COMMIT, which will not fail.
func (o *interleavingOracle) committing(xid uint64, keys []string) {
	o.note(o.written, xid, keys)
}

// committed notes that COMMIT has returned.
func (o *interleavingOracle) committed(xid uint64, keys []string) { o.note(o.done, xid, keys) }

func (o *interleavingOracle) note(in map[string][]uint64, xid uint64, keys []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, key := range keys {
		in[key] = append(in[key], xid)
	}
}

// writtenSeenBy are the transactions, of whatever key, that a snapshot has seen.
func (o *interleavingOracle) writtenSeenBy(s version.Snapshot) (seen []keyedXid) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, xids := range o.written {
		for _, xid := range xids {
			if s.Sees(xid) {
				seen = append(seen, keyedXid{key, xid})
			}
		}
	}
	return seen
}

// committedTo are the transactions of a key that are over by now.
func (o *interleavingOracle) committedTo(key string) []uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clip(o.done[key])
}

// over is the same, as an event of the key would tell it.
func (o *interleavingOracle) over(key string) (all []keyedXid) {
	for _, xid := range o.committedTo(key) {
		all = append(all, keyedXid{key, xid})
	}
	return all
}

// apply notes that changes which told of these transactions have been applied.
func (o *interleavingOracle) apply(told []keyedXid) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range told {
		if !o.known[t] {
			o.known[t] = true
			o.applied[t.key] = append(o.applied[t.key], t.xid)
		}
	}
}

// required are the transactions that whatever is read of a key from now on must have
// seen: ask before the question is asked.
func (o *interleavingOracle) required(key string) []uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clip(o.applied[key])
}

// judgeInterleaving returns an error where a value has not seen what it must have seen. No body
// is the knowledge that the key has no row.
func judgeInterleaving(body []byte, required []uint64) error {
	var value struct{ Seen []uint64 }
	if body != nil {
		if err := json.Unmarshal(body, &value); err != nil {
			return fmt.Errorf("%s: %w", body, err)
		}
	}
	slices.Sort(value.Seen)
	for _, xid := range required {
		if _, found := slices.BinarySearch(value.Seen, xid); !found {
			return fmt.Errorf("it has not seen transaction %d: %v", xid, value.Seen)
		}
	}
	return nil
}
