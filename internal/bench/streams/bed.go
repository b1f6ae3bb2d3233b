package streams

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/testserver"
	"mythiccache/producers/stream"
)

// bed is one Redis and what is measured on it.
type bed struct {
	o      gauge.Options
	redis  *testserver.Redis
	client *redis.Client
	groups int
}

const prefix = "bench:"

// newBed starts a Redis without an append-only file: what it costs is the same for
// all, and hides what differs.
func newBed(ctx context.Context, o gauge.Options) (*bed, error) {
	server, err := testserver.StartRedis(ctx, testserver.RedisOptions{Dir: filepath.Join(o.Dir, "redis"), Args: []string{"--appendonly", "no"}})
	if err != nil {
		return nil, err
	}
	b := &bed{o: o, redis: server}
	if b.client, err = b.dial("", nil); err != nil {
		server.Stop()
		return nil, err
	}
	return b, nil
}

// Close ends the server.
func (b *bed) Close(context.Context) error {
	err := b.client.Close()
	b.redis.Stop()
	return err
}

// dial makes a client of the server, or of what stands between at an address.
func (b *bed) dial(addr string, onConnect func(context.Context, *redis.Conn) error) (*redis.Client, error) {
	options, err := redis.ParseURL(b.redis.URL())
	if err != nil {
		return nil, err
	}
	if addr != "" {
		options.Addr = addr
	}
	options.OnConnect = onConnect
	return redis.NewClient(options), nil
}

// dialer is dial as package stream wants it.
func (b *bed) dialer(addr string) stream.Dial {
	return func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		return b.dial(addr, onConnect)
	}
}

// newGroup names a group that nobody has had.
func (b *bed) newGroup(of string) string {
	b.groups++
	return fmt.Sprintf("%s-%d", of, b.groups)
}

// empty removes all that there is.
func (b *bed) empty(ctx context.Context) error { return b.client.FlushAll(ctx).Err() }

// fill writes n events of so many keys into the stream of a topic.
func (b *bed) fill(ctx context.Context, topic string, n, keys int, wire stream.Wire) error {
	p, err := stream.NewPublisher(b.dialer(""), stream.NewKeys(prefix), stream.PublisherOptions{Wire: wire})
	if err != nil {
		return err
	}
	n = b.scaled(n)
	for done := 0; done < n && err == nil; {
		step := min(1000, n-done)
		messages := changes(done, step, keys)
		messages[0].SetContext(ctx)
		err = p.Publish(topic, messages...) //nolint:contextcheck // it takes the first message's
		done += step
	}
	return errors.Join(err, p.Close())
}
