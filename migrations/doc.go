// Package migrations holds the SQL that Mythic Cache brings along: goose
// migrations for schema mythic_cache, and the demo's tables and rows.
//
// It promises that the migrations touch nothing outside schema mythic_cache, up
// and down, and that the demo's SQL may be run again without changing anything.
// The triggers on an app's tables are not here: they are generated from the
// views (package producers, Install).
//
// It is text only: it starts nothing, so there is nothing to stop.
package migrations
