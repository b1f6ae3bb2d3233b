package stream

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// search is where a Trimmer is on its way through the keys.
type search struct {
	cursor uint64    // of SCAN; 0 between two searches
	next   time.Time // when the next one begins
}

// A round of the Trimmer looks at so many keys, in so many steps: a search among a
// million keys takes some eight minutes, and costs Redis a millisecond a second.
const (
	searchSteps = 20
	searchStep  = 1000 // keys
)

// globbed takes a name by the letter in a pattern of Redis.
var globbed = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

// otherTopics goes on with the search, when its time has come, and returns topics
// of streams that it met and that are none of the trimmer's; some may come twice.
func (t *Trimmer) otherTopics(ctx context.Context) ([]string, error) {
	if t.search.cursor == 0 && time.Now().Before(t.search.next) {
		return nil, nil
	}
	root := t.keys.Topic("")
	var topics []string
	for range searchSteps {
		names, cursor, err := t.client.ScanType(ctx, t.search.cursor, globbed.Replace(root)+"*", searchStep, "stream").Result()
		if err != nil {
			return topics, fmt.Errorf("look for streams: %w", err)
		}
		for _, name := range names {
			topic := strings.TrimPrefix(name, root)
			if _, ours := t.topics[topic]; !ours && name != t.keys.Dead() {
				topics = append(topics, topic)
			}
		}
		if t.search.cursor = cursor; cursor == 0 {
			t.search.next = time.Now().Add(t.o.Look)
			break
		}
	}
	return topics, nil
}
