// Package api is the HTTP face of the cache. It answers from Redis alone: it
// holds no connection to PostgreSQL and imports nothing that could open one.
//
// # What it promises
//
// A key that is somebody's own is formed from the verified caller, never from
// what the request says; only the app's own token may name a user. An entry with
// an owner is 404 for everybody else, in the same words as one that does not
// exist (its age and its time to live are left out too, and the time taken is told
// roughly; whoever has a stopwatch can tell what was cached).
//
// A token that has been revoked is out at once (doorkeeper says what that means), and
// one that was seen a while ago costs neither a signature check nor a round trip.
//
// A hit costs one round trip to Redis, the limiter's included. A miss appends one
// event to a stream and waits, for a bounded time, until a worker announces the
// entry; requests for the same key share the event. However many wait, no queue
// grows: past a limit they are refused at once.
//
// A chat completion waits for its answer for two minutes at most, in places of its own,
// and is told it as it is made. It is never told two halves of two answers.
//
// Every error is an RFC 9457 problem, or has OpenAI's form under /v1, and none carries what went on inside. Every
// answer is described by the document at /openapi.json, against which the tests
// check each one.
//
// # What it does not promise
//
// It does not know whether an event that it accepted will be understood by who
// consumes it: 202 means that Redis has it. It limits a caller per endpoint; it
// is no protection against a flood of anonymous addresses.
//
// # How a route is added
//
//  1. Write the handler as a method of *Server in a file named for its noun:
//     func (s *Server) getThing(x *exchange) error. The exchange knows the request,
//     the verified caller (x.caller) and the route. What the handler returns as an
//     error becomes a problem: return problem(kind, "a sentence") for what the
//     caller is to know; any other error is logged and becomes a 500.
//  2. Put the OpenAPI operation in openapi/<operation>.json.
//  3. Return a route from one of the functions that Server.routes lists: method,
//     path, access (who may call), limited (counted per caller), operation, handle.
//
// A route that says near is asked for in the lane first (package lane), before net/http
// reads the request. What it does there, on x.atOnce, must not wait: it returns
// errNotAtOnce where it would have to, before anything is done that counts.
//
// A handler that serves an entry takes three steps, which getView shows:
// x.read (limiter and entry in one round trip; 429 and the RateLimit fields are
// done by then), x.await where there is none (it appends the event of the
// ask and waits for the announcement), and x.serve (headers, ETag, 304, owner).
// An error of await that the handler has no answer of its own to goes through
// notFilled, which makes a problem of it.
//
// # How it stops
//
// Serve returns after its context has ended and the requests in flight are done,
// or at the latest after ten seconds. Those who watch an entry are told to come back
// and let go at once. While somebody watches there is one goroutine that looks for
// what is not announced, and one for each stream; they end with who watches.
package api
