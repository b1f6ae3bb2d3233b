package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Bounds of the fetching of a key set.
const (
	fetchTimeout = 5 * time.Second
	maxRedirects = 3
	fileEvery    = 10 * time.Second // a file is cheap to look at
)

// newKeySource makes the source that AUTH_JWKS names, and says how often it is to be
// read, and what is unsafe about it; "" where nothing is.
func newKeySource(name string) (source keySource, every time.Duration, unsafe string, err error) {
	if !strings.Contains(name, "://") {
		return fileSource(name), fileEvery, "", nil
	}
	u, err := url.Parse(name)
	if err != nil || u.Host == "" {
		return nil, 0, "", errors.New("AUTH_JWKS is neither a file nor a URL such as https://issuer.example/.well-known/jwks.json")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && loopback(u):
	case u.Scheme == "http":
		unsafe = "AUTH_JWKS is fetched over plain http: whoever is on the way can make tokens"
	default:
		return nil, 0, "", fmt.Errorf("AUTH_JWKS has the scheme %q, which is neither https nor http", u.Scheme)
	}
	return newURLSource(u), keysEvery, unsafe, nil
}

// loopback reports whether a URL leads to this machine.
func loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// fileSource is a file with a key set.
type fileSource string

func (f fileSource) read(context.Context) ([]byte, error) {
	file, err := os.Open(string(f))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readBounded(file)
}

// urlSource is where an issuer publishes its key set.
type urlSource struct {
	url    string
	client *http.Client
}

// newURLSource makes a source that follows few redirects, and none away from https.
func newURLSource(u *url.URL) *urlSource {
	follow := func(r *http.Request, via []*http.Request) error {
		switch {
		case len(via) > maxRedirects:
			return fmt.Errorf("more than %d redirects", maxRedirects)
		case u.Scheme == "https" && r.URL.Scheme != "https":
			return errors.New("redirected away from https")
		}
		return nil
	}
	return &urlSource{url: u.String(), client: &http.Client{CheckRedirect: follow, Timeout: fetchTimeout}}
}

func (s *urlSource) read(ctx context.Context) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("fetch the key set: %w", withoutSecrets(err))
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch the key set: the answer is %d", response.StatusCode)
	}
	return readBounded(response.Body)
}

// withoutSecrets leaves out the URL of an error, in which a name and a password may be.
func withoutSecrets(err error) error {
	if of, ok := errors.AsType[*url.Error](err); ok {
		return of.Err
	}
	return err
}

func readBounded(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxKeySet+1))
	if err == nil && len(text) > maxKeySet {
		err = fmt.Errorf("the key set is longer than %d bytes", maxKeySet)
	}
	return text, err
}
