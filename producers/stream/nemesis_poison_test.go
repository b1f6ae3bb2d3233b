package stream_test

import (
	"strings"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/redis/go-redis/v9"
)

// nemesisPoison is every kind of entry that nobody can handle.
func nemesisPoison() []poisoned {
	return []poisoned{
		{name: "empty", fields: map[string]string{"": ""}, says: "type"},
		{name: "binary", fields: map[string]string{"type": "\xff\x00\xfe", "\x00": "\xff"}, says: "type"},
		{name: "no subject", fields: map[string]string{"type": "note.written"}, says: "needs a subject"},
		{name: "unknown type", fields: map[string]string{"type": "note.eaten", "subject": "ok-"}, says: "unknown type"},
		{name: "wrong JSON", fields: map[string]string{"type": "note.written", "subject": "ok-", "data": "{"}, says: "not JSON"},
		{name: "wrong time", fields: map[string]string{"type": "note.written", "subject": "ok-", "time": "soon"}, says: "time"},
		{name: "5 MB", fields: map[string]string{"type": "note.written", "subject": "ok-", "data": `"` + strings.Repeat("x", 5<<20) + `"`}, says: "data has"},
		{name: "no msgpack", fields: map[string]string{redisstream.UUIDHeaderKey: "u", "metadata": "\xdf\xff\xff\xff\xff", "payload": "p"}, says: "metadata"},
		{name: "cut msgpack", fields: map[string]string{redisstream.UUIDHeaderKey: "u", "metadata": "\x82\xa1a", "payload": "p"}, says: "metadata"},
		{name: "no event", fields: map[string]string{redisstream.UUIDHeaderKey: "u", "payload": "p"}, says: "type"},
	}
}

// strewPoison writes one entry of each kind among the others.
func (n *nemesis) strewPoison(d draw) {
	for i, p := range nemesisPoison() {
		topic := nemesisTopics()[(i+d.pick)%2]
		fields := make([]any, 0, 2*len(p.fields))
		for name, value := range p.fields {
			fields = append(fields, name, value)
		}
		entry, err := n.client.XAdd(n.Context(), &redis.XAddArgs{Stream: n.keys.Topic(topic), Values: fields}).Result()
		n.must(err)
		n.ledger.poison(place{topic, entry}, p)
	}
}
