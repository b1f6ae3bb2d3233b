// Package consumers does what the streams ask for: it drops entries whose rows
// changed, loads them again, fills what readers missed, keeps the events of
// runs, asks the model for answers, and measures and audits the result.
//
// It promises that:
//   - every handler may see every event again, late and in any order. A change
//     carries the version at which it was seen, a fill carries the snapshot that
//     it was read in, and the store lets the newer one stand;
//   - a fill's lease is taken before its snapshot, so no change that is applied
//     while it loads can be covered up:
//     1. fill A takes the lease, reads the row;
//     2. the row changes, the change is applied: fence above A's snapshot;
//     3. A's put is refused, whoever asked before A's lease has A's answer,
//     whoever asked after it asks again;
//   - invalidation needs Redis alone. While PostgreSQL is away, loads pause and
//     cost no delivery (stream.ErrPause), invalidations go on;
//   - a handler returns an error for each event that is not done, and only for
//     those; stream.ErrReject marks the events that no repetition can help.
//
// It does not promise that a precomputed entry is there when its reader comes,
// nor that a fill that somebody asked for happens: the reader asks again.
//
// Handlers stop when their call returns; their context bounds them. What Run
// starts has ended when Run has returned, which it does when its context ends.
// Nothing here reads the environment. The tests run against real servers; the
// model is the one stand-in.
package consumers
