// Package gauge holds the instruments of the benchmarks: what the kernel knows of
// a process's time and memory, by proc(5), and the order statistics of samples.
//
// It promises no more precision than proc(5) has, a hundredth of a second of
// processor time, and runs on Linux alone. It starts nothing and stops nothing.
package gauge
