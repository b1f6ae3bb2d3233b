package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	"mythiccache/internal/bench/gauge"
)

// LoadCommand is the word of the command line that Load is the main of.
const LoadCommand = "api-load"

// order is what the process of the load is to do.
type order struct {
	Address string        `json:"address"`
	Path    string        `json:"path"`
	Header  http.Header   `json:"header"`
	Status  int           `json:"status"` // of a good answer
	Rate    float64       `json:"rate"`   // requests per second
	Lasts   time.Duration `json:"lasts"`
}

// delays is what it found: quantiles in ms.
type delays struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Load is the main of the process that asks at a steady rate. It reads its order from
// in and writes what it found to out.
func Load(ctx context.Context, in io.Reader, out io.Writer) error {
	var o order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	var failed atomic.Pointer[error]
	wires := make([]wire, connections)
	for i := range wires {
		wires[i].address = o.Address
	}
	asked := question(o.Address, o.Path, o.Header)
	took := pace{rate: o.Rate, lasts: o.Lasts}.keep(ctx, connections, func(worker, _ int) {
		a, err := wires[worker].ask(ctx, asked)
		if err == nil && a.status != o.Status {
			err = fmt.Errorf("%s is answered with %d %s", o.Path, a.status, a.body)
		}
		if err != nil {
			failed.Store(&err)
		}
	})
	for i := range wires {
		wires[i].close()
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	ms := func(q float64) float64 { return gauge.Quantile(took, q).Seconds() * 1000 }
	return json.NewEncoder(out).Encode(delays{P50: ms(.5), P90: ms(.9), P99: ms(.99), Max: ms(1)})
}

// steadily has a contestant asked at a rate by a process of its own.
func (c *contestant) steadily(ctx context.Context, rate float64, lasts time.Duration) (delays, error) {
	if c.ready != nil {
		if err := c.ready(ctx); err != nil {
			return delays{}, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return delays{}, fmt.Errorf("find myself: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, LoadCommand)
	cmd.Stderr = os.Stderr
	text, err := json.Marshal(order{Address: c.address, Path: c.path, Header: c.header, Status: c.status, Rate: rate, Lasts: lasts})
	if err != nil {
		return delays{}, fmt.Errorf("write the order: %w", err)
	}
	cmd.Stdin = bytes.NewReader(text)
	said, err := cmd.Output()
	if err != nil {
		return delays{}, fmt.Errorf("the load on %s: %w", c.name, err)
	}
	var d delays
	if err := json.Unmarshal(said, &d); err != nil {
		return delays{}, fmt.Errorf("the load's words: %w: %s", err, said)
	}
	return d, nil
}
