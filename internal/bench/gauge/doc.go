// Package gauge holds the instruments of the benchmarks: what the kernel knows of
// a process's time and memory, by proc(5), the order statistics of samples, and the
// run of a benchmark: a bed, the figures measured on it, and the table of them beside
// what they are to reach.
//
// It promises no more precision than proc(5) has, a hundredth of a second of
// processor time, and runs on Linux alone. It starts nothing itself.
package gauge
