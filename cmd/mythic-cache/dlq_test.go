package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// letterbox is a Redis with dead letters, and the program beside it.
type letterbox struct {
	*testing.T
	server *testserver.Redis
	client *redis.Client
}

func newLetterbox(t *testing.T) *letterbox {
	t.Helper()
	server := testserver.NewRedis(t)
	return &letterbox{T: t, server: server, client: server.Client(t)}
}

// bury makes a dead letter and returns its id.
func (b *letterbox) bury(topic, kind, reason string, age time.Duration, fields ...any) string {
	b.Helper()
	at := time.Now().Add(-age).UTC().Format(time.RFC3339Nano)
	values := slices.Concat(fields, []any{
		"type", kind, "dead.reason", reason, "dead.group", "precompute", "dead.topic", topic, "dead.entry", fmt.Sprintf("%d-1", time.Now().UnixMilli()),
		"dead.deliveries", "8", "dead.first", at, "dead.last", at,
	})
	id, err := b.client.XAdd(b.Context(), &redis.XAddArgs{Stream: "mythic:{stream}:dead", Values: values}).Result()
	if err != nil {
		b.Fatal(err)
	}
	return id
}

// dlq runs the command and returns what it printed.
func (b *letterbox) dlq(args ...string) (string, error) {
	b.Helper()
	var out, problems bytes.Buffer
	err := run(b.Context(), append([]string{"dlq"}, args...), []string{"REDIS_URL=" + b.server.URL()}, &out, &problems)
	return out.String(), err
}

// says fails the test where the command does not say that.
func (b *letterbox) says(want string, args ...string) {
	b.Helper()
	if got, err := b.dlq(args...); err != nil || strings.TrimSpace(got) != want {
		b.Errorf("dlq %s: %q, %v; want %q", strings.Join(args, " "), got, err, want)
	}
}

// refuses fails the test where the command does not refuse with that sentence, or
// where it removes anything.
func (b *letterbox) refuses(why string, args ...string) {
	b.Helper()
	before := b.client.XLen(b.Context(), "mythic:{stream}:dead").Val()
	if got, err := b.dlq(args...); err == nil || !strings.Contains(err.Error(), why) {
		b.Errorf("dlq %s: %q, %v; want %q", strings.Join(args, " "), got, err, why)
	}
	if after := b.client.XLen(b.Context(), "mythic:{stream}:dead").Val(); after != before {
		b.Errorf("dlq %s: %d of %d dead letters are left", strings.Join(args, " "), after, before)
	}
}

// Each filter alone and together, given to each of the commands that take them.
func TestDeadLettersByTheirFilters(t *testing.T) {
	t.Parallel()
	b := newLetterbox(t)
	const hour = time.Hour
	bury := func() []string {
		return []string{
			b.bury("run", "run.progress", "no JSON object", 3*hour),
			b.bury("run", "run.progress", "Postgres refused it", hour),
			b.bury("run", "run.failed", "no JSON object", time.Second),
			b.bury("books", "books.changed", "no JSON object", 3*hour),
		}
	}
	ids := bury()
	for _, c := range []struct {
		want int
		args []string
	}{
		{4, nil},
		{3, []string{"--topic", "run"}},
		{2, []string{"--type", "run.progress"}},
		{1, []string{"--reason", "POSTGRES"}},
		{3, []string{"--older-than", "30m"}},
		{2, []string{"--older-than", "7200"}},
		{4, []string{"--older-than", "0"}},
		{2, []string{"--topic", "run", "--reason", "json"}},
		{1, []string{"--topic", "run", "--type", "run.progress", "--reason", "json", "--older-than", "2h"}},
		{0, []string{"--topic", "books", "--type", "run.progress"}},
		{0, []string{"--topic", "runs"}},
	} {
		list, err := b.dlq(append([]string{"list"}, c.args...)...)
		lines := strings.Count(list, "\n")
		if c.want > 0 {
			lines-- // the heading
		} else if strings.Contains(list, "no dead letters") {
			lines = 0
		}
		if err != nil || lines != c.want {
			t.Errorf("list %q: %v, want %d\n%s", c.args, err, c.want, list)
		}
		for _, command := range []string{"replay", "drop"} {
			done := map[string]string{"replay": "replayed", "drop": "dropped"}[command]
			b.says(fmt.Sprintf("%d %s", c.want, done), append([]string{command}, c.args...)...)
			b.client.Del(t.Context(), "mythic:{stream}:dead")
			ids = bury()
		}
	}
	b.says("2 replayed", "replay", ids[0], ids[3])
	b.says("0 replayed; 2 of the ids not found, or not selected", "replay", ids[0], ids[3])
	b.says("1 dropped; 1 of the ids not found, or not selected", "drop", ids[1], ids[2], "--type", "run.failed")
	for _, command := range []string{"list", "replay", "drop"} {
		b.refuses("--topic is empty", command, "--topic", "")
		b.refuses("--type is empty", command, "--type=")
		b.refuses("--reason is empty", command, "--topic", "run", "--reason", "")
		b.refuses(`"soon" is not a duration`, command, "--older-than", "soon")
		b.refuses("is not a duration", command, "--older-than", "")
	}
	for _, command := range []string{"show", "replay", "drop"} {
		b.refuses("is not of the form 1700000000000-0", command, "")
		b.refuses("is not of the form 1700000000000-0", command, "all")
	}
	b.refuses("no such dead letter: 1-1", "show", "1-1")
	b.says("1 dropped", "drop", "--all")
	b.says("0 dropped", "drop")
}

// A letter is one line of the list whatever is in it, and shown byte for byte.
func TestOddDeadLettersAreShown(t *testing.T) {
	t.Parallel()
	b := newLetterbox(t)
	large := strings.Repeat("x", 5<<20)
	id := b.bury("run", "a\tb\x1b[2J\nc", "it\nis\x00\xff "+strings.Repeat("long ", 200), time.Hour, "data", large, "bin\xff", "\x00\xfe", "html", "<&>")
	list, err := b.dlq("list")
	if lines := strings.Split(strings.TrimSpace(list), "\n"); err != nil || len(lines) != 2 || len(list) > 1000 || !utf8.ValidString(list) || strings.ContainsAny(list, "\x1b\x00\t") {
		t.Errorf("%d lines of %d bytes, %v: %.500q", len(lines), len(list), err, list)
	}
	shown, err := b.dlq("show", id)
	if err != nil {
		t.Fatal(err)
	}
	var letter struct {
		stream.DeadLetter

		Binary map[string][]byte `json:"fields_base64"`
	}
	if err := json.Unmarshal([]byte(shown), &letter); err != nil {
		t.Fatal(err)
	}
	if letter.Fields["data"] != large || letter.Fields["html"] != "<&>" || string(letter.Binary[`"bin\xff"`]) != "\x00\xfe" || letter.Deliveries != 8 {
		t.Errorf("shown %.300s", shown)
	}
}

// Who types drop at a terminal is asked; a script is not.
func TestDroppingAllIsConfirmedAtATerminal(t *testing.T) {
	t.Parallel()
	b := newLetterbox(t)
	b.bury("run", "run.progress", "no", time.Hour)
	letters := stream.NewDeadLetters(b.client, stream.NewKeys("mythic:"))
	for answer, agreed := range map[string]bool{"yes\n": true, "yes \r\n": true, "yes": true, "y\n": false, "no\n": false, "": false, "\n": false} {
		var asked bytes.Buffer
		err := confirmDrop(t.Context(), letters, strings.NewReader(answer), &asked)
		if (err == nil) != agreed || !strings.Contains(asked.String(), "all 1 dead letters") {
			t.Errorf("%q: %v after %q", answer, err, asked.String())
		}
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for file, want := range map[*os.File]bool{read: false, null: false, screen: true} {
		if file == nil {
			continue // a machine without terminals
		}
		if terminal(file) != want {
			t.Errorf("%s is a terminal: %t", file.Name(), !want)
		}
		file.Close()
	}
}

// Nothing removes dead letters by itself, so doctor says when they are too many.
func TestDoctorCountsDeadLetters(t *testing.T) {
	t.Parallel()
	b := newLetterbox(t)
	c := &config{Prefix: "mythic:"}
	examine := func(bad bool, says string) {
		t.Helper()
		if f := c.examineDeadLetters(t.Context(), b.client); f.bad != bad || !strings.HasPrefix(f.what, says) || (f.mend == "") != (says == "0 ") {
			t.Errorf("found %+v; want bad: %t, %q", f, bad, says)
		}
	}
	examine(false, "0 ")
	b.bury("run", "run.progress", "no", time.Hour)
	examine(false, "1 ")
	pipe := b.client.Pipeline()
	for range stream.DeadMost {
		pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: "mythic:{stream}:dead", Values: []any{"dead.group", "g"}})
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	examine(true, "10001 ")
	b.client.Set(t.Context(), "mythic:{stream}:dead", "no stream", 0)
	examine(true, "look at the dead letters")
}
