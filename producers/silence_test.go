package producers

import (
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	"mythiccache/internal/testserver"
)

// Where the way to PostgreSQL is lost without a word, no timeout of the server's
// reaches the relay: it gives up by itself, and finds another way.
func TestASilentServerIsLeft(t *testing.T) {
	b := newBed(t)
	u, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	way := newSilencer(t, u.Host)
	u.Host = way.addr()
	o := b.options()
	o.ListenURL = u.String()
	r, err := NewRelay(o)
	if err != nil {
		t.Fatal(err)
	}
	r.bounds = answerBounds{short: 500 * time.Millisecond, long: time.Second}
	b.runRelay(r)
	b.sync()
	way.fallSilent()
	b.sync()
	testserver.Eventually(t, "the relay is ready again", func() error {
		if way.ways() < 2 {
			return errors.New("it has not looked for another way")
		}
		if !r.State().Leader {
			return fmt.Errorf("it does not lead: %w", r.Ready())
		}
		return r.Ready()
	})
}
