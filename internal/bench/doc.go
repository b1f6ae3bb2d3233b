// Command bench measures the whole program beside its baselines, in one run, and
// prints tables with ratios: `make bench`.
//
// It starts servers and the program itself, puts load on loopback only, for a
// bounded time, and ends with all that it started. Machines differ and are noisy:
// trust the ratios, not the figures.
package main
