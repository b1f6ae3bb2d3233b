package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// TrimmerOptions are the choices of a Trimmer. Groups is required.
type TrimmerOptions struct {
	Groups     map[string][]string // group → its topics; a topic is not trimmed while one of its groups is missing
	Keep       time.Duration       // entries younger than this stay whatever happens; 2 min, which is the least
	KeepUnread time.Duration       // of other topics that no group reads, entries younger than this; 24 h
	Interval   time.Duration       // between two rounds; 10 s
	Look       time.Duration       // between two searches for other topics; 1 min
	Log        zerolog.Logger
	Metrics    prometheus.Registerer // nil: none
}

// keepLeast is the least age of what is trimmed: after Redis was replaced by a
// replica that lagged, groups read the last minutes again.
const keepLeast = 2 * time.Minute

// trimStep is about how many entries Redis removes at a time, with its default of
// 100 nodes of 100 entries; it does nothing else meanwhile.
const trimStep = 10_000

// Trimmer removes entries that every group of a stream has acknowledged, by whole
// nodes of the stream: up to a hundred or so stay. Several may run at a time.
//
// It looks after every stream beside those of its groups, too: anybody may publish
// to a topic that nobody here reads. Where other groups read it, what all of them
// have acknowledged goes, so a group that is no longer used must be destroyed; where
// none does, what is older than KeepUnread. Dead letters are not trimmed.
type Trimmer struct {
	client  redis.UniversalClient
	keys    Keys
	o       TrimmerOptions
	topics  map[string][]string // topic → its groups
	search  search
	script  *redis.Script
	trimmed *prometheus.CounterVec // nil: none
}

// NewTrimmer checks the options and makes a client of its own.
func NewTrimmer(dial Dial, keys Keys, o TrimmerOptions) (*Trimmer, error) {
	orElse(&o.Keep, keepLeast)
	orElse(&o.KeepUnread, 24*time.Hour)
	orElse(&o.Interval, 10*time.Second)
	orElse(&o.Look, time.Minute)
	if o.Keep < keepLeast {
		return nil, fmt.Errorf("trimmer: Keep is %s, less than %s", o.Keep, keepLeast)
	}
	if o.KeepUnread < o.Keep {
		return nil, fmt.Errorf("trimmer: KeepUnread is %s, less than Keep", o.KeepUnread)
	}
	if o.Interval < 0 || o.Look < 0 {
		return nil, errors.New("trimmer: Interval or Look is negative")
	}
	t := &Trimmer{keys: keys, o: o, topics: map[string][]string{}, script: newScript(trimSource)}
	for group, topics := range o.Groups {
		for _, topic := range topics {
			t.topics[topic] = append(t.topics[topic], group)
		}
	}
	if len(t.topics) == 0 {
		return nil, errors.New("trimmer: there are no groups")
	}
	if o.Metrics != nil {
		t.trimmed = prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mythic_cache_stream_trimmed_total",
			Help: "Entries removed from the streams: acknowledged by every group, or, of topics that none reads, a day old. Topics that are not ours count as \"other\".",
		}, []string{"topic"})
		if err := register(o.Metrics, &t.trimmed); err != nil {
			return nil, fmt.Errorf("trimmer: register metrics: %w", err)
		}
	}
	var err error
	if t.client, err = dial(nil); err != nil {
		return nil, fmt.Errorf("dial redis for the trimmer: %w", err)
	}
	return t, nil
}

// Run trims until ctx ends, then closes the client and returns nil.
func (t *Trimmer) Run(ctx context.Context) error {
	defer t.client.Close()
	failing := false
	for pause(ctx, t.o.Interval) {
		_, err := t.Trim(ctx)
		if failed := err != nil && ctx.Err() == nil; failed != failing {
			failing = failed
			if failing {
				t.o.Log.Warn().Err(err).Msg("cannot trim the streams")
			} else {
				t.o.Log.Info().Msg("trimming the streams again")
			}
		}
	}
	return nil
}

// Trim does one round and returns how many entries it removed.
func (t *Trimmer) Trim(ctx context.Context) (removed int64, err error) {
	var errs []error
	others, err := t.otherTopics(ctx)
	errs = append(errs, err)
	for _, topic := range slices.Concat(slices.Sorted(maps.Keys(t.topics)), others) {
		n, err := t.trimTopic(ctx, topic)
		removed += n
		if err != nil {
			errs = append(errs, fmt.Errorf("trim %s: %w", topic, err))
		}
	}
	return removed, errors.Join(errs...)
}

func (t *Trimmer) trimTopic(ctx context.Context, topic string) (removed int64, err error) {
	args := []any{t.o.Keep.Milliseconds(), t.o.KeepUnread.Milliseconds()}
	groups, ours := t.topics[topic]
	for _, group := range groups {
		args = append(args, group)
	}
	label := topic
	if !ours {
		label = "other" // anybody names such topics, and each label would stay
	}
	for {
		n, err := t.script.Run(ctx, t.client, []string{t.keys.Topic(topic)}, args...).Int64()
		if err != nil {
			return removed, err
		}
		if n < 0 {
			t.o.Log.Debug().Str("topic", topic).Msg("not trimmed, a group is missing")
			return removed, nil
		}
		removed += n
		if t.trimmed != nil {
			t.trimmed.WithLabelValues(label).Add(float64(n))
		}
		if n < trimStep-100 {
			if removed > 0 {
				t.o.Log.Debug().Str("topic", topic).Int64("entries", removed).Msg("trimmed")
			}
			return removed, nil
		}
	}
}
