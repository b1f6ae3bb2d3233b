package stream

import (
	"context"
	"sync"
	"time"
)

// sentMessage is a message that waits for its answer.
type sentMessage struct {
	*delivery
	end  context.CancelFunc // of its context
	sent time.Time
	told time.Time // that its time is over
}

// answer returns how a message was answered, false while it was not.
func (m sentMessage) answer(handling context.Context) (error, bool) { //nolint:revive // error-return: it is a value here
	select {
	case <-m.message.Acked():
		return nil, true
	case <-m.message.Nacked():
	default:
		return nil, false
	}
	if failure := m.failure.Load(); failure != nil {
		return stopped(handling, *failure), true
	}
	return errNacked, true
}

// sentMessages is where the sender leaves messages for the collector.
type sentMessages struct {
	news chan struct{} // holds a token when there is something new

	mu     sync.Mutex
	new    []sentMessage
	closed bool
}

func (s *sentMessages) add(m sentMessage) {
	s.mu.Lock()
	s.new = append(s.new, m)
	s.mu.Unlock()
	s.tell()
}

func (s *sentMessages) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.tell()
}

func (s *sentMessages) tell() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// take adds what is new to out, and reports whether more may come.
func (s *sentMessages) take(out []sentMessage) (all []sentMessage, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out = append(out, s.new...)
	clear(s.new)
	s.new = s.new[:0]
	return out, !s.closed
}

// lookLeast and lookMost bound the time between two looks at the answers of messages
// that are out: watermill tells of an answer by a channel of each message's own, and
// a goroutine for each to wait at it takes more time than many a handler.
const (
	lookLeast = time.Millisecond
	lookMost  = 50 * time.Millisecond
)

// collect settles what was answered until nothing more can come. Whatever has no
// answer when handling has ended is handed back.
func (s *subscription) collect(handling, settling context.Context) {
	var out, hanging []sentMessage
	look := lookLeast
	for {
		var open bool
		out, open = s.sent.take(out)
		answered, left, lost := s.look(handling, out)
		out, hanging = left, s.regain(append(hanging, lost...))
		if len(answered) > 0 {
			s.feed.settle(settling, answered)
			for range len(answered) - len(lost) {
				s.feed.slots.give()
			}
			look = lookLeast
			continue
		}
		if !open && len(out) == 0 {
			s.feed.leaveBehind(len(hanging))
			return
		}
		look = s.wait(handling, out, len(hanging) > 0, look)
	}
}

// look takes the answered messages out of those that are out. Those whose time is
// over are told so, and soon after are answered with a failure: these are lost. When
// handling has ended, all that are left are handed back.
func (s *subscription) look(handling context.Context, out []sentMessage) (answered []outcome, left, lost []sentMessage) {
	now, left := time.Now(), out[:0]
	stopping := handling.Err() != nil
	for _, m := range out {
		err, ok := m.answer(handling)
		if !ok && stopping {
			err, ok = errHandedBack, true
		}
		switch {
		case ok:
			m.end()
			answered = append(answered, outcome{m.delivery, err})
		case !m.told.IsZero() && now.Sub(m.told) > lingerFor:
			answered = append(answered, outcome{m.delivery, s.feed.gaveUp(handling, m.delivery, true)})
			lost = append(lost, m)
			s.feed.lose()
		default:
			if m.told.IsZero() && now.Sub(m.sent) > s.feed.o.timeout {
				m.end()
				m.told = now
			}
			left = append(left, m)
		}
	}
	clear(out[len(left):])
	return answered, left, lost
}

// regain gives back the slots of those that were answered after all.
func (s *subscription) regain(hanging []sentMessage) []sentMessage {
	left := hanging[:0]
	for _, m := range hanging {
		select {
		case <-m.message.Acked():
		case <-m.message.Nacked():
		default:
			left = append(left, m)
			continue
		}
		s.feed.regain()
	}
	return left
}

// wait waits until there may be answers, and returns how long to wait the next time
// where nothing came: whoever takes long may take long to be noticed.
func (s *subscription) wait(handling context.Context, out []sentMessage, hanging bool, look time.Duration) time.Duration {
	if len(out) == 0 && !hanging {
		<-s.sent.news
		return lookLeast
	}
	timer := time.NewTimer(look)
	defer timer.Stop()
	var acked, nacked, ended <-chan struct{}
	if len(out) > 0 {
		acked, nacked, ended = out[0].message.Acked(), out[0].message.Nacked(), handling.Done()
	}
	select {
	case <-s.sent.news:
		return lookLeast
	case <-acked:
	case <-nacked:
	case <-ended:
	case <-timer.C:
		return min(2*look, lookMost)
	}
	return lookLeast
}
