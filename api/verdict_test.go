package api

import (
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/version"
)

// What an announcement means depends on when the question was asked for which the
// flight began, and on the transaction that the answer is to have seen.
func TestWhatAnAnnouncementMeans(t *testing.T) {
	t.Parallel()
	m := newMisses(nil, nil, nil, time.Second, 1)
	began := time.Now()
	asked := began.Truncate(time.Millisecond)
	f := &flight{started: began, sent: make(chan struct{}), asked: asked.UnixMilli()}
	close(f.sent)
	seven := cache.Entry{Snapshot: version.Snapshot{Epoch: 2, Xmin: 8, Xmax: 8}} // has seen transaction 7, and not 8
	accepted := cache.Filled{Entry: seven, Outcome: cache.Accepted, At: asked.Add(time.Second)}
	refused := cache.Filled{
		Entry: seven, Outcome: cache.Refused, Reason: "refused: the key has changed since",
		Taken: asked.Add(time.Millisecond), At: asked.Add(time.Second),
	}
	early := refused
	early.Taken = asked.Add(-time.Millisecond)
	for _, c := range []struct {
		name    string
		minXid  *cache.MinXid
		arrived time.Time // of the request
		got     cache.Filled
		want    verdict
	}{
		{"it began the flight", nil, began, accepted, done},
		{"it began the flight, and the key has changed", nil, began, refused, done},
		{"what was read may be older than the question", nil, began, early, askAgain},
		// The flight's event is older than this question, so its time says nothing.
		{"it joined late", nil, began.Add(time.Nanosecond), accepted, readAgain},
		{"it joined late, and the key has changed", nil, began.Add(time.Nanosecond), refused, askAgain},
		{"its own write is seen", &cache.MinXid{Xid: 7}, began, accepted, done},
		{"its own write is seen, in its epoch", &cache.MinXid{Epoch: 2, Xid: 7}, began, refused, done},
		{"its own write is not seen", &cache.MinXid{Xid: 8}, began, accepted, askAgain},
		{"its own write is of another epoch", &cache.MinXid{Epoch: 1, Xid: 7}, began, accepted, askAgain},
	} {
		got, answer, err := m.judge(ask{minXid: c.minXid}, f, c.arrived, c.got)
		if err != nil || got != c.want || answer.stored != (got == done && c.got.Outcome == cache.Accepted) {
			t.Errorf("%s: verdict %d, %+v, %v; want %d", c.name, got, answer, err, c.want)
		}
	}
}
