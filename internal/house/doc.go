// Package house keeps the house in order: its test reads this module's source
// and fails on what the project's table of packages forbids.
//
// It promises that nothing imports what it may not, transitively (the API cannot
// reach PostgreSQL), that every package opens with a doc.go, that the
// environment is read in cmd alone, and that nothing happens on import: no
// init, no package variable that anybody changes; and that the documents name settings,
// defaults, make's targets, files, metrics and packages as they are. It sees what is
// written, not what runs: a variable that is changed through a pointer handed out
// elsewhere escapes it.
//
// To allow an import, change the table in rules.go, and ARCHITECTURE.md with it.
package house
