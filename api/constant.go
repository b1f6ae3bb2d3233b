package api

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
)

// constant is an answer that does not change while the program runs.
type constant struct {
	media string
	body  []byte
	tag   string // strong; see appendTag
}

func newConstant(media string, body []byte) constant {
	sum := sha256.Sum256(body)
	return constant{media: media, body: body, tag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
}

// constant sends what does not change, or 304 to who has it. Another version of the
// program may say something else, so it is asked about each time.
func (x *exchange) constant(c constant) error {
	h := x.Header()
	h.Set("Cache-Control", "no-cache")
	h.Add("Vary", "Accept-Encoding")
	x.values.begin("Etag")
	x.values.text = appendTag(x.values.text, c.tag, c.body)
	if matches(x.request.Header["If-None-Match"], c.tag) {
		x.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", c.media)
	body := x.encode(c.tag, c.body)
	x.WriteHeader(http.StatusOK)
	_, _ = x.Write(body) // the client may be gone
	return nil
}
