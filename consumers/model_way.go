package consumers

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// unreached is an error of the way to the model. Whoever asked is told of which kind it
// is; which hosts and addresses there are on the way is for the log.
func unreached(err error) *ModelError {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err // around it is the URL, which may hold a password
	}
	why := "cannot be reached"
	if kind := kindOf(err); kind != "" {
		why += ": " + kind
	}
	return &ModelError{Why: why, Detail: userinfo.ReplaceAllString(err.Error(), "//")}
}

// userinfo is what stands before the host in a URL, which net/http quotes where that is a
// proxy's.
var userinfo = regexp.MustCompile(`//[^/\s"]*@`)

// kindOf says in a word what is wrong with the way.
func kindOf(err error) string {
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var authority x509.UnknownAuthorityError
	var timeout net.Error
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.As(err, &name):
		return "its host is not found"
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert), errors.As(err, &authority),
		strings.HasSuffix(err.Error(), "HTTP response to HTTPS client"): // net/http has a text of its own for one of these
		return "TLS failed"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed"
	}
	return ""
}

// waysKept is how many connections to a provider wait for the next call, where it speaks
// HTTP/1.1: as many calls as that begin and end together need no new ones.
const waysKept = 128

// newWay makes the way to a provider, with the environment's proxies.
func newWay() http.RoundTripper {
	usual, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport // a program's own
	}
	way := usual.Clone()
	way.MaxIdleConns, way.MaxIdleConnsPerHost = waysKept, waysKept
	return way
}

// What of a response may come after the last that is read of it.
const (
	restMost = 4 << 10
	restFor  = 20 * time.Millisecond
)

// restBody reads, when it is closed, what comes after the last event of a stream, which is
// nothing but the end of the response: a connection whose response was not read to its end
// is lost to the next call. A provider that goes on, or does not end it, is not waited for.
type restBody struct{ io.ReadCloser }

// Close implements io.Closer.
func (b restBody) Close() error {
	giveUp := time.AfterFunc(restFor, func() { _ = b.ReadCloser.Close() })
	defer giveUp.Stop()
	_, _ = io.CopyN(io.Discard, b.ReadCloser, restMost)
	return b.ReadCloser.Close()
}

// boundedTransport ends responses that do not end by themselves, and has those that are
// whole look as if they came in pieces.
type boundedTransport struct{ next http.RoundTripper }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	response, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	response.Body = restBody{http.MaxBytesReader(nil, response.Body, maxResponse)}
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")) // another way to write it is another type
	if response.StatusCode == http.StatusOK && kind == "application/json" {
		return inOnePiece(response)
	}
	return response, nil
}

// inOnePiece makes a stream of a completion that a provider sent whole, though it was
// asked for pieces: it is paid for.
func inOnePiece(response *http.Response) (*http.Response, error) {
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	chunk, ok := chunkOf(body)
	if !ok { // an error, or nothing that can be read: on one line it is as good as a piece
		chunk = bytes.Join(bytes.Fields(body), []byte(" "))
	}
	response.Body = io.NopCloser(strings.NewReader("data: " + string(chunk) + "\n\ndata: [DONE]\n\n"))
	response.ContentLength = -1
	response.Header = response.Header.Clone()
	response.Header.Set("Content-Type", "text/event-stream")
	response.Header.Del("Content-Length")
	return response, nil
}

// chunkOf makes the chunk of a completion that says all of it. It reports false for what
// is none.
func chunkOf(completion []byte) ([]byte, bool) {
	var members map[string]json.RawMessage
	var choices []map[string]json.RawMessage
	if json.Unmarshal(completion, &members) != nil || json.Unmarshal(members["choices"], &choices) != nil {
		return nil, false
	}
	for _, choice := range choices {
		if message, ok := choice["message"]; ok {
			choice["delta"] = withIndexes(message)
			delete(choice, "message")
		}
	}
	members["choices"] = raw(choices)
	return raw(members), true
}

// withIndexes numbers the calls of tools in a message, as chunks have them.
func withIndexes(message json.RawMessage) json.RawMessage {
	var members map[string]json.RawMessage
	var calls []map[string]json.RawMessage
	if json.Unmarshal(message, &members) != nil || json.Unmarshal(members["tool_calls"], &calls) != nil {
		return message // there are none
	}
	for i, call := range calls {
		if call == nil {
			return message
		}
		call["index"] = raw(i)
	}
	members["tool_calls"] = raw(calls)
	return raw(members)
}

// inOneText makes a text of a content that is a list of parts, as the reasoning models of
// some providers have it. Of parts that it does not know it reports false.
func inOneText(delta json.RawMessage) (json.RawMessage, bool) {
	if !bytes.Contains(delta, []byte("[")) {
		return delta, true
	}
	var members map[string]json.RawMessage
	var parts []contentPart
	if json.Unmarshal(delta, &members) != nil || len(members["content"]) == 0 || members["content"][0] != '[' {
		return delta, true // another's to judge
	}
	if json.Unmarshal(members["content"], &parts) != nil {
		return nil, false
	}
	var text, reasoning strings.Builder
	for _, part := range parts {
		switch part.Type {
		case "text":
			text.WriteString(part.Text)
		case "thinking":
			for _, thought := range part.Thinking {
				reasoning.WriteString(thought.Text)
			}
		default:
			return nil, false
		}
	}
	members["content"] = raw(text.String())
	if reasoning.Len() > 0 {
		members["reasoning_content"] = raw(reasoning.String())
	}
	return raw(members), true
}

// contentPart is one part of a content.
type contentPart struct {
	Type     string `json:"type"`
	Text     string `json:"text"`
	Thinking []struct {
		Text string `json:"text"`
	} `json:"thinking"`
}

// raw writes texts, numbers and what was JSON before.
func raw(value any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic(err)
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}
