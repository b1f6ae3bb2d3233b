package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/gauge"
)

// hits measures requests for a status that is in the cache, beside a server of
// net/http and go-redis that does nothing but GET the same bytes, in turn.
func hits(ctx context.Context, s *system, out *tabwriter.Writer) error {
	conn, err := pgx.Connect(ctx, s.postgres.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	const run = "BENCH"
	if _, err := conn.Exec(ctx, `SELECT mythic_cache.publish('run.started', $1, $2)`, run,
		`{"message":"begun","style":"classic","format":"a4","profile":{"username":"somebody"}}`); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	var body []byte
	for deadline := time.Now().Add(30 * time.Second); body == nil; {
		status, got, err := s.get(ctx, "/status/"+run, "")
		switch {
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case status == http.StatusOK:
			body = got
		case time.Now().After(deadline):
			return fmt.Errorf("the status does not come: %d %s", status, got)
		}
	}
	bare, err := s.startBare(ctx, body)
	if err != nil {
		return err
	}
	defer bare.stop()
	fmt.Fprintf(out, "\n/status, a hit of %d bytes, 32 connections\tmedian requests/s\tratio to bare\n", len(body))
	ours, theirs := make([]float64, 0, 5), make([]float64, 0, 5)
	for range cap(ours) {
		n, err := wrk(ctx, s.base+"/status/"+run)
		if err != nil {
			return err
		}
		ours = append(ours, n)
		if n, err = wrk(ctx, bare.base+"/"); err != nil {
			return err
		}
		theirs = append(theirs, n)
	}
	fmt.Fprintf(out, "mythic-cache (limiter, ETag, versions)\t%.0f\t%.2f\n", gauge.Median(ours), gauge.Median(ours)/gauge.Median(theirs))
	fmt.Fprintf(out, "net/http + go-redis GET\t%.0f\t1\n", gauge.Median(theirs))
	return nil
}

// wrk returns requests per second of a hot key for some seconds.
func wrk(ctx context.Context, url string) (float64, error) {
	said, err := exec.CommandContext(ctx, "wrk", "-t", "2", "-c", "32", "-d", "4s", url).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("wrk (Debian's package wrk): %w: %s", err, said)
	}
	if regexp.MustCompile(`Non-2xx`).Match(said) {
		return 0, fmt.Errorf("wrk met errors: %s", said)
	}
	found := regexp.MustCompile(`Requests/sec:\s+([\d.]+)`).FindSubmatch(said)
	if found == nil {
		return 0, fmt.Errorf("wrk said nothing of requests: %s", said)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

// bareServer is the baseline, in a process of its own.
type bareServer struct {
	process *exec.Cmd
	base    string
}

const bareKey = "bench:bare"

func (s *system) startBare(ctx context.Context, body []byte) (*bareServer, error) {
	opt, err := redis.ParseURL(s.redis.URL())
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	client := redis.NewClient(opt)
	defer client.Close()
	if err := client.Set(ctx, bareKey, body, time.Hour).Err(); err != nil {
		return nil, fmt.Errorf("store the baseline's bytes: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find myself: %w", err)
	}
	b := &bareServer{process: exec.Command(self, "bare")}
	b.process.Env = append(os.Environ(), "REDIS_URL="+s.redis.URL())
	stdout, err := b.process.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	if err := b.process.Start(); err != nil {
		return nil, fmt.Errorf("start the baseline: %w", err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		return nil, errors.New("the baseline does not listen")
	}
	b.base = "http://" + lines.Text()
	return b, nil
}

func (b *bareServer) stop() {
	_ = b.process.Process.Kill()
	_ = b.process.Wait()
}

// serveBare is the baseline's main: one GET, the same bytes, no more.
func serveBare(ctx context.Context) error {
	opt, err := redis.ParseURL(os.Getenv("REDIS_URL"))
	if err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	client := redis.NewClient(opt)
	defer client.Close()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	fmt.Println(listener.Addr())
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := client.Get(r.Context(), bareKey).Bytes()
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}))
}
