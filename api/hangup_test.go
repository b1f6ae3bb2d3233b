package api

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"mythiccache/internal/testserver"
)

// TestWhoClosesTheirSideIsToldNothingHalf has clients that say no more while they wait.
// For net/http they have hung up; each may read the end of its connection, and no empty
// answer.
func TestWhoClosesTheirSideIsToldNothingHalf(t *testing.T) {
	w := begin(t, func(o *Options) { o.MissWait = time.Minute })
	e := w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	address, _ := w.serve()
	halfClose := func(request string, waits func()) {
		t.Helper()
		conn := w.dial(address)
		fmt.Fprintf(conn, "%s\r\nHost: x\r\n\r\n", request)
		waits()
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if said, _ := io.ReadAll(conn); len(said) > 0 { // it may be reset
			t.Errorf("%s: %q", request, said)
		}
	}
	halfClose("GET /status/RUN1 HTTP/1.1\r\nPrefer: wait=60\r\nIf-None-Match: "+e.ETag, func() { w.watchers(1) })
	w.nobodyWatches()
	halfClose("GET /status/NONE HTTP/1.1", func() { w.waiting(1) })
	w.waiting(0)
	if err := w.redis.Freeze(); err != nil {
		t.Fatal(err)
	}
	halfClose("GET /status/RUN1 HTTP/1.1", func() {})
	if err := w.redis.Thaw(); err != nil {
		t.Fatal(err)
	}
	text := string(w.get("/metrics").body)
	for class, want := range map[string]string{"2xx": "0", "4xx": "3", "5xx": "0"} {
		if line := `mythic_cache_http_requests_total{route="/status/{run_id}",status="` + class + `"} ` + want + "\n"; !strings.Contains(text, line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
}

// waiting waits until so many requests wait for entries.
func (w *world) waiting(n int) {
	w.t.Helper()
	testserver.Eventually(w.t, strconv.Itoa(n)+" wait", func() error {
		if got := w.server.misses.count(); got != n {
			return errors.New(strconv.Itoa(got))
		}
		return nil
	})
}
