package stream

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// subscription is one call of Subscribe. Its sender hands out messages one by one,
// as watermill has it, while the next ones are read; its collector gathers the
// answers and settles as many together as there are.
type subscription struct {
	feed   *feed
	output chan *message.Message
	queue  chan handover
	sent   sentMessages
}

// handover is what the sender is given.
type handover struct {
	ds   []*delivery
	over chan struct{} // closed when all are sent or handed back
}

func newSubscription(f *feed) *subscription {
	return &subscription{
		feed: f, output: make(chan *message.Message), queue: make(chan handover),
		sent: sentMessages{news: make(chan struct{}, 1)},
	}
}

// run delivers until ctx ends, then waits for what is out.
func (s *subscription) run(ctx context.Context) {
	f := s.feed
	handling, settling, stop := f.lives(ctx)
	defer stop()
	var sender, collector sync.WaitGroup
	sender.Go(func() { s.send(ctx, handling, settling) })
	collector.Go(func() { s.collect(handling, settling) })
	f.room = func() int { return min(f.slots.free(), f.o.batchSize) }
	f.deliver = s.deliver
	f.run(ctx, func() {
		close(s.queue)
		sender.Wait()
		close(s.output)
		s.sent.close()
		collector.Wait()
	})
}

// deliver has the sender send messages. It returns before that is done where there
// will be slots for as many more.
func (s *subscription) deliver(_ context.Context, ds []*delivery) {
	h := handover{ds, make(chan struct{})}
	ample := s.feed.slots.free()-len(ds) >= s.feed.o.batchSize
	s.queue <- h // the sender outlives all who deliver
	if !ample {
		<-h.over
	}
}

// send sends what is handed over, each message when there is a slot for it.
func (s *subscription) send(ctx, handling, settling context.Context) {
	for h := range s.queue {
		for i, d := range h.ds {
			if !s.sendOne(ctx, handling, d) {
				s.feed.handBack(settling, h.ds[i:])
				break
			}
		}
		close(h.over)
	}
}

// sendOne is false where ctx ended before.
func (s *subscription) sendOne(ctx, handling context.Context, d *delivery) bool {
	if !s.feed.start(ctx) {
		return false
	}
	life, end := context.WithCancel(handling)
	d.attach(life)
	select {
	case s.output <- d.message:
		s.sent.add(sentMessage{delivery: d, end: end, sent: time.Now()})
		return true
	case <-ctx.Done():
		end()
		s.feed.slots.give()
		return false
	}
}
