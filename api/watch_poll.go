package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
)

// How long a poll may wait, and how much longer its connection lives.
const (
	maxPoll   = time.Minute
	pollGrace = 10 * time.Second
)

// parseWait reads wait=seconds of Prefer (RFC 7240, 4.3); 0 where it says nothing.
func parseWait(values []string) (time.Duration, error) {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			token, _, _ := strings.Cut(part, ";")
			name, argument, _ := strings.Cut(token, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(argument), `"`), 10, 31)
			if err != nil {
				return 0, problem(kindBadRequest, "wait in Prefer is not a number of seconds")
			}
			return min(time.Duration(seconds)*time.Second, maxPoll), nil // the first counts (RFC 7240, 2)
		}
	}
	return 0, nil
}

// poller is a request that waits for an entry to become another.
type poller struct {
	changed chan *change // the newest that it has not seen
	over    chan struct{}
}

// hear implements watcher. The hub calls it for one change at a time.
func (p *poller) hear(c *change) {
	select {
	case <-p.changed: // overtaken
	default:
	}
	p.changed <- c
}

// end implements watcher.
func (p *poller) end(string) { close(p.over) }

// poll answers at once where the entry is another than the client has, else when it
// becomes another, and at the latest after a time.
func (s *Server) poll(x *exchange, v *view.View, wait time.Duration) error {
	e, from, err := s.find(x, v)
	if err != nil {
		return err
	}
	x.Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
	if !x.has(e.ETag) || !mayRead(x.caller, e) {
		return x.serve(v, e, from)
	}
	p := &poller{changed: make(chan *change, 1), over: make(chan struct{})}
	t, err := s.watches.join(v, e, from.at, x.caller, p)
	if err != nil {
		return err
	}
	defer s.watches.leave(t, x.caller, p)
	// The server's own deadline is for answers that come at once. Where it cannot be
	// moved, the wait is as long as it can be.
	_ = http.NewResponseController(x).SetWriteDeadline(time.Now().Add(wait + pollGrace))
	begun := time.Now()
	newest, err := p.wait(x, wait)
	if err != nil {
		return err
	}
	// What the client wants to wait is no time that the answer took.
	x.started = x.started.Add(time.Since(begun))
	if newest != nil {
		e, from = newest.entry, source{mark: markHit, at: newest.now()}
	} else {
		from.at = from.at.Add(time.Since(begun))
	}
	if from.mark != markStale && !e.FreshUntil.After(from.at) { // nobody has brought another meanwhile
		from = source{mark: markStale, detail: cache.WhyStale, at: from.at}
	}
	return x.serve(v, e, from)
}

// has reports whether the client has the entry of that tag.
func (x *exchange) has(etag string) bool { return matches(x.request.Header["If-None-Match"], etag) }

// wait returns the newest state that there was, nil where there was none, once it is
// one that the client does not have, and at the latest after a time.
func (p *poller) wait(x *exchange, patience time.Duration) (newest *change, err error) {
	ctx := x.request.Context()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case newest = <-p.changed:
			if !mayRead(x.caller, newest.entry) || !x.has(newest.entry.ETag) {
				return newest, nil
			}
		case <-timer.C:
			return newest, nil
		case <-p.over:
			return newest, nil
		case <-ctx.Done():
			return nil, context.Canceled
		}
	}
}
