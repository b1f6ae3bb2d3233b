package ai

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/modelserver"
)

const (
	mostHit   = 1.3 // times
	hitRounds = 5
	hitMany   = 8 // connections
)

// kind is one thing that is asked for again and again.
type kind struct {
	name     string
	request  []byte
	p50, p99 []float64 // ms, of rounds
}

// hit measures answers that are there beside statuses that are.
func hit(ctx context.Context, b *bed) ([]gauge.Line, error) {
	text := strings.Repeat("Salt and light, and all that the sea gives back. ", 12)
	b.model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{Text: text} })
	err := b.exec(ctx, `SELECT mythic_cache.publish('run.started', 'BENCH', '{"message":"begun","style":"classic","format":"a4","profile":{"username":"somebody"}}')`)
	if err != nil {
		return nil, err
	}
	var lines []gauge.Line
	for _, connections := range []int{1, hitMany} {
		kinds := []*kind{
			{name: "/status", request: fmt.Appendf(nil, "GET /status/BENCH HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n\r\n", b.token)},
			{name: "chat", request: b.requestFor("a title", false)},
			{name: "chat stream", request: b.requestFor("a title", true)},
		}
		sizes, err := b.warm(ctx, kinds)
		if err != nil {
			return nil, err
		}
		for range hitRounds {
			if err := b.hitRound(ctx, kinds, connections); err != nil {
				return nil, err
			}
		}
		status := kinds[0]
		line := gauge.Line{
			Figure: fmt.Sprintf("hit of a chat completion, p99, %d at once", connections), Reach: fmt.Sprintf("≤ %g × /status", mostHit),
			Measured: gauge.Spread("%.3f", kinds[1].p99) + " ms", Baseline: gauge.Spread("%.3f", status.p99) + " ms",
			Notes: []string{fmt.Sprintf("%d rounds, the kinds by turns on each connection; bodies of %v bytes", hitRounds, sizes)},
		}
		ratio := gauge.Ratio(kinds[1].p99, status.p99)
		line.Ratio, line.Reached = fmt.Sprintf("%.2f", ratio), ratio <= mostHit
		for _, k := range kinds {
			line.Notes = append(line.Notes, fmt.Sprintf("%-12s p50 %s ms, p99 %s ms: %.2f and %.2f × /status", k.name,
				gauge.Spread("%.3f", k.p50), gauge.Spread("%.3f", k.p99), gauge.Ratio(k.p50, status.p50), gauge.Ratio(k.p99, status.p99)))
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// warm asks until all is there, and returns the bodies' sizes.
func (b *bed) warm(ctx context.Context, kinds []*kind) ([]int, error) {
	a, err := dial(ctx, b.api.Address)
	if err != nil {
		return nil, err
	}
	defer a.close()
	var sizes []int
	for _, k := range kinds {
		var size int
		err := await(ctx, "a hit of "+k.name, func() error {
			header, body, err := a.ask(k.request)
			size = len(body)
			if err == nil && header.Get("X-Cache") != "HIT" {
				err = errors.New("it is a " + header.Get("X-Cache"))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}

// hitRound asks by turns, on so many connections at once.
func (b *bed) hitRound(ctx context.Context, kinds []*kind, connections int) error {
	const asks = 6000 // of each kind, on all connections
	var mu sync.Mutex
	took := make([][]float64, len(kinds))
	var asking sync.WaitGroup
	var failed error
	for range connections {
		asking.Go(func() {
			own, err := b.hitAll(ctx, kinds, asks/connections)
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			for i := range own {
				took[i] = append(took[i], own[i]...)
			}
		})
	}
	asking.Wait()
	if failed != nil {
		return failed
	}
	for i, k := range kinds {
		k.p50, k.p99 = append(k.p50, gauge.Median(took[i])), append(k.p99, gauge.Quantile(took[i], .99))
	}
	return nil
}

// hitAll returns how long each ask took on one connection, in ms.
func (b *bed) hitAll(ctx context.Context, kinds []*kind, asks int) ([][]float64, error) {
	a, err := dial(ctx, b.api.Address)
	if err != nil {
		return nil, err
	}
	defer a.close()
	took := make([][]float64, len(kinds))
	for range asks {
		for i, k := range kinds {
			begun := time.Now()
			if _, _, err := a.ask(k.request); err != nil {
				return nil, err
			}
			took[i] = append(took[i], float64(time.Since(begun).Nanoseconds())/1e6)
		}
	}
	return took, nil
}
