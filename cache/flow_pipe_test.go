package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
)

// held lets no pipeline through until it is closed, and tells how long each was.
type held struct {
	until chan struct{}
	came  chan int
}

func (h held) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h held) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h held) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() != "evalsha" { // a connection introduces itself
			return next(ctx, cmds)
		}
		h.came <- len(cmds)
		<-h.until
		return next(ctx, cmds)
	}
}

func newPipe(t *testing.T, script string) (*flowPipe, *redis.Client) {
	t.Helper()
	o, err := redis.ParseURL(testserver.NewRedis(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(o)
	t.Cleanup(func() { client.Close() })
	return newFlowPipe(client, redis.NewScript(script)), client
}

// TestFlowsTravelTogether while others are on their way, so many at a time.
func TestFlowsTravelTogether(t *testing.T) {
	t.Parallel()
	p, client := newPipe(t, "return redis.call('INCR', KEYS[1])") // 1, which is written, to who is first with a key
	h := held{until: make(chan struct{}), came: make(chan int, 100)}
	client.AddHook(h)
	const flows = flowPipes + 2*flowBatch + 1
	var sending sync.WaitGroup
	for i := range flows {
		sending.Go(func() {
			written, err := p.send(t.Context(), []string{fmt.Sprint("flow", i)})
			if err != nil || !written {
				t.Errorf("flow %d: written %t, %v", i, written, err)
			}
		})
		if i < flowPipes {
			if n := <-h.came; n != 1 {
				t.Errorf("%d travelled together, though nothing was on its way", n)
			}
		}
	}
	testserver.Eventually(t, "all others wait", func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if n := len(p.waiting); n != flows-flowPipes {
			return fmt.Errorf("%d do", n)
		}
		return nil
	})
	close(h.until)
	sending.Wait()
	close(h.came)
	var lengths []int
	left := flows - flowPipes
	for n := range h.came {
		lengths, left = append(lengths, n), left-n
	}
	if len(lengths) != 3 || left != 0 {
		t.Errorf("they travelled by %v", lengths)
	}
	testserver.Eventually(t, "nobody sends any more", func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.sending != 0 {
			return fmt.Errorf("%d do", p.sending)
		}
		return nil
	})
}

// TestWhatOneFlowIsToldIsItsOwn though it travels with others, and the script is lost.
func TestWhatOneFlowIsToldIsItsOwn(t *testing.T) {
	t.Parallel()
	p, client := newPipe(t, "if ARGV[1] == 'bad' then return redis.error_reply('ERR bad') end return tonumber(ARGV[1])")
	for range 2 {
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		var sending sync.WaitGroup
		for i := range 40 {
			sending.Go(func() {
				written, err := p.send(t.Context(), []string{"flow"}, []any{"0", "1", "bad"}[i%3])
				if written != (i%3 == 1) || (err != nil) != (i%3 == 2) {
					t.Errorf("flow %d: written %t, %v", i, written, err)
				}
			})
		}
		sending.Wait()
	}
}

// TestWhoGivesUpAFlowWaitsNoLonger and holds up nobody else.
func TestWhoGivesUpAFlowWaitsNoLonger(t *testing.T) {
	t.Parallel()
	p, client := newPipe(t, "return 1")
	h := held{until: make(chan struct{}), came: make(chan int, 100)}
	client.AddHook(h)
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error)
	go func() { _, err := p.send(ctx, []string{"flow"}); given <- err }()
	<-h.came
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Errorf("it was told %v", err)
	}
	close(h.until)
	if written, err := p.send(t.Context(), []string{"flow"}); err != nil || !written {
		t.Errorf("the next: written %t, %v", written, err)
	}
}
