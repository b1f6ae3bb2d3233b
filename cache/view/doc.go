// Package view reads the views file: which kinds of entries there are, how each
// is loaded, and which changes concern which of its keys. Views are data, so
// another app brings a file of its own and writes no Go.
//
// It promises that a Set that Parse returned is whole and free of
// contradictions as far as the file alone can show: names, keys, durations,
// paths and parameters fit together. Every mistake of a file is reported at
// once, each as FILE:LINE:COL: what is wrong. What a scalar says may come from
// outside, as ${NAME} or ${NAME:default}.
//
// It does not promise that the SQL is right: it knows no database. Whoever
// installs the triggers has PostgreSQL judge the queries.
//
// The package is pure and its Set is never changed after Parse: it may be shared
// by any number of goroutines, and there is nothing to stop. To test against it,
// Parse a few lines of YAML, or the built-in views that Mythic returns.
package view
