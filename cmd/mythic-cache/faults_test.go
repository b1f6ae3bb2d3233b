package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

// writer changes the users' books until it is stopped, one transaction at a
// time, some of which are rolled back.
type writer struct {
	commits int
	err     error
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

func (s *system) startWriter(users []string) *writer {
	s.t.Helper()
	conn := s.connect()
	ctx, cancel := context.WithCancel(s.t.Context())
	w := &writer{cancel: cancel}
	w.done.Go(func() {
		for ctx.Err() == nil {
			// The transaction outlives the signal to stop, so that its fate is known.
			if w.err = w.transaction(context.WithoutCancel(ctx), conn, users); w.err != nil {
				return
			}
		}
	})
	s.t.Cleanup(func() { cancel(); w.done.Wait() })
	return w
}

var errRollback = errors.New("rolled back on purpose")

func (w *writer) transaction(ctx context.Context, conn *pgx.Conn, users []string) error {
	a, b := users[rand.IntN(len(users))], users[rand.IntN(len(users))]
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var err error
		switch rand.IntN(5) {
		case 0:
			_, err = tx.Exec(ctx, `INSERT INTO books (user_id, title) SELECT id, 'More' FROM users WHERE clerk_user_id = $1`, a)
		case 1:
			_, err = tx.Exec(ctx, `DELETE FROM books WHERE id IN (SELECT b.id FROM books b JOIN users u ON u.id = b.user_id WHERE clerk_user_id = $1 AND title = 'More' LIMIT 3)`, a)
		case 2:
			_, err = tx.Exec(ctx, `UPDATE books SET user_id = (SELECT id FROM users WHERE clerk_user_id = $2)
				WHERE id IN (SELECT b.id FROM books b JOIN users u ON u.id = b.user_id WHERE clerk_user_id = $1 LIMIT 1)`, a, b)
		default:
			_, err = tx.Exec(ctx, `UPDATE books SET title = title || '.' , updated_at = now() FROM users u WHERE u.id = user_id AND clerk_user_id = $1 AND length(title) < 40`, a)
		}
		if err == nil && rand.IntN(6) == 0 {
			return errRollback
		}
		return err
	})
	if errors.Is(err, errRollback) {
		return nil
	}
	w.commits++
	return err
}

// stop ends the writing and demands that it went well.
func (w *writer) stop(t testing.TB) {
	t.Helper()
	w.cancel()
	w.done.Wait()
	if w.err != nil {
		t.Fatalf("the app's writes must not suffer: %v", w.err)
	}
	if w.commits == 0 {
		t.Fatal("nothing was written")
	}
}

// readers keep the users' entries filled, so that there is something to go stale.
func (s *system) startReaders(users []string) (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	base := s.base
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/books/my", http.NoBody)
			if err != nil {
				return
			}
			r.Header.Set("Authorization", "Bearer "+token(users[i%len(users)]))
			if w, err := http.DefaultClient.Do(r); err == nil {
				w.Body.Close()
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func names(n int) []string {
	users := make([]string, n)
	for i := range users {
		users[i] = fmt.Sprintf("user%d", i)
	}
	return users
}

// Ten times the program is killed under writes and reads and started again;
// then every answer is what SQL says, from the cache too.
func TestKilledTenTimesUnderWrites(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	users := names(12)
	s.people(users...)
	w := s.startWriter(users)
	for range 10 {
		stopReaders := s.startReaders(users)
		s.moment()
		s.kill()
		stopReaders()
		s.start()
	}
	s.awaitReady()
	w.stop(t)
	s.fresh(users...)
	s.cached(users...)
	s.everythingExpires()
}

// everythingExpires demands a TTL of every key but the few that may live on.
func (s *system) everythingExpires() {
	s.t.Helper()
	ctx := s.t.Context()
	keys := s.client.Scan(ctx, 0, "*", 1000).Iterator()
	seen := 0
	for keys.Next(ctx) {
		key := keys.Val()
		seen++
		if strings.HasPrefix(key, "mythic:{stream}:") || strings.HasPrefix(key, "mythic:view:") {
			continue
		}
		ttl, err := s.client.PTTL(ctx, key).Result()
		if err != nil {
			s.t.Fatal(err)
		}
		if ttl == -1 {
			s.t.Errorf("%s has no TTL", key)
		}
	}
	if err := keys.Err(); err != nil || seen < 10 {
		s.t.Errorf("looked at %d keys: %v", seen, err)
	}
}

// A backend killed with SIGKILL makes PostgreSQL go through crash recovery and
// hand out again the ids of transactions that never reached the disk. Nothing
// is lost and nothing of before comes back: without a new epoch, the entry that
// was filled before the crash would pass for newer than what follows it.
func TestCrashRestartOfPostgres(t *testing.T) {
	t.Parallel()
	s := newSystemOn(t, testserver.NewPostgres(t, nil), nil)
	s.people("ann", "bob")
	for again := false; !again; {
		s.cached("ann", "bob")
		epoch := one[int64](s, `SELECT epoch FROM mythic_cache.epoch`)
		s.exec(`UPDATE books SET title = 'before the crash' WHERE run_id = 'bob1'`)
		s.command("purge", "user_books", "ann")
		// Transactions that write nothing leave no trace of their ids in the log.
		s.exec(strings.Repeat(`BEGIN; SELECT pg_current_xact_id(); ROLLBACK;`, 500))
		burnt := one[int64](s, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`)
		s.cached("ann") // filled at a snapshot above them all
		if err := s.server.CrashBackend(one[int](s, `SELECT pg_backend_pid()`)); err != nil {
			t.Fatal(err)
		}
		s.reconnectInEpochAfter(epoch)
		// The relay may have had an id after those, and that one may have reached the disk.
		again = one[int64](s, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`) < burnt
		s.fresh("ann", "bob")
		s.exec(`UPDATE books SET title = title || ' and after' WHERE run_id = 'ann1'`)
		s.fresh("ann", "bob")
	}
	s.cached("ann", "bob")
}

// reconnectInEpochAfter waits until the relay has begun a new epoch.
func (s *system) reconnectInEpochAfter(epoch int64) {
	s.t.Helper()
	testserver.Eventually(s.t, "a new epoch", func() error {
		// A connection may still be made to the server that is going down.
		conn, err := pgx.Connect(s.t.Context(), s.database)
		if err != nil {
			return err
		}
		var now int64
		if err = conn.QueryRow(s.t.Context(), `SELECT epoch FROM mythic_cache.epoch`).Scan(&now); err == nil && now <= epoch {
			err = fmt.Errorf("epoch %d", now)
		}
		if err != nil {
			conn.Close(s.t.Context())
			return err
		}
		s.conn = conn
		s.t.Cleanup(func() { conn.Close(context.Background()) })
		return nil
	})
}

// Start to ready, wait for what is away, stop in bounded time.
func TestWaitsForItsServersAndStops(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.people("ann")
	s.cached("ann")
	s.stop()
	s.redis.Stop()
	s.start()
	notReady := s.get("/readyz", "")
	if notReady.status != http.StatusServiceUnavailable || !strings.Contains(string(notReady.body), "redis") {
		t.Errorf("without Redis: %d %s", notReady.status, notReady.body)
	}
	if live := s.get("/livez", ""); live.status != http.StatusOK {
		t.Errorf("without Redis it is not alive: %d", live.status)
	}
	if health := s.get("/health/redis", ""); health.status != http.StatusServiceUnavailable {
		t.Errorf("without Redis: /health/redis %d", health.status)
	}
	if err := s.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.awaitReady()
	s.fresh("ann")
	s.exec(`UPDATE books SET title = 'changed' WHERE run_id = 'ann1'`)
	s.fresh("ann")
	s.stop()
}

// A change that is made while nobody runs is applied by whoever starts next.
func TestChangesWhileNobodyRuns(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.people("ann", "bob")
	s.cached("ann", "bob")
	s.stop()
	s.exec(`UPDATE books SET title = 'while away' WHERE run_id = 'ann1'`)
	s.exec(`DELETE FROM users WHERE clerk_user_id = 'bob'`)
	s.start()
	s.fresh("ann", "bob")
}

// Redis loses everything while the program runs.
func TestFlushedRedis(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.people("ann")
	s.cached("ann")
	if err := s.client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.exec(`UPDATE books SET title = 'after the flush' WHERE run_id = 'ann1'`)
	s.cached("ann")
	s.exec(`UPDATE books SET title = 'and again' WHERE run_id = 'ann1'`)
	s.fresh("ann")
}

// Redis is killed and comes back with what it had written.
func TestRestartedRedis(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.people("ann", "bob")
	s.cached("ann", "bob")
	s.redis.Kill()
	s.exec(`UPDATE books SET title = 'while Redis was away' WHERE run_id = 'ann1'`)
	if err := s.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.fresh("ann", "bob")
	s.cached("ann", "bob")
}

// A second signal stops the program at once, whatever it is waiting for.
func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	// A request whose body does not come keeps the API from stopping.
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/cloudevents+json\r\nContent-Length: 1000\r\n\r\n{", eventsToken); err != nil {
		t.Fatal(err)
	}
	signal := func() {
		if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	testserver.Eventually(t, "consumers have stopped", func() error {
		if !strings.Contains(s.log.String(), `"stage":"consumers"`) {
			return errors.New("not yet")
		}
		return nil
	})
	signal()
	<-s.log.ended
	_ = s.process.Wait()
	status, ok := s.process.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v, not by the signal", s.process.ProcessState)
	}
}
