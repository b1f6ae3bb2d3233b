package api

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mythiccache/cache/view"
)

// Why a stream has ended.
const (
	endGone     = "gone"     // the client hung up
	endSlow     = "slow"     // it did not read
	endDenied   = "denied"   // the entry is no longer there, no longer the caller's, or the caller's token has ended
	endOld      = "old"      // it has lasted long enough
	endStopping = "stopping" // the server stops
)

// After how long a client is to come back: usually, and at least when the server
// stops, where not all should come at once.
const (
	comeBack      = 2 * time.Second
	comeBackAtOne = 500 * time.Millisecond
)

// heartbeat is a comment, which clients pass over.
const heartbeat = ":\n\n"

// feed sends the states of an entry to one client as server-sent events, the
// newest where it cannot keep up. It has a goroutine only while it sends, besides the
// one that notices that the client hangs up.
type feed struct {
	of     *watches
	topic  *topic
	caller caller
	shown  *shown // what the caller has shown; nil: nothing
	out    sink   // once it is open

	done chan struct{} // closed when all is over

	mu      sync.Mutex
	next    *change // the newest that has not been sent
	sent    string  // tag of what was sent last
	hello   bool    // the client has not been told when to come back
	beat    bool    // a heartbeat is due
	sending bool    // somebody does
	why     string  // it has ended
	until   time.Time
	timer   *time.Timer
}

// stream answers with the states of an entry, as they come.
func (s *Server) stream(x *exchange, v *view.View) error {
	e, from, err := s.find(x, v)
	if err != nil {
		return err
	}
	if !mayRead(x.caller, e) {
		return x.serve(v, e, from)
	}
	one := s.watches.newFeed(x)
	t, err := s.watches.join(v, e, from.at, x.caller, one)
	if err != nil {
		return err
	}
	one.topic = t
	h := x.Header()
	h["Content-Type"] = []string{eventStream}
	h["Cache-Control"] = s.fixed.noStore
	h["Vary"] = s.fixed.watchedVary
	h["Cache-Status"] = []string{from.cacheStatus(false, 0)}
	h["X-Cache"] = s.fixed.marks(from.mark)
	h["X-Accel-Buffering"] = []string{"no"} // or nginx would keep events back
	one.open(x)
	return nil
}

// newFeed makes the feed of a request. Until it is open it only keeps what it
// hears.
func (w *watches) newFeed(x *exchange) *feed {
	life := w.times.life - rand.N(w.times.life/10+1)
	return &feed{
		of: w, caller: x.caller, shown: shownBy(x), done: make(chan struct{}),
		sent:  strings.Join(x.request.Header["Last-Event-Id"], ""),
		hello: true, sending: true, until: time.Now().Add(life),
	}
}

// open sends the header and what there is to be sent. Where the connection can be
// taken over from the server, the stream goes on by itself; else it lasts as long as
// this call.
func (s *feed) open(x *exchange) {
	out, conn := x.takeOver()
	s.mu.Lock()
	s.out = out
	s.timer = time.AfterFunc(s.of.times.heartbeat-rand.N(s.of.times.heartbeat/4+1), s.tick)
	s.mu.Unlock()
	if conn != nil {
		s.of.group.Go(func() {
			_, _ = conn.Read(make([]byte, 1)) // a client that says more has not understood; it may come back
			s.end(endGone)
		})
		s.send()
		return
	}
	stop := context.AfterFunc(x.request.Context(), func() { s.end(endGone) })
	defer stop()
	s.send()
	<-s.done
}

// hear implements watcher.
func (s *feed) hear(c *change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil && c.entry.ETag == s.sent && mayRead(s.caller, c.entry) {
		return // it has that
	}
	s.next = c
	s.begin()
}

// tick is called when a heartbeat is due.
func (s *feed) tick() {
	if time.Now().After(s.until) {
		s.end(endOld)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why == "" {
		s.beat = true
		s.timer.Reset(s.of.times.heartbeat)
		s.begin()
	}
}

// end implements watcher; the first reason counts.
func (s *feed) end(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != "" {
		return
	}
	s.why = why
	if s.sending && s.out != nil {
		s.out.hurry()
	}
	s.begin()
}

// begin has somebody send, unless somebody does. It is called with the lock held.
func (s *feed) begin() {
	if !s.sending {
		s.sending = true
		go s.send()
	}
}

// send sends what there is until there is nothing, and closes what has ended.
func (s *feed) send() {
	checked := false
	for {
		text, over := s.take()
		switch {
		case over:
			s.close(text)
			return
		case text == nil:
			return
		}
		if !checked && !s.of.admits(s.shown, s.caller) {
			s.end(endDenied)
			continue
		}
		checked = true
		if err := s.out.send(text, s.of.times.patience); err != nil {
			s.end(endOf(err))
			s.close(nil) // a last word would not arrive either
			return
		}
	}
}

// take returns what is to be sent next: nil is nothing, and whoever asked has to stop.
// What is over has to be closed, after the text.
func (s *feed) take() (text []byte, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.next
	s.next = nil
	if c != nil && !mayRead(s.caller, c.entry) && s.why == "" {
		s.why = endDenied
	}
	if s.why == endStopping {
		return retry(comeBackAtOne + rand.N(comeBack)), true
	}
	if s.why != "" {
		return nil, true
	}
	if s.hello {
		s.hello = false
		text = retry(comeBack)
	}
	if c != nil && c.entry.ETag != s.sent {
		s.sent = c.entry.ETag
		s.of.metrics.events.Inc()
		if text == nil {
			text = c.event // shared by all; nobody writes to it
		} else {
			text = append(text, c.event...)
		}
	}
	if text == nil && s.beat {
		text = []byte(heartbeat)
	}
	s.beat = false
	s.sending = text != nil
	return text, false
}

// close says the last words, and lets go of everything.
func (s *feed) close(text []byte) {
	if text != nil {
		_ = s.out.send(text, s.of.times.patience) // or it comes back when it likes
	}
	s.mu.Lock()
	s.timer.Stop()
	why := s.why
	s.mu.Unlock()
	s.out.close()
	s.of.metrics.ended.WithLabelValues(why).Inc()
	close(s.done)
	s.of.leave(s.topic, s.caller, s)
}

// retry tells the client when to come back.
func retry(after time.Duration) []byte {
	b := strconv.AppendInt([]byte("retry: "), after.Milliseconds(), 10)
	return append(b, "\n\n"...)
}

// shown is what a caller has shown, kept to be looked at again.
type shown struct {
	header http.Header
	remote string
	need   access
}

// shownBy returns what a request shows; nil where it shows nothing that could end.
func shownBy(x *exchange) *shown {
	header := http.Header{}
	for _, name := range []string{"Authorization", "X-User-Id"} {
		if values := x.request.Header[name]; len(values) > 0 {
			header[name] = slices.Clone(values) // net/http's own are part of one list with all the others
		}
	}
	if len(header) == 0 {
		return nil
	}
	return &shown{header: header, remote: x.request.RemoteAddr, need: x.route.access}
}

// admits reports whether what was shown still stands for the same caller: tokens
// expire and are revoked. Where nobody can tell, the last word is the one that counts.
func (w *watches) admits(what *shown, c caller) bool {
	if what == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), redisTimeout)
	defer cancel()
	again := (&http.Request{Method: http.MethodGet, Header: what.header, RemoteAddr: what.remote}).WithContext(ctx)
	now, err := w.auth.identify(again, what.need)
	if p, refused := errors.AsType[*Problem](err); refused {
		return p.Status >= http.StatusInternalServerError
	}
	return err != nil || now.user == c.user && now.app == c.app
}
