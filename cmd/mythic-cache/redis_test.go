package main

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestConnectionsToRedisDoNotLiveForEver unless they are asked to.
func TestConnectionsToRedisDoNotLiveForEver(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]time.Duration{
		"redis://localhost:1":                                             connLifetime,
		"redis://localhost:1?conn_max_lifetime=1h":                        time.Hour,
		"redis://localhost:1?master_name=m":                               connLifetime,
		"redis://localhost:1?master_name=m&conn_max_lifetime=1h&db=0":     time.Hour,
		"redis://localhost:1?conn_max_lifetime=2m&max_retries=1&protocol": 2 * time.Minute,
	} {
		target, err := parseRedisURL(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		client, err := target.dial(nil)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		t.Cleanup(func() { client.Close() })
		dialed, ok := client.(*redis.Client)
		if !ok {
			t.Fatalf("%T", client)
		}
		if o := dialed.Options(); o.ConnMaxLifetime != want {
			t.Errorf("%s: %s", url, o.ConnMaxLifetime)
		}
	}
}

// TestNarrowIsHowManyCommandsAreOnTheirWay whether they travel alone or together.
func TestNarrowIsHowManyCommandsAreOnTheirWay(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"redis://localhost:1", "redis://localhost:1?master_name=m"} {
		target, err := parseRedisURL(url)
		if err != nil {
			t.Fatal(err)
		}
		client, err := target.narrow(3).dial(nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		if o := client.(*redis.Client).Options(); o.PoolSize != 3 || o.PipelinePoolSize >= 0 {
			t.Errorf("%s: %d connections, and %d for pipelines", url, o.PoolSize, o.PipelinePoolSize)
		}
		wide, err := target.dial(nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { wide.Close() })
		if o := wide.(*redis.Client).Options(); o.PoolSize == 3 {
			t.Errorf("%s: the narrow one has made the wide one narrow", url)
		}
	}
}
