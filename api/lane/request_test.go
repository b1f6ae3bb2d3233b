package lane

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// parsed returns the request that the lane makes of a text; nil where it makes none.
func parsed(text []byte) *http.Request {
	l := New(nil)
	t := l.turn()
	if !plausible(text) || !t.parse(text, l.blank) {
		return nil
	}
	return t.request
}

// same reports in what a request differs from the one that net/http makes of the text.
func same(text []byte, ours *http.Request) error {
	rest := bufio.NewReader(bytes.NewReader(text))
	theirs, err := http.ReadRequest(rest)
	if err != nil {
		return fmt.Errorf("net/http: %w", err)
	}
	if n, _ := io.Copy(io.Discard, theirs.Body); n > 0 || theirs.Body != http.NoBody {
		return fmt.Errorf("net/http finds a body of %d bytes", n)
	}
	if left, _ := io.ReadAll(rest); len(left) > 0 {
		return fmt.Errorf("net/http leaves %q", left)
	}
	delete(theirs.Header, "Host") // as its server does
	for _, pair := range [][2]any{
		{ours.Method, theirs.Method}, {ours.URL, theirs.URL}, {ours.Proto, theirs.Proto}, {ours.ProtoMajor, theirs.ProtoMajor}, {ours.ProtoMinor, theirs.ProtoMinor},
		{ours.Header, theirs.Header}, {ours.ContentLength, theirs.ContentLength}, {ours.TransferEncoding, theirs.TransferEncoding}, {ours.Close, theirs.Close},
		{ours.Host, theirs.Host}, {ours.RequestURI, theirs.RequestURI}, {ours.Trailer, theirs.Trailer}, {ours.URL.EscapedPath(), theirs.URL.EscapedPath()},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			return fmt.Errorf("%#v, and net/http finds %#v", pair[0], pair[1])
		}
	}
	return nil
}

var understood = []string{
	plainGet,
	"GET / HTTP/1.1\r\nHost: example.com:8001\r\n\r\n",
	"GET /status/RUN-1_2.3~4:5@6/x HTTP/1.1\r\nhOST:[::1]:80\r\nconnection: Keep-Alive\r\n\r\n",
	"GET /books/my HTTP/1.1\r\nHost: x\r\nUser-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nAuthorization: Bearer a.b-c_d\r\n\r\n",
	"GET /a HTTP/1.1\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\nHost: x\r\nIf-None-Match: W/\"a\", \"b\"\r\n\r\n",
}

func TestWhatTheLaneUnderstands(t *testing.T) {
	for _, text := range understood {
		r := parsed([]byte(text))
		if r == nil {
			t.Errorf("%q is not understood", text)
		} else if err := same([]byte(text), r); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Each of these differs from a request that is understood by one thing.
func TestWhatTheLaneLeavesToNetHTTP(t *testing.T) {
	with := func(field string) string { return "GET /plain HTTP/1.1\r\nHost: x\r\n" + field + "\r\n\r\n" }
	for _, text := range []string{
		"HEAD /plain HTTP/1.1\r\nHost: x\r\n\r\n", "GET /plain?a HTTP/1.1\r\nHost: x\r\n\r\n", "GET /pl%61in HTTP/1.1\r\nHost: x\r\n\r\n", "GET /plain HTTP/1.0\r\nHost: x\r\n\r\n",
		"GET /plain HTTP/1.1\r\n\r\n", "GET //plain HTTP/1.1\r\nHost: x\r\n\r\n", "GET /plain HTTP/1.1\nHost: x\r\n\r\n", "GET /plain HTTP/1.1\r\nHost: x\n\r\n\r\n", "GET /plain HTTP/1.1 \r\nHost: x\r\n\r\n",
		"GET  /plain HTTP/1.1\r\nHost: x\r\n\r\n", "GET /plain HTTP/1.1\r\nHost: x\r\n", plainGet + "G", plainGet + plainGet, "GET /plain HTTP/1.1\r\nHost: a b\r\n\r\n", "GET /plain HTTP/1.1\r\nHost: x/y\r\n\r\n",
		with("Host: x"), with("Host: y"), with("Accept: a\r\nAccept: a"), with("Connection: close"), with("Connection: keep-alive, upgrade"), with("Content-Length: 0"), with("Transfer-Encoding: chunked"),
		with("Upgrade: h2c"), with("Expect: 100-continue"), with("Prefer: wait=1"), with("Range: bytes=0-1"), with("X-Min-Xid: 1"),
		with("Pragma: no-cache"), with("TE: trailers"), with("Trailer: x"), with("X-Unknown: x"),
		with("Accept : a"), with(" Accept: a"), with("Accept:  a"), with("Accept: a "), with("Accept:"), with("Accept: "),
		with("Accept: a\tb"), with("Accept: \x7f"), with("Accept: \u00e9"), with("Accept: a\rb"), with("Accept"),
		with("A-name-that-is-longer-than-any: x"), with("Accep\u212a: x"),
	} {
		if r := parsed([]byte(text)); r != nil {
			t.Errorf("%q is understood as %+v", text, r)
		}
	}
}

func TestEveryFieldHasABitOfItsOwn(t *testing.T) {
	var seen uint32
	for name := range strings.FieldsSeq("host connection accept accept-encoding accept-language authorization cookie if-none-match referer sec-fetch-dest " +
		"sec-fetch-mode sec-fetch-site traceparent tracestate user-agent x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip x-request-id x-user-id") {
		spelt, bit := canonical(name)
		if spelt != http.CanonicalHeaderKey(name) || bit == 0 || seen&bit != 0 {
			t.Errorf("%s: %s %b", name, spelt, bit)
		}
		seen |= bit
	}
}

// FuzzRequest holds whatever the lane understands against what net/http makes of it.
func FuzzRequest(f *testing.F) {
	for _, text := range understood {
		f.Add([]byte(text))
	}
	for _, field := range fields {
		f.Add([]byte("GET /plain HTTP/1.1\r\nHost: x\r\n" + field + "\r\n\r\n"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if r := parsed(text); r != nil {
			if err := same(text, r); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
		}
	})
}
