package api

import (
	"crypto/elliptic"
	"encoding/base64"
	"math/big"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"mythiccache/cache"
)

// twinOf returns the hash of the other text that is the same token; zero where there is
// none. Of an ECDSA signature (r, s) anybody can make (r, n-s), which is as good: a
// token that was revoked by its hash would come back with another one. Signatures of
// the other methods have one form, and what is not spelt strictly in base64 is refused.
func twinOf(token string, parsed *jwt.Token) cache.TokenHash {
	var order *big.Int
	switch parsed.Method.Alg() {
	case "ES256":
		order = elliptic.P256().Params().N
	case "ES384":
		order = elliptic.P384().Params().N
	case "ES512":
		order = elliptic.P521().Params().N
	default:
		return cache.TokenHash{}
	}
	signature := append([]byte(nil), parsed.Signature...)
	s := signature[len(signature)/2:]
	new(big.Int).Sub(order, new(big.Int).SetBytes(s)).FillBytes(s)
	unsigned := token[:strings.LastIndexByte(token, '.')+1]
	return cache.HashToken(unsigned + base64.RawURLEncoding.EncodeToString(signature))
}
