package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/internal/testserver"
)

// listen serves on an address of its own until the test ends.
func (w *world) listen() (address string) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.run(func(ctx context.Context) {
		if err := w.server.Serve(ctx, l); err != nil {
			w.t.Error(err)
		}
	})
	return l.Addr().String()
}

// dial opens a connection that fails rather than to hang.
func (w *world) dial(address string) net.Conn {
	w.t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// answerOn reads one answer.
func (w *world) answerOn(conn io.Reader) *answer {
	w.t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return &answer{Response: response, body: body}
}

// drip sends a text, over and over, until the other end no longer wants it, and
// returns what it said.
func (w *world) drip(address, head, drop string) string {
	w.t.Helper()
	conn := w.dial(address)
	heard := make(chan string, 1)
	go func() {
		said, _ := io.ReadAll(conn) // until it is closed, gently or not
		heard <- string(said)
	}()
	if _, err := io.WriteString(conn, head); err != nil {
		w.t.Fatal(err)
	}
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		select {
		case said := <-heard:
			return said
		case <-tick.C:
			if _, err := io.WriteString(conn, drop); errors.Is(err, os.ErrDeadlineExceeded) {
				w.t.Fatal("it is listened to for ever")
			}
		}
	}
}

// Clients that send slowly, as slowloris does, lose their connection, and others do
// not notice.
func TestSlowClientsAreLeft(t *testing.T) {
	const short, long = 200 * time.Millisecond, time.Hour
	listen := func(header, read, idle time.Duration) (*world, string) {
		w := begin(t)
		w.server.timeouts.header, w.server.timeouts.read, w.server.timeouts.idle = header, read, idle
		address := w.listen()
		return w, address
	}
	w, address := listen(short, long, long)
	if said := w.drip(address, "GET /livez HTTP/1.1\r\n", "X-A: b\r\n"); said != "" {
		t.Errorf("a slow header: %q", said)
	}
	w, address = listen(long, short, long)
	said := w.drip(address, "POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+eventsToken+"\r\nContent-Type: "+structured+"\r\nContent-Length: 1000000\r\n\r\n{", " ")
	a := w.answerOn(strings.NewReader(said))
	a.wants(t, 408, map[string]string{"Content-Type": "application/problem\\+json"})
	if p := a.problem(t); !a.Close || p.Type != "/docs#too-slow" {
		t.Errorf("problem %+v", p)
	}
	r, err := http.NewRequest(http.MethodPost, w.url+"/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	w.check(r, a)
	w, address = listen(long, long, short)
	idle := w.dial(address)
	fmt.Fprint(idle, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	if said, err := io.ReadAll(idle); err != nil || !bytes.Contains(said, []byte("200 OK")) {
		t.Errorf("an idle connection: %v %q", err, said)
	}
}

// What net/http refuses before any of our code sees it is in its own words, which
// tell nothing of us.
func TestWhatHTTPItselfRefuses(t *testing.T) {
	w := begin(t)
	address := w.listen()
	for sent, status := range map[string]int{
		"GET / HTTP/1.1\r\n\r\n":                           400, // no Host
		"nonsense\r\n\r\n":                                 400,
		"GET / HTTP/3.7\r\nHost: x\r\n\r\n":                505,
		"GET /livez HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n": 400,
		"GET /livez HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("x", maxHeader+8<<10) + "\r\n\r\n": 431,
		"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx":      400,
		"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n":                          501,
		"GET /status/" + strings.Repeat("a", maxHeader+8<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n":      431,
	} {
		conn := w.dial(address)
		go io.WriteString(conn, sent) // it may not want to hear all
		a := w.answerOn(conn)
		if a.StatusCode != status || len(a.body) > 200 || strings.Contains(string(a.body), ".go") || !a.Close {
			t.Errorf("%.40q: %d %q", sent, a.StatusCode, a.body)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	var logged testserver.Log
	w := begin(t, func(o *Options) { o.MaxConns = 2; o.Log = zerolog.New(&logged) })
	address := w.listen()
	ask := func(conn net.Conn) {
		t.Helper()
		fmt.Fprint(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		w.answerOn(conn).wants(t, 200, nil)
	}
	first, second, third := w.dial(address), w.dial(address), w.dial(address)
	ask(first)
	ask(second)
	fmt.Fprint(third, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	testserver.Eventually(t, "it says so", func() error {
		if !strings.Contains(logged.String(), "no more connections are accepted") {
			return errors.New(logged.String())
		}
		return nil
	})
	if err := third.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := third.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the third connection got %d bytes, %v", n, err)
	}
	ask(first) // who is in stays in
	if err := errors.Join(second.Close(), third.SetReadDeadline(time.Now().Add(30*time.Second))); err != nil {
		t.Fatal(err)
	}
	w.answerOn(third).wants(t, 200, nil)
}

// TestAFullHouseIsLoggedOnce has connections come and go at the limit, as in a flood.
func TestAFullHouseIsLoggedOnce(t *testing.T) {
	var logged testserver.Log
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const places, flood = 20, 10
	l := limitConnections(inner, places, zerolog.New(&logged))
	accepted := make(chan net.Conn, places+flood)
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			accepted <- conn
		}
		close(accepted)
	}()
	w := &world{t: t}
	for range places + flood {
		w.dial(inner.Addr().String())
	}
	in := make([]net.Conn, 0, places+flood)
	for range places {
		in = append(in, <-accepted)
	}
	for i := range flood { // who goes makes place for who waits
		in[i].Close()
		in = append(in, <-accepted)
	}
	said := func(full, again int) {
		t.Helper()
		testserver.Eventually(t, "it is logged", func() error {
			text := logged.String()
			if strings.Count(text, "no more connections") != full || strings.Count(text, "accepted again") != again {
				return errors.New(text)
			}
			return nil
		})
	}
	said(1, 0)
	for _, conn := range in {
		conn.Close()
	}
	said(1, 1)
	l.Close()
	for range accepted {
	}
}

// certify writes a certificate for a name, and its key, and returns the former.
func certify(t *testing.T, certFile, keyFile, name string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return pool
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pool := certify(t, certFile, keyFile, "before.example")
	w := begin(t, func(o *Options) { o.TLSCert, o.TLSKey = certFile, keyFile })
	address := w.listen()
	ask := func(name string, pool *x509.CertPool, most uint16) (*http.Response, error) {
		transport := &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: pool, ServerName: name, MaxVersion: most},
			ForceAttemptHTTP2: true,
		}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/livez", http.NoBody)
		if err != nil {
			return nil, err
		}
		response, err := transport.RoundTrip(r)
		if err == nil {
			response.Body.Close()
		}
		return response, err
	}
	response, err := ask("before.example", pool, 0)
	if err != nil || response.StatusCode != http.StatusOK || response.ProtoMajor != 2 || response.TLS.Version != tls.VersionTLS13 {
		t.Fatalf("%+v %v", response, err)
	}
	if response, err = ask("before.example", pool, tls.VersionTLS12); err != nil || response.ProtoMajor != 2 {
		t.Errorf("1.2: %+v %v", response, err)
	}
	old11 := &tls.Config{RootCAs: pool, ServerName: "before.example", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if conn, err := tls.Dial("tcp", address, old11); err == nil {
		conn.Close()
		t.Error("1.1 is served")
	}

	// Half of a renewal, and all of it.
	old, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	pool2 := certify(t, certFile, keyFile, "after.example")
	whole, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	write := func(key []byte) {
		if err := os.WriteFile(keyFile, key, 0o600); err != nil {
			t.Fatal(err)
		}
		w.server.tls.mu.Lock()
		w.server.tls.looked = time.Time{} // the second is over
		w.server.tls.mu.Unlock()
	}
	write(old)
	if _, err := ask("before.example", pool, 0); err != nil {
		t.Errorf("a certificate without its key: %v", err)
	}
	write(append(whole, '\n')) // of another size, whatever the clock of the file system says
	if _, err := ask("after.example", pool2, 0); err != nil {
		t.Errorf("the renewed certificate: %v", err)
	}
}

func TestCertificatesAreChecked(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certify(t, certFile, keyFile, "x.example")
	for says, files := range map[string][2]string{
		"TLS_KEY: is missing":            {certFile, ""},
		"TLS_CERT: is missing":           {"", keyFile},
		"no such file":                   {certFile, keyFile + "x"},
		"TLS_CERT, TLS_KEY: tls: failed": {keyFile, certFile},
	} {
		if _, err := newCertificate(files[0], files[1], zerolog.Nop()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %s", err, says)
		}
	}
}
