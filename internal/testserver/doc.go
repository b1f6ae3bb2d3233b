// Package testserver starts real PostgreSQL and Redis servers on private ports.
//
// It promises a server that answers by the time its constructor returns, data
// in a directory of its own, and an end: Stop waits until the process is gone,
// and on Linux the server also dies with the process that started it. It runs
// as root too (PostgreSQL refuses to, so its processes then belong to the user
// postgres or nobody). It reads no environment but PATH and TMPDIR.
//
// It is for tests and for `make run`; nothing that ships may import it.
package testserver
