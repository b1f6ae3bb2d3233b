package api

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
)

// TestAStreamKeepsNothingOfItsRequestButWhoAsks opens streams with much in their headers
// that nobody needs.
func TestAStreamKeepsNothingOfItsRequestButWhoAsks(t *testing.T) {
	const streams, most = 200, 12 << 10 // bytes each
	w := begin(t, func(o *Options) { o.MaxPerCaller = streams })
	w.put("run_status", "RUN1", told(t, "RUN1", "one", 100))
	address, _ := w.serve()
	headers := "Authorization: " + token(t, "user_1") + "\r\nAccept: " + eventStream + "\r\n"
	junk := strings.Repeat("x", 14<<10)
	for _, name := range []string{"Last-Event-ID", "Cookie"} {
		before := heap()
		var conns []net.Conn
		for range streams {
			conn := w.dial(address)
			fmt.Fprintf(conn, "GET /status/RUN1 HTTP/1.1\r\nHost: x\r\n%s%s: %s\r\n\r\n", headers, name, junk)
			if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 200 OK"))); err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		w.watchers(streams)
		if each := (int64(heap()) - int64(before)) / streams; each > most {
			t.Errorf("with a long %s a stream keeps %d bytes", name, each)
		}
		for _, conn := range conns {
			conn.Close()
		}
		w.nobodyWatches()
	}
}

// heap returns how many bytes are in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
