package stream

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
)

// Whatever Redis has in its streams is read as it was written, whichever protocol it
// speaks.
func TestRepliesAreReadAsTheyWereWritten(t *testing.T) {
	server := testserver.NewRedis(t)
	writer := server.Client(t)
	var want []string
	for i := range 3 {
		for _, f := range [][]any{{"a", "1"}, {"", ""}, {"binary\r\n\xff", "\x00$5\r\n"}, {"twice", "1", "twice", "2"}, {"long", strings.Repeat("x", 100_000)}} {
			stream := fmt.Sprintf("s%d", i%2)
			id, err := writer.XAdd(t.Context(), &redis.XAddArgs{Stream: stream, Values: f}).Result()
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprintf("%s %s %q", stream, id, f))
		}
	}
	slices.Sort(want)
	for protocol := range 2 {
		group := fmt.Sprintf("g%d", protocol)
		for _, stream := range []string{"s0", "s1"} {
			if err := writer.XGroupCreate(t.Context(), stream, group, "0").Err(); err != nil {
				t.Fatal(err)
			}
		}
		o, err := redis.ParseURL(server.URL())
		if err != nil {
			t.Fatal(err)
		}
		o.Protocol = 2 + protocol
		client := redis.NewClient(o)
		t.Cleanup(func() { client.Close() })
		var a answer
		ask := func() {
			t.Helper()
			a.reset()
			if err := client.Process(t.Context(), redis.NewRawWriteToCmd(t.Context(), &a,
				"XREADGROUP", "GROUP", group, "c", "COUNT", 100, "STREAMS", "s0", "s1", ">", ">")); err != nil {
				t.Fatal(err)
			}
		}
		ask()
		var got []string
		if err := readReply(a.bytes, func(stream, id string, f fields) {
			got = append(got, fmt.Sprintf("%s %s %q", stream, id, []string(f)))
		}); err != nil {
			t.Fatal(err)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("RESP%d: read %d entries %.300q; want %d %.300q", 2+protocol, len(got), got, len(want), want)
		}
		ask()
		if err := readReply(a.bytes, func(string, string, fields) { t.Error("an entry came twice") }); err != nil {
			t.Errorf("RESP%d: where nothing is new: %v", 2+protocol, err)
		}
		group = "nobody"
		ask()
		err = readReply(a.bytes, nil)
		var refused redis.Error
		if !errors.As(err, &refused) || !vanished(err) {
			t.Errorf("RESP%d: without the group: %v", 2+protocol, err)
		}
	}
}

// FuzzReadReply: whatever comes is read or refused, and what is read is a part of it.
func FuzzReadReply(f *testing.F) {
	f.Add([]byte("*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n"))
	f.Add([]byte("%1\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\na\r\n$0\r\n\r\n"))
	f.Add([]byte("*-1\r\n"))
	f.Add([]byte("_\r\n"))
	f.Add([]byte("-NOGROUP no such group\r\n"))
	f.Add([]byte("*1\r\n*2\r\n$9223372036854775807\r\n"))
	f.Add([]byte("*999999999\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_ = readReply(raw, func(stream, id string, values fields) {
			for _, text := range append(fields{stream, id}, values...) {
				if !strings.Contains(string(raw), text) {
					t.Errorf("%q is no part of %q", text, raw)
				}
			}
		})
	})
}
