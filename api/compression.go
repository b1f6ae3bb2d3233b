package api

import (
	"bytes"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

const (
	compressFrom  = 1 << 10 // bytes of a body; below, less is gained than the header costs
	compressLevel = 5
	packedMost    = 4 << 20 // bytes of one generation of what was compressed
)

// packer compresses bodies, which costs more than all else about a hit. So it keeps
// what it made of those that were asked for last, by their ETag and length: two
// generations, of which the older goes when the younger is full.
type packer struct {
	writers sync.Pool

	mu         sync.Mutex
	young, old map[string][]byte
	size       int // bytes in young
}

func newPacker() *packer {
	return &packer{young: map[string][]byte{}, writers: sync.Pool{New: func() any {
		w, _ := gzip.NewWriterLevel(nil, compressLevel) // a level that there is
		return w
	}}}
}

// packed returns the body compressed, which is not to be changed; nil where that is
// no shorter. An empty tag is not remembered.
func (p *packer) packed(etag string, body []byte) []byte {
	if etag == "" {
		return p.pack(body)
	}
	name := etag + strconv.Itoa(len(body))
	p.mu.Lock()
	packed, ok := p.young[name]
	if !ok {
		if packed, ok = p.old[name]; ok {
			p.keep(name, packed)
		}
	}
	p.mu.Unlock()
	if ok {
		return packed
	}
	packed = p.pack(body)
	p.mu.Lock()
	p.keep(name, packed)
	p.mu.Unlock()
	return packed
}

// keep remembers a body; the caller has locked.
func (p *packer) keep(name string, packed []byte) {
	size := len(packed) + len(name)
	if _, there := p.young[name]; there || size > packedMost/4 {
		return
	}
	if p.size+size > packedMost {
		p.old, p.young, p.size = p.young, map[string][]byte{}, 0
	}
	p.young[name] = packed
	p.size += size
}

func (p *packer) pack(body []byte) []byte {
	var b bytes.Buffer
	b.Grow(len(body) / 2)
	w, _ := p.writers.Get().(*gzip.Writer)
	defer p.writers.Put(w)
	w.Reset(&b)
	_, err := w.Write(body)
	if err != nil || w.Close() != nil || b.Len() >= len(body) {
		return nil
	}
	return b.Bytes()
}

// compresses reports whether a body is to be sent compressed. What a stranger's page
// could make a browser send is in no body beside a secret, so that lengths tell
// nothing.
func (x *exchange) compresses(body []byte) bool {
	return len(body) >= compressFrom && acceptsGzip(x.request.Header["Accept-Encoding"])
}

// encode returns what is to be sent of a body and sets Content-Encoding and
// Content-Length.
func (x *exchange) encode(etag string, body []byte) []byte {
	h := x.Header()
	if x.compresses(body) {
		if packed := x.server.packer.packed(etag, body); packed != nil {
			h["Content-Encoding"] = x.server.fixed.gzip
			body = packed
		}
	}
	x.values.begin("Content-Length")
	x.values.text = strconv.AppendInt(x.values.text, int64(len(body)), 10)
	return body
}

// appendTag writes the ETag of a body. Two codings of a body are two representations
// that must not share a strong tag (RFC 9110, 8.8.3.3). They are equal in meaning, so
// what is sent compressed to some has its tag marked as weak for all: a 304 with a
// strong tag would not freshen a copy that is kept under the weak one (RFC 9111, 4.3.4).
// If-None-Match compares weakly (13.1.2), so it is answered whichever coding the client
// has kept.
func appendTag(b []byte, etag string, body []byte) []byte {
	if len(body) >= compressFrom {
		b = append(b, "W/"...)
	}
	return append(b, etag...)
}

// acceptsGzip reads Accept-Encoding (RFC 9110, 12.5.3): gzip, where it is named or
// covered by a star, and no less wanted than the plain body.
func acceptsGzip(values []string) bool {
	const unsaid = -1
	packed, star, plain := float64(unsaid), float64(unsaid), float64(unsaid)
	for _, value := range values {
		for item := range strings.SplitSeq(value, ",") {
			coding, parameters, _ := strings.Cut(item, ";")
			switch strings.ToLower(strings.TrimSpace(coding)) {
			case "gzip", "x-gzip":
				packed = quality(parameters)
			case "*":
				star = quality(parameters)
			case "identity":
				plain = quality(parameters)
			}
		}
	}
	if packed == unsaid {
		packed = star
	}
	return packed > 0 && packed >= plain
}
