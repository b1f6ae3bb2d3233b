package main

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// withoutURL shortens pgx's account of a failed connection, which names host,
// user and database, to what an operator may see in a log: it never holds the
// password, but the cause is what matters.
func withoutURL(err error) error {
	if failed, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		if cause := failed.Unwrap(); cause != nil {
			return cause
		}
	}
	return err
}
