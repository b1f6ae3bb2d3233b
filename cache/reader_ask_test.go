package cache

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/view"
)

var errCut = errors.New("the connection is cut")

// TestWhatWasPaidIsKnownByHowItFailed has a reading fail in each way that leaves it open
// whether it was counted, or does not.
func TestWhatWasPaidIsKnownByHowItFailed(t *testing.T) {
	t.Parallel()
	limit := &Limit{Caller: "me", Rule: "r", Count: 100, Per: time.Hour}
	client := redis.NewClient(&redis.Options{}) // which nobody uses
	defer client.Close()
	for name, c := range map[string]struct {
		ahead   bool // others have brought admissions while it waited
		fail    func(p *pipeline, err error)
		unheard bool
	}{
		"in a batch": {fail: inBatch, unheard: true},
		"in a batch, by what others have brought": {ahead: true, fail: inBatch},
		"before it was in one":                    {fail: (*pipeline).abandon},
	} {
		a := newAllowances()
		r := &Reader{allowances: a, pipeline: newPipeline(&Store{client: client}, a, nil)}
		var paid toll
		ended := make(chan error, 1)
		go func() {
			_, err := r.fetch(t.Context(), &Query{View: &view.View{Name: "v"}, Key: "k", Limit: limit}, &paid, 0)
			ended <- err
		}()
		for len(r.pipeline.queue) == 0 {
			<-time.After(time.Millisecond)
		}
		if c.ahead {
			a.give(limit, 3, Admission{Remaining: 90}, time.Now())
		}
		c.fail(r.pipeline, errCut)
		if err := <-ended; !errors.Is(err, errCut) || !ofConnection(err) || paid.unheard != c.unheard {
			t.Errorf("%s: %v, may have been counted: %t", name, err, paid.unheard)
		}
		if k := (limitKey{limit.Rule, limit.Caller}); c.ahead && a.shard(k).of(k).left != 3 {
			t.Errorf("%s: %d are left of three", name, a.shard(k).of(k).left)
		}
	}
}

func inBatch(p *pipeline, err error) {
	b := newBatch(p)
	p.gather(b)
	b.answer(err)
}

// TestWhatIsGivenBackIsNotMadeToLast by those that were taken ahead after it.
func TestWhatIsGivenBackIsNotMadeToLast(t *testing.T) {
	t.Parallel()
	a := newAllowances()
	limit := &Limit{Caller: "me", Rule: "r", Count: 100, Per: time.Hour}
	k := limitKey{limit.Rule, limit.Caller}
	first := time.Now()
	second := first.Add(limit.life())
	back := func(had, now time.Time, want int) {
		t.Helper()
		a.back(limit, had, now)
		if left := a.shard(k).of(k).left; left != want {
			t.Errorf("%d are left, not %d", left, want)
		}
	}
	a.give(limit, 5, Admission{}, first)
	back(first, second.Add(-1), 6)
	back(first, second, 6) // they are over
	a.give(limit, 5, Admission{}, second)
	left := a.shard(k).of(k).left
	back(first, second.Add(1), left)
	back(second, second.Add(1), left+1)
}
