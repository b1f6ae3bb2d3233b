package api

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"mythiccache/cache"
)

// askers give those names who ask what everybody may have the answer of. A worker has to
// tell them apart, lest one's questions at which a model fails keep away all others'; who
// they are is nobody's business who reads Redis.
//
// A name is keyed with the secrets of the deployment, so that all its API processes give
// the same one. Where there is no secret each process has a key of its own: a caller has a
// name in each then, until it is restarted.
type askers struct{ key []byte }

func newAskers(secrets ...string) askers {
	key := sha256.New()
	key.Write([]byte("askers"))
	known := false
	for _, secret := range secrets {
		fmt.Fprintf(key, "\x00%d:%s", len(secret), secret)
		known = known || secret != ""
	}
	if !known {
		key.Write([]byte(rand.Text()))
	}
	return askers{key.Sum(nil)}
}

// name returns the name of who asks. The app, asking for nobody, has none: what it asks
// is told from the others' without.
func (a askers) name(scope string) string {
	if scope == cache.AppScope {
		return ""
	}
	mac := hmac.New(sha256.New, a.key)
	mac.Write([]byte(scope))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
