// Package capture measures what it takes to bring a committed change into a
// stream, beside its baselines, in one run: `make bench-capture`.
//
// Three contestants have a database each in one cluster, with the same tables and
// rows. "none" captures nothing. "ours" is the program as it ships, playing relay
// alone. "bare" is what one would write in an afternoon, and well: a trigger that
// rings in every transaction and a process that reads `id > last` (which loses
// rows that commit late; the benchmark says how many).
//
// It promises that contestants are measured in turn, from the same state, and
// that medians of repetitions are compared. It does not promise figures that hold
// on another machine: trust the ratios. A figure that is missed is a result, not
// an error. Everything that Run starts has ended when it returns.
package capture
