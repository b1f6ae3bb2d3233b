package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

// terminal is what a session prints.
type terminal struct {
	mu    sync.Mutex
	text  bytes.Buffer
	once  sync.Once
	ready chan struct{} // closed by what is printed last, once everything runs
}

func (w *terminal) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.text.Write(p)
	if strings.Contains(w.text.String(), "Ctrl-C stops all of it") {
		w.once.Do(func() { close(w.ready) })
	}
	return n, err
}

func (w *terminal) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// dataDir is a place for data that PostgreSQL's user may enter or, closed, may
// not.
func dataDir(t *testing.T, mode os.FileMode) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mythic-cache-dev-") //nolint:usetesting // t.TempDir's own parent is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Where the data stands elsewhere, it goes with the link.
		if target, err := filepath.EvalSymlinks(filepath.Join(dir, "data", "postgres")); err == nil && strings.HasPrefix(target, "/var/tmp/mythic-cache-") {
			os.RemoveAll(filepath.Dir(target))
		}
		os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "data")
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// bring runs a session until it says that it is ready, and returns what it
// printed and how to end it.
func bring(t *testing.T, data, address string) (said string, end func() (log string)) {
	t.Helper()
	c, err := findCheckout(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.data = data
	var stdout, stderr terminal
	stdout.ready = make(chan struct{})
	environment := map[string]string{"HTTP_ADDR": address}
	s := &session{checkout: c, getenv: func(name string) string { return environment[name] }, stdout: &stdout, stderr: &stderr}
	ctx, ctrlC := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	var once sync.Once
	end = func() string {
		once.Do(func() {
			ctrlC()
			if err := <-ended; err != nil {
				t.Errorf("after Ctrl-C: %v", err)
			}
		})
		return stderr.String()
	}
	t.Cleanup(func() { end() })
	select {
	case <-stdout.ready:
	case err := <-ended:
		ended <- nil
		t.Fatalf("it ended: %v\n%s", err, &stderr)
	case <-time.After(8 * time.Minute): // compiling everything on a busy machine takes minutes
		t.Fatalf("the session is not ready:\n%s", &stderr)
	}
	return stdout.String(), end
}

var (
	booksCommand = regexp.MustCompile(`curl -i '(http://[^']+/books/my)' -H 'Authorization: Bearer ([^']+)'\n`)
	databaseLine = regexp.MustCompile(`export DATABASE_URL='([^']+)'`)
)

// books pastes the first command that was printed.
func books(t *testing.T, said string) error {
	t.Helper()
	command := booksCommand.FindStringSubmatch(said)
	if command == nil {
		t.Fatalf("there is no command to read books in:\n%s", said)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, command[1], http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+command[2])
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}

// As root, the first place is one that PostgreSQL's user may not enter.
func TestSessionComesGoesAndComesAgain(t *testing.T) {
	data, address := dataDir(t, 0o700), freeAddress(t)
	said, end := bring(t, data, address)
	if err := books(t, said); err != nil {
		t.Errorf("the printed command: %v", err)
	}
	if _, err := (&checkout{data: data}).lock(); err == nil {
		t.Error("a second session may use the same data")
	}
	database := databaseLine.FindStringSubmatch(said)[1]
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "CREATE TABLE left_by_the_first_session ()"); err != nil {
		t.Fatal(err)
	}
	conn.Close(t.Context())

	log := end()
	// The worker before the servers that it uses.
	order := []string{"stopping the worker", "stopping Redis and PostgreSQL", "all is stopped"}
	for at, from := 0, 0; at < len(order); at++ {
		i := strings.Index(log[from:], order[at])
		if i < 0 {
			t.Fatalf("%q is not said in its turn:\n%s", order[at], log)
		}
		from += i
	}
	if err := books(t, said); err == nil {
		t.Error("the API still answers")
	}
	if _, err := pgx.Connect(t.Context(), database); err == nil {
		t.Error("PostgreSQL still answers")
	}

	said, end = bring(t, data, address)
	if err := books(t, said); err != nil {
		t.Errorf("the printed command, the second time: %v", err)
	}
	conn, err = pgx.Connect(t.Context(), databaseLine.FindStringSubmatch(said)[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT FROM left_by_the_first_session"); err != nil {
		t.Errorf("the second session has other data: %v", err)
	}
	conn.Close(t.Context())
	end()
}

func TestBusyPortIsASentence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	getenv := func(name string) string { return map[string]string{"HTTP_ADDR": ":" + port}[name] }
	err = (&session{getenv: getenv}).run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "stop what has port "+port) {
		t.Errorf("a busy port: %v", err)
	}
}

func TestDataStandsWherePostgresMayEnter(t *testing.T) {
	for _, mode := range []os.FileMode{0o755, 0o700} {
		c := &checkout{data: dataDir(t, mode)}
		if err := os.MkdirAll(c.data, 0o755); err != nil {
			t.Fatal(err)
		}
		first, err := c.postgresDir(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if may, err := testserver.PostgresMayEnter(t.Context(), filepath.Dir(first)); err != nil || !may {
			t.Errorf("%o: PostgreSQL may not enter %s (%v)", mode, first, err)
		}
		if second, err := c.postgresDir(t.Context()); err != nil || second != first {
			t.Errorf("%o: the second time it is %s (%v), not %s", mode, second, err, first)
		}
	}
}

func TestCredentialIsTheOneTheWorkerBelieves(t *testing.T) {
	d := demo{user: "user_1"}
	now := time.Now()
	for _, c := range []struct {
		environment environment
		start       string
	}{
		{environment{"AUTH_JWT_SECRET": "s"}, "Authorization: Bearer ey"},
		{environment{"AUTH_MODE": "jwt", "AUTH_JWT_SECRET": "s"}, "Authorization: Bearer ey"},
		{environment{"AUTH_MODE": "header"}, "X-User-Id: user_1"},
		{environment{"AUTH_JWKS": "https://example.com/keys"}, "Authorization: Bearer $TOKEN"},
	} {
		if got, err := d.credential(c.environment, now); err != nil || !strings.HasPrefix(got, c.start) {
			t.Errorf("%v: %q, %v", c.environment, got, err)
		}
	}
}

func TestBaseURLIsReachable(t *testing.T) {
	for address, want := range map[string]string{
		":8001": "http://localhost:8001", "0.0.0.0:80": "http://localhost:80", "[::]:80": "http://localhost:80",
		"127.0.0.1:8001": "http://127.0.0.1:8001", "example.org:80": "http://example.org:80",
	} {
		if got := baseURL(address); got != want {
			t.Errorf("%s is reached at %s, want %s", address, got, want)
		}
	}
}
