package testserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// Redis is one Redis server, which can be stopped, killed, frozen and started
// again on the same port and data.
type Redis struct {
	Port int

	dir     string
	args    []string
	process *process
}

// RedisOptions says how a server differs from the usual one.
type RedisOptions struct {
	Dir  string   // where its data lives
	Port int      // 0 for a free one
	Args []string // of redis-server; it has an append-only file where they do not say otherwise
}

// StartRedis starts a server with an append-only file.
func StartRedis(ctx context.Context, o RedisOptions) (*Redis, error) {
	r := &Redis{Port: o.Port, dir: o.Dir, args: o.Args}
	var err error
	if r.Port == 0 {
		if r.Port, err = freePort(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	return r, r.Start(ctx)
}

// Start starts the server again after Stop or Kill.
func (r *Redis) Start(ctx context.Context) error {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return errors.New("no redis-server on PATH")
	}
	args := append([]string{
		"--port", strconv.Itoa(r.Port), "--bind", "127.0.0.1", "--dir", r.dir,
		"--appendonly", "yes", "--save", "", "--enable-debug-command", "yes",
	}, r.args...)
	ready := func(ctx context.Context) error {
		client := redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", r.Port), MaxRetries: -1, DisableIdentity: true})
		defer client.Close()
		return client.Ping(ctx).Err()
	}
	r.process, err = start(ctx, nil, r.dir, ready, program, args...)
	return err
}

// URL returns the address in the form of REDIS_URL.
func (r *Redis) URL() string { return fmt.Sprintf("redis://127.0.0.1:%d/0", r.Port) }

// Gone is closed when the running server has ended.
func (r *Redis) Gone() <-chan struct{} { return r.process.gone }

// Stop asks the server to write what it has and end.
func (r *Redis) Stop() { r.process.stop(syscall.SIGTERM) }

// Kill ends the server with SIGKILL.
func (r *Redis) Kill() { r.process.kill() }

// Freeze stops the server from running until Thaw.
func (r *Redis) Freeze() error { return r.process.signal(syscall.SIGSTOP) }

// Thaw lets a frozen server run on.
func (r *Redis) Thaw() error { return r.process.signal(syscall.SIGCONT) }
