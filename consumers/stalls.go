package consumers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/producers/stream"
)

// stalls knows which groups are stuck. A group is stuck in a topic when, for as long
// as the bound, all of this was so:
//
//   - the same entry was the oldest that it had not acknowledged, and that entry is
//     older than the bound (what is parked is acknowledged);
//   - it acknowledged nothing at all in that topic;
//   - somebody looked, every few seconds: while Redis is away nothing is known.
//
// So a backlog that is worked on is not stuck, however old; nor is a group whose
// database is away, since it parks what it cannot do; nor is one slow call, which
// takes less than the bound. What was stuck stays so until that entry is done: a
// trickle of others beside it does not hide it.
//
// An entry that another process holds, and which that process shows to be alive, is
// its own to report.
type stalls struct {
	bound  time.Duration
	own    map[string][]string // group → topics that this process reads
	name   string              // of its consumers, or what their names begin with
	holder func(ctx context.Context, of stream.GroupTopic, entry string) (consumer string, idle time.Duration, err error)
	log    zerolog.Logger

	mu    sync.Mutex
	known map[stream.GroupTopic]stall
}

// stall is how long a group has stood still in a topic.
type stall struct {
	state stream.GroupState
	still time.Duration // as far as somebody looked
	stuck bool
}

// stuckAfter is longer than anything that a handler does in one go: a call of a
// model may take a minute and a half, a batch of slow loads some minutes.
const stuckAfter = 5 * time.Minute

// silentAfter is how long a consumer that lives is never silent about what it holds.
const silentAfter = 30 * time.Second

// look takes note of a reading; elapsed is the time since the one before it.
func (s *stalls) look(ctx context.Context, states []stream.GroupState, elapsed time.Duration) {
	now := map[stream.GroupTopic]stall{}
	for _, state := range states {
		of := stream.GroupTopic{Group: state.Group, Topic: state.Topic}
		if state.Oldest == "" || !slices.Contains(s.own[of.Group], of.Topic) {
			continue
		}
		before, seen := s.known[of]
		here := stall{state: state}
		if seen && before.state.Oldest == state.Oldest && (before.stuck || before.state.Acknowledged == state.Acknowledged) {
			here.still, here.stuck = before.still+elapsed, before.stuck
		}
		if !here.stuck && here.still >= s.bound && state.OldestPending >= s.bound {
			here.stuck = s.answerable(ctx, of, state.Oldest)
		}
		now[of] = here
	}
	s.mu.Lock()
	before := s.known
	s.known = now
	s.mu.Unlock()
	for of, here := range now {
		if here.stuck && !before[of].stuck {
			s.log.Warn().Str("group", of.Group).Str("topic", of.Topic).Str("entry", here.state.Oldest).Dur("still", here.still).
				Int64("lag", here.state.Lag).Int64("pending", here.state.Pending).Msg("group is stuck")
		}
	}
	for of, was := range before {
		if was.stuck && !now[of].stuck {
			s.log.Info().Str("group", of.Group).Str("topic", of.Topic).Msg("group is no longer stuck")
		}
	}
}

// answerable reports whether an entry is this process's to work off: nobody has it,
// this process has it, or whoever has it is silent, so that it was to be claimed.
func (s *stalls) answerable(ctx context.Context, of stream.GroupTopic, entry string) bool {
	consumer, idle, err := s.holder(ctx, of, entry)
	if err != nil {
		return false // it is asked again with the next reading
	}
	return consumer == "" || strings.HasPrefix(consumer, s.name) || idle > silentAfter
}

// ready names the topics in which a group is stuck.
func (s *stalls) ready(group string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for of, here := range s.known {
		if here.stuck && of.Group == group {
			errs = append(errs, fmt.Errorf("group %s is stuck in topic %s: entry %s has waited for %s at least, %d are not read, %d not answered",
				of.Group, of.Topic, here.state.Oldest, here.still.Round(time.Second), here.state.Lag, here.state.Pending))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}
