package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

// auditSoak in the environment says for how long an auditor has to be quiet.
const auditSoak = "AUDIT_SOAK"

// Whatever an honest app and its operators do, an auditor that looks at a thousand
// entries a second calls none of them wrong.
func TestAuditorRaisesNoFalseAlarm(t *testing.T) {
	t.Parallel()
	soak := 5 * time.Second
	if text := os.Getenv(auditSoak); text != "" {
		var err error
		if soak, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v", auditSoak, err)
		}
	}
	s := newSystem(t, map[string]string{"AUDIT_RATE": "1000", "LOG_LEVEL": "info"})
	users := names(10)
	s.people(users...)
	w := s.startWriter(users)
	s.people("guest")
	stopReaders := s.startReaders(append(users, "guest"))
	defer stopReaders()
	steps := s.honestSteps(users)
	for start, met := time.Now(), 0; time.Since(start) < soak || met < len(steps); met++ {
		if met%len(steps) == 0 {
			rand.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		}
		steps[met%len(steps)]()
		s.moment()
	}
	w.stop(t)
	s.fresh(users...)
	s.cached(users...)
	// Whoever is still under suspicion gets a verdict, and nobody is overlooked.
	before := s.metric(`mythic_cache_audit_checked_total{verdict="fresh",view="user_books"}`)
	testserver.Eventually(t, "the auditor has judged", func() error {
		suspects := s.metric("mythic_cache_audit_suspects")
		checked := s.metric(`mythic_cache_audit_checked_total{verdict="fresh",view="user_books"}`) - before
		if suspects > 0 || checked < float64(2*len(users)) {
			return fmt.Errorf("%v are under suspicion, %v have been found fresh since", suspects, checked)
		}
		return nil
	})
	t.Logf("%d commits; fresh %v, behind %v", w.commits, before, s.metric(`mythic_cache_audit_checked_total{verdict="behind",view="user_books"}`))
	for _, v := range s.log.violations() {
		t.Errorf("a false alarm: %+v", v)
	}
	if strings.Contains(s.log.String(), "the cache was wrong") != (len(s.log.violations()) > 0) {
		t.Error("the log's violations are not as this test reads them")
	}
}

// honestSteps are what may happen to tables and servers without anybody being at fault.
// What is done to PostgreSQL is done on the system's own session, one after the other.
func (s *system) honestSteps(users []string) []func() {
	t := s.t
	inTx := func(rollback bool, wait int, statements ...string) {
		err := pgx.BeginFunc(t.Context(), s.conn, func(tx pgx.Tx) error {
			for _, sql := range statements {
				if _, err := tx.Exec(t.Context(), sql); err != nil {
					return fmt.Errorf("%s: %w", sql, err)
				}
			}
			for range wait {
				s.moment()
			}
			if rollback {
				return errRollback
			}
			return nil
		})
		if err != nil && !errors.Is(err, errRollback) {
			t.Fatal(err)
		}
	}
	again := "INSERT INTO books (user_id, title) SELECT id, 'Again' FROM users WHERE clerk_user_id = ANY ('{" + strings.Join(users, ",") + "}')"
	return slices.Clip([]func(){
		func() { inTx(false, 1, "TRUNCATE books", again) },
		func() { inTx(true, 1, "TRUNCATE books", again) },
		func() { inTx(false, 0, "TRUNCATE books"); inTx(false, 0, again) },
		func() { inTx(false, 0, "ALTER TABLE books ALTER title TYPE text USING left(title, 30) || '~'") },
		func() { inTx(false, 1, "ALTER TABLE books ADD extra int DEFAULT 7", "ALTER TABLE books DROP extra") },
		func() { s.exec("VACUUM FULL books") },
		func() { inTx(false, 5, "UPDATE users SET full_name = 'slow' WHERE clerk_user_id = '"+users[0]+"'") },
		// Row by row, it would now and then meet a writer that takes rows in another order.
		func() { inTx(true, 2, "LOCK TABLE books IN SHARE ROW EXCLUSIVE MODE", "DELETE FROM books") },
		// What joins a book to its key changes, there and back.
		func() {
			inTx(false, 1, "UPDATE users SET clerk_user_id = 'other' WHERE clerk_user_id = '"+users[1]+"'")
			inTx(false, 0, "UPDATE users SET clerk_user_id = '"+users[1]+"' WHERE clerk_user_id = 'other'")
		},
		func() { inTx(false, 0, "DELETE FROM users WHERE clerk_user_id = 'guest'"); s.people("guest") }, // for whom nobody writes
		func() { s.command("epoch", "bump") },
		func() {
			if err := s.client.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		},
		func() { s.redisAgain(s.redis.Stop) },
		func() { s.redisAgain(s.redis.Kill) },
	})
}

// redisAgain ends Redis and starts it again.
func (s *system) redisAgain(end func()) {
	s.t.Helper()
	end()
	if err := s.redis.Start(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	testserver.Eventually(s.t, "Redis is back", func() error { return s.client.Ping(s.t.Context()).Err() })
}
