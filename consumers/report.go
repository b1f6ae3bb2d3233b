package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	Topics    []string // whose groups are reported; none: no group
	Relay     func() *cache.RelayReport
	Staleness func() *cache.Quantiles
	AI        func() *cache.AIReport
	Every     time.Duration // 3 s; a report lives for 30 s
	Log       zerolog.Logger
}

// Reporter writes what this process has counted to Redis, where the API of any
// process reads it.
type Reporter struct {
	store *cache.Store
	dead  *stream.DeadLetters
	o     ReporterOptions
}

// NewReporter makes a reporter that writes to store.
func NewReporter(store *cache.Store, o ReporterOptions) (*Reporter, error) {
	if o.Instance == "" {
		return nil, errors.New("a report needs the name of its instance")
	}
	if o.Every <= 0 {
		o.Every = 3 * time.Second
	}
	return &Reporter{store: store, dead: stream.NewDeadLetters(store.Client(), o.Keys), o: o}, nil
}

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
	states, err := stream.Groups(ctx, r.store.Client(), r.o.Keys, r.o.Topics)
	if err != nil {
		return nil, fmt.Errorf("look at the groups: %w", err)
	}
	counts, err := r.dead.Count(ctx)
	if err != nil {
		return nil, fmt.Errorf("count the dead letters: %w", err)
	}
	dead := map[string]int64{}
	for of, n := range counts {
		dead[of.Group] += n
	}
	groups := make(map[string]cache.GroupReport)
	for _, state := range states {
		g, ok := groups[state.Group]
		if !ok {
			g = cache.GroupReport{Topics: make(map[string]cache.TopicReport), Dead: dead[state.Group]}
		}
		g.Topics[state.Topic] = cache.TopicReport{
			Length: state.Length, Lag: state.Lag, Pending: state.Pending, OldestPending: state.OldestPending,
		}
		g.Parked += state.Parked
		groups[state.Group] = g
	}
	return groups, nil
}
