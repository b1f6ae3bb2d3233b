package main

import (
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"mythiccache/internal/testserver"
)

// booksTopic is what the changes that matter here travel in.
const booksTopic = "books"

// lateLoads is the kind that has fills meet changes.
const lateLoads = "loads"

func faultsOfAll() []fault[*nemesis] {
	return []fault[*nemesis]{
		{"killed", "a process killed", func(n *nemesis) { n.kill(n.some()) }},
		{"killed", "all workers killed", func(n *nemesis) { n.kill(n.workers...) }},
		{"killed", "all relays killed", func(n *nemesis) { n.kill(n.relays...) }},
		{"killed", "every process killed", func(n *nemesis) { n.kill(n.members()...) }},
		{"stopped", "a process stopped", func(n *nemesis) { n.freeze(900*time.Millisecond, n.some()) }},
		{"stopped", "all workers stopped", func(n *nemesis) { n.freeze(900*time.Millisecond, n.workers...) }},
		{onlyLong, "a process stopped for longer than its lease", func(n *nemesis) { n.freeze(8*time.Second, n.some()) }},
		{"deployed", "a process replaced", (*nemesis).replace},
		{"Redis killed", "Redis killed", (*nemesis).killRedis},
		{"Redis killed", "Redis restarted", (*nemesis).restartRedis},
		{"Redis lost writes", "Redis killed, and its last writes lost", (*nemesis).loseRedisTail},
		{"Redis stopped", "Redis stopped", (*nemesis).freezeRedis},
		{"Redis flushed", "Redis flushed", func(n *nemesis) { n.must(n.client.FlushAll(n.t.Context()).Err()) }},
		{"Redis full", "Redis out of memory", (*nemesis).fillRedis},
		{"deleted", "a stream deleted", func(n *nemesis) { n.must(n.client.Del(n.t.Context(), n.keys.Topic(booksTopic)).Err()) }},
		{"deleted", "the position deleted", func(n *nemesis) { n.must(n.client.Del(n.t.Context(), n.keys.Position()).Err()) }},
		{"deleted", "a group destroyed", (*nemesis).destroyGroup},
		{onlyLong, "all connections to Redis ended", func(n *nemesis) {
			n.must(n.client.ClientKillByFilter(n.t.Context(), "TYPE", "normal").Err())
		}},
		{"links to Redis", "links to Redis fail", func(n *nemesis) { n.fail(func(p *member) *link { return p.redis }) }},
		{"links to PostgreSQL", "links to PostgreSQL fail", func(n *nemesis) { n.fail(func(p *member) *link { return p.postgres }) }},
		{lateLoads, "loads take long", (*nemesis).slowLoads},
		{lateLoads, "loads take long again", (*nemesis).slowLoads},
		{"PostgreSQL restarted", "PostgreSQL restarted", (*nemesis).restartPostgres},
		{"PostgreSQL restarted", "PostgreSQL stopped", (*nemesis).freezePostgres},
		{"PostgreSQL restarted", "all sessions terminated", func(n *nemesis) {
			n.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'mythic-cache%'`)
		}},
		{"epoch", "PostgreSQL killed", (*nemesis).killPostgres},
		{"epoch", "a backend killed", (*nemesis).crashBackend},
		{"epoch", "the epoch bumped", func(n *nemesis) { n.command("epoch", "bump") }},
	}
}

// some is a process.
func (n *nemesis) some() *member {
	all := n.members()
	return all[n.random.IntN(len(all))]
}

func (n *nemesis) kill(members ...*member) {
	for _, p := range members {
		p.kill()
	}
	for _, p := range members {
		p.start()
	}
}

func (n *nemesis) freeze(most time.Duration, members ...*member) {
	for _, p := range members {
		p.signal(syscall.SIGSTOP)
	}
	n.hold(most/10, most)
	for _, p := range members {
		p.signal(syscall.SIGCONT)
	}
}

func (n *nemesis) replace() {
	p := n.some()
	testserver.Eventually(n.t, "the process has started", p.started)
	p.stop()
	p.start()
}

func (n *nemesis) killRedis() {
	n.redis.Kill()
	n.must(n.redis.Start(n.t.Context()))
}

func (n *nemesis) restartRedis() {
	n.redis.Stop()
	n.must(n.redis.Start(n.t.Context()))
}

// loseRedisTail has Redis lose the writes of at most a second or so, as with
// appendfsync everysec it may.
func (n *nemesis) loseRedisTail() {
	from, err := n.redis.Written()
	n.must(err)
	n.hold(100*time.Millisecond, 700*time.Millisecond)
	n.redis.Kill()
	to, err := n.redis.Written()
	n.must(err)
	if to > from {
		n.must(n.redis.Forget(from + n.random.Int64N(to-from)))
	}
	n.must(n.redis.Start(n.t.Context()))
}

func (n *nemesis) freezeRedis() {
	n.must(n.redis.Freeze())
	n.hold(50*time.Millisecond, 800*time.Millisecond)
	n.must(n.redis.Thaw())
}

func (n *nemesis) fillRedis() {
	limit := func(bytes string) { n.must(n.client.ConfigSet(n.t.Context(), "maxmemory", bytes).Err()) }
	limit("1mb")
	n.hold(100*time.Millisecond, 700*time.Millisecond)
	limit("0")
}

// destroyGroup takes a group away with all that it knows. It need not be there: another
// fault may just have had it.
func (n *nemesis) destroyGroup() {
	group := []string{groupInvalidate, groupPrecompute}[n.random.IntN(2)]
	_ = n.client.XGroupDestroy(n.t.Context(), n.keys.Topic(booksTopic), group).Err()
}

// fail does something to the links of a few processes, and mends them after a while.
func (n *nemesis) fail(of func(*member) *link) {
	members := n.members()
	n.random.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	members = members[:1+n.random.IntN(len(members))]
	direction := []string{requests, replies}[n.random.IntN(2)]
	toxic := []struct {
		kind       string
		attributes map[string]int
	}{
		{"limit_data", map[string]int{"bytes": n.random.IntN(3000)}}, // in the middle of something
		{"reset_peer", map[string]int{"timeout": n.random.IntN(50)}},
		{"timeout", map[string]int{"timeout": 0}}, // all is lost and nobody is told
		{"timeout", map[string]int{"timeout": 1}},
		{"latency", map[string]int{"latency": n.random.IntN(700), "jitter": n.random.IntN(100)}},
		{"slicer", map[string]int{"average_size": 50, "size_variation": 20, "delay": 100}},
	}[n.random.IntN(6)]
	n.t.Logf("%s of %s %v for %d processes", toxic.kind, direction, toxic.attributes, len(members))
	for _, p := range members {
		of(p).suffer(toxic.kind, direction, toxic.attributes)
	}
	n.hold(100*time.Millisecond, 900*time.Millisecond)
	for _, p := range members {
		of(p).mend()
	}
}

// slowLoads has what workers read come late, while changes are applied.
func (n *nemesis) slowLoads() {
	for _, p := range n.workers {
		p.postgres.suffer("latency", replies, map[string]int{"latency": 100 + n.random.IntN(400)})
	}
	n.hold(500*time.Millisecond, time.Second)
	for _, p := range n.workers {
		p.postgres.mend()
	}
}

func (n *nemesis) restartPostgres() {
	n.server.Stop()
	n.must(n.server.Start(n.t.Context()))
}

func (n *nemesis) freezePostgres() {
	n.must(n.server.Freeze())
	n.hold(50*time.Millisecond, time.Second)
	n.must(n.server.Thaw())
}

func (n *nemesis) killPostgres() {
	n.server.Kill()
	n.must(n.server.Start(n.t.Context()))
}

// crashBackend has PostgreSQL go through crash recovery by itself.
func (n *nemesis) crashBackend() {
	testserver.Eventually(n.t, "a backend to kill", func() error {
		conn, err := pgx.Connect(n.t.Context(), n.database)
		if err != nil {
			return err
		}
		return n.server.CrashBackend(int(conn.PgConn().PID()))
	})
}

// sql has the database do something, as soon as it takes connections.
func (n *nemesis) sql(query string) {
	n.t.Helper()
	testserver.Eventually(n.t, query, func() error {
		conn, err := pgx.Connect(n.t.Context(), n.database)
		if err != nil {
			return err
		}
		defer conn.Close(n.t.Context())
		_, err = conn.Exec(n.t.Context(), query)
		return err
	})
}

// hold lets a state last for a random while.
func (n *nemesis) hold(from, to time.Duration) {
	time.Sleep(from + time.Duration(n.random.Int64N(int64(to-from))))
}

func (n *nemesis) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}
