package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"

	"github.com/redis/go-redis/v9"
)

// BareCommand is the word of the command line that Bare is the main of.
const BareCommand = "api-bare"

// bare answers every request with the sample.
type bare struct {
	sample
	kept  []byte        // its body
	redis *redis.Client // that has the body; nil: it comes from memory
}

// Bare is the main of the two baselines: net/http that sends a sample from memory, or
// its body from Redis. Neither looks at the request. It ends with its context.
func Bare(ctx context.Context, file, port, from string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the sample: %w", err)
	}
	b := &bare{}
	if err := json.Unmarshal(text, &b.sample); err != nil {
		return fmt.Errorf("read the sample: %w", err)
	}
	b.kept = []byte(b.Body)
	switch from {
	case "memory":
	case "redis":
		if b.redis, err = dial(os.Getenv("REDIS_URL")); err != nil {
			return err
		}
		defer b.redis.Close()
	default:
		return fmt.Errorf("%q is neither memory nor redis", from)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:"+port)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: b} // without a deadline, each of which would cost it something
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (b *bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	document := b.kept
	if b.redis != nil {
		var err error
		if document, err = b.redis.Get(r.Context(), bareKey).Bytes(); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
	}
	maps.Copy(w.Header(), b.Header)
	_, _ = w.Write(document)
}
