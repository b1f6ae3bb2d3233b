package api

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// large is a document of /status whose body is worth compressing.
func large(run string) string {
	return strings.Replace(status(run), `"files":{}`, `"files":{"a":"`+strings.Repeat("some text ", 200)+`"}`, 1)
}

// unpack reads a body that came as gzip.
func (a *answer) unpack(t testing.TB) string {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

func TestBodiesAreCompressedForWhoTakesThem(t *testing.T) {
	w := begin(t)
	e := w.put("run_status", "RUN1", fill(t, large("RUN1")))
	small := w.put("run_status", "RUN2", fill(t, status("RUN2")))
	for accept, packed := range map[string]bool{
		"gzip": true, "br, GZIP ;q=0.5": true, "*": true, "x-gzip": true, "gzip;q=0.5, identity;q=0.5": true, "identity;q=0, *": true,
		"identity": false, "br": false, "gzip;q=0": false, "*;q=0": false, "gzip;q=0, *": false, "gzip;q=0.4, identity;q=0.5": false, "gzip;q=x": false,
	} {
		a := w.packedGet("/status/RUN1", accept)
		want := map[string]string{"ETag": "W/" + e.ETag, "Content-Encoding": "", "Content-Length": strconv.Itoa(len(a.body)), "Vary": ".*Accept-Encoding.*"}
		if packed {
			want["Content-Encoding"] = "gzip"
		}
		a.wants(t, 200, want)
		body := string(a.body)
		if packed {
			body = a.unpack(t)
		}
		if body != large("RUN1") || packed != (len(a.body) < len(body)) {
			t.Errorf("%s: %d bytes of %d", accept, len(a.body), len(body))
		}
		// Either tag is answered by 304, with the one that each body has: a strong one could
		// not freshen a copy that is kept with a weak one.
		for _, tag := range []string{e.ETag, "W/" + e.ETag} {
			w.packedGet("/status/RUN1", accept, "If-None-Match", tag).wants(t, 304, map[string]string{
				"ETag": want["ETag"], "Content-Encoding": "", "Content-Length": "", "Vary": want["Vary"],
			})
		}
	}
	w.packedGet("/status/RUN2", "gzip").wants(t, 200, map[string]string{"ETag": small.ETag, "Content-Encoding": "", "Vary": ".*Accept-Encoding.*"})
	head := w.do(http.MethodHead, "/status/RUN1", "", "Accept-Encoding", "gzip")
	head.wants(t, 200, map[string]string{"Content-Encoding": "gzip", "Content-Length": strconv.Itoa(len(w.packedGet("/status/RUN1", "gzip").body))})
	for _, path := range []string{"/docs", "/openapi.json"} {
		a := w.packedGet(path, "gzip")
		a.wants(t, 200, map[string]string{"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
		if plain := w.packedGet(path, "identity"); a.unpack(t) != string(plain.body) {
			t.Errorf("%s: %d bytes are others than %d", path, len(a.body), len(plain.body))
		}
	}
}

// TestAHitIsCompressedOnce asks for one body over and over, as it comes from Redis, from
// memory, and after another fill brought the same.
func TestAHitIsCompressedOnce(t *testing.T) {
	w := begin(t, nearBy(t))
	w.put("run_status", "RUN1", fill(t, large("RUN1")))
	first := w.packedGet("/status/RUN1", "gzip")
	w.server.packer.writers = sync.Pool{New: func() any {
		t.Error("the body is compressed again")
		return gzip.NewWriter(nil)
	}}
	ask := func() {
		t.Helper()
		for range 3 {
			if a := w.packedGet("/status/RUN1", "gzip"); !bytes.Equal(a.body, first.body) || a.Header.Get("Content-Encoding") != "gzip" {
				t.Errorf("%d bytes, and %d at first", len(a.body), len(first.body))
			}
		}
	}
	ask()
	w.settle("/status/RUN1")
	ask()
	w.put("run_status", "RUN1", later(t, large("RUN1")))
	ask()
}

// packedGet is get without what the client does about codings by itself. The answer
// is held against the document where it is plain.
func (w *world) packedGet(path, accept string, headers ...string) *answer {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.url+path, http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", accept)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	a, err := send(r)
	if err != nil {
		w.t.Fatal(err)
	}
	plain := *a
	if a.Header.Get("Content-Encoding") != "" {
		plain.body = []byte(a.unpack(w.t))
	}
	w.check(r, &plain)
	return a
}

func TestWhatIsRememberedCompressedIsBounded(t *testing.T) {
	p := newPacker()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 200 {
				body := fmt.Appendf(nil, "%d %d ", i, j%50)
				body = append(body, bytes.Repeat([]byte{byte(i)}, 2000)...)
				packed := p.packed(fmt.Sprintf("%d-%d", i, j%50), body)
				if a := (&answer{body: packed}); a.unpack(t) != string(body) {
					t.Errorf("%d %d", i, j)
				}
			}
		})
	}
	all.Wait()
	if n := len(p.young); n != 400 {
		t.Errorf("%d are remembered", n)
	}
	body := bytes.Repeat([]byte("x"), 2000)
	first := p.packed("x", body)
	noise := make([]byte, packedMost/8)
	for i := range 40 {
		p.keep(strconv.Itoa(i), noise)
		if again := p.packed("x", body); &again[0] != &first[0] {
			t.Fatalf("what is asked for is forgotten after %d", i)
		}
	}
	size := 0
	for _, generation := range []map[string][]byte{p.young, p.old} {
		for name, packed := range generation {
			size += len(name) + len(packed)
		}
	}
	if size > 2*packedMost || p.size > packedMost {
		t.Errorf("%d bytes are remembered, %d of them young", size, p.size)
	}
	p.keep("x", make([]byte, packedMost/2))
	if _, ok := p.young["x"]; ok {
		t.Error("one of many is as large as half of all")
	}
	if p.packed("short", []byte("x")) != nil {
		t.Error("a body has grown")
	}
}
