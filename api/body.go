package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"mythiccache/api/lane"
)

// readBody reads a body of limited length, which must come as it is. In the lane it is gone
// when the handler returns.
func readBody(x *exchange, limit int64) ([]byte, error) {
	if coding := x.request.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		x.Header().Set("Accept-Encoding", "identity") // RFC 9110, 15.5.16
		return nil, problem(kindMediaType, "the body has a Content-Encoding; bodies are read without one")
	}
	if there := lane.Body(x.request); there != nil && int64(len(there)) <= limit {
		return there, nil
	}
	body, err := readAll(http.MaxBytesReader(x.ResponseWriter, x.request.Body, limit), x.request.ContentLength, limit)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, problem(kindTooLarge, fmt.Sprintf("the body is longer than %d bytes", limit))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, problem(kindSlow, "the body did not come to its end in time")
	case err != nil:
		return nil, problem(kindBadRequest, "the body could not be read to its end")
	}
	return body, nil
}

// readAll is io.ReadAll into a buffer of the announced size, where that is known
// and within the limit.
func readAll(r io.Reader, announced, limit int64) ([]byte, error) {
	var b bytes.Buffer
	if announced > 0 && announced <= limit {
		b.Grow(int(announced) + bytes.MinRead) // room to see the end without growing again
	}
	_, err := b.ReadFrom(r)
	return b.Bytes(), err
}

// nesting returns how deep the arrays and objects of a JSON text are nested,
// without recursion: encoding/json would go 10,000 levels down first.
func nesting(text []byte) int {
	depth, deepest := 0, 0
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// first returns the first byte of a JSON text that is not white space; 0 where
// there is none.
func first(text []byte) byte {
	text = bytes.TrimLeft(text, " \t\r\n")
	if len(text) == 0 {
		return 0
	}
	return text[0]
}

// clip shortens what a problem quotes of a request.
func clip(text string) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= 64 {
		return text
	}
	return strings.ToValidUTF8(text[:64], "") + "…"
}
