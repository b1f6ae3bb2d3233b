package ai

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/modelserver"
)

const (
	mostToken  = 20.0 // ms
	streams    = 400
	streamsNow = 16 // at a time
	pace       = 25 * time.Millisecond
)

// told is when the words of streams were sent, and when they had come, in ns since the
// beginning.
type told struct {
	begun time.Time
	mu    sync.Mutex
	sent  map[string]time.Duration // by prompt and word
	first []float64                // ms, of the first words, to who asked
	next  []float64                // of the others
	late  []float64                // to who joined later
}

// token has each prompt asked for by one, and by another who comes when the first word
// has been told.
func token(ctx context.Context, b *bed) ([]gauge.Line, error) {
	t := &told{begun: time.Now(), sent: map[string]time.Duration{}}
	const words = 8
	b.model.Respond(func(c modelserver.Call) modelserver.Reply {
		var text strings.Builder
		for n := 1; n <= words; n++ {
			fmt.Fprintf(&text, "%s/%d ", c.Prompt, n)
		}
		return modelserver.Reply{Text: strings.TrimSpace(text.String()), Pace: pace, Says: func(n int) { t.says(c.Prompt, n) }}
	})
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(streamsNow)
	for n := range streams {
		group.Go(func() error { return b.listenTwice(ctx, t, fmt.Sprintf("token-%d", n)) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	line := func(what string, all []float64) gauge.Line {
		p99 := gauge.Quantile(all, .99)
		return gauge.Line{
			Figure: what + ", p99", Reach: fmt.Sprintf("≤ %g ms", mostToken), Measured: fmt.Sprintf("%.2f ms", p99), Reached: p99 <= mostToken,
			Notes: []string{fmt.Sprintf("p50 %.2f ms, p90 %.2f ms, at most %.2f ms; %d words of %d streams, %d at a time, a word each %s",
				gauge.Median(all), gauge.Quantile(all, .9), gauge.Quantile(all, 1), len(all), streams, streamsNow, pace)},
		}
	}
	return []gauge.Line{
		line("first word: sent by the model → read by who waits", t.first),
		line("later words: sent by the model → read by who waits", t.next),
		line("later words: sent by the model → read by who joined", t.late),
	}, nil
}

// says notes when a word was sent.
func (t *told) says(prompt string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent[fmt.Sprintf("%s/%d", prompt, n)] = time.Since(t.begun)
}

// hears notes that words have come, of a stream that joined before some of them were sent.
func (t *told) hears(text string, joined time.Duration, first, others *[]float64) {
	now := time.Since(t.begun)
	t.mu.Lock()
	defer t.mu.Unlock()
	for word := range strings.FieldsSeq(text) {
		sent, ok := t.sent[word]
		if !ok || sent < joined {
			continue // it had been told before
		}
		late := float64((now - sent).Nanoseconds()) / 1e6
		if strings.HasSuffix(word, "/1") && first != nil {
			*first = append(*first, late)
		} else {
			*others = append(*others, late)
		}
	}
}

// listenTwice listens to one stream as who asked and as who comes later.
func (b *bed) listenTwice(ctx context.Context, t *told, prompt string) error {
	request := b.requestFor(prompt, true)
	asked, err := dial(ctx, b.api.Address)
	if err != nil {
		return err
	}
	defer asked.close()
	joins, err := dial(ctx, b.api.Address)
	if err != nil {
		return err
	}
	defer joins.close()
	begun := make(chan struct{})
	var once sync.Once
	later := make(chan error, 1)
	go func() {
		select {
		case <-begun:
		case <-ctx.Done():
			later <- ctx.Err()
			return
		}
		// What is sent from a little later on finds it listening.
		joined := time.Since(t.begun) + pace
		later <- joins.listen(request, func(text string) { t.hears(text, joined, nil, &t.late) })
	}()
	err = asked.listen(request, func(text string) {
		t.hears(text, 0, &t.first, &t.next)
		once.Do(func() { close(begun) })
	})
	once.Do(func() { close(begun) }) // where the first did not get so far
	return errors.Join(err, <-later)
}
