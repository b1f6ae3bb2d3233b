package api

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// certificateEvery is how often a handshake looks whether the files are others.
const certificateEvery = time.Second

// certificate is that of TLS_CERT and TLS_KEY. It is read again when one of the files
// has changed, so that a renewal needs no restart. Files that do not go together, as
// between the writing of one and of the other, leave the one that was there.
type certificate struct {
	certFile, keyFile string
	log               zerolog.Logger

	mu      sync.Mutex
	looked  time.Time
	stamps  [2]stamp
	current *tls.Certificate
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// newCertificate reads the files. It returns nil where none are named.
func newCertificate(certFile, keyFile string, log zerolog.Logger) (*certificate, error) {
	switch {
	case certFile == "" && keyFile == "":
		return nil, nil
	case keyFile == "":
		return nil, errors.New("TLS_KEY: is missing, and TLS_CERT is there")
	case certFile == "":
		return nil, errors.New("TLS_CERT: is missing, and TLS_KEY is there")
	}
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, looked: time.Now()}
	c.stamps = c.stampsNow()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS_CERT, TLS_KEY: %w", err)
	}
	c.current = &pair
	return c, nil
}

// get returns the certificate for a handshake.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= certificateEvery {
		c.looked = time.Now()
		c.look()
	}
	return c.current, nil
}

// look reads the files again where they are others. What they are is noted before
// they are read: a change in between is then seen the next time.
func (c *certificate) look() {
	stamps := c.stampsNow()
	if stamps == c.stamps {
		return
	}
	c.stamps = stamps
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		c.log.Warn().Err(err).Msg("TLS_CERT and TLS_KEY have changed and cannot be used; the former certificate stays")
		return
	}
	c.current = &pair
	c.log.Info().Time("until", pair.Leaf.NotAfter).Msg("tls certificate was read again")
}

func (c *certificate) stampsNow() (stamps [2]stamp) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			stamps[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return stamps
}
