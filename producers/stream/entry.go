package stream

// fields are the names and values of a stream entry, alternating, in its order.
type fields []string

// fieldsOf puts what go-redis reads into a map back into one line.
func fieldsOf(values map[string]any) fields {
	f := make(fields, 0, 2*len(values))
	for name, value := range values {
		text, _ := value.(string) // Redis has nothing else
		f = append(f, name, text)
	}
	return f
}

// get returns a field's value, the last where there are several.
func (f fields) get(name string) (value string, ok bool) {
	for i := len(f) - 2; i >= 0; i -= 2 {
		if f[i] == name {
			return f[i+1], true
		}
	}
	return "", false
}

// size is about how many bytes the entry holds.
func (f fields) size() int {
	n := 0
	for _, text := range f {
		n += len(text)
	}
	return n
}
