package main

import (
	"cmp"
	"crypto/rand"
	"io"
	"maps"
	"os"
	"slices"
)

// environment is what we set of the worker's.
type environment map[string]string

// environment fills in what is not set. Secrets are made anew for each run: what
// is printed is worth nothing tomorrow.
func (s *session) environment(v *servers, address string) environment {
	e := environment{"DATABASE_URL": v.databaseURL, "REDIS_URL": v.redisURL, "HTTP_ADDR": address}
	for _, name := range []string{"AUTH_JWT_SECRET", "ADMIN_TOKEN", "EVENTS_TOKEN"} {
		e[name] = cmp.Or(s.getenv(name), rand.Text()+rand.Text())
	}
	if s.getenv("DATABASE_URL") == "" {
		e["DATABASE_LISTEN_URL"] = "" // which would belong to another database
	}
	if !isTerminal(s.stderr) {
		e["NO_COLOR"] = "1"
	}
	e["LOG_FORMAT"] = cmp.Or(s.getenv("LOG_FORMAT"), "console")
	for _, name := range []string{"AUTH_MODE", "AUTH_JWKS", "AUTH_ISSUER", "AUTH_AUDIENCE"} {
		if value := s.getenv(name); value != "" {
			e[name] = value
		}
	}
	return e
}

// list is the environment over another one.
func (e environment) list(under []string) []string {
	list := slices.Clone(under)
	for _, name := range slices.Sorted(maps.Keys(e)) {
		list = append(list, name+"="+e[name]) // of a name that is there twice the last counts
	}
	return list
}

// isTerminal reports whether somebody watches what is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
