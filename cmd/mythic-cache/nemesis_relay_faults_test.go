package main

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"mythiccache/internal/testserver"
)

func relayFaults() []fault[*relayNemesis] {
	return []fault[*relayNemesis]{
		{"leader killed", "leader killed", (*relayNemesis).killLeader},
		{"others killed", "standby killed", (*relayNemesis).killStandby},
		{"others killed", "all relays killed", (*relayNemesis).killAll},
		{"leader stopped", "leader stopped, its last write late", (*relayNemesis).stopInAWrite},
		{"leader stopped", "leader stopped in a backlog", (*relayNemesis).stopInABacklog},
		{onlyLong, "leader stopped for a moment", (*relayNemesis).stopForAMoment},
		{"Redis killed", "Redis killed", (*relayNemesis).killRedis},
		{"Redis killed", "Redis restarted", (*relayNemesis).restartRedis},
		{"Redis killed", "Redis killed, and its last writes lost", (*relayNemesis).loseRedisTail},
		{"Redis killed", "Redis killed in a backlog", func(n *relayNemesis) { n.inABacklog(n.killRedis) }},
		{"Redis stopped", "Redis stopped for a moment", func(n *relayNemesis) { n.freezeRedis(100*time.Millisecond, 800*time.Millisecond) }},
		{onlyLong, "Redis stopped for long", func(n *relayNemesis) { n.freezeRedis(2*time.Second, 8*time.Second) }},
		{"Redis flushed", "Redis flushed", (*relayNemesis).flush},
		{"a stream deleted", "a stream deleted", (*relayNemesis).deleteStream},
		{onlyLong, "the position deleted", (*relayNemesis).deletePosition},
		{"Redis full", "Redis out of memory", (*relayNemesis).fillRedis},
		{"Redis full", "Redis out of memory in a backlog", func(n *relayNemesis) { n.inABacklog(n.fillRedis) }},
		{onlyLong, "links to Redis fail in a backlog", func(n *relayNemesis) { n.inABacklog(n.failRedisLinks) }},
		{onlyLong, "links to PostgreSQL fail in a backlog", func(n *relayNemesis) { n.inABacklog(n.failPostgresLinks) }},
		{onlyLong, "Redis flushed in a backlog", func(n *relayNemesis) { n.inABacklog(n.flush) }},
		{"links to Redis", "all links to Redis fail", (*relayNemesis).failRedisLinks},
		{"links to Redis", "the leader's link to Redis fails", (*relayNemesis).failRedisLink},
		{"links to PostgreSQL", "all links to PostgreSQL fail", (*relayNemesis).failPostgresLinks},
		{"links to PostgreSQL", "the leader's link to PostgreSQL fails", (*relayNemesis).failPostgresLink},
		{"sessions", "PostgreSQL restarted", (*relayNemesis).restartPostgres},
		{"sessions", "the leader's connection to PostgreSQL ends", (*relayNemesis).severListener},
		{"sessions", "all sessions of relays terminated", (*relayNemesis).terminate},
		{"sessions", "the leader's session terminated", (*relayNemesis).terminateLeader},
		{onlyLong, "PostgreSQL stopped for a while", (*relayNemesis).freezePostgres},
		{"epoch", "PostgreSQL killed", (*relayNemesis).killPostgres},
		{"epoch", "a backend killed", (*relayNemesis).killBackend},
		{"epoch", "epoch bumped", (*relayNemesis).bumpEpoch},
	}
}

func (n *relayNemesis) killLeader() {
	leader := n.leader()
	n.takeover("leader killed", leader.kill)
	leader.start(&n.order)
}

func (n *relayNemesis) killStandby() {
	leader := n.leader()
	for {
		if p := n.relays[n.random.IntN(len(n.relays))]; p != leader {
			p.kill()
			p.start(&n.order)
			return
		}
	}
}

func (n *relayNemesis) killAll() {
	for _, p := range n.relays {
		p.kill()
	}
	for _, p := range n.relays {
		p.start(&n.order)
	}
}

// stopForAMoment stops the leader for a time that its session survives or not.
func (n *relayNemesis) stopForAMoment() {
	leader := n.leader()
	leader.signal(syscall.SIGSTOP)
	n.hold(50*time.Millisecond, 3500*time.Millisecond)
	leader.signal(syscall.SIGCONT)
}

// stopInAWrite stops the leader while its requests are on their way to Redis. They
// arrive when another leads.
func (n *relayNemesis) stopInAWrite() {
	leader := n.leader()
	leader.redis.suffer("latency", requests, map[string]int{"latency": 120_000})
	n.moment()
	n.takeover("leader stopped", func() { leader.signal(syscall.SIGSTOP) })
	leader.redis.mend()
	leader.signal(syscall.SIGCONT)
}

// stopInABacklog stops the leader while it reads more than fits between the two,
// so that its backend waits for it to read on.
func (n *relayNemesis) stopInABacklog() {
	leader := n.leader()
	leader.postgres.suffer("bandwidth", replies, map[string]int{"rate": 4000})
	n.publish("backlog", 200, 64<<10)
	testserver.Eventually(n.t, "a relay's backend waits for it to read", func() error {
		const query = `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mythic-cache relay' AND wait_event = 'ClientWrite'`
		if waiting, err := askRelayBed[int](n, query); err != nil || waiting == 0 {
			return fmt.Errorf("%d wait: %w", waiting, err)
		}
		return nil
	})
	started := time.Now()
	leader.signal(syscall.SIGSTOP)
	leader.postgres.mend()
	testserver.Eventually(n.t, "another leads", func() error {
		if now, _ := n.roles(); now == leader {
			return errors.New("not yet")
		}
		return nil
	})
	n.tookOver("leader stopped in a backlog", time.Since(started))
	leader.signal(syscall.SIGCONT)
}

// inABacklog causes something as soon as the first of more rows than a relay takes at
// once are in their stream.
func (n *relayNemesis) inABacklog(cause func()) {
	before, err := n.client.XLen(n.t.Context(), n.keys.Topic("probe")).Result()
	n.must(err)
	n.publish("pile", 2*bulk, 10)
	testserver.Eventually(n.t, "the first of a backlog arrive", func() error {
		now, err := n.client.XLen(n.t.Context(), n.keys.Topic("probe")).Result()
		if err == nil && now <= before {
			err = fmt.Errorf("the stream has %d entries, as before", now)
		}
		return err
	})
	cause()
}

func (n *relayNemesis) killRedis() {
	n.redis.Kill()
	n.must(n.redis.Start(n.t.Context()))
}

func (n *relayNemesis) restartRedis() {
	n.redis.Stop()
	n.must(n.redis.Start(n.t.Context()))
}

// loseRedisTail has Redis lose the writes of at most a second or two, as with
// appendfsync everysec it may.
func (n *relayNemesis) loseRedisTail() {
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

func (n *relayNemesis) freezeRedis(from, to time.Duration) {
	n.must(n.redis.Freeze())
	n.hold(from, to)
	n.must(n.redis.Thaw())
}

func (n *relayNemesis) flush() {
	n.wiped = true
	n.anew(func() { n.must(n.client.FlushAll(n.t.Context()).Err()) })
}

func (n *relayNemesis) deleteStream() {
	names, err := n.ledger.streams(n.t.Context())
	n.must(err)
	slices.Sort(names)
	name := names[n.random.IntN(len(names))]
	n.wiped = true
	n.anew(func() { n.must(n.client.Del(n.t.Context(), name).Err()) })
}

func (n *relayNemesis) deletePosition() {
	n.anew(func() { n.must(n.client.Del(n.t.Context(), n.keys.Position()).Err()) })
}

func (n *relayNemesis) fillRedis() {
	limit := func(bytes string) { n.must(n.client.ConfigSet(n.t.Context(), "maxmemory", bytes).Err()) }
	limit("1mb")
	n.hold(100*time.Millisecond, 700*time.Millisecond)
	limit("0")
}

func (n *relayNemesis) failRedisLinks() {
	var links []*link
	for _, p := range n.relays {
		links = append(links, p.redis)
	}
	n.fail(links...)
}

func (n *relayNemesis) failRedisLink() { n.fail(n.leader().redis) }

func (n *relayNemesis) failPostgresLinks() {
	var links []*link
	for _, p := range n.relays {
		links = append(links, p.postgres)
	}
	n.fail(links...)
}

func (n *relayNemesis) failPostgresLink() { n.fail(n.leader().postgres) }

// fail does something to links, and mends them after a while.
func (n *relayNemesis) fail(links ...*link) {
	direction := []string{requests, replies}[n.random.IntN(2)]
	toxic := []struct {
		kind       string
		attributes map[string]int
	}{
		{"limit_data", map[string]int{"bytes": n.random.IntN(3000)}}, // in the middle of something
		{"limit_data", map[string]int{"bytes": n.random.IntN(60)}},
		{"reset_peer", map[string]int{"timeout": n.random.IntN(50)}},
		{"timeout", map[string]int{"timeout": 0}}, // all is lost and nobody is told
		{"timeout", map[string]int{"timeout": 1}},
		{"latency", map[string]int{"latency": n.random.IntN(700), "jitter": n.random.IntN(100)}},
		{"bandwidth", map[string]int{"rate": 1 + n.random.IntN(30)}},
		{"slicer", map[string]int{"average_size": 50, "size_variation": 20, "delay": 100}},
	}[n.random.IntN(8)]
	n.t.Logf("%s of %s %v on %d links", toxic.kind, direction, toxic.attributes, len(links))
	for _, l := range links {
		l.suffer(toxic.kind, direction, toxic.attributes)
	}
	n.hold(100*time.Millisecond, 900*time.Millisecond)
	for _, l := range links {
		l.mend()
	}
}

func (n *relayNemesis) restartPostgres() {
	n.server.Stop()
	n.must(n.server.Start(n.t.Context()))
}

func (n *relayNemesis) freezePostgres() {
	n.must(n.server.Freeze())
	n.hold(100*time.Millisecond, 5*time.Second)
	n.must(n.server.Thaw())
}

func (n *relayNemesis) killPostgres() {
	n.anew(func() {
		n.server.Kill()
		n.must(n.server.Start(n.t.Context()))
	})
}

const relaySessions = `FROM pg_stat_activity a WHERE application_name = 'mythic-cache relay'`

// relayLeads is the lock that the leader holds.
const relayLeads = ` AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted)`

func (n *relayNemesis) terminate() {
	n.sql(`SELECT pg_terminate_backend(pid) ` + relaySessions)
}

func (n *relayNemesis) terminateLeader() {
	n.leader()
	n.takeover("the leader's session terminated", func() { n.sql(`SELECT pg_terminate_backend(pid) ` + relaySessions + relayLeads) })
}

// severListener ends the one connection that the leader has, on which it listens.
func (n *relayNemesis) severListener() {
	leader := n.leader()
	n.takeover("the leader's connection ended", leader.postgres.sever)
}

// killBackend has PostgreSQL go through crash recovery by itself.
func (n *relayNemesis) killBackend() {
	query := `SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1`
	if n.random.IntN(2) == 0 {
		n.leader()
		query = `SELECT pid ` + relaySessions + relayLeads
	}
	n.anew(func() {
		testserver.Eventually(n.t, "a backend to kill", func() error {
			pid, err := askRelayBed[int](n, query)
			if err != nil {
				return err
			}
			return n.server.CrashBackend(pid)
		})
	})
}

func (n *relayNemesis) bumpEpoch() { n.anew(func() { n.command("epoch", "bump") }) }
