// Package cache is the store of what the app reads: entries in Redis that carry
// the version of the database they were read at, and the rules by which a newer
// one replaces an older one and never the other way round.
//
// It promises that
//
//   - once Invalidate, Fence or FenceAll has returned, Read gives no value as a
//     Hit or as Stale that was read before that change, whatever fills are under
//     way, however late or often events come;
//   - a key is filled by one holder of its lease at a time, in all processes;
//   - after Redis has been restarted or replaced by a replica, what it had kept
//     from before is Stale until Confirm has said that nothing is missing;
//   - a limit admits no caller too many, however many ask at once, in however many
//     processes;
//   - everything it writes expires, but the views' own keys and revocations, which
//     are removed by SweepRevocations.
//
// How a fill that has become too old is kept out:
//
//  1. a loader takes the key's lease, then a snapshot S of the database;
//  2. a transaction that S does not see commits, and its event, with a later
//     version V, is applied: Invalidate removes the value and leaves V as a
//     fence in the same key, beside the lease;
//  3. the loader puts what it read under S. S is older than the fence: refused.
//
// Had the key expired in between, the lease would be gone with it, and the put
// would be refused for that. An event without a version takes the lease away
// instead, since on an idle database the snapshots before and after it are
// equal. A Redis that was restarted may have lost the fence but kept the
// lease, so a lease is good only under the run_id that gave it.
//
// A refused value is not stored, but it still answers those who asked before
// its lease was taken: they asked before its snapshot, so it is no older than
// their question. See Filled.Answers.
//
// It does not promise durability: an entry may be gone at any time, and that is
// a miss. Nor does it ask PostgreSQL anything: versions and snapshots come from
// the caller, who must have read them together with the value. While a demoted
// Redis still accepts connections beside its successor, a value may be a Hit by
// the confirmation of the other one.
//
// A Reader, which keeps entries in memory, keeps what came from the very Redis that tells
// it of writes, and may give what has just been changed as a
// Hit until Redis's word of that has come, and says so.
//
// A Store starts no goroutine; Close closes its connections. Waiters has one
// goroutine, the caller's own in Run, and ends when that call's context does; so has a
// Reader, and a few more that end with it. A Through has one goroutine for each call it
// makes, which ends with it. Flows has two, in Run; a FlowWriter has one, which ends with
// Close or its context.
//
// Test against it with a real Redis: internal/testserver starts one.
package cache
