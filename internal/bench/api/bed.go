package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"

	"mythiccache/internal/bench/process"
	"mythiccache/internal/testserver"
)

const (
	patience = time.Minute
	run      = "bench" // whose status is asked for
	user     = "user_1"
)

// bed is the program in three processes, with servers of its own.
type bed struct {
	o        Options
	secret   string
	postgres *testserver.Postgres
	redis    *testserver.Redis
	redisPID int
	conn     *pgx.Conn
	workers  *process.Process
	near     *face
	distant  *face
	all      []*process.Process // in the order of their start
}

// face is one process of the API.
type face struct {
	process *process.Process
	address string
}

func newBed(ctx context.Context, o Options) (b *bed, err error) {
	b = &bed{o: o, secret: rand.Text() + rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close(ctx))
		}
	}()
	if b.postgres, err = testserver.StartPostgres(ctx, testserver.PostgresOptions{Dir: filepath.Join(o.Dir, "postgres")}); err != nil {
		return b, err
	}
	if b.redis, err = testserver.StartRedis(ctx, testserver.RedisOptions{Dir: filepath.Join(o.Dir, "redis")}); err != nil {
		return b, err
	}
	if b.redisPID, err = processOf(ctx, b.redis); err != nil {
		return b, err
	}
	for _, args := range [][]string{{"demo", "load"}, {"migrate", "up"}} {
		p, err := b.start(args[0], nil, append([]string{o.Program}, args...)...)
		if err != nil {
			return b, err
		}
		if err := p.Succeed(); err != nil {
			return b, err
		}
	}
	b.all = nil // they have ended
	if b.workers, err = b.start("workers", nil, o.Program, "run", "--roles", "relay,workers"); err != nil {
		return b, err
	}
	if b.near, err = b.face(ctx, "near"); err != nil {
		return b, err
	}
	if b.distant, err = b.face(ctx, "distant", "NEAR_CACHE_BYTES=0"); err != nil {
		return b, err
	}
	if b.conn, err = pgx.Connect(ctx, b.postgres.URL("postgres")); err != nil {
		return b, fmt.Errorf("connect: %w", err)
	}
	err = b.begin(ctx, run)
	return b, err
}

// processOf is the process of a Redis.
func processOf(ctx context.Context, server *testserver.Redis) (int, error) {
	client, err := dial(server.URL())
	if err != nil {
		return 0, err
	}
	defer client.Close()
	about, err := client.InfoMap(ctx, "server").Result()
	if err != nil {
		return 0, fmt.Errorf("ask Redis for its process: %w", err)
	}
	pid, err := strconv.Atoi(about["Server"]["process_id"])
	if err != nil {
		return 0, fmt.Errorf("ask Redis for its process: %w", err)
	}
	return pid, nil
}

// start starts a process under the name of its log.
func (b *bed) start(name string, more []string, arguments ...string) (*process.Process, error) {
	environ := append(os.Environ(), "DATABASE_URL="+b.postgres.URL("postgres"), "REDIS_URL="+b.redis.URL(), "LOG_FORMAT=json",
		"AUTH_MODE=jwt", "AUTH_JWT_SECRET="+b.secret, "RATE_LIMITS=default=1000000000/1m")
	p, err := process.Start(filepath.Join(b.o.Dir, name+".log"), append(environ, more...), arguments...)
	if err == nil {
		b.all = append(b.all, p)
	}
	return p, err
}

// face starts a process of the API and waits until it is ready.
func (b *bed) face(ctx context.Context, name string, more ...string) (*face, error) {
	port, err := testserver.FreePort(ctx)
	if err != nil {
		return nil, err
	}
	f := &face{address: fmt.Sprintf("127.0.0.1:%d", port)}
	if f.process, err = b.start(name, append(more, "HTTP_ADDR="+f.address), b.o.Program, "run", "--roles", "api"); err != nil {
		return nil, err
	}
	return f, b.answers(ctx, f.process, f.address, "/readyz", nil)
}

// answers waits until a process answers a request well.
func (b *bed) answers(ctx context.Context, p *process.Process, address, path string, header http.Header) error {
	said := ""
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(10 * time.Millisecond) {
		got, err := get(ctx, address, path, header)
		if err == nil && got.status == http.StatusOK {
			return nil
		}
		if err := errors.Join(p.Alive(), ctx.Err()); err != nil {
			return err
		}
		said = fmt.Sprintf("%v %d %s", err, got.status, got.body)
	}
	return fmt.Errorf("%s%s does not become good: %s; its process said: %s", address, path, said, p.Said())
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
	_, err := b.conn.Exec(ctx, `SELECT mythic_cache.publish('run.started', run,
		json_build_object('message', 'begun', 'style', 'classic', 'format', 'a4', 'profile', json_build_object('username', 'somebody', 'biography', repeat('0123456789', 40)))::jsonb)
		FROM unnest($1::text[]) AS run`, runs)
	if err != nil {
		return fmt.Errorf("begin runs: %w", err)
	}
	return nil
}

// bearer is what a user shows.
func (b *bed) bearer(user string) (http.Header, error) {
	claims := jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(b.secret))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return http.Header{"Authorization": {"Bearer " + token}}, nil
}

// kept asks until the answer is a hit, and one from memory where it can be.
func (b *bed) kept(ctx context.Context, f *face, path string, header http.Header) (reply, error) {
	said := ""
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(time.Millisecond) {
		got, err := get(ctx, f.address, path, header)
		if err != nil {
			return reply{}, errors.Join(err, f.process.Alive())
		}
		said = fmt.Sprint(got.status, got.header["Cache-Status"])
		near := strings.Contains(said, "detail=near")
		if got.header.Get("X-Cache") == "HIT" && near == (f == b.near) {
			return got, nil
		}
	}
	return reply{}, fmt.Errorf("%s is not in the cache: %s", path, said)
}

// close ends what was started, the last first.
func (b *bed) close(ctx context.Context) error {
	var err error
	if b.conn != nil {
		err = b.conn.Close(context.WithoutCancel(ctx))
	}
	for _, p := range slices.Backward(b.all) {
		if p.Alive() == nil {
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
