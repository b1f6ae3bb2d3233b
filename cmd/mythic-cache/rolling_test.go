package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/view"
	"mythiccache/internal/testserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// Four worker processes are replaced one after the other under load, each while it
// has something in its hands: every event is done once and no more, and none is
// missing.
func TestRollingRestartOfWorkers(t *testing.T) {
	t.Parallel()
	s := newSystemWithoutWorkers(t)
	users := names(12)
	s.people(users...)
	workers := make([]*workerProcess, 4)
	for i := range workers {
		workers[i] = s.newWorker()
	}
	s.awaitReading(workers...)
	writer, runs, stopReaders := s.startWriter(users), s.startRuns(), s.startReaders(users)
	all := slices.Clone(workers)
	finished := 0
	for i, old := range workers {
		finished += s.replaceInFlight(old)
		workers[i] = s.newWorker()
		s.awaitReading(workers[i])
		all = append(all, workers[i])
	}
	if finished == 0 {
		t.Error("no worker finished what it had begun")
	}
	stopReaders()
	writer.stop(t)
	published := runs.stop(t)
	s.settled(published, users)
	for _, w := range workers {
		w.stop()
	}
	s.doneOnce(all, published)
	for i := range workers {
		workers[i] = s.newWorker()
	}
	s.fresh(users...)
	if out, err := s.try("verify", "--all"); err != nil || !strings.Contains(out, `"wrong": 0`) {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// newSystemWithoutWorkers is like newSystem, but its program relays and answers only.
func newSystemWithoutWorkers(t testing.TB) *system {
	t.Helper()
	s := &system{
		t: t, server: postgres, database: postgres.Database(t), redis: testserver.NewRedis(t),
		args: []string{"run", "--roles", "relay,api"},
	}
	s.client, s.conn = s.redis.Client(t), s.connect()
	s.command("demo", "load")
	s.command("migrate", "up")
	s.start()
	s.awaitReady()
	return s
}

// workerProcess is one process of the program that plays no role but workers.
type workerProcess struct {
	t        testing.TB
	cmd      *exec.Cmd
	log      *programLog
	instance string // its name in the consumer groups
	ended    bool
}

func (s *system) newWorker() *workerProcess {
	s.t.Helper()
	w := &workerProcess{t: s.t, log: &programLog{ended: make(chan struct{})}}
	w.cmd = exec.Command(os.Args[0], "run", "--roles", "workers")
	w.cmd.Env = append(s.environ(), "GORACE="+endAtOnce)
	stderr, err := w.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go w.log.follow(stderr)
	s.t.Cleanup(func() {
		if !w.ended {
			_ = w.cmd.Process.Kill()
			<-w.log.ended
			_ = w.cmd.Wait()
		}
	})
	return w
}

// workerLine is a line of a worker's log, as far as the tests look at it.
type workerLine struct {
	Message, Group, Instance string
	Messages, Failed         int
}

func (w *workerProcess) lines() []workerLine {
	var lines []workerLine
	for text := range strings.Lines(w.log.String()) {
		var line workerLine
		if json.Unmarshal([]byte(text), &line) == nil {
			lines = append(lines, line)
		}
	}
	return lines
}

// said returns how often the worker has said so.
func (w *workerProcess) said(message string) (times int) {
	for _, line := range w.lines() {
		if line.Message == message {
			times++
		}
	}
	return times
}

// stop asks the worker to end and demands that it does so well.
func (w *workerProcess) stop() {
	w.t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	w.awaitEnd()
}

func (w *workerProcess) awaitEnd() {
	w.t.Helper()
	select {
	case <-w.log.ended:
	case <-time.After(time.Minute):
		w.t.Fatalf("a worker does not stop:\n%s", w.log)
	}
	w.ended = true
	if err := w.cmd.Wait(); err != nil {
		w.t.Errorf("a worker stopped with %v:\n%s", err, w.log)
	}
}

// parts is how many parts of a worker read streams: sessions, invalidations, tables to
// precompute, fills, runs, what the model is asked, what is told of answers, and what
// begins templates, which there are where nobody has named a model.
func (s *system) parts() int {
	if s.settings["LLM_BASE_URL"] != "" && s.settings["AI_WARM_FILE"] == "" {
		return 7
	}
	return 8
}

// awaitReading waits until every part of the workers reads its streams.
func (s *system) awaitReading(workers ...*workerProcess) {
	s.t.Helper()
	for _, w := range workers {
		testserver.Eventually(s.t, "a worker reads", func() error {
			if n := w.said("reading the streams"); n != s.parts() {
				return fmt.Errorf("%d of %d parts read\n%s", n, s.parts(), w.log)
			}
			return nil
		})
		for _, line := range w.lines() {
			if line.Message == "starting" {
				w.instance = line.Instance
			}
		}
	}
}

// replaceInFlight stops a worker that has run events in its hands: a lock lets none
// of them be kept before the worker has begun to stop. It returns how many it kept then;
// what it had not begun it hands back.
func (s *system) replaceInFlight(w *workerProcess) (finished int) {
	s.t.Helper()
	lock, err := s.connect().Begin(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := lock.Exec(s.t.Context(), `LOCK TABLE mythic_cache.run_events IN ACCESS EXCLUSIVE MODE`); err != nil {
		s.t.Fatal(err)
	}
	testserver.Eventually(s.t, "the worker has runs in its hands", func() error {
		consumers, err := s.client.XInfoConsumers(s.t.Context(), stream.NewKeys("mythic:").Topic(event.TopicRun), groupPrecompute).Result()
		for _, c := range consumers {
			if c.Name == w.instance && c.Pending >= 5 {
				return nil
			}
		}
		return fmt.Errorf("%s among %+v: %w", w.instance, consumers, err)
	})
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	testserver.Eventually(s.t, "the worker stops", func() error {
		if w.said("stopping") == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if err := lock.Commit(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	w.awaitEnd()
	_, after, _ := strings.Cut(w.log.String(), `"message":"stopping"`)
	runs, batches := strings.Count(after, `"message":"run event kept"`), strings.Count(after, `"message":"batch handled"`)
	s.t.Logf("a worker finished %d runs and %d batches after it was told to stop", runs, batches)
	return runs
}

// runPublisher publishes run events until it is stopped.
type runPublisher struct {
	published int
	err       error
	cancel    context.CancelFunc
	done      sync.WaitGroup
}

// betweenRuns paces the run events: four workers under the race detector keep up.
const betweenRuns = 4 * time.Millisecond

func (s *system) startRuns() *runPublisher {
	s.t.Helper()
	conn := s.connect()
	ctx, cancel := context.WithCancel(s.t.Context())
	p := &runPublisher{cancel: cancel}
	p.done.Go(func() {
		pace := time.NewTicker(betweenRuns)
		defer pace.Stop()
		for ctx.Err() == nil && p.err == nil {
			p.err = p.publish(context.WithoutCancel(ctx), conn)
			<-pace.C
		}
	})
	s.t.Cleanup(func() { cancel(); p.done.Wait() })
	return p
}

func (p *runPublisher) publish(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SELECT mythic_cache.publish('run.progress', $1, '{"message":"goes on"}')`, fmt.Sprint("RUN-", p.published%50))
	if err == nil {
		p.published++
	}
	return err
}

// stop ends the publishing and returns how many events there were.
func (p *runPublisher) stop(t testing.TB) int {
	t.Helper()
	p.cancel()
	p.done.Wait()
	if p.err != nil || p.published < 100 {
		t.Fatalf("%d run events were published: %v", p.published, p.err)
	}
	return p.published
}

// mythicGroups returns the groups of Mythic's views and their topics.
func (s *system) mythicGroups() map[string][]string {
	s.t.Helper()
	views, err := view.Parse("mythic.yaml", view.Mythic(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return groups(views, nil)
}

// settled waits until all that was written has been applied and no group has anything
// left to do.
func (s *system) settled(runs int, users []string) {
	s.t.Helper()
	testserver.Eventually(s.t, "all runs are kept", func() error {
		if kept := one[int](s, `SELECT count(*) FROM mythic_cache.run_events`); kept != runs {
			return fmt.Errorf("%d of %d", kept, runs)
		}
		return nil
	})
	s.fresh(users...)
	testserver.Eventually(s.t, "all is done", func() error {
		for group, topics := range s.mythicGroups() {
			states, err := stream.Groups(s.t.Context(), s.client, stream.NewKeys("mythic:"), topics)
			if err != nil {
				return err
			}
			for _, state := range states {
				if state.Group == group && (state.Lag != 0 || state.Pending != 0 || state.Parked != 0) {
					return fmt.Errorf("%+v", state)
				}
			}
		}
		return nil
	})
}

// doneOnce compares what the workers did with what was in the streams.
func (s *system) doneOnce(all []*workerProcess, runs int) {
	s.t.Helper()
	entries := func(topics ...string) (n int) {
		for _, topic := range topics {
			if info, err := s.client.XInfoStream(s.t.Context(), stream.NewKeys("mythic:").Topic(topic)).Result(); err == nil {
				n += int(info.EntriesAdded)
			}
		}
		return n
	}
	done, kept, known := map[string]int{}, 0, 0
	for _, w := range all {
		for _, line := range w.lines() {
			done[line.Group] += line.Messages - line.Failed
		}
		kept += w.said("run event kept")
		known += w.said("run event known already")
	}
	for group, topics := range s.mythicGroups() {
		want := entries(topics...)
		switch group {
		case groupWarm:
			continue
		case groupPrecompute:
			want -= entries(event.TopicRun) // those are handled one by one
		}
		if s.t.Logf("%s did %d events of %d", group, done[group], want); done[group] != want || want < 500 {
			s.t.Errorf("%s did %d events, and there were %d", group, done[group], want)
		}
	}
	if stored := one[int](s, `SELECT count(*) FROM mythic_cache.run_events`); kept != runs || stored != runs || known != 0 {
		s.t.Errorf("%d run events were kept and %d of them came again; %d are stored of %d", kept, known, stored, runs)
	}
}
