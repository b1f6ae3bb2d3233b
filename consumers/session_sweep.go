package consumers

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"mythiccache/cache"
)

// SweeperOptions are the choices of a Sweeper. The zero value is usable.
type SweeperOptions struct {
	Every   time.Duration         // between two looks; a minute where 0
	Metrics prometheus.Registerer // nil: none
	Log     zerolog.Logger
}

// Sweeper removes revocations whose tokens have ended by themselves: they have no
// TTL, or Redis might throw away what keeps a revoked token out. It also counts those
// that are left, and says when they are many. Every worker may run one.
type Sweeper struct {
	store *cache.Store
	o     SweeperOptions
	kept  prometheus.Gauge
	swept prometheus.Counter
	many  bool
}

// NewSweeper makes the sweeper of the revocations in store.
func NewSweeper(store *cache.Store, o SweeperOptions) (*Sweeper, error) {
	if o.Every <= 0 {
		o.Every = time.Minute
	}
	s := &Sweeper{
		store: store, o: o,
		kept: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mythic_cache_revocations", Help: "Revocations of tokens that Redis keeps, as of the last look.",
		}),
		swept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mythic_cache_revocations_swept_total", Help: "Revocations that were removed, since their tokens had ended.",
		}),
	}
	return s, register(o.Metrics, s.kept, s.swept)
}

// Run sweeps until the context ends.
func (s *Sweeper) Run(ctx context.Context) error {
	unwell := false
	for ctx.Err() == nil {
		err := s.sweep(ctx)
		if ctx.Err() == nil && (err != nil) != unwell {
			unwell = err != nil
			s.o.Log.Info().Err(err).Bool("working", !unwell).Msg("sweeping revocations")
		}
		select {
		case <-ctx.Done():
		case <-time.After(s.o.Every - rand.N(s.o.Every/4+1)): // workers that started together
		}
	}
	return nil
}

// sweep removes all that are over.
func (s *Sweeper) sweep(ctx context.Context) error {
	for {
		swept, more, left, err := s.store.SweepRevocations(ctx)
		if err != nil {
			return err
		}
		s.swept.Add(float64(swept))
		s.kept.Set(float64(left))
		if !more {
			s.warn(left)
			return nil
		}
	}
}

// warn says when there begin to be many revocations, and when that is over.
func (s *Sweeper) warn(left int64) {
	if many := left > cache.ManyRevocations; many != s.many {
		s.many = many
		s.o.Log.Warn().Int64("revocations", left).Bool("many", many).Msg("revocations of tokens; they are kept the shorter where they say expires_at")
	}
}
