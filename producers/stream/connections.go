package stream

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// connections knows the connections of one client: by their ids a blocked read
// can be ended, which no context does, and by the run_id that they meet, a
// restarted or replaced Redis is noticed.
type connections struct {
	mu      sync.Mutex
	ids     []int64 // of the newest ones
	runID   string
	changed chan struct{} // holds one token after a changed run_id
}

// most connections to remember; a client has fewer open.
const rememberedConnections = 64

func newConnections() *connections { return &connections{changed: make(chan struct{}, 1)} }

// onConnect is the hook for Dial. It fails no connection: where Redis forbids
// CLIENT or INFO to this user, reads end by their own timeout instead and pending
// entries are taken up by the claims.
func (c *connections) onConnect(ctx context.Context, conn *redis.Conn) error {
	id, errID := conn.ClientID(ctx).Result()
	info, errInfo := conn.Info(ctx, "server").Result()
	c.mu.Lock()
	defer c.mu.Unlock()
	if errID == nil {
		if len(c.ids) == rememberedConnections {
			c.ids = slices.Delete(c.ids, 0, 1)
		}
		c.ids = append(c.ids, id)
	}
	if runID := infoField(info, "run_id"); errInfo == nil && runID != c.runID {
		if c.runID != "" {
			select {
			case c.changed <- struct{}{}:
			default:
			}
		}
		c.runID = runID
	}
	return nil
}

func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// unblock ends the blocked reads of the client, again and again until done is
// closed: a read may begin just after the first time.
func (c *connections) unblock(ctx context.Context, client redis.UniversalClient, done <-chan struct{}) {
	for {
		c.mu.Lock()
		ids := slices.Clone(c.ids)
		c.mu.Unlock()
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, _ = client.Pipelined(try, func(pipe redis.Pipeliner) error {
			for _, id := range ids {
				pipe.ClientUnblock(try, id)
			}
			return nil
		}) // in vain where Redis is away: the read ends by its timeout
		cancel()
		select {
		case <-done:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}
