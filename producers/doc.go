// Package producers turns facts into stream entries: changes of watched tables
// and the events that an app publishes in its own transactions.
//
// It promises:
//
//  1. What commits is sent. The triggers that Install generates write one outbox
//     row for each distinct key that a statement touched, in the transaction that
//     touched it; Publish and mythic_cache.publish do the same for events. What
//     rolls back, savepoints included, leaves nothing.
//  2. Sent once. The relay's position lives in Redis and is moved by the script
//     that appends: two relays never both advance, a lost reply is recognised, and
//     a Redis that lost its last writes lost the position with them and is sent
//     those rows again.
//  3. What cannot be told apart is fenced. Where the position is gone, belongs to
//     another epoch or is older than what was thrown away, every view is fenced and
//     the whole retained outbox is sent again.
//  4. A mistake in a mapping never fails the app's statement: the view is fenced
//     instead, and the reason logged.
//  5. What is done to tables (a column gone, a table swapped, a partition attached, a
//     trigger disabled) is noticed by the leading relay's next heartbeat. While changes
//     of a view may go unnoticed it is fenced at each, that is, each second, and once
//     more when that is over; where only what a load gives has changed, once.
//
// It does not promise order between keys, nor that an event comes only once to a
// handler (a stream is read at least once), nor anything about changes made under
// session_replication_role = replica. A failing insert into the outbox does fail
// the app's statement, since letting it pass would lose the change.
//
// Nor does it promise to notice what a load reads past the catalogs' knowledge of it: what
// a function of another language than SQL reads, a policy of row security, the labels
// of an enum.
//
// One relay leads for a database, whatever Redis or prefix it writes to. It keeps
// one connection to PostgreSQL, which must not run through a transaction pooler.
// A mapping reads the tables that it joins inside the app's transaction; under
// SERIALIZABLE those reads count like the app's own.
//
// Relay.Run is the one thing that runs here. It ends when its context does, after
// the append under way; Install, Migrate and Publish start nothing.
//
// Tests use real servers through internal/testserver.
package producers
