package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"mythiccache/internal/testserver"
)

const (
	readyTimeout = time.Minute      // for a worker whose servers already answer
	stopTimeout  = 45 * time.Second // longer than the worker gives itself
)

// worker is the running program.
type worker struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended
}

// startWorker starts it in a process group of its own, so that Ctrl-C reaches it
// through us and in its turn.
func startWorker(cmd *exec.Cmd) (*worker, error) {
	cmd.SysProcAttr = testserver.DieWithParent(cmd.SysProcAttr)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	w := &worker{cmd: cmd, gone: make(chan struct{})}
	go func() {
		defer close(w.gone)
		_ = cmd.Wait() // it says itself why it ended
	}()
	return w, nil
}

// stop asks the worker to end and waits until it has. A second Ctrl-C asks it to
// end at once.
func (w *worker) stop() {
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	_ = w.cmd.Process.Signal(syscall.SIGTERM) // or it has ended already
	for {
		select {
		case <-w.gone:
			return
		case <-again:
			_ = w.cmd.Process.Signal(syscall.SIGTERM)
		case <-timeout.C:
			_ = w.cmd.Process.Kill()
		}
	}
}

// checkFree makes sure that the API can listen.
func checkFree(ctx context.Context, address string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		_, port, _ := net.SplitHostPort(address)
		return fmt.Errorf("the API cannot listen on %s (%w): stop what has port %s, or choose another one, as in HTTP_ADDR=:8002 make run", address, err, port)
	}
	return l.Close()
}

// baseURL is how this machine reaches an address that is listened on.
func baseURL(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "http://" + address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// awaitReady waits until the worker says that it is ready.
func awaitReady(ctx context.Context, w *worker, base string) error {
	client := &http.Client{Timeout: 2 * time.Second}
	deadline := time.NewTimer(readyTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := "it does not answer"
	for {
		said, ready := askReady(ctx, client, base)
		if ready {
			return nil
		}
		last = cmp.Or(said, last)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-w.gone:
			return errors.New("the worker ended at once; its last lines say why")
		case <-deadline.C:
			return fmt.Errorf("the worker is not ready after %s: %s", readyTimeout, last)
		}
	}
}

func askReady(ctx context.Context, client *http.Client, base string) (said string, ready bool) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", http.NoBody)
	if err != nil {
		return err.Error(), false
	}
	response, err := client.Do(request)
	if err != nil {
		return "", false
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return "", false
	}
	return strings.TrimSpace(string(body)), response.StatusCode == http.StatusOK
}
