package cache

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed *.lua
var luaFiles embed.FS

// script is one .lua file, with entry.lua before it.
type script struct {
	name   string
	source string
	sha    string
}

// scripts are all that the store runs.
type scripts struct {
	lease, renew, put, putAll, abandon, invalidate, fence, confirm, limit, revoke, sweep script
}

func (s *scripts) all() []*script {
	return []*script{&s.lease, &s.renew, &s.put, &s.putAll, &s.abandon, &s.invalidate, &s.fence, &s.confirm, &s.limit, &s.revoke, &s.sweep}
}

// loadScripts reads the embedded files.
func loadScripts() (scripts, error) {
	var s scripts
	for i, name := range []string{"lease", "renew", "put", "put_all", "abandon", "invalidate", "fence", "confirm", "limit", "session_revoke", "session_sweep"} {
		one, err := loadScript(name)
		if err != nil {
			return scripts{}, err
		}
		*s.all()[i] = one
	}
	return s, nil
}

// loadScript puts the functions of entry.lua behind the first line of a script,
// which carries its flags and must stay the first.
func loadScript(name string) (script, error) {
	common, err := luaFiles.ReadFile("entry.lua")
	if err != nil {
		return script{}, fmt.Errorf("read scripts: %w", err)
	}
	own, err := luaFiles.ReadFile(name + ".lua")
	if err != nil {
		return script{}, fmt.Errorf("read scripts: %w", err)
	}
	flags, body, _ := strings.Cut(string(own), "\n")
	if !strings.HasPrefix(flags, "#!lua") {
		return script{}, fmt.Errorf("script %s does not begin with #!lua", name)
	}
	source := flags + "\n" + string(common) + "\n" + body
	return script{name: name, source: source, sha: redis.NewScript(source).Hash()}, nil
}

// call adds a script to a pipeline.
func call(ctx context.Context, p redis.Pipeliner, s *script, keys []string, args ...any) *redis.Cmd {
	return p.EvalSha(ctx, s.sha, keys, args...)
}

// pipeline sends the commands that build adds, in one round trip, and builds and
// sends them again where Redis has lost the scripts (SCRIPT FLUSH; a new server's
// connections load them). Whatever build adds must be harmless when run twice;
// go-redis repeats after network errors too. The replies are the commands' own:
// the error is the first of them that is neither nil nor redis.Nil.
func (s *Store) pipeline(ctx context.Context, build func(redis.Pipeliner)) error {
	for attempt := 0; ; attempt++ {
		p := s.client.Pipeline()
		build(p)
		err := exec(ctx, p)
		if err == nil || attempt > 0 || !redis.HasErrorPrefix(err, "NOSCRIPT") {
			return err
		}
		for _, script := range s.scripts.all() {
			if err := s.client.ScriptLoad(ctx, script.source).Err(); err != nil {
				return fmt.Errorf("load script %s: %w", script.name, err)
			}
		}
	}
}

// exec sends a pipeline and returns the first error of a command that is no redis.Nil,
// or that of the pipeline: where Redis refuses a new connection (LOADING, too many
// clients), go-redis gives the commands no error, and each seems to have worked.
func exec(ctx context.Context, p redis.Pipeliner) error {
	cmds, whole := p.Exec(ctx)
	if err := firstError(cmds); err != nil {
		return err
	}
	if whole != nil && !errors.Is(whole, redis.Nil) {
		return fmt.Errorf("pipeline: %w", whole)
	}
	return nil
}

// firstError returns the first error that is no redis.Nil.
func firstError(cmds []redis.Cmder) error {
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
	}
	return nil
}

// reply reads the array of integers and strings that the scripts return.
type reply struct {
	values []any
	err    error
}

func replyOf(cmd *redis.Cmd) *reply {
	values, err := cmd.Slice()
	return &reply{values: values, err: err}
}

// int takes the next value, an integer.
func (r *reply) int() int64 {
	n, ok := r.next().(int64)
	if !ok && r.err == nil {
		r.err = fmt.Errorf("a script's reply lacks an integer: %v", r.values)
	}
	return n
}

// text takes the next value, a string.
func (r *reply) text() string {
	s, ok := r.next().(string)
	if !ok && r.err == nil {
		r.err = fmt.Errorf("a script's reply lacks a string: %v", r.values)
	}
	return s
}

func (r *reply) next() any {
	if len(r.values) == 0 {
		return nil
	}
	v := r.values[0]
	r.values = r.values[1:]
	return v
}
