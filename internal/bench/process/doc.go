// Package process starts the programs that benchmarks measure, each with a log file of
// its own, and ends them; and it deploys the program as it ships, in as many processes as
// are wanted, on servers of its own.
//
// It promises that a process that it started has ended when Stop returns, and ends
// with the benchmark where the system can see to that.
package process
