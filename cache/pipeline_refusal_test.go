package cache

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// A change is said once, and what goes to and fro is none.
func TestARefusalIsSaidOnce(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	log := zerolog.New(&said)
	var r refusal
	now := time.Now()
	note := func(refused error, after time.Duration, want int) {
		t.Helper()
		now = now.Add(after)
		r.note(&log, refused, now)
		if n := strings.Count(said.String(), "\n"); n != want {
			t.Errorf("it was said %d times, not %d: %s", n, want, &said)
		}
	}
	no := errors.New("NOPERM")
	note(nil, 0, 0)
	note(no, 0, 1)
	note(no, time.Hour, 1)
	note(nil, time.Second, 1)
	note(no, time.Second, 1)
	note(nil, refusalOver-1, 1)
	note(nil, 1, 2)
	note(nil, time.Hour, 2)
	note(no, time.Second, 3)
}
