package ai

import (
	"bufio"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// What counts as late is a word's way from the model, and only of words that were sent
// after their reader had come.
func TestWordsAreTimed(t *testing.T) {
	x := &told{begun: time.Now().Add(-time.Minute), sent: map[string]time.Duration{}}
	for n := 1; n <= 3; n++ {
		x.says("a", n)
	}
	x.sent["a/1"], x.sent["a/2"], x.sent["a/3"] = 10*time.Second, 30*time.Second, 50*time.Second
	within := func(what string, all []float64, want ...float64) {
		t.Helper()
		if !slices.EqualFunc(all, want, func(got, want float64) bool { return got >= want && got < want+5000 }) {
			t.Errorf("%s: %v, not %v", what, all, want)
		}
	}
	x.hears("a/1 a/2 ", 0, &x.first, &x.next)
	within("the first", x.first, 50_000)
	within("the others", x.next, 30_000)
	x.hears("a/1 a/2 a/3 b/1 nonsense", 40*time.Second, nil, &x.late)
	within("of who came later", x.late, 10_000)
}

// A stream is read to its end, and what is no end is an error.
func TestStreamsAreReadToTheirEnd(t *testing.T) {
	const word = "data: {\"choices\":[{\"delta\":{\"content\":\"%\"}}]}\n\n"
	one, two := strings.Replace(word, "%", "one ", 1), strings.Replace(word, "%", "two", 1)
	for _, c := range []struct{ name, body, told, wrong string }{
		{"whole", ":\n" + one + two + "data: {\"choices\":[]}\n\ndata: [DONE]\n\n", "one two", ""},
		{"cut", one, "one ", "before its end"},
		{"broken off", one + "data: {\"error\":{\"code\":\"not_filled\"}}\n\n", "one ", "not_filled"},
	} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = io.CopyN(io.Discard, theirs, 1)
			_, _ = io.WriteString(theirs, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"+c.body)
			_ = theirs.Close()
		}()
		var told string
		a := &asker{conn: ours, in: bufio.NewReader(ours)}
		err := a.listen([]byte("?"), func(text string) { told += text })
		a.close()
		if told != c.told || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: told %q, %v", c.name, told, err)
		}
	}
}
