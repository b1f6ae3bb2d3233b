// Package version orders what was read from PostgreSQL.
//
// It promises that, on one primary and within one epoch, two values carry
// comparable versions: of two snapshots the one with the greater version has
// seen every transaction that the other one has seen. A completing transaction
// either raises a snapshot's xmax or, with xmax unchanged, leaves the list of
// transactions in progress one shorter; so (epoch, xmax, -len(xip)), compared
// field by field, is that order.
//
// It promises nothing about snapshots taken on a standby (they carry no list of
// transactions in progress), nor about readers that hold a transaction id of
// their own: a snapshot leaves its reader's own id out. Whoever takes a snapshot
// refuses both; this package cannot see them.
//
// The package is pure: it starts nothing, so there is nothing to stop.
//
// Source: PostgreSQL, "Transaction ID and Snapshot Information Functions"
// (pg_current_snapshot, pg_visible_in_snapshot).
package version
