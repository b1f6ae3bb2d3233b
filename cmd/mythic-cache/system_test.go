package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
)

var postgres *testserver.Postgres

// asProgram in the environment turns the test binary into the program itself,
// so that a test can start, stop and kill it as an operator would.
const asProgram = "MYTHIC_CACHE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	testserver.Main(m, &postgres)
}

const (
	jwtSecret   = "only-for-tests-only-for-tests-only-for-tests"
	eventsToken = "events-token-of-the-tests"
	adminToken  = "admin-token-of-the-tests"
)

// system is the whole program beside servers of its own.
type system struct {
	t        testing.TB
	server   *testserver.Postgres
	database string
	redis    *testserver.Redis
	client   *redis.Client
	conn     *pgx.Conn
	settings map[string]string
	args     []string

	process *exec.Cmd
	log     *programLog
	base    string // http://127.0.0.1:port
}

// programLog keeps what the program prints and announces its address.
type programLog struct {
	mu    sync.Mutex
	text  bytes.Buffer
	addr  chan string
	ended chan struct{}
}

func (l *programLog) follow(r io.Reader) {
	defer close(l.ended)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		l.mu.Lock()
		l.text.Write(lines.Bytes())
		l.text.WriteByte('\n')
		l.mu.Unlock()
		var line struct{ Message, Addr string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Addr != "" {
			select {
			case l.addr <- line.Addr:
			default:
			}
		}
	}
}

func (l *programLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newSystem makes servers, schema and Mythic's tables with demo rows, and
// starts the program with every role.
func newSystem(t testing.TB, settings map[string]string) *system {
	t.Helper()
	return newSystemOn(t, postgres, settings)
}

func newSystemOn(t testing.TB, server *testserver.Postgres, settings map[string]string) *system {
	t.Helper()
	s := &system{
		t: t, server: server, database: server.Database(t), redis: testserver.NewRedis(t),
		settings: settings, args: []string{"run"},
	}
	s.client = s.redis.Client(t)
	s.conn = s.connect()
	s.command("demo", "load")
	s.command("migrate", "up")
	s.start()
	s.awaitReady()
	return s
}

func (s *system) connect() *pgx.Conn {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.database)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (s *system) environ() []string {
	settings := map[string]string{
		asProgram: "yes", "PATH": os.Getenv("PATH"), "HOME": os.Getenv("HOME"), "TMPDIR": os.Getenv("TMPDIR"),
		"DATABASE_URL": s.database, "REDIS_URL": s.redis.URL(), "HTTP_ADDR": "127.0.0.1:0",
		"AUTH_JWT_SECRET": jwtSecret, "EVENTS_TOKEN": eventsToken, "ADMIN_TOKEN": adminToken,
		"RATE_LIMITS": "default=1000000/1m", "LOG_LEVEL": "debug",
	}
	maps.Copy(settings, s.settings)
	environ := make([]string, 0, len(settings))
	for name, value := range settings {
		environ = append(environ, name+"="+value)
	}
	return environ
}

// command runs the program to its end and returns what it printed.
func (s *system) command(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("mythic-cache %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (s *system) try(args ...string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), os.Args[0], args...)
	cmd.Env = s.environ()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// start starts the program and waits until it listens.
func (s *system) start() {
	s.t.Helper()
	s.log = &programLog{addr: make(chan string, 1), ended: make(chan struct{})}
	process := exec.Command(os.Args[0], s.args...)
	process.Env = s.environ()
	stderr, err := process.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.process = process
	log := s.log
	go log.follow(stderr)
	s.t.Cleanup(func() {
		_ = process.Process.Kill()
		<-log.ended
		_ = process.Wait()
		if s.t.Failed() {
			said := log.String()
			s.t.Logf("the program said, at the end:\n%s", said[max(0, len(said)-6000):])
		}
	})
	select {
	case addr := <-s.log.addr:
		s.base = "http://" + addr
	case <-s.log.ended:
		s.t.Fatalf("the program ended at once:\n%s", s.log)
	case <-time.After(time.Minute):
		s.t.Fatalf("the program does not listen:\n%s", s.log)
	}
}

// kill ends the program as the kernel would.
func (s *system) kill() {
	s.t.Helper()
	if err := s.process.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	<-s.log.ended
	_ = s.process.Wait()
}

// stop asks the program to end and demands that it does so well.
func (s *system) stop() {
	s.t.Helper()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.log.ended:
	case <-time.After(time.Minute):
		s.t.Fatalf("the program does not stop:\n%s", s.log)
	}
	if err := s.process.Wait(); err != nil {
		s.t.Fatalf("the program stopped with %v:\n%s", err, s.log)
	}
}

func (s *system) awaitReady() {
	s.t.Helper()
	testserver.Eventually(s.t, "ready", func() error {
		answer := s.get("/readyz", "")
		if answer.status != http.StatusOK {
			return fmt.Errorf("%d %s", answer.status, answer.body)
		}
		return nil
	})
}

// answer is what the API said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// token is what the user's browser would carry.
func token(user string) string {
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte(jwtSecret))
	if err != nil {
		panic(err)
	}
	return signed
}

func (s *system) get(path, bearer string) answer {
	s.t.Helper()
	return s.request(http.MethodGet, path, bearer, nil, nil)
}

func (s *system) request(method, path, bearer string, header http.Header, body []byte) answer {
	s.t.Helper()
	a, err := s.tryRequest(method, path, bearer, header, body)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *system) tryRequest(method, path, bearer string, header http.Header, body []byte) (answer, error) {
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.base+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if header != nil {
		r.Header = header.Clone()
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer w.Body.Close()
	got, err := io.ReadAll(w.Body)
	return answer{w.StatusCode, w.Header, got}, err
}

func (s *system) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.conn.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// one returns the one value that a query gives.
func one[T any](s *system, sql string, args ...any) T {
	s.t.Helper()
	var v T
	if err := s.conn.QueryRow(s.t.Context(), sql, args...).Scan(&v); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// books is what /books/my answers, as far as the tests compare it.
type books struct {
	Books []struct {
		ID, Title string
		RunID     string `json:"run_id"`
	}
	Total int
}

// booksBySQL is the truth.
func (s *system) booksBySQL(user string) (books, error) {
	var b books
	rows, err := s.conn.Query(s.t.Context(), `SELECT b.id::text, b.title, coalesce(b.run_id, '') FROM books b JOIN users u ON u.id = b.user_id
		WHERE u.clerk_user_id = $1 ORDER BY b.created_at DESC, b.id`, user)
	if err != nil {
		return b, err
	}
	b.Books, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (book struct {
		ID, Title string
		RunID     string `json:"run_id"`
	}, err error) {
		return book, row.Scan(&book.ID, &book.Title, &book.RunID)
	})
	b.Total = len(b.Books)
	return b, err
}

// compareBooks returns an error where the API does not say what SQL says.
func (s *system) compareBooks(user string) error {
	want, err := s.booksBySQL(user)
	if err != nil {
		return err
	}
	got, err := s.tryRequest(http.MethodGet, "/books/my", token(user), nil, nil)
	if err != nil {
		return err
	}
	if got.status != http.StatusOK {
		return fmt.Errorf("%s: %d %s", user, got.status, got.body)
	}
	var b books
	if err := json.Unmarshal(got.body, &b); err != nil {
		return err
	}
	if b.Total != want.Total || !slices.Equal(b.Books, want.Books) {
		return fmt.Errorf("%s: the API says %v (%s), SQL says %v", user, b, got.header.Get("X-Cache"), want)
	}
	return nil
}

// cached makes sure that the users' books are in the cache and right, so that
// only an invalidation can bring a later change to light: the entries live for
// half an hour.
func (s *system) cached(users ...string) {
	s.t.Helper()
	for _, user := range users {
		testserver.Eventually(s.t, "cached and right", func() error {
			if err := s.compareBooks(user); err != nil {
				return err
			}
			if hit := s.get("/books/my", token(user)); hit.header.Get("X-Cache") != "HIT" {
				return errors.New("no hit: " + hit.header.Get("X-Cache"))
			}
			return nil
		})
	}
}

// fresh waits until the users' books are what SQL says.
func (s *system) fresh(users ...string) {
	s.t.Helper()
	for _, user := range users {
		testserver.Eventually(s.t, "fresh", func() error { return s.compareBooks(user) })
	}
}
