// Package store measures the cache's store beside bare Redis commands, and how long
// after a commit its key is invalidated, in one run: `make bench-store`.
//
// Scripts of a hundred keys stand beside pipelines of a hundred plain commands over
// the same keys in the same state, in turn; medians of repetitions are compared. The
// plain commands neither compare versions nor leave fences: what a script lacks of
// them is what these cost, and what Lua costs, which hashes every byte that it is
// handed. A commit's entry in the stream and its key's fence are seen by one process,
// for the same writes, with the program as it ships in between.
//
// It does not promise figures that hold on another machine: trust the ratios. A
// figure that is missed is a result, not an error. Everything that Run starts has
// ended when it returns.
package store
