// Package stream carries events over Redis Streams, in batches.
//
// It holds a pipelined Publisher, a Consumer for batch handlers, a Subscriber
// for watermill's Router on the same reader, the Trimmer, the dead letters and
// the state of the groups. Publisher and Subscriber implement watermill's
// message.Publisher and message.Subscriber.
//
// It promises:
//   - Every entry of a stream reaches every group at least once: through crashed
//     consumers (their entries are claimed within seconds), vanished streams and
//     groups (created again at 0, never at $), lost replies and restarts of Redis.
//   - An event that fails never holds up those behind it. It is parked with its
//     due time and acknowledged in one atomic step, comes back with a growing,
//     jittered delay, and is a dead letter after MaxDeliveries, with the reason
//     and its original fields. What cannot be read is a dead letter at once.
//   - What is in flight here is never claimed away while this process lives. A
//     handler has Timeout for it: then its context ends, and where it does not return
//     either, its events are tried again, here or elsewhere, while it keeps its place.
//   - Trimming removes nothing that a group has not acknowledged; where a topic has
//     no group at all, nothing that is younger than a day. Dead letters stay until
//     somebody replays or drops them.
//   - An event that kills those who handle it spends its own deliveries, not those of
//     others: what was left unanswered often is taken alone.
//   - A batch handler that panics fails its messages, one by one, not the process.
//
// It does not promise order, nor that an event comes only once: handlers must
// bear repeats. Publishing is as durable as Redis's own persistence.
//
// An entry's fields are those of package event, so that redis-cli XADD can write
// one; entries in the format of watermill-redisstream are read as well, and
// written where PublisherOptions say so.
//
// Consumer.Run stops when its context ends and Subscriber at Close: they stop
// reading, hand back what no handler has seen yet, wait up to Grace for the handlers
// that run, acknowledge, and close their client. Test against it with a real Redis
// (7.0 or newer); a handler is a function, so it can be tested without one, with
// messages made by FromEvent.
package stream
