package process

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

// Setup says what is deployed.
type Setup struct {
	Dir       string            // has the data of servers, and logs
	Program   string            // has Mythic's demo data in the database, and its own tables
	Settings  map[string]string // of PostgreSQL, besides the usual ones
	RedisArgs []string          // besides the usual ones
	Environ   []string          // of every process, besides where the servers are and who may ask
}

// Deployment is the program in as many processes as are wanted, on servers of its own.
type Deployment struct {
	Postgres *testserver.Postgres
	Redis    *testserver.Redis
	Conn     *pgx.Conn

	setup   Setup
	secret  string
	running []*Process // in the order of their start
}

// Face is a process that answers requests.
type Face struct {
	*Process
	Address string
}

// Deploy starts the servers and prepares the database. No process of the program runs
// yet.
func Deploy(ctx context.Context, s Setup) (*Deployment, error) {
	d := &Deployment{setup: s, secret: rand.Text() + rand.Text()}
	if err := d.begin(ctx); err != nil {
		return nil, errors.Join(err, d.Close(ctx))
	}
	return d, nil
}

func (d *Deployment) begin(ctx context.Context) error {
	dir := d.setup.Dir
	// PostgreSQL's user may pass through.
	err := os.MkdirAll(dir, 0o755)
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	if d.Postgres, err = testserver.StartPostgres(ctx, testserver.PostgresOptions{Dir: filepath.Join(dir, "postgres"), Settings: d.setup.Settings}); err != nil {
		return err
	}
	if d.Redis, err = testserver.StartRedis(ctx, testserver.RedisOptions{Dir: filepath.Join(dir, "redis"), Args: d.setup.RedisArgs}); err != nil {
		return err
	}
	if err := Prepare(filepath.Join(dir, "prepare.log"), d.setup.Program, d.environ()); err != nil {
		return err
	}
	if d.Conn, err = pgx.Connect(ctx, d.Postgres.URL("postgres")); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// Prepare has a program load Mythic's demo data and make its own tables.
func Prepare(log, program string, environ []string) error {
	for _, args := range [][]string{{"demo", "load"}, {"migrate", "up"}} {
		p, err := Start(log, environ, append([]string{program}, args...)...)
		if err != nil {
			return err
		}
		if err := p.Succeed(); err != nil {
			return err
		}
	}
	return nil
}

// environ is what each process is told. No limit is met.
func (d *Deployment) environ(more ...string) []string {
	return slices.Concat(os.Environ(), []string{
		"DATABASE_URL=" + d.Postgres.URL("postgres"), "REDIS_URL=" + d.Redis.URL(), "LOG_FORMAT=json",
		"AUTH_MODE=jwt", "AUTH_JWT_SECRET=" + d.secret, "RATE_LIMITS=default=1000000000/1m",
	}, d.setup.Environ, more)
}

// Run starts the program in these roles, as relay,workers; its log is named for it.
func (d *Deployment) Run(name, roles string, environ ...string) (*Process, error) {
	return d.Start(name, environ, d.setup.Program, "run", "--roles", roles)
}

// Start starts any process, which is told what the program's are; its log is named for
// it. Close ends it.
func (d *Deployment) Start(name string, environ []string, arguments ...string) (*Process, error) {
	p, err := Start(filepath.Join(d.setup.Dir, name+".log"), d.environ(environ...), arguments...)
	if err == nil {
		d.running = append(d.running, p)
	}
	return p, err
}

// Serve starts the program in these roles, one of which is api, on a port of its own,
// and waits until it is ready.
func (d *Deployment) Serve(ctx context.Context, name, roles string, environ ...string) (*Face, error) {
	port, err := testserver.FreePort(ctx)
	if err != nil {
		return nil, err
	}
	f := &Face{Address: fmt.Sprintf("127.0.0.1:%d", port)}
	if f.Process, err = d.Run(name, roles, append(environ, "HTTP_ADDR="+f.Address)...); err != nil {
		return nil, err
	}
	if err := f.Answers(ctx, f.Address, "/readyz", nil); err != nil {
		return nil, err
	}
	return f, nil
}

// Token is what a user shows.
func (d *Deployment) Token(user string) (string, error) {
	claims := jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(d.secret))
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return token, nil
}

// Alive returns why a process has ended, where one has.
func (d *Deployment) Alive() error {
	var err error
	for _, p := range d.running {
		err = errors.Join(err, p.Alive())
	}
	return err
}

// Close ends what was started, the last first.
func (d *Deployment) Close(ctx context.Context) error {
	var err error
	if d.Conn != nil {
		err = d.Conn.Close(context.WithoutCancel(ctx))
	}
	for _, p := range slices.Backward(d.running) {
		// Who interrupts the benchmark has interrupted them too.
		if ctx.Err() == nil || p.Alive() == nil {
			err = errors.Join(err, p.Stop())
		}
	}
	if d.Redis != nil {
		d.Redis.Stop()
	}
	if d.Postgres != nil {
		d.Postgres.Stop()
	}
	return err
}
