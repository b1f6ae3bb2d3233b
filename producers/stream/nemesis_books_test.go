package stream_test

import (
	"fmt"
	"maps"
	"strings"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"

	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// books say what was published and what became of it.
type books struct {
	groups  map[string][]string // → the topics that it reads
	events  map[string]*published
	handled map[string]map[string]int // group → event → times
	poison  map[place]*poisoned
	letters []stream.DeadLetter
}

// published is an event as its source knows it.
type published struct {
	topic    string
	durable  bool // the outbox has it, so that nothing that happens to Redis excuses its loss
	certain  bool // it was acknowledged
	excused  bool // what it was in was destroyed since, and nobody writes it again
	rejected bool // its handlers reject it, so that it ends in the dead letters
}

func (p *published) owed() bool { return p.durable || p.certain && !p.excused }

// poisoned is an entry that no handler is to see, or none accepts.
type poisoned struct {
	name    string
	fields  map[string]string
	says    string // in the reason of its dead letter
	excused bool
}

// wrongs are sentences of what does not balance, by kind.
type wrongs map[string][]string

func (w wrongs) addf(kind, format string, args ...any) {
	w[kind] = append(w[kind], fmt.Sprintf(format, args...))
}

func (w wrongs) String() string {
	var text strings.Builder
	for kind, all := range w {
		fmt.Fprintf(&text, "%d %s, such as %s\n", len(all), kind, strings.Join(all[:min(3, len(all))], "; "))
	}
	return text.String()
}

// What the books may show to be wrong.
const (
	wrongLost     = "events were handled by nobody of a group"
	wrongForeign  = "events were handled that nobody published"
	wrongRejected = "events were handled though they are rejected"
	wrongAlive    = "poisonous entries are not among the dead letters of a group"
	wrongDead     = "dead letters are of events that could have been handled"
	wrongLetter   = "dead letters do not say what they are of"
)

// weigh returns what is wrong.
func (b *books) weigh() wrongs {
	wrong := wrongs{}
	dead := b.weighLetters(wrong)
	for group, topics := range b.groups {
		reads := map[string]bool{}
		for _, topic := range topics {
			reads[topic] = true
		}
		for id, p := range b.events {
			switch times := b.handled[group][id]; {
			case !reads[p.topic] || !p.owed() && times == 0:
			case p.rejected && times > 0:
				wrong.addf(wrongRejected, "%s by %s", id, group)
			case p.rejected && !dead[fate{group, id}]:
				wrong.addf(wrongAlive, "%s for %s, which rejects it", id, group)
			case !p.rejected && times == 0:
				wrong.addf(wrongLost, "%s by %s (of %s, durable: %t)", id, group, p.topic, p.durable)
			}
		}
		for at, p := range b.poison {
			if reads[at.topic] && !p.excused && !dead[fate{group, at.String()}] {
				wrong.addf(wrongAlive, "%q (%s) for %s", p.name, at, group)
			}
		}
		for id := range b.handled[group] {
			if p := b.events[id]; p == nil || !reads[p.topic] {
				wrong.addf(wrongForeign, "%s by %s", id, group)
			}
		}
	}
	return wrong
}

// place is where an entry is.
type place struct{ topic, entry string }

func (p place) String() string { return p.entry + " of " + p.topic }

// fate is what an event, or a poisonous entry, came to in a group.
type fate struct{ group, id string }

// weighLetters returns what is rightly dead.
func (b *books) weighLetters(wrong wrongs) map[fate]bool {
	dead := map[fate]bool{}
	for _, l := range b.letters {
		at := place{l.Topic, l.Entry}
		if p := b.poison[at]; p != nil {
			dead[fate{l.Group, at.String()}] = true
			if !strings.Contains(l.Reason, p.says) || !maps.Equal(l.Fields, p.fields) {
				wrong.addf(wrongLetter, "%q (%s): %q and %d fields", p.name, at, l.Reason, len(l.Fields))
			}
			continue
		}
		id := l.Fields[event.FieldID] + l.Fields[redisstream.UUIDHeaderKey]
		if p := b.events[id]; p == nil || !p.rejected {
			wrong.addf(wrongDead, "%s (%s) for %s after %d deliveries: %s", id, at, l.Group, l.Deliveries, l.Reason)
			continue
		}
		dead[fate{l.Group, id}] = true
		// It fails first and is rejected when it comes again.
		if l.Deliveries < 2 || !strings.Contains(l.Reason, stream.ErrReject.Error()) {
			wrong.addf(wrongLetter, "%s: %q after %d deliveries", id, l.Reason, l.Deliveries)
		}
	}
	return dead
}
