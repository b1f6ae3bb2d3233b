package api

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// kind names a sort of problem. It is the fragment of the problem's type, which
// leads to its paragraph on the page at /docs.
type kind string

const (
	kindBadRequest   kind = "bad-request"
	kindUnauthorized kind = "unauthorized"
	kindForbidden    kind = "forbidden"
	kindNotFound     kind = "not-found"
	kindMethod       kind = "method-not-allowed"
	kindXidOpen      kind = "transaction-in-progress"
	kindXidUnknown   kind = "transaction-unknown"
	kindSlow         kind = "too-slow"
	kindTooLarge     kind = "too-large"
	kindMediaType    kind = "unsupported-media-type"
	kindEvents       kind = "events-refused"
	kindLimited      kind = "rate-limited"
	kindInternal     kind = "internal"
	kindCacheAway    kind = "cache-away"
	kindNotFilled    kind = "not-filled"
	kindBusy         kind = "busy"
	kindNotReady     kind = "not-ready"
)

// uri is the type of problems of a kind.
func (k kind) uri() string { return "/docs#" + string(k) }

// status and title of a kind of problem.
func (k kind) about() (status int, title string) {
	switch k {
	case kindBadRequest:
		return http.StatusBadRequest, "The request cannot be understood"
	case kindUnauthorized:
		return http.StatusUnauthorized, "No valid token"
	case kindForbidden:
		return http.StatusForbidden, "Not for this caller"
	case kindNotFound:
		return http.StatusNotFound, "Not found"
	case kindMethod:
		return http.StatusMethodNotAllowed, "Method not allowed"
	case kindXidOpen:
		return http.StatusConflict, "The transaction is still in progress"
	case kindXidUnknown:
		return http.StatusBadRequest, "No such transaction"
	case kindSlow:
		return http.StatusRequestTimeout, "The request takes too long"
	case kindTooLarge:
		return http.StatusRequestEntityTooLarge, "The request is too large"
	case kindMediaType:
		return http.StatusUnsupportedMediaType, "Media type not supported"
	case kindEvents:
		return http.StatusBadRequest, "Events refused"
	case kindLimited:
		return http.StatusTooManyRequests, "Too many requests"
	case kindCacheAway:
		return http.StatusServiceUnavailable, "The cache is away"
	case kindNotFilled:
		return http.StatusServiceUnavailable, "Not filled in time"
	case kindBusy:
		return http.StatusServiceUnavailable, "Too many requests are waiting"
	case kindNotReady:
		return http.StatusServiceUnavailable, "Not ready"
	case kindInternal:
	}
	return http.StatusInternalServerError, "Internal error"
}

// Problem is an RFC 9457 problem document. It is an error, so that a handler
// returns it.
type Problem struct { //nolint:errname // RFC 9457's own word
	Type   string `json:"type"` // /docs#<kind>
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`

	// Extensions, each of some kinds only.
	Errors    []ItemError       `json:"errors,omitempty"`     // events-refused: what is wrong with which
	Accepted  []Accepted        `json:"accepted,omitempty"`   // cache-away: the events that Redis did take
	Parts     map[string]string `json:"parts,omitempty"`      // not-ready
	Connected *bool             `json:"connected,omitempty"`  // /health/redis
	LatencyMS *float64          `json:"latency_ms,omitempty"` // /health/redis

	retryAfter time.Duration // 0: no Retry-After
	challenge  string        // WWW-Authenticate
	param      string        // the member of the request that is wrong, in OpenAI's form
	code       string        // in the same form
}

func (p *Problem) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Title, p.Detail) }

// problem makes one. The detail is for the caller: nothing internal, and nothing
// that the caller sent without its being short and clean.
func problem(k kind, detail string) *Problem {
	status, title := k.about()
	return &Problem{Type: k.uri(), Title: title, Status: status, Detail: detail}
}

// later says when to try again.
func (p *Problem) later(after time.Duration) *Problem {
	p.retryAfter = after
	return p
}

// write sends the problem. It is never stored by who receives it.
func (p *Problem) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(ceilSeconds(p.retryAfter)))
	}
	if p.challenge != "" {
		h.Set("WWW-Authenticate", p.challenge)
	}
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte("{}") // a number that JSON lacks; the status says enough
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the client may be gone
}

// ceilSeconds rounds up: who comes back after a second too few is refused again.
func ceilSeconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// validText reports whether a text is UTF-8 without NUL, as PostgreSQL's text is.
func validText(text string) bool {
	return utf8.ValidString(text) && strings.IndexByte(text, 0) < 0
}
