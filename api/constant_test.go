package api

import (
	"net/http"
	"testing"
)

// TestWhatIsConstantIsSentOnce asks again for what does not change.
func TestWhatIsConstantIsSentOnce(t *testing.T) {
	w := begin(t)
	tags := map[string]bool{}
	for _, path := range []string{"/docs", "/openapi.json"} {
		a := w.get(path)
		tag := a.Header.Get("ETag")
		a.wants(t, 200, map[string]string{"ETag": `W/"[A-Za-z0-9_-]{16}"`, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"})
		tags[tag] = true
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			again := w.do(method, path, "", "If-None-Match", tag)
			again.wants(t, 304, map[string]string{"ETag": tag, "Content-Type": "", "Content-Length": "", "Cache-Control": "no-cache", "Vary": "Accept-Encoding"})
			if len(again.body) > 0 {
				t.Errorf("%d bytes", len(again.body))
			}
		}
		w.get(path, "If-None-Match", `"another"`).wants(t, 200, nil)
	}
	if len(tags) != 2 {
		t.Errorf("the tags are %v", tags)
	}
}
