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
