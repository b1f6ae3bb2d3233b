package api

import "net/http"

// headerValues are the values of an answer's header that are different for each
// answer. They are written one after the other into one text, and stand in the header
// as parts of it.
type headerValues struct {
	text  []byte
	names [headerValuesMost]string // as net/http spells them
	ends  [headerValuesMost]int
	n     int
	parts [headerValuesMost]string
}

// headerValuesMost is more than any answer has.
const headerValuesMost = 8

// begin begins the value of a header: what is appended to text from now on. A header
// that has one already gets the new one.
func (v *headerValues) begin(name string) {
	if v.n > 0 {
		v.ends[v.n-1] = len(v.text)
	}
	v.names[v.n] = name
	v.n++
}

// into puts the values into a header.
func (v *headerValues) into(h http.Header) {
	if v.n == 0 {
		return
	}
	v.ends[v.n-1] = len(v.text)
	text, begin := string(v.text), 0
	for i := range v.n {
		v.parts[i] = text[begin:v.ends[i]]
		h[v.names[i]] = v.parts[i : i+1 : i+1]
		begin = v.ends[i]
	}
}
