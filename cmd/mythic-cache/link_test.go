package main

import (
	"encoding/json"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"mythiccache/internal/testserver"
)

// link is a way to a server that a test can cut, slow down and lay elsewhere.
type link struct {
	t     testing.TB
	port  int // where it begins
	proxy *toxiproxy.Proxy
}

// The two directions of a link, as toxiproxy names them.
const (
	requests = "upstream"
	replies  = "downstream"
)

func newLink(t testing.TB, port int) *link {
	t.Helper()
	here, err := testserver.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := &link{t: t, port: here, proxy: toxiproxy.NewProxy(server, "link", loopback(here), loopback(port))}
	if err := l.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.proxy.Stop)
	return l
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// through returns the URL of the server for those who are to come over the link.
func (l *link) through(server string) string {
	l.t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		l.t.Fatal(err)
	}
	u.Host = loopback(l.port)
	return u.String()
}

// suffer puts one of toxiproxy's toxics on what travels in a direction.
func (l *link) suffer(toxic, direction string, attributes map[string]int) {
	l.t.Helper()
	text, err := json.Marshal(map[string]any{"name": toxic + " of " + direction, "type": toxic, "stream": direction, "attributes": attributes})
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(string(text))); err != nil {
		l.t.Fatal(err)
	}
}

// mend takes all toxics away. What was cut or held back is lost with its connection.
func (l *link) mend() { l.proxy.Toxics.ResetToxics(l.t.Context()) }

// sever ends all connections; new ones are welcome.
func (l *link) sever() {
	l.suffer("timeout", replies, map[string]int{"timeout": 1})
	l.mend()
}

// lead ends all connections and leads new ones elsewhere.
func (l *link) lead(port int) {
	l.t.Helper()
	if err := l.proxy.Update(&toxiproxy.Proxy{Listen: loopback(l.port), Upstream: loopback(port), Enabled: true}); err != nil {
		l.t.Fatal(err)
	}
}
