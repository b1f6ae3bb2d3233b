package stream_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// How many events a source publishes at once, and how often.
const (
	sourceEvents = 2
	sourceEvery  = 30 * time.Millisecond
)

// startSources has events published until they are stopped: into the outbox, from
// which is sent again what Redis lost, and straight into the streams, in either format.
// Without a database, all is written straight.
func (n *nemesis) startSources() {
	n.Helper()
	ctx, cancel := context.WithCancel(n.Context())
	var group sync.WaitGroup
	errs := make(chan error, 2)
	run := func(number uint64, publish func(context.Context, *rand.Rand) error) {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n.seed), number))
			for ctx.Err() == nil {
				if err := publish(context.WithoutCancel(ctx), random); err != nil {
					errs <- err
					return
				}
				time.Sleep(sourceEvery) // the pace
			}
		})
	}
	if n.database != "" {
		conn := n.connect()
		run(1, func(ctx context.Context, random *rand.Rand) error {
			return n.publishDurably(ctx, conn, topicOf(random), conducts(random, sourceEvents)...)
		})
	}
	for number, wire := range []stream.Wire{stream.WirePlain, stream.WireWatermill} {
		p := n.publisher(stream.PublisherOptions{Wire: wire})
		run(uint64(2+number), func(ctx context.Context, random *rand.Rand) error {
			n.publishStraight(ctx, p, topicOf(random), conducts(random, sourceEvents)...)
			return nil
		})
	}
	n.stopSources = sync.OnceValue(func() error {
		cancel()
		group.Wait()
		select {
		case err := <-errs:
			return err
		default:
			return nil
		}
	})
	n.Cleanup(func() { _ = n.stopSources() })
}

func topicOf(random *rand.Rand) string { return nemesisTopics()[random.IntN(2)] }

// conducts draws how some events are handled. Most are well.
func conducts(random *rand.Rand, count int) []string {
	how := make([]string, count)
	for i := range how {
		switch n := random.IntN(1000); {
		case n < 20:
			how[i] = late
		case n < 50:
			how[i] = fails
		case n < 60:
			how[i] = panics
		case n < 64:
			how[i] = pauses
		case n < 67:
			how[i] = rejects
		default:
			how[i] = wellBehaved
		}
	}
	return how
}

// publishDurably commits events to the outbox.
func (n *nemesis) publishDurably(ctx context.Context, conn *pgx.Conn, topic string, how ...string) error {
	subjects := make([]string, len(how))
	for i := range how {
		subjects[i] = how[i] + "-" + n.number()
	}
	rows, err := conn.Query(ctx, `SELECT mythic_cache.publish($1, subject, NULL)::text FROM unnest($2::text[]) subject`, topic+".written", subjects)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	for i, id := range ids {
		n.ledger.publish(published{topic: topic, durable: true, certain: true, rejected: how[i] == rejects}, id)
	}
	return nil
}

// publishStraight writes events into their stream. Where Redis does not say that
// it has them, it may have them.
func (n *nemesis) publishStraight(ctx context.Context, p *stream.Publisher, topic string, how ...string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ids, messages := make([]string, len(how)), make([]*message.Message, len(how))
	for i := range how {
		number := n.number()
		ids[i] = "straight-" + number
		messages[i] = stream.FromEvent(event.Event{ID: ids[i], Type: topic + ".written", Subject: how[i] + "-" + number})
		n.ledger.publish(published{topic: topic, rejected: how[i] == rejects}, ids[i])
	}
	messages[0].SetContext(ctx)
	if p.Publish(topic, messages...) == nil {
		n.ledger.confirm(ids...)
	}
}
