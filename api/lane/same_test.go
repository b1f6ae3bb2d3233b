package lane

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// piece is what a client sends at once.
type piece struct {
	text string
	wait bool // until all that can be answered of what was sent before is
}

// converse sends pieces on one connection and returns all that was answered, and how
// many answers came by the lane.
func converse(t *testing.T, pieces []piece, withLane bool) (said string, answered uint64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := serve(http.HandlerFunc(echo), withLane)
		defer f.stop(t)
		conn := f.dial()
		defer conn.Close()
		heard := hear(conn)
		for _, p := range pieces {
			if p.wait {
				synctest.Wait()
			}
			if _, err := conn.Write([]byte(p.text)); err != nil {
				break // the server has hung up
			}
		}
		said = <-heard // the last request says close, or a deadline ends it
		if withLane {
			answered = f.lane.Answered()
		}
	})
	return said, answered
}

var date = regexp.MustCompile(`\r\nDate: [^\r]*GMT\r\n`)

// timeless leaves out of answers when they were made, and nothing else: what is sent
// by the lane is the same to the byte, and in the same order.
func timeless(said string) string { return date.ReplaceAllString(said, "\r\nDate: *\r\n") }

// spell shows pieces; one that did not wait begins with a plus.
func spell(pieces []piece) string {
	var b strings.Builder
	for _, p := range pieces {
		if !p.wait {
			b.WriteString("+")
		}
		fmt.Fprintf(&b, "%q\n", p.text)
	}
	return b.String()
}

// fields are lines that the lane may see, and some that it must not touch.
var fields = []string{
	"Accept: */*", "accept: application/json", "ACCEPT-ENCODING: gzip", "Accept-Language: de, en;q=0.5", "Authorization: Bearer abc.def-_",
	"If-None-Match: \"a\", W/\"b\"", "User-Agent:wrk", "Connection: keep-alive", "connection: Keep-Alive", "Cookie: a=b", "X-Request-Id: 1",
	"X-Forwarded-For: 10.0.0.1, ::1", "traceparent: 00-1-2-01", "Referer: http://x/?a=b#c",
	// What is for net/http to judge.
	"Prefer: wait=5", "Connection: close", "Connection: upgrade", "Upgrade: websocket", "Pragma: no-cache", "Content-Length: 0", "Content-Length: 5",
	"Transfer-Encoding: chunked", "TE: trailers", "Expect: 100-continue", "Host: y", "Host:", "Accept : a", " Accept: a", "Accept: a\tb", "Accept:  two",
	"Accept: trailing ", "Accept:", "Accept: caf\u00e9", "A b: c", "NoColon", "Accept: a\n", "Accept: a\r", "Accept: a\x00", "X-Min-Xid: 1", "Origin: http://x",
	"Keep-Alive: 5", "Proxy-Connection: keep-alive", "Trailer: x", "Range: bytes=0-1", "If-Range: x", "HTTP2-Settings: x",
}

// drawPlain draws a request of the form that the lane is for.
func drawPlain(t *rapid.T) string {
	line := rapid.SampledFrom([]string{
		"/plain", "/plain", "/plain", "/plain", "/same/1", "/missing", "/", "/a/b:c@d~e_f-g.h", "/unread", "/odd/short", "/odd/type", "/stream", "/stream/twice", "/stream/long", "/stream/nothing",
		"/odd/stream/together", "/odd/stream/late", "/odd/stream/never", "/odd/stream/empty",
	}).Draw(t, "path")
	method := rapid.SampledFrom([]string{http.MethodGet, http.MethodPost}).Draw(t, "method")
	lines := append([]string{method + " " + line + " HTTP/1.1", "Host: x"}, rapid.SliceOfNDistinct(rapid.SampledFrom(fields[:14]), 0, 3, rapid.ID).Draw(t, "fields")...)
	body := ""
	if method == http.MethodPost {
		body = drawBody(t)
		length := len(body)
		if rapid.IntRange(0, 29).Draw(t, "lies") == 0 {
			length = max(0, length+rapid.IntRange(-2, 2).Draw(t, "by"))
		}
		lines = append(lines, fmt.Sprintf("Content-Length: %d", length))
		if rapid.Bool().Draw(t, "typed") {
			lines = slices.Insert(lines, 1, "Content-Type: application/json")
		}
	}
	return strings.Join(lines, "\r\n") + endOfHead + body
}

// drawBody draws a body, some of which look like requests, or do not fit in a buffer.
func drawBody(t *rapid.T) string {
	if rapid.IntRange(0, 19).Draw(t, "large") == 0 {
		return strings.Repeat("x", rapid.IntRange(3900, 9000).Draw(t, "length"))
	}
	return rapid.SampledFrom([]string{"", "{}", "abcd", plainGet, plainPost, lastGet, "\r\n", "\r\n\r\n", "\x00\xff", "0\r\n\r\n"}).Draw(t, "body")
}

func drawRequest(t *rapid.T) string {
	if rapid.IntRange(0, 2).Draw(t, "plain") > 0 {
		return drawPlain(t)
	}
	line := rapid.SampledFrom([]string{
		"GET /plain HTTP/1.1", "GET /plain HTTP/1.1", "GET /plain HTTP/1.1", "GET /same/1 HTTP/1.1", "GET /missing HTTP/1.1", "GET / HTTP/1.1",
		"POST /plain HTTP/1.1", "POST /plain HTTP/1.1", "POST /declined HTTP/1.1", "POST /plain HTTP/1.0", "POST /plain?a=b HTTP/1.1", "post /plain HTTP/1.1", "POST  /plain HTTP/1.1", "POST /odd/close HTTP/1.1",
		"GET /declined HTTP/1.1", "GET /a/b:c@d~e_f-g.h HTTP/1.1", "GET /odd/length HTTP/1.1", "GET /odd/type HTTP/1.1", "GET /odd/close HTTP/1.1", "GET /odd/short HTTP/1.1",
		"HEAD /plain HTTP/1.1", "PUT /plain HTTP/1.1", "GET /plain?a=b HTTP/1.1", "GET /pl%61in HTTP/1.1", "GET //x/y HTTP/1.1", "GET /a/../b HTTP/1.1", "GET http://h/plain HTTP/1.1",
		"GET /plain HTTP/1.0", "GET /plain HTTP/1.2", "get /plain HTTP/1.1", "GET  /plain HTTP/1.1", "GET /plain  HTTP/1.1", "GET /plain", "GET * HTTP/1.1", "OPTIONS * HTTP/1.1", "GET /pl;ain HTTP/1.1",
		"GET /é HTTP/1.1", "PRI * HTTP/2.0", "CONNECT x:1 HTTP/1.1", "", "\r\nGET /plain HTTP/1.1",
	}).Draw(t, "line")
	lines := []string{line}
	if rapid.IntRange(0, 19).Draw(t, "host") > 0 {
		lines = append(lines, rapid.SampledFrom([]string{"Host: x", "host: example.com:8001", "HOST: [::1]:80", "Host: a b", "Host: x/y"}).Draw(t, "which"))
	}
	lines = append(lines, rapid.SliceOfN(rapid.SampledFrom(fields), 0, 3).Draw(t, "fields")...)
	if rapid.IntRange(0, 29).Draw(t, "long") == 0 {
		lines = append(lines, "Cookie: "+strings.Repeat("x", rapid.IntRange(3900, 5000).Draw(t, "length")))
	}
	text := strings.Join(lines, "\r\n") + "\r\n\r\n"
	if strings.HasPrefix(line, "POST") {
		body := drawBody(t)
		if rapid.IntRange(0, 2).Draw(t, "says how long") > 0 {
			lines = append(lines, rapid.SampledFrom([]string{"Content-Length: %d", "content-length:%d", "Content-Length: +%d", "Content-Length: 0%d", "Content-Length: %d "}).Draw(t, "how"))
			lines[len(lines)-1] = fmt.Sprintf(lines[len(lines)-1], len(body))
		}
		return strings.Join(lines, "\r\n") + endOfHead + body
	}
	switch rapid.IntRange(0, 9).Draw(t, "body") {
	case 0: // a body that looks like a request
		body := rapid.SampledFrom([]string{plainGet, "GET /other HTTP/1.1\r\nHost: x\r\n\r\n", "12345"}).Draw(t, "text")
		text = fmt.Sprintf("PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	case 1:
		text = fmt.Sprintf("PUT /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(plainGet), plainGet)
	}
	return text
}

// drawPieces draws requests and cuts them: where one ends, at each line, or anywhere.
func drawPieces(t *rapid.T) []piece {
	var pieces []piece
	add := func(text string) {
		pieces = append(pieces, piece{text: text, wait: rapid.IntRange(0, 4).Draw(t, "wait") > 0})
	}
	joined := ""
	add(plainGet)
	for range rapid.IntRange(1, 8).Draw(t, "requests") {
		text := drawRequest(t)
		if rapid.IntRange(0, 24).Draw(t, "damage") == 0 {
			at := rapid.IntRange(0, len(text)).Draw(t, "at")
			text = text[:at] + rapid.SampledFrom([]string{"", "\r", "\n", " ", ":", "\x00", "G", "/"}).Draw(t, "with") + text[min(at+1, len(text)):]
		}
		if rapid.IntRange(0, 39).Draw(t, "blank") == 0 {
			text = rapid.SampledFrom([]string{"\r\n", "\n", "\r", "\r\n\r\n", "\r\n\r\n\r\n", "\n\r\n\r\r"}).Draw(t, "lines") + text
		}
		text, joined = joined+text, ""
		switch rapid.IntRange(0, 14).Draw(t, "cut") {
		case 0: // not at all: the next comes with it
			joined = text
		case 1: // at each line
			for _, line := range strings.SplitAfter(text, "\n") {
				add(line)
			}
		case 2: // the head alone
			head, rest, _ := strings.Cut(text, "\r\n\r\n")
			add(head + "\r\n\r\n")
			add(rest)
		case 3: // what the lane could answer, and an end of a line
			add(text)
			text = rapid.SampledFrom([]string{"\r\n", "\r", "\n", "\r\n\r\n"}).Draw(t, "end")
			add(text)
		case 4:
			at := rapid.IntRange(0, len(text)).Draw(t, "at")
			add(text[:at])
			add(text[at:])
		default:
			add(text)
		}
	}
	add(joined)
	add(lastGet)
	return slices.DeleteFunc(pieces, func(p piece) bool { return p.text == "" })
}

// TestSameAsWithoutLane sends whatever may come to a server with a lane and to one
// without. Nobody can tell them apart.
func TestSameAsWithoutLane(t *testing.T) {
	var answered uint64
	rapid.Check(t, func(r *rapid.T) {
		for range 10 {
			pieces := drawPieces(r)
			with, by := converse(t, pieces, true)
			without, _ := converse(t, pieces, false)
			if a, b := timeless(with), timeless(without); a != b {
				r.Fatalf("with a lane:\n%s\n\nwithout:\n%s\n\nsent: %s", a, b, spell(pieces))
			}
			answered += by
		}
	})
	if answered < 200 {
		t.Errorf("the lane answered %d requests: this has tried nothing", answered)
	}
}

// TestLineEndsInFrontOfARequest come behind what net/http has answered, and the lane.
// After a POST some are passed over, and after a GET none is.
func TestLineEndsInFrontOfARequest(t *testing.T) {
	for _, first := range []string{plainGet, plainPost} {
		for _, second := range []string{plainGet, plainPost} {
			for _, ends := range [][]string{
				{"\r\n"}, {"\n"}, {"\r"}, {"\r\n", "\r\n"}, {"\r\n\r\n"}, {"\r\n\r\n\r"}, {"\r\n\r\n", "\n"}, {"\r", "\n\r\n\r\n"}, {"\r\n" + plainGet}, {"\r\n\r\n\n" + plainPost}, {"\n", plainPost, "\r\n"},
			} {
				pieces := []piece{{text: first}, {text: second, wait: true}}
				for _, one := range ends {
					pieces = append(pieces, piece{text: one, wait: true})
				}
				pieces = append(pieces, piece{text: plainPost, wait: true}, piece{text: lastGet, wait: true})
				with, answered := converse(t, pieces, true)
				without, _ := converse(t, pieces, false)
				if a, b := timeless(with), timeless(without); a != b || answered == 0 {
					t.Errorf("with a lane, which answered %d:\n%s\n\nwithout:\n%s\n\nsent: %s", answered, a, b, spell(pieces))
				}
			}
		}
	}
}

// cutUp makes pieces of a text, where the numbers say.
func cutUp(text string, cuts []byte) []piece {
	var pieces []piece
	for _, cut := range cuts {
		n := int(cut >> 1)
		if n == 0 || n >= len(text) {
			continue
		}
		pieces, text = append(pieces, piece{text: text[:n], wait: cut&1 == 1}), text[n:]
	}
	return append(pieces, piece{text: text, wait: true}, piece{text: lastGet, wait: true})
}

func FuzzSameAsWithoutLane(f *testing.F) {
	for _, text := range []string{
		plainGet, "PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 34\r\n\r\n" + plainGet, "GET /plain HTTP/1.1\r\n" + plainGet, "\r\n\r\n" + plainGet,
		"HEAD /plain HTTP/1.1\r\nHost: x\r\nAccept: a\r\n\r\n" + plainGet,
		plainPost, plainPost + plainPost, plainPost + "\r\n" + plainPost, "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 34\r\n\r\n" + plainGet,
	} {
		f.Add(plainGet+text, []byte{byte(len(plainGet)<<1 | 1), 1 << 1, 7<<1 | 1})
		f.Add(plainGet+text, []byte{byte(len(plainGet)<<1 | 1), byte((len(text)-len(plainGet))<<1 | 1), 0})
	}
	f.Fuzz(func(t *testing.T, text string, cuts []byte) {
		if len(text) > 16<<10 || len(cuts) > 64 {
			return
		}
		pieces := cutUp(text, cuts)
		with, _ := converse(t, pieces, true)
		without, _ := converse(t, pieces, false)
		if a, b := timeless(with), timeless(without); a != b {
			t.Fatalf("with a lane:\n%s\n\nwithout:\n%s\n\nsent: %s", a, b, spell(pieces))
		}
	})
}
