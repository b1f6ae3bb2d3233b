package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// peer is what the store knows of the Redis at the other end: which process it
// is, and what its clock says. Deadlines in entries are by that clock, so that
// processes on machines whose clocks differ agree about them.
type peer struct {
	mu    sync.RWMutex
	runID string
	// At local the clock of Redis showed remote, give or take trip.
	local, remote time.Time
	trip          time.Duration
	nameless      bool // the newest connection could not be named
}

// observationAge is how long a good observation of the clock is preferred to a
// newer one that took longer: quartz drifts by less than 0.1 ms in this time.
const observationAge = 5 * time.Second

// observe takes note of the time in a reply to what was sent at that moment.
func (p *peer) observe(remote, sent time.Time) {
	local := time.Now()
	trip := local.Sub(sent)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.local.IsZero() || trip <= p.trip || local.Sub(p.local) > observationAge {
		// The reply is younger than remote: the estimate errs to the past.
		p.local, p.remote, p.trip = local, remote, trip
	}
}

// now estimates the clock of Redis. Before the first connection it is our own.
func (p *peer) now() time.Time {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.local.IsZero() {
		return time.Now()
	}
	return p.remote.Add(time.Since(p.local))
}

// state returns run_id and clock together.
func (p *peer) state() (runID string, now time.Time) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.local.IsZero() {
		return p.runID, time.Now()
	}
	return p.runID, p.remote.Add(time.Since(p.local))
}

// onConnect runs on every new connection: it finds out who is at the other end
// and loads the scripts, so that no operation meets a server without them.
func (s *Store) onConnect(ctx context.Context, conn *redis.Conn) error {
	sent := time.Now()
	var info *redis.StringCmd
	var clock *redis.TimeCmd
	_, err := conn.Pipelined(ctx, func(p redis.Pipeliner) error {
		info, clock = p.Info(ctx, "server"), p.Time(ctx)
		for _, script := range s.scripts.all() {
			p.ScriptLoad(ctx, script.source)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("greet redis: %w", err)
	}
	runID, ok := runIDIn(info.Val())
	if !ok {
		return errors.New("greet redis: INFO server has no run_id")
	}
	s.meet(runID, clock.Val(), sent)
	return s.sign(ctx, conn, runID)
}

// sign gives a connection a name that ends with the run_id of the Redis at its other
// end, so that whoever reads over it can ask with the same breath whose answer it is
// (see batch.send): a Redis that was replaced may go on answering over connections
// that were there before. Where names are not allowed, nothing is kept in memory, which is said.
func (s *Store) sign(ctx context.Context, conn *redis.Conn, runID string) error {
	name, err := conn.ClientGetName(ctx).Result()
	if err == nil || errors.Is(err, redis.Nil) {
		err = conn.ClientSetName(ctx, name+signMark+runID).Err()
	}
	var said redis.Error
	if err != nil && !errors.As(err, &said) {
		return fmt.Errorf("greet redis: %w", err)
	}
	s.named(err)
	return nil
}

// named says when connections begin to be refused their names, and when that is over.
func (s *Store) named(refused error) {
	s.peer.mu.Lock()
	was := s.peer.nameless
	s.peer.nameless = refused != nil
	s.peer.mu.Unlock()
	switch {
	case refused != nil && !was:
		s.log.Warn().Err(refused).Msg("redis lets no connection be named (CLIENT GETNAME, CLIENT SETNAME): the near cache keeps nothing that is read")
	case refused == nil && was:
		s.log.Info().Msg("redis lets connections be named again; the near cache may keep what is read")
	}
}

// signMark stands in a connection's name before the run_id.
const signMark = "@"

// signedBy reports whether a connection's name ends with a run_id.
func signedBy(name []byte, runID string) bool {
	mark := len(name) - runIDLen - len(signMark)
	return mark >= 0 && string(name[mark:mark+len(signMark)]) == signMark && string(name[mark+len(signMark):]) == runID
}

// meet takes note of the process that a new connection leads to.
func (s *Store) meet(runID string, remote, sent time.Time) {
	s.peer.mu.Lock()
	before := s.peer.runID
	s.peer.runID = runID
	if before != runID {
		s.peer.local = time.Time{} // another machine may have another clock
	}
	s.peer.mu.Unlock()
	s.peer.observe(remote, sent)
	switch before {
	case runID:
	case "":
		s.log.Info().Str("run_id", runID).Msg("cache is connected to redis")
	default:
		s.log.Info().Str("run_id", runID).Str("before", before).Msg("redis has been restarted or replaced; entries are stale until confirmed")
	}
}

// RunID returns the run_id of the Redis that the newest connection leads to,
// empty before the first one.
func (s *Store) RunID() string {
	s.peer.mu.RLock()
	defer s.peer.mu.RUnlock()
	return s.peer.runID
}

// runIDLen is the length of Redis's run_id.
const runIDLen = 40

// runIDIn finds the run_id in a reply to INFO server.
func runIDIn(info string) (string, bool) {
	_, rest, found := strings.Cut(info, "run_id:")
	if !found || len(rest) < runIDLen {
		return "", false
	}
	return rest[:runIDLen], true
}
