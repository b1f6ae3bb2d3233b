package stream_test

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// nemesisFault is one way for things to go wrong. When cause returns, what it broke
// works again, though nobody need have noticed yet.
type nemesisFault struct {
	kind, name string
	cause      func(n *nemesis, d draw)
}

// onlyLong is no kind of the short form.
const onlyLong = "only in the long form"

func nemesisFaults() []nemesisFault {
	return []nemesisFault{
		{"worker killed", "worker killed before it could acknowledge", (*nemesis).killInABatch},
		{"worker killed", "worker killed", (*nemesis).killWorker},
		{onlyLong, "all workers killed", (*nemesis).killWorkers},
		{"workers restarted", "rolling restart of the workers", (*nemesis).restartWorkers},
		{"worker stopped", "worker stopped for longer than ClaimAfter", (*nemesis).stopWorker},
		{onlyLong, "all workers stopped", (*nemesis).stopWorkers},
		{"Redis killed", "Redis killed", (*nemesis).killRedis},
		{"Redis restarted", "Redis restarted", (*nemesis).restartRedis},
		{"Redis lost its tail", "Redis killed, and its last writes lost", (*nemesis).loseRedisTail},
		{onlyLong, "Redis stopped", (*nemesis).freezeRedis},
		{"Redis flushed", "Redis flushed", (*nemesis).flush},
		{"a stream deleted", "a stream deleted", (*nemesis).deleteStream},
		{"a group destroyed", "a group destroyed", (*nemesis).destroyGroup},
		{"clients killed", "clients killed", (*nemesis).killClients},
		{onlyLong, "scripts forgotten", (*nemesis).forgetScripts},
		{"Redis full", "Redis out of memory", (*nemesis).fillRedis},
		{"link fails", "a worker's link fails", (*nemesis).failLink},
		{onlyLong, "all workers' links fail", (*nemesis).failLinks},
		{"bad events", "events that fail, panic, hang or are deaf", (*nemesis).publishBadly},
		{"poison", "poison", (*nemesis).strewPoison},
		{onlyLong, "relay killed", (*nemesis).killRelay},
	}
}

func (n *nemesis) worker(d draw) *nemesisProcess { return n.workers[d.pick%len(n.workers)] }

// killInABatch kills a worker that has noted events and not acknowledged them.
func (n *nemesis) killInABatch(d draw) {
	w, sprung := n.worker(d), make(chan struct{})
	n.ledger.trap(w.name, func() {
		_ = w.cmd.Process.Kill()
		close(sprung)
	})
	n.publishAll(wellBehaved, 10)
	within(n.T, "a note of "+w.name, sprung)
	w.awaitDeath()
	w.start()
}

func (n *nemesis) killWorker(d draw) {
	w := n.worker(d)
	w.kill()
	w.start()
}

func (n *nemesis) killWorkers(draw) {
	for _, w := range n.workers {
		w.kill()
	}
	for _, w := range n.workers {
		w.start()
	}
}

// restartWorkers replaces one after the other, as a deploy does.
func (n *nemesis) restartWorkers(draw) {
	for _, w := range n.workers {
		w.awaitReady()
		w.stop()
		w.start()
	}
}

func (n *nemesis) stopWorker(d draw) { n.stopSome(d, n.worker(d)) }

func (n *nemesis) stopWorkers(d draw) { n.stopSome(d, n.workers...) }

func (n *nemesis) stopSome(d draw, workers ...*nemesisProcess) {
	for _, w := range workers {
		w.signal(syscall.SIGSTOP)
	}
	if d.meanwhile == "worker restarted" {
		d.meanwhile = "" // it takes one that can hear
	}
	n.hold(d, nemesisClaimAfter*5/4, nemesisClaimAfter*5/2)
	for _, w := range workers {
		w.signal(syscall.SIGCONT)
	}
}

func (n *nemesis) killRedis(draw) {
	n.server.Kill()
	n.must(n.server.Start(n.Context()))
}

func (n *nemesis) restartRedis(draw) {
	n.server.Stop()
	n.must(n.server.Start(n.Context()))
}

// loseRedisTail has Redis lose the writes of some hundred milliseconds, as one does
// that does not write each at once.
func (n *nemesis) loseRedisTail(d draw) {
	from, err := n.server.Written()
	n.must(err)
	n.hold(d, 50*time.Millisecond, 500*time.Millisecond)
	n.server.Kill()
	to, err := n.server.Written()
	n.must(err)
	n.must(n.server.Forget(from + (to-from)*int64(d.pick%100)/100))
	n.must(n.server.Start(n.Context()))
	n.ledger.excuse("")
}

func (n *nemesis) freezeRedis(d draw) {
	if d.meanwhile == "group destroyed" || d.meanwhile == "clients killed" {
		d.meanwhile = "" // these take a Redis that answers
	}
	n.must(n.server.Freeze())
	n.hold(d, 100*time.Millisecond, 4*time.Second)
	n.must(n.server.Thaw())
}

func (n *nemesis) flush(draw) {
	n.must(n.client.FlushAll(n.Context()).Err())
	n.ledger.excuse("")
}

func (n *nemesis) deleteStream(d draw) {
	topic := nemesisTopics()[d.pick%2]
	n.must(n.client.Del(n.Context(), n.keys.Topic(topic)).Err())
	n.ledger.excuse(topic)
}

func (n *nemesis) destroyGroup(d draw) {
	group := []string{groupBatch, "router", "notes"}[d.pick%3]
	n.must(n.client.XGroupDestroy(n.Context(), n.keys.Topic("note"), group).Err())
}

func (n *nemesis) killClients(draw) {
	n.must(n.client.Do(n.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err())
}

func (n *nemesis) forgetScripts(draw) { n.must(n.client.ScriptFlush(n.Context()).Err()) }

// fillRedis has Redis refuse what needs memory, beside events that are to be parked.
func (n *nemesis) fillRedis(d draw) {
	n.publishAll(sulks, 20)
	n.must(n.client.ConfigSet(n.Context(), "maxmemory", "1mb").Err())
	if n.client.Set(n.Context(), "more", "more", 0).Err() == nil {
		n.Error("Redis has room although it is full")
	}
	n.hold(d, 300*time.Millisecond, 1500*time.Millisecond)
	n.must(n.client.ConfigSet(n.Context(), "maxmemory", "0").Err())
}

func (n *nemesis) failLink(d draw) { n.fail(d, n.links[d.pick%len(n.links)]) }

func (n *nemesis) failLinks(d draw) { n.fail(d, n.links...) }

// fail does something to links, and mends them after a while.
func (n *nemesis) fail(d draw, links ...*nemesisLink) {
	direction := []string{"upstream", "downstream"}[d.pick/8%2]
	toxics := []struct {
		kind       string
		attributes map[string]int
	}{
		{"limit_data", map[string]int{"bytes": d.pick % 3000}}, // in the middle of something
		{"limit_data", map[string]int{"bytes": d.pick % 60}},
		{"reset_peer", map[string]int{"timeout": d.pick % 50}},
		{"timeout", map[string]int{"timeout": 0}}, // all is lost and nobody is told
		{"timeout", map[string]int{"timeout": 1}},
		{"latency", map[string]int{"latency": d.pick % 700, "jitter": d.pick % 100}},
		{"slicer", map[string]int{"average_size": 50, "size_variation": 20, "delay": 100}},
	}
	toxic := toxics[d.pick%len(toxics)]
	n.Logf("%s of %s %v on %d links", toxic.kind, direction, toxic.attributes, len(links))
	for _, l := range links {
		l.suffer(toxic.kind, direction, toxic.attributes)
	}
	n.hold(d, 200*time.Millisecond, 2*time.Second)
	for _, l := range links {
		l.mend()
	}
}

// publishBadly has many events of each bad kind at once.
func (n *nemesis) publishBadly(draw) {
	for _, how := range []string{fails, sulks, panics, pauses, rejects, hangs, deaf, late} {
		n.publishAll(how, 15)
	}
}

func (n *nemesis) killRelay(draw) {
	n.relay.kill()
	n.relay.start()
}

// publishAll commits events of one kind to each topic.
func (n *nemesis) publishAll(how string, count int) {
	n.Helper()
	for _, topic := range nemesisTopics() {
		if n.database == "" {
			n.publishStraight(n.Context(), n.straight, topic, slices.Repeat([]string{how}, count)...)
			continue
		}
		n.must(n.publishDurably(n.Context(), n.conn, topic, slices.Repeat([]string{how}, count)...))
	}
}

// hold lets a state last for a drawn while, in the middle of which a small fault
// may come on top.
func (n *nemesis) hold(d draw, from, to time.Duration) {
	n.Helper()
	while := from + time.Duration(d.part*float64(to-from))
	time.Sleep(while / 2)
	if d.meanwhile != "" {
		n.Logf("meanwhile: %s", d.meanwhile)
	}
	switch d.meanwhile {
	case "":
	case "worker killed":
		n.killWorker(draw{pick: d.pick / 3})
	case "worker restarted": // however it fares, it ends in time
		w := n.worker(draw{pick: d.pick / 3})
		w.stop()
		w.start()
	case "group destroyed":
		n.destroyGroup(draw{pick: d.pick / 3})
	case "clients killed":
		n.killClients(draw{})
	default:
		panic(fmt.Sprintf("no fault %q", d.meanwhile))
	}
	time.Sleep(while / 2)
}
