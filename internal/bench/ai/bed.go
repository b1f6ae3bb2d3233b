package ai

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/process"
	"mythiccache/internal/modelserver"
	"mythiccache/internal/testserver"
)

const (
	patience = time.Minute
	prefix   = "bench:"
	frugal   = "frugal" // the model that has a budget
	allowed  = 100      // its calls
)

// bed is the program in two processes, with servers of its own and a model.
type bed struct {
	o        Options
	secret   string
	address  string // of the API
	token    string // of a user
	model    *modelserver.Server
	postgres *testserver.Postgres
	redis    *testserver.Redis
	conn     *pgx.Conn
	client   *redis.Client
	workers  *process.Process
	api      *process.Process
}

func newBed(ctx context.Context, o Options) (b *bed, err error) {
	b = &bed{o: o, secret: rand.Text() + rand.Text(), model: modelserver.Start()}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close(ctx))
		}
	}()
	if err := b.startServers(ctx); err != nil {
		return b, err
	}
	for _, args := range [][]string{{"demo", "load"}, {"migrate", "up"}} {
		p, err := b.start(args...)
		if err != nil {
			return b, err
		}
		if err := p.Succeed(); err != nil {
			return b, err
		}
	}
	if b.conn, err = pgx.Connect(ctx, b.postgres.URL("postgres")); err != nil {
		return b, fmt.Errorf("connect: %w", err)
	}
	if err := b.stock(ctx); err != nil {
		return b, err
	}
	if b.workers, err = b.start("run", "--roles", "relay,workers"); err != nil {
		return b, err
	}
	if b.api, err = b.start("run", "--roles", "api"); err != nil {
		return b, err
	}
	if err := b.ready(ctx); err != nil {
		return b, err
	}
	claims := jwt.MapClaims{"sub": "bench", "exp": time.Now().Add(time.Hour).Unix()}
	b.token, err = jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(b.secret))
	return b, err
}

// startServers starts servers that sync to disk as real ones do. Redis tells of each
// string that is set.
func (b *bed) startServers(ctx context.Context) (err error) {
	if b.postgres, err = testserver.StartPostgres(ctx, testserver.PostgresOptions{Dir: filepath.Join(b.o.Dir, "postgres"), Settings: map[string]string{
		"fsync": "on", "synchronous_commit": "on", "max_wal_size": "4GB", "checkpoint_timeout": "30min", "autovacuum": "off",
	}}); err != nil {
		return err
	}
	if b.redis, err = testserver.StartRedis(ctx, testserver.RedisOptions{
		Dir: filepath.Join(b.o.Dir, "redis"), Args: []string{"--auto-aof-rewrite-percentage", "0", "--notify-keyspace-events", "K$"},
	}); err != nil {
		return err
	}
	options, err := redis.ParseURL(b.redis.URL())
	if err != nil {
		return fmt.Errorf("the address of Redis: %w", err)
	}
	b.client = redis.NewClient(options)
	port, err := testserver.FreePort(ctx)
	b.address = fmt.Sprintf("127.0.0.1:%d", port)
	return err
}

func (b *bed) start(args ...string) (*process.Process, error) {
	environ := append(os.Environ(), "DATABASE_URL="+b.postgres.URL("postgres"), "REDIS_URL="+b.redis.URL(), "CACHE_PREFIX="+prefix, "LOG_FORMAT=json",
		"HTTP_ADDR="+b.address, "AUTH_JWT_SECRET="+b.secret, "RATE_LIMITS=default=1000000/1m", "LLM_BASE_URL="+b.model.URL(), "LLM_MODEL=writer",
		fmt.Sprintf("AI_BUDGETS=%s=%d/1d; warm=100%%", frugal, allowed))
	return process.Start(filepath.Join(b.o.Dir, args[0]+args[len(args)-1]+".log"), environ, append([]string{b.o.Program}, args...)...)
}

// ready waits for the API to be.
func (b *bed) ready(ctx context.Context) error {
	return await(ctx, "the API is ready", func() error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.address+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return errors.Join(err, b.alive())
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("it says %s", answer.Status)
		}
		return nil
	})
}

// alive returns why a process has ended, where one has.
func (b *bed) alive() error { return errors.Join(b.api.Alive(), b.workers.Alive()) }

// await waits until something is so.
func await(ctx context.Context, what string, so func() error) error {
	begun := time.Now()
	for {
		err := so()
		if err == nil {
			return nil
		}
		if time.Since(begun) > patience || ctx.Err() != nil {
			return fmt.Errorf("%s: not within %s: %w", what, patience, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (b *bed) exec(ctx context.Context, sql string, args ...any) error {
	if _, err := b.conn.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

func (b *bed) close(ctx context.Context) error {
	var err error
	if b.conn != nil {
		err = b.conn.Close(context.WithoutCancel(ctx))
	}
	if b.client != nil {
		err = errors.Join(err, b.client.Close())
	}
	b.model.Close()
	for _, p := range []*process.Process{b.api, b.workers} {
		if p != nil {
			err = errors.Join(err, p.Stop())
		}
	}
	if b.redis != nil {
		b.redis.Stop()
	}
	if b.postgres != nil {
		b.postgres.Stop()
	}
	return err
}
