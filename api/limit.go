package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"mythiccache/cache"
)

// limits are the rules of RATE_LIMITS.
type limits struct {
	rules    []rule // by path prefix
	fallback *rule  // default=…; nil: other paths are not limited
}

// rule is one quota. Callers are counted apart, and so are endpoints, except
// those that one path prefix of RATE_LIMITS covers together.
type rule struct {
	name   string // as configured: default, or a path prefix
	bucket string // what is counted together: the prefix, or the endpoint's path
	count  int
	per    time.Duration

	policy []string // RateLimit-Policy
	prefix string   // of RateLimit: the name, quoted
}

// parseLimits reads default=100/1m,/status=600/1m. An empty text limits nothing.
func parseLimits(text string) (*limits, error) {
	l := &limits{}
	seen := map[string]bool{}
	for item := range strings.SplitSeq(text, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		r, err := parseRule(item)
		if err != nil {
			return nil, fmt.Errorf("RATE_LIMITS: %q %w", item, err)
		}
		if seen[r.name] {
			return nil, fmt.Errorf("RATE_LIMITS: %s is limited twice", r.name)
		}
		seen[r.name] = true
		if r.name == "default" {
			l.fallback = &r
		} else {
			l.rules = append(l.rules, r)
		}
	}
	return l, nil
}

func parseRule(text string) (rule, error) {
	name, quota, ok := strings.Cut(text, "=")
	count, per, ok2 := strings.Cut(quota, "/")
	if !ok || !ok2 {
		return rule{}, errors.New("is not of the form path=count/duration")
	}
	name = strings.TrimSpace(name)
	if name != "default" && (!strings.HasPrefix(name, "/") || !plain(name)) {
		return rule{}, errors.New("names neither default nor a path")
	}
	n, err := strconv.Atoi(strings.TrimSpace(count))
	if err != nil || n < 1 || n > 1_000_000_000 {
		return rule{}, errors.New("has no count between 1 and 1000000000")
	}
	d, err := parseDuration(strings.TrimSpace(per))
	if err != nil || d < time.Second || d > 24*time.Hour {
		return rule{}, errors.New("has no duration between 1s and 24h")
	}
	return newRule(name, name, n, d), nil
}

// parseDuration reads 90s, 30m or whole seconds.
func parseDuration(text string) (time.Duration, error) {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	return time.ParseDuration(text)
}

// plain reports whether a name can stand in a quoted string of a header as it is.
func plain(name string) bool {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func newRule(name, bucket string, count int, per time.Duration) rule {
	quoted := `"` + name + `"`
	return rule{
		name: name, bucket: bucket, count: count, per: per,
		policy: []string{quoted + ";q=" + strconv.Itoa(count) + ";w=" + strconv.Itoa(ceilSeconds(per))},
		prefix: quoted + ";r=",
	}
}

// of returns the rule of a path: that of the longest prefix that ends where a
// segment does, else the default one, counted for this path alone.
func (l *limits) of(path string) *rule {
	var found *rule
	for i := range l.rules {
		r := &l.rules[i]
		rest, ok := strings.CutPrefix(path, strings.TrimSuffix(r.name, "/"))
		if ok && (rest == "" || rest[0] == '/') && (found == nil || len(r.name) > len(found.name)) {
			found = r
		}
	}
	if found == nil && l.fallback != nil {
		r := newRule(l.fallback.name, path, l.fallback.count, l.fallback.per)
		found = &r
	}
	return found
}

// limit is the store's form of the rule.
func (r *rule) limit(c caller) cache.Limit {
	return cache.Limit{Caller: c.limited, Rule: r.bucket, Count: r.count, Per: r.per}
}

// announce sets RateLimit and RateLimit-Policy
// (draft-ietf-httpapi-ratelimit-headers-10).
func (r *rule) announce(v *headerValues, h http.Header, a cache.Admission) {
	v.begin("Ratelimit")
	v.text = append(v.text, r.prefix...)
	v.text = strconv.AppendInt(v.text, int64(max(a.Remaining, 0)), 10)
	v.text = append(v.text, ";t="...)
	v.text = strconv.AppendInt(v.text, int64(ceilSeconds(a.Reset)), 10)
	h["Ratelimit-Policy"] = r.policy
}

// refusal is the problem of a request over the limit.
func (r *rule) refusal(a cache.Admission) *Problem {
	return problem(kindLimited, fmt.Sprintf("at most %d requests in %s", r.count, spell(r.per))).
		later(max(a.RetryAfter, time.Second))
}
