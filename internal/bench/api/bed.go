package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/bench/process"
)

const (
	patience = time.Minute
	run      = "bench" // whose status is asked for
	user     = "user_1"
)

// bed is the program in three processes, with servers of its own.
type bed struct {
	*process.Deployment
	dir     string
	near    *process.Face
	distant *process.Face
}

func newBed(ctx context.Context, o gauge.Options) (b *bed, err error) {
	d, err := process.Deploy(ctx, process.Setup{Dir: o.Dir, Program: o.Program})
	if err != nil {
		return nil, err
	}
	b = &bed{Deployment: d, dir: o.Dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close(ctx))
		}
	}()
	if _, err := b.Run("workers", "relay,workers"); err != nil {
		return b, err
	}
	if b.near, err = b.Serve(ctx, "near", "api"); err != nil {
		return b, err
	}
	if b.distant, err = b.Serve(ctx, "distant", "api", "NEAR_CACHE_BYTES=0"); err != nil {
		return b, err
	}
	err = b.begin(ctx, run)
	return b, err
}

// reply is what was answered to one who takes his time.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// get asks once.
func get(ctx context.Context, address, path string, header http.Header) (reply, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		return reply{}, err
	}
	if header != nil {
		r.Header = header
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	return reply{w.StatusCode, w.Header, body}, err
}

// begin begins runs, whose documents have some 700 bytes.
func (b *bed) begin(ctx context.Context, runs ...string) error {
	_, err := b.Conn.Exec(ctx, `SELECT mythic_cache.publish('run.started', run,
		json_build_object('message', 'begun', 'style', 'classic', 'format', 'a4', 'profile', json_build_object('username', 'somebody', 'biography', repeat('0123456789', 40)))::jsonb)
		FROM unnest($1::text[]) AS run`, runs)
	if err != nil {
		return fmt.Errorf("begin runs: %w", err)
	}
	return nil
}

// bearer is what a user shows.
func (b *bed) bearer(user string) (http.Header, error) {
	token, err := b.Token(user)
	if err != nil {
		return nil, err
	}
	return http.Header{"Authorization": {"Bearer " + token}}, nil
}

// kept asks until the answer is a hit, and one from memory where it can be.
func (b *bed) kept(ctx context.Context, f *process.Face, path string, header http.Header) (reply, error) {
	said := ""
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(time.Millisecond) {
		got, err := get(ctx, f.Address, path, header)
		if err != nil {
			return reply{}, errors.Join(err, f.Alive())
		}
		said = fmt.Sprint(got.status, got.header["Cache-Status"])
		near := strings.Contains(said, "detail=near")
		if got.header.Get("X-Cache") == "HIT" && near == (f == b.near) {
			return got, nil
		}
	}
	return reply{}, fmt.Errorf("%s is not in the cache: %s", path, said)
}
