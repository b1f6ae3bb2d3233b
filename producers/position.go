package producers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/version"
	"mythiccache/producers/stream"
)

//go:embed lost.lua
var lostLua string

//go:embed append.lua
var appendLua string

//go:embed place.lua
var placeLua string

//go:embed look.lua
var lookLua string

// PositionRunID is the field of the position, a hash, that holds the run_id of
// the Redis in which the leading relay last found its position and had, since
// then, sent everything that waited and fenced every view that is due: what a Redis
// lost that was restarted or failed over is there again once its run_id stands there.
const PositionRunID = "run_id"

// What a script may find instead of what it needs. After each the relay looks
// at both servers afresh.
var (
	errMoved = errors.New("another position is in Redis than the relay left there")
	errLost  = errors.New("a stream was deleted or lost entries")

	errRestarted = errors.New("Redis was restarted or replaced while views were fenced")
)

// errFull is backpressure: what Redis still has room for is left to the others.
var errFull = errors.New("Redis has less than a twentieth of its memory left and evicts nothing")

// position says which rows of the outbox are in the streams: those of every
// transaction that seen sees and, in the middle of a backlog, those that part
// says. Its text is compared as a whole, so it names the leader too: one that was
// paused and wakes up finds another's.
type position struct {
	epoch uint64
	term  string           // of one leadership
	seen  version.Snapshot // of the rows it sees, all were sent
	part  *part
}

// part is how much of the way to a later snapshot has been gone.
type part struct {
	target version.Snapshot // rows it sees are on the way, by xid and id
	xid    uint64           // the last row sent
	id     int64
}

// fromStart is before every row.
func fromStart(epoch uint64, term string) position {
	return position{epoch: epoch, term: term, seen: version.Snapshot{Epoch: epoch, Xmin: 1, Xmax: 1}}
}

// isStart reports whether what was truncated is none of the position's business.
func (p position) isStart() bool { return p.seen.Xmax == 1 }

func (p position) String() string {
	text := fmt.Sprintf("1 %d %s %s", p.epoch, p.term, p.seen)
	if p.part != nil {
		text += fmt.Sprintf(" %s %d %d", p.part.target, p.part.xid, p.part.id)
	}
	return text
}

func parsePosition(text string) (position, error) {
	fields := strings.Fields(text)
	if len(fields) != 4 && len(fields) != 7 || fields[0] != "1" {
		return position{}, fmt.Errorf("position %q has another form than this program writes", text)
	}
	epoch, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return position{}, fmt.Errorf("position %q: its epoch is no number", text)
	}
	p := position{epoch: epoch, term: fields[2]}
	if p.seen, err = version.ParseSnapshot(epoch, fields[3]); err != nil {
		return position{}, fmt.Errorf("position %q: %w", text, err)
	}
	if len(fields) == 4 {
		return p, nil
	}
	p.part = &part{}
	if p.part.target, err = version.ParseSnapshot(epoch, fields[4]); err != nil {
		return position{}, fmt.Errorf("position %q: %w", text, err)
	}
	p.part.xid, err = strconv.ParseUint(fields[5], 10, 64)
	id, errID := strconv.ParseInt(fields[6], 10, 64)
	if err := errors.Join(err, errID); err != nil {
		return position{}, fmt.Errorf("position %q: %w", text, err)
	}
	p.part.id = id
	return p, nil
}

// streams is the relay's side of Redis: the streams and the position.
type streams struct {
	client              redis.UniversalClient
	keys                stream.Keys
	append, place, look *redis.Script
	fenced, fencedNote  *redis.Script
	patience            *patience // nil: none
}

func newStreams(client redis.UniversalClient, keys stream.Keys) *streams {
	return &streams{
		client: client, keys: keys,
		append: redis.NewScript(lostLua + appendLua),
		place:  redis.NewScript(placeLua),
		look:   redis.NewScript(lostLua + lookLua),
		fenced: redis.NewScript(fencedLua), fencedNote: redis.NewScript(fencedNoteLua),
	}
}

// Append does steps, one after the other and in one round trip, from a position on,
// and returns how many were done. A step that fails leaves those behind it undone,
// since each compares the position. The error wraps errMoved or errLost where Redis
// is not as the relay left it.
func (s *streams) Append(ctx context.Context, from position, steps []step) (done int, err error) {
	replies := make([]*redis.Cmd, len(steps))
	send := func() error {
		present := from
		return s.patience.call(ctx, func(ctx context.Context) error {
			_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i, step := range steps {
					keys, args := s.arguments(present, step)
					replies[i] = s.append.EvalSha(ctx, p, keys, args...)
					present = step.to
				}
				return nil
			})
			return err
		})
	}
	if err = send(); redis.HasErrorPrefix(err, "NOSCRIPT") {
		if err := s.patience.call(ctx, func(ctx context.Context) error { return s.append.Load(ctx, s.client).Err() }); err != nil {
			return 0, fmt.Errorf("load the script that appends into Redis: %w", err)
		}
		err = send()
	}
	for i, reply := range replies {
		if reply == nil { // it was not even tried
			return i, err
		}
		if err := s.outcome(reply.StringSlice()); err != nil {
			return i, err
		}
	}
	return len(steps), nil
}

// arguments are those of append.lua.
func (s *streams) arguments(from position, step step) (keys []string, args []any) {
	keys = []string{s.keys.Position()}
	number := map[string]int{}
	args = make([]any, 0, 2+18*len(step.events))
	args = append(args, from.String(), step.to.String())
	for _, e := range step.events {
		topic := e.Topic()
		if number[topic] == 0 {
			keys = append(keys, s.keys.Topic(topic))
			number[topic] = len(keys)
		}
		fields := e.Fields()
		args = append(args, number[topic], len(fields))
		for _, field := range fields {
			args = append(args, field)
		}
	}
	return keys, args
}

// Place sets the position, from a text that is ” where none is there.
func (s *streams) Place(ctx context.Context, from string, to position, anew bool) error {
	flag := "0"
	if anew {
		flag = "1"
	}
	return s.run(ctx, s.place, from, to.String(), to.epoch, flag)
}

// run runs a script on the position.
func (s *streams) run(ctx context.Context, script *redis.Script, args ...any) error {
	var reply []string
	err := s.patience.call(ctx, func(ctx context.Context) (err error) {
		reply, err = script.Run(ctx, s.client, []string{s.keys.Position()}, args...).StringSlice()
		return err
	})
	return s.outcome(reply, err)
}

// Look returns the position's text, ” where there is none, and the key of a
// stream that was lost, or ”. Where the position is the one expected, and what was
// seen of fences still is so, it notes that run of Redis; none where that is empty.
func (s *streams) Look(ctx context.Context, expected string, seen fencings) (text, lost string, err error) {
	args := []any{expected, seen.run}
	for name, shape := range seen.shapes {
		args = append(args, shapeField(name), shape)
	}
	var reply []string
	err = s.patience.call(ctx, func(ctx context.Context) (err error) {
		reply, err = s.look.Run(ctx, s.client, []string{s.keys.Position()}, args...).StringSlice()
		return err
	})
	if err != nil {
		return "", "", fmt.Errorf("look at the position in Redis: %w", err)
	}
	if len(reply) != 3 {
		return "", "", fmt.Errorf("look at the position in Redis: a reply of %d strings", len(reply))
	}
	if reply[2] != "" {
		return "", "", errFull
	}
	return reply[0], reply[1], nil
}

func (s *streams) outcome(reply []string, err error) error {
	if err != nil {
		return fmt.Errorf("write to the streams in Redis: %w", err)
	}
	reply = append(reply, "", "")
	switch reply[0] {
	case "ok", "done":
		return nil
	case "moved":
		return fmt.Errorf("%w: %q", errMoved, reply[1])
	case "restarted":
		return fmt.Errorf("%w: its run_id is %s", errRestarted, reply[1])
	case "lost":
		return fmt.Errorf("%w: %s", errLost, reply[1])
	case "type":
		return fmt.Errorf("%s holds something else than a stream", reply[1])
	default:
		return fmt.Errorf("write to the streams in Redis: reply %q", reply[0])
	}
}
