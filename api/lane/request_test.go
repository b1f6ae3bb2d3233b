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
	head, body := cutHead(text)
	if head == nil || !t.parse(head, body, l.blank) {
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
	if (ours.Body == http.NoBody) != (theirs.Body == http.NoBody) {
		return fmt.Errorf("a body of %T, and net/http finds one of %T", ours.Body, theirs.Body)
	}
	body, err := io.ReadAll(ours.Body)
	if other, err2 := io.ReadAll(theirs.Body); err != nil || err2 != nil || !bytes.Equal(body, other) {
		return fmt.Errorf("the body is %q (%w), and net/http finds %q (%w)", body, err, other, err2)
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
	plainPost,
	"POST / HTTP/1.1\r\nContent-Length: 0\r\nHost: x\r\n\r\n",
	"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nUser-Agent: OpenAI/Go 3.0.0\r\nContent-Length: 10\r\nAccept: application/json\r\nAuthorization: Bearer a\r\nContent-Type: application/json\r\n" +
		"X-Stainless-Arch: x64\r\nX-Stainless-Lang: go\r\nX-Stainless-Os: Linux\r\nX-Stainless-Package-Version: 3\r\nX-Stainless-Retry-Count: 0\r\nX-Stainless-Runtime: go\r\nX-Stainless-Runtime-Version: go1.26\r\n" +
		"Accept-Encoding: gzip\r\n\r\n{\"a\":\r\n\r\n}",
	"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
	fmt.Sprintf("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(plainGet), plainGet),
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
	post := func(field, body string) string {
		return "POST /plain HTTP/1.1\r\nHost: x\r\n" + field + "\r\n\r\n" + body
	}
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
		with("A-name-that-is-longer-than-any-that-is-known: x"), with("Accep\u212a: x"), with("Content-Type: text/plain"),
		post("Content-Length: 3", "ab"), post("Content-Length: 1", "ab"), post("Content-Length: 0", "ab"), post("Content-Length: 2", ""), post("Content-Length: +2", "ab"), post("Content-Length: 02", "ab"),
		post("Content-Length: 2 ", "ab"), post("Content-Length: 2, 2", "ab"), post("Content-Length: 2\r\nContent-Length: 2", "ab"), post("Content-Length: 2\r\ncontent-length: 3", "ab"),
		post("Content-Length: 0x2", "ab"), post("Content-Length:", ""), post("Accept: a", ""), post("Accept: a", "ab"), post("Content-Length: 2\r\nTransfer-Encoding: identity", "ab"),
		post("Transfer-Encoding: chunked", "2\r\nab\r\n0\r\n\r\n"), post("Content-Length: 2\r\nTransfer-Encoding: chunked", "ab"), post("Content-Length: 2\r\nExpect: 100-continue", "ab"),
		post("Content-Length: 2\r\nContent-Encoding: gzip", "ab"), post("Content-Length: 2\r\nConnection: close", "ab"), post("Content-Length: 2\r\nTrailer: x", "ab"), post("Content-Length: 2", "ab\r\n"),
		post("Content-Length: 2", "ab"+plainGet), "PUT" + strings.TrimPrefix(plainPost, "POST"), strings.Replace(plainPost, "HTTP/1.1", "HTTP/1.0", 1), strings.Replace(plainPost, "Host: x\r\n", "", 1),
		strings.Replace(plainPost, "/plain", "/plain?a=b", 1), strings.Replace(plainPost, "POST", "post", 1), strings.ReplaceAll(plainPost, "\r\n", "\n"), strings.TrimSuffix(plainPost, "d"),
	} {
		if r := parsed([]byte(text)); r != nil {
			t.Errorf("%q is understood as %+v", text, r)
		}
	}
}

func TestEveryFieldHasABitOfItsOwn(t *testing.T) {
	var seen uint64
	for name := range strings.FieldsSeq("host connection accept accept-encoding accept-language authorization cookie if-none-match referer sec-fetch-dest " +
		"sec-fetch-mode sec-fetch-site traceparent tracestate user-agent x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip x-request-id x-user-id " +
		"content-length content-type openai-organization openai-project x-stainless-arch x-stainless-async x-stainless-helper-method x-stainless-lang x-stainless-os x-stainless-package-version " +
		"x-stainless-read-timeout x-stainless-retry-count x-stainless-runtime x-stainless-runtime-version x-stainless-timeout") {
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
		f.Add([]byte("POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n" + field + "\r\n\r\nabcd"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if r := parsed(text); r != nil {
			if err := same(text, r); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
		}
	})
}
