package main

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// What a Redis may throw away, or loses with a restart, doctor says.
func TestDoctorSaysWhatRedisMayLose(t *testing.T) {
	t.Parallel()
	for says, c := range map[string]struct {
		args []string
		bad  bool
		not  string
	}{
		"throw away streams, the relay's position and revocations": {args: []string{"--maxmemory-policy", "allkeys-lru"}, bad: true, not: "on disk"},
		"tokens that were revoked open again":                      {args: []string{"--appendonly", "no"}},
		"Redis has snapshots alone":                                {args: []string{"--appendonly", "no", "--save", "60 1"}, not: "on disk"},
		"maxmemory-policy volatile-lfu":                            {args: []string{"--maxmemory-policy", "volatile-lfu"}, not: "open again"},
	} {
		r := testserver.NewRedis(t, c.args...)
		found := (&config{RedisURL: r.URL(), Prefix: "mythic:"}).examineRedis(t.Context())
		said, bad := "", false
		for _, f := range found {
			said, bad = said+f.what+"\n", bad || f.bad
		}
		if !strings.Contains(said, says) || bad != c.bad || c.not != "" && strings.Contains(said, c.not) {
			t.Errorf("%s: bad is %t:\n%s", c.args, bad, said)
		}
	}
}

func TestDoctorCountsRevocations(t *testing.T) {
	t.Parallel()
	client := testserver.NewRedis(t).Client(t)
	c := &config{Prefix: "mythic:"}
	if f := c.examineRevocations(t.Context(), client); f.what != "0 revocations of tokens" || f.mend != "" {
		t.Errorf("%+v", f)
	}
	if err := client.ZAdd(t.Context(), "mythic:revoked:index", redis.Z{Score: float64(time.Now().UnixMilli()), Member: "jti:x"}).Err(); err != nil {
		t.Fatal(err)
	}
	if f := c.examineRevocations(t.Context(), client); f.what != "1 revocations of tokens" {
		t.Errorf("%+v", f)
	}
	if f := foundRevocations(cache.ManyRevocations + 1); f.bad || f.mend == "" {
		t.Errorf("%+v", f)
	}
	client.Set(t.Context(), "mythic:revoked:index", "no index", 0)
	if f := c.examineRevocations(t.Context(), client); !f.bad {
		t.Errorf("%+v", f)
	}
}

// Where connections cannot be named, what is read is not kept in memory.
func TestDoctorTriesToNameAConnection(t *testing.T) {
	t.Parallel()
	r := testserver.NewRedis(t)
	client := r.Client(t)
	named := func(near size, want int) {
		t.Helper()
		if found := (&config{NearCacheBytes: near}).examineNames(t.Context(), client); len(found) != want || want > 0 && found[0].mend == "" {
			t.Errorf("%d bytes: %+v", near, found)
		}
	}
	named(1, 0)
	if err := r.Client(t).ACLSetUser(t.Context(), "default", "-client|setname").Err(); err != nil {
		t.Fatal(err)
	}
	named(1, 1)
	named(0, 0)
}
