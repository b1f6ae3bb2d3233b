package fastapi_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mythiccache/internal/testserver"
)

var postgres *testserver.Postgres

func TestMain(m *testing.M) { testserver.Main(m, &postgres) }

// secret is what the app and the worker verify tokens with.
const secret = "only-for-tests-only-for-tests-only-for-tests"

// system is the app beside the worker, with servers of their own.
type system struct {
	database string
	worker   string // http://127.0.0.1:port
	app      string
}

// start builds the worker, prepares a database and starts both programs.
func start(t *testing.T) *system {
	t.Helper()
	s := &system{database: postgres.Database(t)}
	environ := append(os.Environ(),
		"DATABASE_URL="+s.database, "REDIS_URL="+testserver.NewRedis(t).URL(), "AUTH_JWT_SECRET="+secret,
		"HTTP_ADDR=127.0.0.1:0", "LOG_FORMAT=json", "LOG_LEVEL=info", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1")

	binary := filepath.Join(t.TempDir(), "mythic-cache")
	// With the flags of `make build`, whose packages are then compiled already.
	runToEnd(t, append(os.Environ(), "CGO_ENABLED=0"), "go", "build", "-trimpath", "-o", binary, "mythiccache/cmd/mythic-cache")
	runToEnd(t, environ, binary, "demo", "load")
	runToEnd(t, environ, binary, "migrate", "up")
	s.worker = "http://" + startProgram(t, environ, regexp.MustCompile(`"addr":"([^"]+)"`), binary, "run")
	s.app = startProgram(t, append(environ, "WORKER_URL="+s.worker), regexp.MustCompile(`running on (http://[^ ]+)`),
		python(t), "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", "0", "--no-use-colors")
	return s
}

// python finds an interpreter that has what the app imports.
func python(t *testing.T) string {
	t.Helper()
	venv, err := filepath.Abs("../../.local/venv/bin/python")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{venv, "/usr/bin/python3", "python3"} {
		if exec.CommandContext(t.Context(), name, "-c", "import fastapi, sqlalchemy, uvicorn, psycopg2").Run() == nil {
			return name
		}
	}
	t.Fatal("no Python here has fastapi, sqlalchemy, uvicorn and psycopg2; `make test` installs them, as does: sh internal/dev/provision.sh python")
	return ""
}

func runToEnd(t *testing.T, environ []string, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = environ
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
}

// startProgram starts a program, which the end of the test stops, and returns
// what it says its address is.
func startProgram(t *testing.T, environ []string, address *regexp.Regexp, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = environ
	cmd.SysProcAttr = testserver.DieWithParent(&syscall.SysProcAttr{Setpgid: true})
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := make(chan string, 1)
	log := &programLog{}
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		log.follow(reader, address, found)
	}()
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		writer.Close()
	}()
	t.Cleanup(func() {
		if t.Failed() {
			defer func() { t.Logf("%s said:\n%s", filepath.Base(name), log) }()
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("stop %s: %v", filepath.Base(name), err)
		}
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Errorf("%s does not end on SIGTERM", filepath.Base(name))
			_ = cmd.Process.Kill()
			<-ended
		}
		<-followed
	})
	select {
	case at := <-found:
		return at
	case err := <-ended:
		ended <- err
		<-followed
		t.Fatalf("%s ended at once: %v: %s", filepath.Base(name), err, log)
	case <-time.After(time.Minute):
		t.Fatalf("%s does not say where it listens: %s", filepath.Base(name), log)
	}
	return ""
}

// programLog keeps what a program says.
type programLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *programLog) follow(r io.Reader, address *regexp.Regexp, found chan<- string) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		l.mu.Lock()
		fmt.Fprintln(&l.text, lines.Text())
		l.mu.Unlock()
		if match := address.FindStringSubmatch(lines.Text()); match != nil {
			select {
			case found <- match[1]:
			default: // it says so more than once
			}
		}
	}
	// A line too long for the scanner ends the reading, which must not end the
	// program's writing.
	_, _ = io.Copy(io.Discard, r)
}

func (l *programLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
