package cache

import (
	"bytes"
	"strings"
)

// exactDigits is the number of digits up to which every integer is a double.
const exactDigits = 15

// markIntegers turns the integers of a valid JSON text that a double may not
// hold into strings that begin with a mark, which must not occur in the text.
// Object names are never integers, so the order of members does not change.
func markIntegers(text []byte, mark string) []byte {
	var marked []byte // nil until there is one
	done := 0
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			i = stringEnd(text, i)
		case c == '-' || c >= '0' && c <= '9':
			end := numberEnd(text, i)
			if number := text[i:end]; len(number) > exactDigits && !bytes.ContainsAny(number, ".eE") {
				marked = append(marked, text[done:i]...)
				marked = append(marked, '"')
				marked = append(marked, mark...)
				marked = append(marked, number...)
				marked = append(marked, '"')
				done = end
			}
			i = end
		default:
			i++
		}
	}
	if marked == nil {
		return text
	}
	return append(marked, text[done:]...)
}

// unmarkIntegers turns marked strings back into integers.
func unmarkIntegers(text []byte, mark string) []byte {
	opening := []byte(`"` + mark)
	var plain []byte
	for {
		before, after, found := bytes.Cut(text, opening)
		if !found {
			break
		}
		plain = append(plain, before...)
		number, rest, _ := bytes.Cut(after, []byte{'"'})
		plain = append(plain, number...)
		text = rest
	}
	return append(plain, text...)
}

// stringEnd returns where the string that opens at i is over.
func stringEnd(text []byte, i int) int {
	for i++; i < len(text) && text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// numberEnd returns where the number that begins at i is over.
func numberEnd(text []byte, i int) int {
	for i < len(text) && strings.IndexByte("+-.0123456789eE", text[i]) >= 0 {
		i++
	}
	return i
}
