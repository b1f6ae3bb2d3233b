package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"mythiccache/internal/testserver"
)

// system is the program, as it would be deployed, beside servers of its own.
type system struct {
	postgres *testserver.Postgres
	redis    *testserver.Redis
	program  *exec.Cmd
	secret   string
	base     string
}

// startSystem starts servers that sync to disk as real ones do, and the program.
func startSystem(ctx context.Context, dir, program string) (*system, error) {
	s := &system{secret: rand.Text() + rand.Text()}
	var err error
	s.postgres, err = testserver.StartPostgres(ctx, testserver.PostgresOptions{
		Dir: filepath.Join(dir, "postgres"), Settings: map[string]string{"fsync": "on"},
	})
	if err != nil {
		return nil, err
	}
	if s.redis, err = testserver.StartRedis(ctx, testserver.RedisOptions{Dir: filepath.Join(dir, "redis")}); err != nil {
		s.stop()
		return nil, err
	}
	for _, args := range [][]string{{"demo", "load"}, {"migrate", "up"}} {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env = s.environ()
		if out, err := cmd.CombinedOutput(); err != nil {
			s.stop()
			return nil, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	if err := s.startProgram(ctx, program); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *system) environ() []string {
	return append(os.Environ(),
		"DATABASE_URL="+s.postgres.URL("postgres"), "REDIS_URL="+s.redis.URL(), "HTTP_ADDR=127.0.0.1:0",
		"AUTH_JWT_SECRET="+s.secret, "RATE_LIMITS=default=1000000000/1m")
}

// startProgram starts the program and waits until it is ready.
func (s *system) startProgram(ctx context.Context, program string) error {
	s.program = exec.Command(program, "run")
	s.program.Env = s.environ()
	stderr, err := s.program.StderrPipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	begun := time.Now()
	if err := s.program.Start(); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	lines := bufio.NewScanner(stderr)
	var said bytes.Buffer
	for s.base == "" && lines.Scan() {
		said.Write(lines.Bytes())
		var line struct {
			Addr string `json:"addr"`
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Addr != "" {
			s.base = "http://" + line.Addr
		}
	}
	if s.base == "" {
		return fmt.Errorf("the program does not listen: %s", &said)
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	for {
		if status, _, err := s.get(ctx, "/readyz", ""); err == nil && status == http.StatusOK {
			fmt.Printf("ready %d ms after its start\n", time.Since(begun).Milliseconds())
			return nil
		}
		if time.Since(begun) > time.Minute {
			return errors.New("the program does not become ready")
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *system) stop() {
	if s.program != nil && s.program.Process != nil {
		_ = s.program.Process.Signal(syscall.SIGTERM)
		_ = s.program.Wait()
	}
	if s.redis != nil {
		s.redis.Stop()
	}
	if s.postgres != nil {
		s.postgres.Stop()
	}
}

// token is a user's.
func (s *system) token(user string) (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte(s.secret))
}

func (s *system) get(ctx context.Context, path, token string) (int, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	return w.StatusCode, body, err
}
