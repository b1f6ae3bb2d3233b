package testserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// Redis is one Redis server, which can be stopped, killed, frozen and started
// again on the same port and data.
type Redis struct {
	Port int

	program string
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
	program, err := RedisServer(ctx)
	if err != nil {
		return nil, err
	}
	r := &Redis{program: program, dir: o.Dir, args: o.Args}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	if err := onPort(ctx, o.Port, func(port int) error { r.Port = port; return r.Start(ctx) }); err != nil {
		return nil, err
	}
	return r, nil
}

// Start starts the server again after Stop or Kill.
func (r *Redis) Start(ctx context.Context) error {
	args := append([]string{
		"--port", strconv.Itoa(r.Port), "--bind", "127.0.0.1", "--dir", r.dir,
		"--appendonly", "yes", "--save", "", "--enable-debug-command", "yes",
	}, r.args...)
	ready := func(ctx context.Context) error {
		// The client would say that nobody listens yet, and wait for long.
		port, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", r.Port))
		if err != nil {
			return err
		}
		port.Close()
		client := redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", r.Port), MaxRetries: -1, DisableIdentity: true})
		defer client.Close()
		// While it loads its data it answers nothing but an error.
		if err := client.Ping(ctx).Err(); err != nil {
			return err
		}
		return r.isOwn(ctx, client)
	}
	var err error
	r.process, err = start(ctx, nil, r.dir, ready, r.program, args...)
	return err
}

// isOwn makes sure that it is this server, in its directory, which answers.
func (r *Redis) isOwn(ctx context.Context, client *redis.Client) error {
	config, err := client.ConfigGet(ctx, "dir").Result()
	if err != nil {
		return err
	}
	here, err := os.Stat(r.dir)
	if err != nil {
		return err
	}
	if there, err := os.Stat(config["dir"]); err != nil || !os.SameFile(here, there) {
		return fmt.Errorf("%w: on port %d answers a server in %s", errPortTaken, r.Port, config["dir"])
	}
	return nil
}

// URL returns the address in the form of REDIS_URL.
func (r *Redis) URL() string { return fmt.Sprintf("redis://127.0.0.1:%d/0", r.Port) }

// PID is the process id of the running server.
func (r *Redis) PID() int { return r.process.cmd.Process.Pid }

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
