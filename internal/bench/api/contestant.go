package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/process"
	"mythiccache/internal/testserver"
)

// The contestants.
const (
	oursNear    = "ours, from memory"
	oursDistant = "ours, from Redis"
	ours304     = "ours, 304"
	fromMemory  = "net/http from memory"
	withRedis   = "net/http + go-redis"
	ofWebdis    = "webdis"
	ofNode      = "fastify + ioredis"
	ofPython    = "FastAPI + uvicorn"
)

// contestant is one server that is asked for the document.
type contestant struct {
	name    string
	process *process.Process
	address string
	path    string
	header  http.Header                 // of the request
	status  int                         // that it answers with
	ready   func(context.Context) error // makes sure of its state before each round; nil: it has none

	redisPID int // of the Redis behind it
}

// bareKey is where Redis has the document for the others.
const bareKey = "bench_document"

// sample is what all others send: the header of one of our answers, and its body.
type sample struct {
	Header http.Header `json:"header"`
	Body   string      `json:"body"`
}

// field are the contestants that stand ready, and a sentence for each that does not.
type field struct {
	all     []*contestant
	missing []string
}

// field starts the others.
func (b *bed) field(ctx context.Context, names ...string) (*field, error) {
	f := &field{}
	header, err := b.bearer(user)
	if err != nil {
		return nil, err
	}
	path := "/status/" + run
	ours, err := b.kept(ctx, b.near, path, header)
	if err != nil {
		return nil, err
	}
	etag := ours.header.Get("ETag")
	f.all = append(f.all, b.ours(oursNear, b.near, path, header), b.ours(oursDistant, b.distant, path, header))
	conditional := b.ours(ours304, b.near, path, header)
	conditional.header, conditional.status = http.Header{"Authorization": header["Authorization"], "If-None-Match": {etag}}, http.StatusNotModified
	f.all = append(f.all, conditional)
	file, err := b.leave(ctx, ours)
	if err != nil {
		return nil, err
	}
	for _, other := range others {
		if len(names) > 0 && !slices.Contains(names, other.name) {
			continue
		}
		if why := other.lacks(); why != "" {
			f.missing = append(f.missing, fmt.Sprintf("%s is left out: %s", other.name, why))
			continue
		}
		c, err := b.startOther(ctx, other, file, header)
		if err != nil {
			return nil, err
		}
		f.all = append(f.all, c)
	}
	if len(names) > 0 {
		f.all = slices.DeleteFunc(f.all, func(c *contestant) bool { return !slices.Contains(names, c.name) })
	}
	return f, nil
}

// named returns one of them, nil where it is missing.
func (f *field) named(name string) *contestant {
	i := slices.IndexFunc(f.all, func(c *contestant) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return f.all[i]
}

// ours is one of our faces as a contestant.
func (b *bed) ours(name string, f *process.Face, path string, header http.Header) *contestant {
	return &contestant{
		name: name, process: f.Process, address: f.Address, path: path, header: header, status: http.StatusOK, redisPID: b.Redis.PID(),
		ready: func(ctx context.Context) error {
			_, err := b.kept(ctx, f, path, header)
			return err
		},
	}
}

// leave leaves the document where the others look for it: in Redis, and, with its
// header, in a file.
func (b *bed) leave(ctx context.Context, ours reply) (string, error) {
	client, err := dial(b.Redis.URL())
	if err != nil {
		return "", err
	}
	defer client.Close()
	if err := client.Set(ctx, bareKey, ours.body, 24*time.Hour).Err(); err != nil {
		return "", fmt.Errorf("store the document: %w", err)
	}
	sent := ours.header.Clone()
	sent.Del("Date") // each server has its own
	sent.Del("Content-Length")
	text, err := json.Marshal(sample{Header: sent, Body: string(ours.body)})
	if err != nil {
		return "", fmt.Errorf("write the document: %w", err)
	}
	file := filepath.Join(b.dir, "sample.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return "", fmt.Errorf("write the document: %w", err)
	}
	return file, nil
}

func (b *bed) startOther(ctx context.Context, o other, file string, header http.Header) (*contestant, error) {
	port, err := testserver.FreePort(ctx)
	if err != nil {
		return nil, err
	}
	arguments, err := o.command(b, file, port)
	if err != nil {
		return nil, err
	}
	c := &contestant{name: o.name, address: fmt.Sprintf("127.0.0.1:%d", port), path: o.path, header: header, status: http.StatusOK, redisPID: b.Redis.PID()}
	if c.process, err = b.Start(filepath.Base(o.log), o.environ, arguments...); err != nil {
		return nil, err
	}
	return c, c.process.Answers(ctx, c.address, c.path, c.header)
}

func dial(url string) (*redis.Client, error) {
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("the address of Redis: %w", err)
	}
	return redis.NewClient(o), nil
}
