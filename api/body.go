package api

import (
	"bytes"
	"io"
	"strings"
)

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
