package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

// ownDatabase is the name of the database on a test's own servers, which a standby
// has too.
const ownDatabase = "mythic"

// newSystemOver starts the program, which reaches the server over a link.
func newSystemOver(t *testing.T, server *testserver.Postgres, over *link) *system {
	t.Helper()
	s := &system{t: t, server: server, database: server.URL(ownDatabase), redis: testserver.NewRedis(t), args: []string{"run"}}
	s.settings = map[string]string{"DATABASE_URL": over.through(s.database), "GORACE": endAtOnce}
	s.admin("CREATE DATABASE " + ownDatabase)
	s.client, s.conn = s.redis.Client(t), s.connect()
	s.command("demo", "load")
	s.command("migrate", "up")
	s.start()
	s.awaitReady()
	return s
}

// admin does what cannot be done from within the database.
func (s *system) admin(sql string) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.server.URL("postgres"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(s.t.Context(), sql); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// failOver promotes the standby, does what the app does before the program is there,
// has the program come, and waits for a new epoch.
func (s *system) failOver(standby *testserver.Postgres, over *link, before func()) {
	s.t.Helper()
	epoch := s.epochInRedis()
	if err := standby.Promote(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	s.server, s.database = standby, standby.URL(ownDatabase)
	s.conn = s.connect()
	before()
	over.lead(standby.Port)
	s.awaitEpochAfter(epoch)
}

// epochInRedis is the one that the relay's position is of.
func (s *system) epochInRedis() int64 {
	s.t.Helper()
	epoch, err := s.client.HGet(s.t.Context(), "mythic:{stream}:position", "epoch").Int64()
	if err != nil {
		s.t.Fatal(err)
	}
	return epoch
}

// awaitEpochAfter waits until the relay sends under a new epoch: by then it has
// fenced every view.
func (s *system) awaitEpochAfter(epoch int64) {
	s.t.Helper()
	testserver.Eventually(s.t, "a new epoch in Redis and in the database", func() error {
		inRedis, err := s.client.HGet(s.t.Context(), "mythic:{stream}:position", "epoch").Int64()
		if err != nil {
			return err
		}
		var here *int64
		if err := s.conn.QueryRow(s.t.Context(), `SELECT mythic_cache.current_epoch()`).Scan(&here); err != nil {
			return err
		}
		if inRedis <= epoch || here == nil || *here != inRedis {
			return fmt.Errorf("the epoch was %d, is %d in Redis and %v in the database", epoch, inRedis, here)
		}
		return nil
	})
}

// neverSays asks for the users' books again and again, and demands that no answer
// holds the text: what was lost must not come back, not for a moment.
func (s *system) neverSays(text string, users ...string) {
	s.t.Helper()
	for range 100 {
		for _, user := range users {
			a := s.get("/books/my", token(user))
			if bytes.Contains(a.body, []byte(text)) {
				s.t.Fatalf("%s (%s): %s", user, a.header.Get("X-Cache"), a.body)
			}
		}
	}
}

// replayed waits until the standby has all that the primary has.
func (s *system) replayed(standby *testserver.Postgres) {
	s.t.Helper()
	at := one[string](s, `SELECT pg_current_wal_lsn()::text`)
	conn, err := pgx.Connect(s.t.Context(), standby.URL(ownDatabase))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	testserver.Eventually(s.t, "the standby has replayed everything", func() error {
		var there bool
		err := conn.QueryRow(s.t.Context(), `SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)`, at).Scan(&there)
		if err == nil && !there {
			err = errors.New("not yet")
		}
		return err
	})
}

// The primary is shut down and its standby promoted. What was committed before, and
// never seen by the relay, is in the streams all the same.
func TestFailoverLosesNothingThatTheStandbyHas(t *testing.T) {
	t.Parallel()
	primary := testserver.NewPostgres(t, nil)
	over := newLink(t, primary.Port)
	s := newSystemOver(t, primary, over)
	standby := primary.NewStandby(t, primary.Port)
	s.people("ann", "bob")
	s.exec(`INSERT INTO processing_sessions (run_id, user_id, status) SELECT 'RUN', id, 'processing' FROM users WHERE clerk_user_id = 'ann'`)
	s.cached("ann", "bob")
	over.suffer("timeout", replies, map[string]int{"timeout": 0}) // from here on the program hears nothing
	s.exec(`UPDATE books SET title = 'the old primary''s last' WHERE run_id = 'ann1'`)
	s.exec(`SELECT mythic_cache.publish('run.progress', 'RUN', '{"message": "the old primary''s last"}')`)
	s.exec(`DELETE FROM users WHERE clerk_user_id = 'bob'`)
	s.replayed(standby)
	primary.Stop()
	over.mend()
	s.failOver(standby, over, func() {})
	s.fresh("ann", "bob")
	testserver.Eventually(t, "the run's event arrives", func() error {
		if a := s.get("/status/RUN", token("ann")); a.status != http.StatusOK || !strings.Contains(string(a.body), "last") {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
	s.cached("ann", "bob")
	s.exec(`UPDATE books SET title = 'of the new primary' WHERE run_id = 'ann1'`)
	s.fresh("ann", "bob")
}

// The primary dies with commits that its standby never got, and that the cache has.
// The new primary hands out their xids again, and goes past them before the program
// is there. But for the epoch, its changes would pass for sent already, and what was
// cached of the lost ones for newer than what follows.
func TestFailoverThatLosesCommits(t *testing.T) {
	t.Parallel()
	primary := testserver.NewPostgres(t, nil)
	over, replication := newLink(t, primary.Port), newLink(t, primary.Port)
	s := newSystemOver(t, primary, over)
	standby := primary.NewStandby(t, replication.port)
	users := []string{"ann", "bob", "cem"}
	s.people(users...)
	s.cached(users...)
	s.replayed(standby)
	replication.suffer("timeout", replies, map[string]int{"timeout": 0})
	s.exec(`UPDATE books SET title = 'lost' WHERE run_id IN ('ann1', 'bob1')`)
	s.exec(`INSERT INTO books (user_id, title) SELECT id, 'lost' FROM users WHERE clerk_user_id = 'cem'`)
	s.burn(500)
	s.exec(`UPDATE books SET title = title || '!' WHERE title = 'lost'`)
	s.cached(users...) // filled at snapshots above them all
	last := s.xmax()
	primary.Kill()
	s.failOver(standby, over, func() {
		s.exec(`UPDATE books SET title = 'of the new primary' WHERE run_id = 'bob1'`)
		if now := s.xmax(); now >= last {
			t.Fatalf("the new primary is at xid %d, and the old one was at %d: nothing was handed out again", now, last)
		}
		s.burn(1000)
		if now := s.xmax(); now <= last {
			t.Fatalf("the new primary is at xid %d, and the old one was at %d", now, last)
		}
	})
	s.neverSays("lost", users...)
	s.fresh(users...)
	s.cached(users...)
	s.exec(`UPDATE books SET title = 'and again' WHERE run_id = 'ann1'`)
	s.exec(`UPDATE users SET clerk_user_id = 'dan' WHERE clerk_user_id = 'bob'`)
	s.fresh(append(users, "dan")...)
	s.neverSays("lost", users...)
}

// burn has so many transactions write nothing.
func (s *system) burn(xids int) {
	s.t.Helper()
	s.exec(strings.Repeat(`BEGIN; SELECT pg_current_xact_id(); ROLLBACK;`, xids))
}

func (s *system) xmax() int64 {
	s.t.Helper()
	return one[int64](s, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`)
}

// A dump is made, and the database dropped and restored from it under its own name
// while the program runs. What was written and cached in between never was.
func TestADatabaseRestoredFromADump(t *testing.T) {
	t.Parallel()
	server := testserver.NewPostgres(t, nil)
	over := newLink(t, server.Port)
	s := newSystemOver(t, server, over)
	users := []string{"ann", "bob", "cem"}
	s.people(users...)
	s.cached(users...)
	dump := filepath.Join(t.TempDir(), "dump")
	s.postgresTool("pg_dump", "--format=custom", "--file="+dump, s.database)
	s.exec(`UPDATE books SET title = 'lost' WHERE run_id IN ('ann1', 'bob1')`)
	s.exec(`INSERT INTO books (user_id, title) SELECT id, 'lost' FROM users WHERE clerk_user_id = 'cem'`)
	s.cached(users...)
	epoch := s.epochInRedis()
	s.admin("DROP DATABASE " + ownDatabase + " WITH (FORCE)")
	s.admin("CREATE DATABASE " + ownDatabase)
	s.postgresTool("pg_restore", "--dbname="+s.database, dump)
	s.conn = s.connect()
	s.awaitEpochAfter(epoch)
	s.neverSays("lost", users...)
	s.fresh(users...)
	s.exec(`UPDATE books SET title = 'before the triggers are looked at' WHERE run_id = 'ann1'`)
	s.fresh(users...)
	s.command("migrate", "up")
	s.awaitReady()
	s.cached(users...)
	s.exec(`UPDATE books SET title = 'after the restore' WHERE run_id = 'ann1'`)
	s.exec(`DELETE FROM users WHERE clerk_user_id = 'bob'`)
	s.fresh(users...)
	s.neverSays("lost", users...)
}

// postgresTool runs one of PostgreSQL's programs.
func (s *system) postgresTool(program string, args ...string) {
	s.t.Helper()
	if err := s.server.Run(s.t.Context(), program, args...); err != nil {
		s.t.Fatal(err)
	}
}
