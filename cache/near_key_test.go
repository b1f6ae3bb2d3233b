package cache_test

import (
	"errors"
	"runtime"
	"testing"
	"unsafe"
	"weak"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// Who reads may name a key by a part of a longer text, such as a request. What is kept of
// what was read does not hold on to that: nobody has counted it.
func TestNearKeepsTheKeyAlone(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	r := newReader(t, s, 1<<20)
	for name, read := range map[string]func(cache.Query) bool{
		"in earnest": func(q cache.Query) bool { _, err := r.Read(t.Context(), q); return err == nil },
		"soon":       func(q cache.Query) bool { _, ok := r.Soon(t.Context(), q); return ok },
	} {
		put(t, s, name, at(20), "body")
		var request weak.Pointer[[4096]byte]
		testserver.Eventually(t, "a read", func() error {
			text := new([4096]byte)
			copy(text[5:], name)
			request = weak.Make(text)
			if !read(book(unsafe.String(&text[5], len(name)))) {
				return errWrong
			}
			return nil
		})
		settle(t, r, book(name))
		testserver.Eventually(t, "the request is forgotten, read "+name, func() error {
			if runtime.GC(); request.Value() != nil {
				return errors.New("it is in memory")
			}
			return nil
		})
	}
}
