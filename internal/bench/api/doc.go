// Package api measures the API beside what people would otherwise put in its place, in
// one run: `make bench-api`.
//
// The program as it ships runs as relay and workers in one process and as API in two
// more, one with the near cache and one without, with tokens, a limit and entity tags.
// Beside it stand, each in a process of its own and behind the same Redis, net/http that
// sends the same bytes and headers from memory, net/http with go-redis, webdis, fastify
// with ioredis, and FastAPI with uvicorn. All of them are asked by wrk over the same
// connections for the same document of some 700 bytes, in turn; medians of repetitions
// are compared. All get the same request, token included; none but ours looks at it.
// fastify and FastAPI are left out where their packages are not installed.
//
// Latency is that of requests sent at a steady rate by a process of its own, from when a
// request was due, whether or not the server had answered those before it. An outage
// is a minute without Redis, under load, first frozen and then stopped. Staleness is what the
// API says of its own memory, while what is read changes all the time.
//
// It does not promise figures that hold on another machine: clients and servers share
// its processors. A figure that is missed is a result, not an error. Everything that
// Run starts has ended when it returns.
package api
