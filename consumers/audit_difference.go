package consumers

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"

	"mythiccache/cache"
)

// difference says in what an entry differs from the truth, "" where in nothing.
func difference(e cache.Entry, truth Loaded) string {
	switch {
	case e.Negative && truth.Found:
		return "cached as absent, but there is a row"
	case !e.Negative && !truth.Found:
		return "cached, but there is no row"
	case e.Owned != truth.Owned || e.Owner != truth.Owner:
		return "it belongs to somebody else"
	case !e.Negative && !sameJSON(e.Body, truth.Body):
		return "the document differs"
	case !e.Negative && !intact(e):
		return "the document is not the one that was put"
	}
	return ""
}

// sameJSON compares documents by what they say: the order of an object's fields
// and white space say nothing, the digits of a number do.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var documents [2]any
	for i, text := range [][]byte{a, b} {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&documents[i]); err != nil {
			return false
		}
		if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
			return false // something follows
		}
	}
	return reflect.DeepEqual(documents[0], documents[1])
}

// intact reports whether a document is the one that its ETag was made of: the
// beginning of its SHA-256. Readers whose copy has that ETag are told that it is good.
func intact(e cache.Entry) bool {
	begins, err := base64.RawURLEncoding.DecodeString(strings.Trim(e.ETag, `"`))
	sum := sha256.Sum256(e.Body)
	return err == nil && len(begins) > 0 && bytes.HasPrefix(sum[:], begins)
}
