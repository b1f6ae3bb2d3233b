// Command dev is what the Makefile and a developer call: `dev run` is
// `make run`.
//
// It promises that one command on a machine with Go, git and make ends in a
// running worker with demo data and something to paste into a shell, that it
// says in a sentence what keeps it from that, and that Ctrl-C ends everything
// it started, in order: the worker, Redis, PostgreSQL. On Linux they also end
// when it is killed. Data it keeps, under .local, and finds again.
//
// It uses DATABASE_URL and REDIS_URL where they are set and then starts and
// stops neither. It does not ship.
//
// provision.sh, which it and `make test` run first, installs what is missing;
// its tests run it against servers of their own.
package main
