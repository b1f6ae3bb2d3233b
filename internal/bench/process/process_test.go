package process_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"mythiccache/internal/bench/process"
)

// start starts a shell with a command.
func start(t *testing.T, command string) *process.Process {
	t.Helper()
	p, err := process.Start(filepath.Join(t.TempDir(), "log"), nil, "/bin/sh", "-c", command)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAProcessIsWaitedForUntilItAnswersWell(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 || r.URL.Path != "/readyz" || r.Header.Get("Name") != "value" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	p := start(t, "exec sleep 600")
	if err := p.Answers(t.Context(), server.Listener.Addr().String(), "/readyz", http.Header{"Name": {"value"}}); err != nil || asked.Load() != 3 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if p.Alive() == nil {
		t.Error("it lives on")
	}
}

func TestAProcessThatEndsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	err := start(t, "echo last words >&2").Answers(t.Context(), server.Listener.Addr().String(), "/", nil)
	if err == nil || !strings.Contains(err.Error(), "has ended; it said: last words") {
		t.Errorf("%v", err)
	}
}

func TestAProcessThatFailsSaysWhy(t *testing.T) {
	t.Parallel()
	if err := start(t, "true").Succeed(); err != nil {
		t.Error(err)
	}
	if err := start(t, "echo so it is; exit 3").Succeed(); err == nil || !strings.Contains(err.Error(), "so it is") {
		t.Errorf("%v", err)
	}
	if err := process.Prepare(filepath.Join(t.TempDir(), "log"), "/bin/false", nil); err == nil {
		t.Error("a database was prepared by a program that fails")
	}
}
