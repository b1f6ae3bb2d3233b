package cache

import "mythiccache/cache/view"

// DefaultPrefix begins every name in Redis where Options has none.
const DefaultPrefix = "mythic:"

// keys forms the names in Redis. What comes from outside stands in braces, so
// that in a cluster it alone decides the slot, and so that no key of a view can
// be mistaken for a name of another kind.
type keys struct{ prefix string }

// entry names the one key that holds value, version, fence and lease.
func (k keys) entry(name, key string) string { return k.prefix + name + ":{" + key + "}" }

// view names the key with a view's own fence. It lives without a TTL.
func (k keys) view(name string) string { return k.prefix + "view:" + name }

// rate names a limiter's counter.
func (k keys) rate(rule, caller string) string {
	return k.prefix + "rate:{" + view.JoinKey(rule, caller) + "}"
}

// session names what is known of tokens: a session or its revocation by the hash, the
// revocations of a jti and of a user by theirs. Revocations live without a TTL.
func (k keys) session(id string) string { return k.prefix + "session:{" + id + "}" }

// revoked names the pub/sub channel of revocations.
func (k keys) revoked() string { return k.prefix + "revoked" }

// revocations names the index of what is revoked, by when it may be forgotten. It
// lives without a TTL.
func (k keys) revocations() string { return k.prefix + "revoked:index" }

// report names what one process last said about itself.
func (k keys) report(instance string) string { return k.prefix + "report:{" + instance + "}" }

// reports names the index of the instances that report.
func (k keys) reports() string { return k.prefix + "report:index" }

// filled names the pub/sub channel of the announcements.
func (k keys) filled() string { return k.prefix + "filled" }

// newKeys uses a prefix as it is given.
func newKeys(prefix string) keys {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	return keys{prefix}
}
