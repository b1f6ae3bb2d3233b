package lane

import (
	"net/http"
	"testing"
)

// What is used again has nothing left of the answer before.
func TestATurnIsEmptyWhenItIsUsedAgain(t *testing.T) {
	l := New(http.NotFoundHandler())
	used := l.turn()
	used.answer.header["Content-Length"] = []string{"0"}
	used.answer.header["Content-Type"] = []string{"text/plain"}
	used.conn, used.body.left = &conn{lane: l}, []byte("ab")
	used.WriteHeader(http.StatusOK)
	if len(used.text) == 0 || len(used.names) != 2 {
		t.Fatalf("%q %q", used.text, used.names)
	}
	l.done(used)
	if len(used.text) > 0 || len(used.names) > 0 || len(used.answer.header) > 0 || used.status != 0 || used.conn != nil || used.body.left != nil {
		t.Errorf("%q %q %v %d", used.text, used.names, used.answer.header, used.status)
	}
}
