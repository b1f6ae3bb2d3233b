package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

// database is the name of the demo's database in a private cluster.
const database = "mythic"

// servers are the PostgreSQL and the Redis beside the worker, whoever runs them.
type servers struct {
	databaseURL, redisURL string

	postgres *testserver.Postgres // nil: not ours
	redis    *testserver.Redis    // nil: not ours
	compose  []string             // services that Docker runs for us
	checkout *checkout
	unlock   func() // nil: no data of ours
}

// usesDocker is provision.sh's word for "not here, but Docker answers".
const usesDocker = 3

// startServers starts what the environment does not name.
func (s *session) startServers(ctx context.Context) (_ *servers, err error) {
	v := &servers{databaseURL: s.getenv("DATABASE_URL"), redisURL: s.getenv("REDIS_URL"), checkout: s.checkout}
	var missing []string
	if v.databaseURL == "" {
		missing = append(missing, "postgresql")
	}
	if v.redisURL == "" {
		missing = append(missing, "redis")
	}
	if len(missing) == 0 {
		return v, nil
	}
	defer func() {
		if err != nil {
			v.stop(context.WithoutCancel(ctx))
		}
	}()
	provision := s.command(ctx, "sh", append([]string{s.checkout.path("internal", "dev", "provision.sh")}, missing...)...)
	var exit *exec.ExitError
	switch err := provision.Run(); {
	case errors.As(err, &exit) && exit.ExitCode() == usesDocker:
		err = v.startCompose(ctx, s)
		return v, err
	case err != nil:
		return nil, errors.New("PostgreSQL and Redis are needed: install them as said above, or set DATABASE_URL and REDIS_URL to servers that run already")
	}
	err = v.startPrivate(ctx)
	return v, err
}

// startPrivate starts processes of our own.
func (v *servers) startPrivate(ctx context.Context) error {
	var err error
	if v.unlock, err = v.checkout.lock(); err != nil {
		return err
	}
	if v.databaseURL == "" {
		dir, err := v.checkout.postgresDir(ctx)
		if err != nil {
			return err
		}
		// This is somebody's data, however small: it is kept through a crash.
		v.postgres, err = testserver.StartPostgres(ctx, testserver.PostgresOptions{Dir: dir, Settings: map[string]string{"fsync": "on"}})
		if err != nil {
			return fmt.Errorf("PostgreSQL with its data in %s: %w", dir, err)
		}
		if err := createDatabase(ctx, v.postgres.URL("postgres")); err != nil {
			return err
		}
		v.databaseURL = v.postgres.URL(database)
	}
	if v.redisURL == "" {
		dir := filepath.Join(v.checkout.data, "redis")
		v.redis, err = testserver.StartRedis(ctx, testserver.RedisOptions{Dir: dir})
		if err != nil {
			return fmt.Errorf("redis with its data in %s: %w", dir, err)
		}
		v.redisURL = v.redis.URL()
	}
	return nil
}

func createDatabase(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&there); err != nil {
		return fmt.Errorf("look for the database: %w", err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+database); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	return nil
}

// startCompose has Docker run what is missing, on ports of its choice.
func (v *servers) startCompose(ctx context.Context, s *session) error {
	if v.redisURL == "" {
		v.compose = append(v.compose, "redis")
	}
	if v.databaseURL == "" {
		v.compose = append(v.compose, "postgres")
	}
	up := s.command(ctx, "docker", append([]string{"compose", "up", "--detach", "--wait"}, v.compose...)...)
	if err := up.Run(); err != nil {
		return fmt.Errorf("docker compose up: %w", err)
	}
	if v.databaseURL == "" {
		address, err := v.published(ctx, "postgres", "5432")
		if err != nil {
			return err
		}
		v.databaseURL = fmt.Sprintf("postgres://mythic:mythic@%s/mythic?sslmode=disable", address)
	}
	if v.redisURL == "" {
		address, err := v.published(ctx, "redis", "6379")
		if err != nil {
			return err
		}
		v.redisURL = fmt.Sprintf("redis://%s/0", address)
	}
	return nil
}

// published returns the address on this machine of a service's port.
func (v *servers) published(ctx context.Context, service, port string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", "compose", "port", service, port)
	cmd.Dir = v.checkout.root
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("docker compose port %s: %w", service, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// psql is the command line that speaks to PostgreSQL.
func (v *servers) psql() string {
	if slices.Contains(v.compose, "postgres") {
		return "docker compose exec -T postgres psql -U mythic -d mythic"
	}
	return "psql '" + v.databaseURL + "'"
}

// redisCLI is the command line that speaks to Redis.
func (v *servers) redisCLI() string {
	if slices.Contains(v.compose, "redis") {
		return "docker compose exec -T redis redis-cli"
	}
	return "redis-cli -u '" + v.redisURL + "'"
}

// gone tells of a server of ours that ended by itself.
func (v *servers) gone(ctx context.Context) <-chan string {
	ended := make(chan string, 2)
	watch := func(name string, gone <-chan struct{}) {
		select {
		case <-gone:
			ended <- name
		case <-ctx.Done():
		}
	}
	if v.postgres != nil {
		go watch("PostgreSQL", v.postgres.Gone())
	}
	if v.redis != nil {
		go watch("Redis", v.redis.Gone())
	}
	return ended
}

// stop stops what startServers started.
func (v *servers) stop(ctx context.Context) {
	if v.redis != nil {
		v.redis.Stop()
	}
	if v.postgres != nil {
		v.postgres.Stop()
	}
	if v.unlock != nil {
		v.unlock()
	}
	if len(v.compose) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", append([]string{"compose", "stop"}, v.compose...)...)
	cmd.Dir, cmd.Stderr = v.checkout.root, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // another Ctrl-C is not for it
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "dev: docker compose stop:", err)
	}
}
