package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

// counter is a view of one row that counts its changes. Its loads take a while after
// their snapshot, so that most are overtaken.
const counter = `
views:
  counter:
    key: [id]
    load: SELECT json_build_object('n', n, 'slept', pg_sleep(0.02)::text) FROM things WHERE id = $1
    tables: {things: SELECT id FROM changed}
    http: {path: '/counter/{id}', key: id}
`

// The row changes without a rest so many times for so long.
const (
	bursts   = 8
	burstFor = 350 * time.Millisecond
)

// A key that changes all the time is loaded a bounded number of times a second, its
// readers are answered, no answer is older than what its reader knew, and nothing old
// is left when the changes end.
func TestChurn(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "views.yaml")
	if err := os.WriteFile(file, []byte(counter), 0o600); err != nil {
		t.Fatal(err)
	}
	// Without the auditor, which would mend what this test looks for.
	s := newSystemWithoutWorkersOn(t, map[string]string{"VIEWS_FILE": file, "RATE_LIMITS": "default=1000000/1m", "AUDIT_RATE": "0"})
	s.exec(`INSERT INTO things (id, n) VALUES ('a', 0)`)
	workers := []*workerProcess{s.newWorker(), s.newWorker()}
	testserver.Eventually(t, "the counter is read", func() error {
		return s.compareCounter(0)
	})
	before := len(loadsOf(workers, "counter"))

	c := &churn{s: s}
	c.promise.Store(&promise{})
	conn, apis := s.connect(), []*system{s, s.newAPI()}
	for range bursts {
		ctx, cancel := context.WithTimeout(t.Context(), burstFor)
		var busy sync.WaitGroup
		busy.Go(func() { c.write(ctx, conn) })
		for n := range 8 {
			busy.Go(func() { c.read(ctx, apis[n%2], n < 4) })
		}
		busy.Wait()
		cancel()
		testserver.Eventually(t, "the last change is seen", func() error { return s.compareCounter(c.promise.Load().n) })
	}
	c.judge(loadsOf(workers, "counter")[before:])
}

// churn is a row that changes, and what its readers saw.
type churn struct {
	s       *system
	promise atomic.Pointer[promise] // the last change that was committed

	mu       sync.Mutex
	took     []time.Duration
	statuses map[string]int
}

// promise is a committed change: whoever names its transaction sees it.
type promise struct {
	xid uint64
	n   int
}

func (c *churn) write(ctx context.Context, conn *pgx.Conn) {
	if _, err := conn.Exec(ctx, `SET synchronous_commit = off`); err != nil {
		c.s.t.Error(err)
	}
	for ctx.Err() == nil {
		var p promise
		// The transaction outlives the signal to stop, so that its fate is known.
		err := conn.QueryRow(context.WithoutCancel(ctx), `UPDATE things SET n = n + 1 WHERE id = 'a' RETURNING pg_current_xact_id()::text::bigint, n`).Scan(&p.xid, &p.n)
		if err != nil {
			c.s.t.Error(err)
			return
		}
		c.promise.Store(&p)
	}
}

// read reads until the end. A reader who names no transaction is promised that time
// does not run backwards.
func (c *churn) read(ctx context.Context, api *system, named bool) {
	last := 0
	for ctx.Err() == nil {
		least, header := last, http.Header{}
		if p := c.promise.Load(); named && p.xid > 0 {
			least = p.n
			header.Set("X-Min-Xid", strconv.FormatUint(p.xid, 10))
		}
		begun := time.Now()
		a, err := api.tryRequest(http.MethodGet, "/counter/a", "", header, nil)
		if err != nil {
			c.s.t.Error(err)
			return
		}
		c.note(time.Since(begun), a)
		if a.status != http.StatusOK {
			continue
		}
		var got struct{ N int }
		if err := json.Unmarshal(a.body, &got); err != nil || got.N < least {
			c.s.t.Errorf("%s %s is older than %d, which its reader knew: %v", a.header.Get("X-Cache"), a.body, least, err)
			return
		}
		last = got.N
	}
}

func (c *churn) note(took time.Duration, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.took = append(c.took, took)
	if c.statuses == nil {
		c.statuses = map[string]int{}
	}
	c.statuses[strings.TrimSpace(fmt.Sprint(a.status, " ", a.header.Get("X-Cache")))]++
}

// judge demands bounds that do not depend on how fast the machine is: each load takes
// twenty milliseconds, and then the key is left alone for as long.
func (c *churn) judge(loads []time.Time) {
	changes, answers := c.promise.Load().n, len(c.took)
	slices.Sort(c.took)
	c.s.t.Logf("%d changes and %d loads in %d times %s; %d answers, %v; half of them within %s, 99 of 100 within %s, all within %s",
		changes, len(loads), bursts, burstFor, answers, c.statuses, c.took[answers/2], c.took[answers*99/100], c.took[answers-1])
	for i := 1; i < len(loads); i++ {
		if gap := loads[i].Sub(loads[i-1]); gap < 35*time.Millisecond {
			c.s.t.Errorf("load %d comes %s after the one before", i, gap)
		}
	}
	if failed := c.statuses["503"]; failed*20 > answers {
		c.s.t.Errorf("%d of %d readers had no answer", failed, answers)
	}
	if changes < 100 || len(loads) < 10 {
		c.s.t.Errorf("%d changes and %d loads show nothing", changes, len(loads))
	}
}

// compareCounter returns an error where the counter is not what it should be.
func (s *system) compareCounter(want int) error {
	a, err := s.tryRequest(http.MethodGet, "/counter/a", "", nil, nil)
	if err != nil {
		return err
	}
	if got := string(a.body); !strings.HasPrefix(got, fmt.Sprintf(`{"n":%d,`, want)) {
		return errors.New(got)
	}
	return nil
}
