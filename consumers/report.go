package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/producers/stream"
)

// ReporterOptions say what a process reports about itself. Instance is required;
// what is nil is left out.
type ReporterOptions struct {
	Instance  string
	Roles     []string
	Keys      stream.Keys
	Topics    []string            // whose groups are reported; none: no group
	Reads     map[string][]string // group → topics that this process reads as Instance; Ready speaks of these
	Relay     func() *cache.RelayReport
	Staleness func() *cache.Quantiles
	AI        func() *cache.AIReport
	Every     time.Duration // 3 s; a report lives for 30 s
	Log       zerolog.Logger
	Metrics   prometheus.Registerer // of the groups and dead letters; nil: none
}

// Reporter writes what this process has counted to Redis, where the API of any
// process reads it. The groups, which it reads for that, are its metrics as well, and
// it knows which of them are stuck.
type Reporter struct {
	store    *cache.Store
	dead     *stream.DeadLetters
	stalls   *stalls
	gauges   *gauges
	looked   time.Time                   // when the groups were read last
	counted  map[stream.GroupTopic]int64 // dead letters, the last time that they could be counted
	overfull bool                        // there are too many of them
	o        ReporterOptions
}

// NewReporter makes a reporter that writes to store.
func NewReporter(store *cache.Store, o ReporterOptions) (*Reporter, error) {
	if o.Instance == "" {
		return nil, errors.New("a report needs the name of its instance")
	}
	if o.Every <= 0 {
		o.Every = 3 * time.Second
	}
	r := &Reporter{store: store, dead: stream.NewDeadLetters(store.Client(), o.Keys), gauges: newGauges(), o: o}
	r.stalls = &stalls{
		bound: stuckAfter, own: o.Reads, name: o.Instance, log: o.Log,
		holder: func(ctx context.Context, of stream.GroupTopic, entry string) (string, time.Duration, error) {
			return stream.Holder(ctx, store.Client(), o.Keys, of, entry)
		},
	}
	if len(o.Topics) == 0 {
		return r, nil
	}
	return r, register(o.Metrics, r.gauges)
}

// Ready names the topics in which a group of this process is stuck: where for five
// minutes it has acknowledged nothing while something waits.
func (r *Reporter) Ready(group string) error { return r.stalls.ready(group) }

// Run reports until the context ends. Redis being away is not logged here: every
// part that cannot do without it says so.
func (r *Reporter) Run(ctx context.Context) error {
	tick := time.NewTicker(r.o.Every)
	defer tick.Stop()
	for {
		if err := r.report(ctx); err != nil && ctx.Err() == nil {
			r.o.Log.Debug().Err(err).Msg("report not written")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *Reporter) report(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.o.Every)
	defer cancel()
	report := cache.Report{Instance: r.o.Instance, Roles: r.o.Roles, At: time.Now().UTC(), Views: r.store.Counts()}
	if r.o.Relay != nil {
		report.Relay = r.o.Relay()
	}
	if r.o.Staleness != nil {
		report.Staleness = r.o.Staleness()
	}
	if r.o.AI != nil {
		report.AI = r.o.AI()
	}
	var err error
	if report.Groups, err = r.groups(ctx); err != nil {
		return err
	}
	return r.store.PutReport(ctx, report)
}

// groups sums up the groups of the topics.
func (r *Reporter) groups(ctx context.Context) (map[string]cache.GroupReport, error) {
	if len(r.o.Topics) == 0 {
		return nil, nil //nolint:nilnil // this process reports no groups
	}
	now, err := r.census(ctx)
	if err != nil {
		return nil, err
	}
	groups := make(map[string]cache.GroupReport)
	for _, state := range now.groups {
		g, ok := groups[state.Group]
		if !ok {
			g = cache.GroupReport{Topics: make(map[string]cache.TopicReport)}
		}
		g.Topics[state.Topic] = cache.TopicReport{
			Length: state.Length, Lag: state.Lag, Pending: state.Pending, OldestPending: state.OldestPending,
		}
		g.Parked += state.Parked
		groups[state.Group] = g
	}
	for of, n := range now.dead {
		if g, ok := groups[of.Group]; ok {
			g.Dead += n
			groups[of.Group] = g
		}
	}
	return groups, nil
}

// census reads groups and dead letters, and tells whoever judges by them.
func (r *Reporter) census(ctx context.Context) (census, error) {
	states, err := stream.Groups(ctx, r.store.Client(), r.o.Keys, r.o.Topics)
	if err != nil {
		return census{}, fmt.Errorf("look at the groups: %w", err)
	}
	now := census{at: time.Now(), groups: states}
	// What nobody looked at did not stand still, as far as anybody knows.
	r.stalls.look(ctx, states, min(now.at.Sub(r.looked), 2*r.o.Every))
	r.looked = now.at
	now.dead = r.countDead(ctx)
	if now.bytes, err = r.dead.Size(ctx); err != nil {
		// A user of Redis may be forbidden MEMORY USAGE; the rest is known all the same.
		r.o.Log.Debug().Err(err).Msg("dead letters not measured")
		now.bytes = -1
	}
	r.gauges.show(now)
	r.watchDead(now)
	return now, nil
}

// countDead counts the dead letters. To count very many anew takes several rounds;
// until then it is as many as there were.
func (r *Reporter) countDead(ctx context.Context) map[stream.GroupTopic]int64 {
	ctx, cancel := context.WithTimeout(ctx, r.o.Every/2)
	defer cancel()
	counts, err := r.dead.Count(ctx)
	if err != nil {
		r.o.Log.Debug().Err(err).Msg("dead letters not counted")
		return r.counted
	}
	r.counted = counts
	return counts
}

// watchDead says when there are too many dead letters, and when there no longer are.
func (r *Reporter) watchDead(now census) {
	letters := int64(0)
	for _, n := range now.dead {
		letters += n
	}
	most, bytes := int64(stream.DeadMost), int64(stream.DeadMostBytes)
	if r.overfull { // it is over when a tenth is gone
		most, bytes = most/10*9, bytes/10*9
	}
	overfull := letters > most || now.bytes > bytes
	if overfull == r.overfull {
		return
	}
	r.overfull = overfull
	if overfull {
		r.o.Log.Warn().Int64("letters", letters).Int64("bytes", max(now.bytes, 0)).Msg("too many dead letters: nothing removes them but dlq replay and dlq drop")
	} else {
		r.o.Log.Info().Int64("letters", letters).Int64("bytes", max(now.bytes, 0)).Msg("dead letters are few again")
	}
}
