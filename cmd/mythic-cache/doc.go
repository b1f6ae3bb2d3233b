// Command mythic-cache keeps a Redis cache true to a PostgreSQL database.
//
// It promises to wire every package from flags and environment, to refuse a
// wrong setting at start with a sentence that names it, to wait for PostgreSQL
// and Redis when they are not there yet and say so, and to stop in order
// (producers, consumers, API) and in bounded time on SIGTERM or SIGINT; a second
// signal stops it at once.
//
// This is the only place that reads the environment.
package main
