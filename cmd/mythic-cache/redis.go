package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisTarget is where Redis is: one server, or the sentinels that know.
type redisTarget struct {
	single   *redis.Options
	failover *redis.FailoverOptions
}

// parseRedisURL reads REDIS_URL: redis://, rediss:// and unix:// name a server;
// with ?master_name=… the hosts are sentinels. A cluster is refused for now.
func parseRedisURL(text string) (redisTarget, error) {
	u, err := url.Parse(text)
	if err != nil {
		return redisTarget{}, errors.New("is not a URL such as redis://localhost:6379/0")
	}
	if strings.Contains(u.Scheme, "cluster") || u.Query().Has("addr") && !u.Query().Has("master_name") {
		return redisTarget{}, errors.New("names a Redis Cluster; a cluster is not supported yet, give one server or its sentinels")
	}
	if u.Query().Has("master_name") {
		o, err := redis.ParseFailoverURL(text)
		if err != nil {
			return redisTarget{}, fmt.Errorf("is no sentinel URL: %s", withoutPassword(err, u))
		}
		return redisTarget{failover: o}, nil
	}
	o, err := redis.ParseURL(text)
	if err != nil {
		return redisTarget{}, fmt.Errorf("is no Redis URL: %s", withoutPassword(err, u))
	}
	return redisTarget{single: o}, nil
}

func withoutPassword(err error, u *url.URL) string {
	said := err.Error()
	if password, ok := u.User.Password(); ok && password != "" {
		said = strings.ReplaceAll(said, password, "…")
	}
	return said
}

// redisClient makes the one client of a command that needs no more, which the
// caller closes.
func (c *config) redisClient() (redis.UniversalClient, error) {
	target, err := parseRedisURL(c.RedisURL)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	return target.dial(nil)
}

// A connection is not used for longer than that, unless the URL says so: one that has
// outlived a failover leads to a Redis that was replaced, and may go on answering.
const (
	connLifetime       = 5 * time.Minute
	connLifetimeJitter = time.Minute // or all would be made anew at once
)

// narrow is the same place for a component that has no more commands on their way at once,
// pipelines included, which have connections of their own otherwise.
func (t redisTarget) narrow(connections int) redisTarget {
	if t.failover != nil {
		o := *t.failover
		o.PoolSize, o.PipelinePoolSize = connections, -1
		return redisTarget{failover: &o}
	}
	o := *t.single
	o.PoolSize, o.PipelinePoolSize = connections, -1
	return redisTarget{single: &o}
}

// dial makes one component's own client; onConnect runs on each of its new
// connections. What is sent may be sent again, three times where the URL does not say
// otherwise (max_retries), when its reply is lost: all that we send bears that.
func (t redisTarget) dial(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
	// A Redis that is away is told of at once: whoever needs it tries again itself.
	const dialTimeout, poolTimeout = 2 * time.Second, 2 * time.Second
	if t.failover != nil {
		o := *t.failover
		o.OnConnect = onConnect
		o.ContextTimeoutEnabled, o.DisableIdentity = true, true
		o.DialTimeout, o.PoolTimeout, o.DialerRetries = dialTimeout, poolTimeout, 1
		if o.ConnMaxLifetime == 0 {
			o.ConnMaxLifetime, o.ConnMaxLifetimeJitter = connLifetime, connLifetimeJitter
		}
		if o.TLSConfig == nil { // else sentinels may have another
			o.Dialer = eagerDialer(dialTimeout, nil)
		}
		return redis.NewFailoverClient(&o), nil
	}
	o := *t.single
	o.OnConnect = onConnect
	o.ContextTimeoutEnabled, o.DisableIdentity = true, true
	o.DialTimeout, o.PoolTimeout, o.DialerRetries = dialTimeout, poolTimeout, 1
	if o.ConnMaxLifetime == 0 {
		o.ConnMaxLifetime, o.ConnMaxLifetimeJitter = connLifetime, connLifetimeJitter
	}
	o.Dialer = eagerDialer(dialTimeout, o.TLSConfig)
	return redis.NewClient(&o), nil
}
