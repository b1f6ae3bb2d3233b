package stream_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"mythiccache/internal/testserver"
)

// nemesisLink is a worker's way to Redis, which can be cut and slowed down.
type nemesisLink struct {
	t     testing.TB
	url   string // of Redis, at the end of the link
	proxy *toxiproxy.Proxy
}

func newNemesisLink(t testing.TB, port int) *nemesisLink {
	t.Helper()
	here, err := testserver.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	from, to := fmt.Sprintf("127.0.0.1:%d", here), fmt.Sprintf("127.0.0.1:%d", port)
	l := &nemesisLink{t: t, url: "redis://" + from + "/0", proxy: toxiproxy.NewProxy(server, "link", from, to)}
	if err := l.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.proxy.Stop)
	return l
}

// suffer puts one of toxiproxy's toxics on what travels upstream, to Redis, or downstream.
func (l *nemesisLink) suffer(toxic, direction string, attributes map[string]int) {
	l.t.Helper()
	text, err := json.Marshal(map[string]any{"name": toxic, "type": toxic, "stream": direction, "attributes": attributes})
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(string(text))); err != nil {
		l.t.Fatal(err)
	}
}

// mend takes all toxics away. What was cut or held back is lost with its connection.
func (l *nemesisLink) mend() { l.proxy.Toxics.ResetToxics(l.t.Context()) }
