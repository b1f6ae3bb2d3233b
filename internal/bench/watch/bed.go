package watch

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

	"mythiccache/internal/bench/process"
	"mythiccache/internal/testserver"
)

const patience = time.Minute

// bed is the program in two processes, with servers of its own.
type bed struct {
	o        Options
	secret   string
	address  string // of the API
	postgres *testserver.Postgres
	redis    *testserver.Redis
	conn     *pgx.Conn
	workers  *process.Process
	api      *process.Process
}

func newBed(ctx context.Context, o Options) (b *bed, err error) {
	b = &bed{o: o, secret: rand.Text() + rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close(ctx))
		}
	}()
	if b.postgres, err = testserver.StartPostgres(ctx, testserver.PostgresOptions{
		Dir: filepath.Join(o.Dir, "postgres"), Settings: map[string]string{"fsync": "on"},
	}); err != nil {
		return b, err
	}
	if b.redis, err = testserver.StartRedis(ctx, testserver.RedisOptions{Dir: filepath.Join(o.Dir, "redis")}); err != nil {
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
	port, err := testserver.FreePort(ctx)
	if err != nil {
		return b, err
	}
	b.address = fmt.Sprintf("127.0.0.1:%d", port)
	if b.workers, err = b.start("run", "--roles", "relay,workers"); err != nil {
		return b, err
	}
	if b.api, err = b.start("run", "--roles", "api"); err != nil {
		return b, err
	}
	if err := b.ready(ctx); err != nil {
		return b, err
	}
	if b.conn, err = pgx.Connect(ctx, b.postgres.URL("postgres")); err != nil {
		return b, fmt.Errorf("connect: %w", err)
	}
	err = b.begin(ctx)
	return b, err
}

func (b *bed) start(args ...string) (*process.Process, error) {
	environ := append(os.Environ(), "DATABASE_URL="+b.postgres.URL("postgres"), "REDIS_URL="+b.redis.URL(), "LOG_FORMAT=json",
		"HTTP_ADDR="+b.address, "AUTH_JWT_SECRET="+b.secret, "RATE_LIMITS=default=1000000/1m")
	return process.Start(filepath.Join(b.o.Dir, args[0]+args[len(args)-1]+".log"), environ, append([]string{b.o.Program}, args...)...)
}

// ready waits for the API to be.
func (b *bed) ready(ctx context.Context) error {
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.address+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		if answer, err := http.DefaultClient.Do(r); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		if err := errors.Join(b.api.Alive(), b.workers.Alive(), ctx.Err()); err != nil {
			return err
		}
		if time.Since(begun) > patience {
			return fmt.Errorf("the API does not become ready: %s", b.api.Said())
		}
	}
}

// begin makes the runs, whose documents have some 700 bytes.
func (b *bed) begin(ctx context.Context) error {
	_, err := b.conn.Exec(ctx, `SELECT mythic_cache.publish('run.started', 'bench_' || n,
		json_build_object('message', 'begun', 'style', 'classic', 'format', 'a4', 'profile', json_build_object('username', 'somebody', 'biography', repeat('0123456789', 40)))::jsonb)
		FROM generate_series(0, $1) AS n`, watchers/perRun-1)
	if err != nil {
		return fmt.Errorf("begin the runs: %w", err)
	}
	return nil
}

// change changes runs at the rate, each in its turn. The message of a run is the
// number of the change.
func (b *bed) change(ctx context.Context, c *crowd) error {
	begun := time.Now()
	for n := range c.written {
		time.Sleep(time.Until(begun.Add(time.Duration(n) * time.Second / rate)))
		if _, err := b.conn.Exec(ctx, `SELECT mythic_cache.publish('run.progress', $1, $2)`, runOf(n), fmt.Sprintf(`{"message":"%d"}`, n)); err != nil {
			return fmt.Errorf("change a run: %w", err)
		}
		c.written[n].Store(int64(time.Since(c.begun)))
	}
	return nil
}

// runOf is the run of a change, or of a watcher's number among the runs.
func runOf(n int) string { return fmt.Sprintf("bench_%d", n%(watchers/perRun)) }

// token is a user's.
func (b *bed) token(user int) (string, error) {
	claims := jwt.MapClaims{"sub": fmt.Sprintf("user_%d", user), "exp": time.Now().Add(time.Hour).Unix()}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(b.secret))
}

func (b *bed) close(ctx context.Context) error {
	var err error
	if b.conn != nil {
		err = b.conn.Close(context.WithoutCancel(ctx))
	}
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
