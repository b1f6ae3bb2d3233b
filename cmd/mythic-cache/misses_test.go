package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mythiccache/internal/testserver"
)

// unmapped are views of no table's rows. Loads of one wait for whoever holds the
// advisory lock 1.
const unmapped = `
views:
  popular:
    key: [id]
    load: SELECT json_build_object('id', $1::text, 'waited', pg_advisory_xact_lock_shared(1)::text)
    tables: {things: SELECT id FROM changed}
    http: {path: '/popular/{id}', key: id}
  rare:
    key: [id]
    load: SELECT json_build_object('id', $1::text)
    tables: {things: SELECT id FROM changed}
    http: {path: '/rare/{id}', key: id}
`

// However many miss a key at once, in however many processes, it is loaded once.
func TestMissesOfAKeyMakeOneLoad(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "views.yaml")
	if err := os.WriteFile(file, []byte(unmapped), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSystemWithoutWorkersOn(t, map[string]string{"VIEWS_FILE": file, "RATE_LIMITS": "default=1000000/1m"})
	workers, apis := make([]*workerProcess, 4), []*system{s}
	for i := range workers {
		workers[i] = s.newWorker()
	}
	for range 3 {
		apis = append(apis, s.newAPI())
	}
	for _, w := range workers {
		testserver.Eventually(t, "a worker reads", func() error {
			if w.said("reading the streams") < 3 { // invalidations, runs, fills
				return fmt.Errorf("not yet:\n%s", w.log)
			}
			return nil
		})
	}
	const readers = 1000
	s.exec(`SELECT pg_advisory_lock(1)`)
	r := startMissers(t, apis, readers, func(int) string { return "/popular/one" })
	for range readers {
		<-r.missed
	}
	s.exec(`SELECT pg_advisory_unlock(1)`)
	r.await()
	if n := len(loadsOf(workers, "popular")); n != 1 {
		t.Errorf("%d loads of one key that %d missed", n, readers)
	}
	// Each key in two processes.
	r = startMissers(t, apis, 2*readers, func(n int) string { return fmt.Sprintf("/rare/%d", n/8*4+n%4) })
	r.await()
	if n := len(loadsOf(workers, "rare")); n != readers {
		t.Errorf("%d loads of %d keys", n, readers)
	}
}

// newSystemWithoutWorkersOn is newSystemWithoutWorkers with settings, and without
// Mythic's rows.
func newSystemWithoutWorkersOn(t testing.TB, settings map[string]string) *system {
	t.Helper()
	s := &system{
		t: t, server: postgres, database: postgres.Database(t), redis: testserver.NewRedis(t),
		settings: settings, args: []string{"run", "--roles", "relay,api"},
	}
	s.client, s.conn = s.redis.Client(t), s.connect()
	s.exec(`CREATE TABLE things (id text, n int)`)
	s.command("migrate", "up")
	s.start()
	s.awaitReady()
	return s
}

// newAPI starts a process of the program that answers only.
func (s *system) newAPI() *system {
	s.t.Helper()
	another := *s
	another.args = []string{"run", "--roles", "api"}
	another.start()
	another.awaitReady()
	return &another
}

// missers are readers who ask at the same time, each of one process.
type missers struct {
	t      testing.TB
	client *http.Client
	missed chan struct{} // one for each that was told to come again
	again  chan struct{} // closed when they may
	done   sync.WaitGroup
}

func startMissers(t testing.TB, apis []*system, readers int, path func(n int) string) *missers {
	t.Helper()
	t.Helper()
	r := &missers{
		t: t, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: readers}},
		missed: make(chan struct{}, readers), again: make(chan struct{}),
	}
	for n := range readers {
		// So that those four apart ask different processes.
		url := apis[(n+n/4)%len(apis)].base + path(n)
		r.done.Go(func() {
			if err := r.ask(url); err != nil {
				t.Errorf("%s: %v", url, err)
			}
		})
	}
	return r
}

// await lets those ask again who were told to, and waits until all have an answer.
func (r *missers) await() {
	close(r.again)
	r.done.Wait()
	r.client.CloseIdleConnections()
}

// ask asks until there is an answer.
func (r *missers) ask(url string) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	for first := true; ; first = false {
		status, body, err := r.get(ctx, url)
		switch {
		case err != nil:
			return err
		case status == http.StatusServiceUnavailable: // not in time, or no turn for its load
			if first {
				r.missed <- struct{}{}
			}
			<-r.again
			continue
		}
		var got struct{ ID string }
		if err := json.Unmarshal(body, &got); err != nil || status != http.StatusOK || !strings.HasSuffix(url, "/"+got.ID) {
			return fmt.Errorf("%d %s: %w", status, body, err)
		}
		return nil
	}
}

func (r *missers) get(ctx context.Context, url string) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	answer, err := r.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	return answer.StatusCode, body, err
}

// loadsOf returns when a view was loaded, in order.
func loadsOf(workers []*workerProcess, name string) (loads []time.Time) {
	for _, w := range workers {
		for text := range strings.Lines(w.log.String()) {
			var line struct {
				Message, View string
				Time          time.Time
			}
			if json.Unmarshal([]byte(text), &line) == nil && line.Message == "loaded" && line.View == name {
				loads = append(loads, line.Time)
			}
		}
	}
	slices.SortFunc(loads, time.Time.Compare)
	return loads
}
