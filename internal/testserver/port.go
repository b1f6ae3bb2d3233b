package testserver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
)

// Ports are taken from below the range that systems give to outgoing
// connections (from 32768 on Linux, 49152 elsewhere). From within it, a server
// that starts again on its port may find a client's connection there, and a
// client that knocks at a stopped server may be connected with itself.
const (
	firstPort = 15000
	lastPort  = 32000
)

// errPortTaken says that another server has the port.
var errPortTaken = errors.New("the port is taken")

// onPort starts a server on the given port or, for 0, on a free one. Of two
// that find the same port free at once the second tries another.
func onPort(ctx context.Context, port int, start func(port int) error) error {
	if port != 0 {
		return start(port)
	}
	var err error
	for range 10 {
		if port, err = FreePort(ctx); err != nil {
			return err
		}
		if err = start(port); err == nil || !isPortTaken(err) {
			return err
		}
	}
	return err
}

func isPortTaken(err error) bool {
	return errors.Is(err, errPortTaken) || strings.Contains(err.Error(), "Address already in use")
}

// FreePort returns a TCP port of loopback that nobody listens on, and that no
// outgoing connection is given.
func FreePort(ctx context.Context) (int, error) {
	var err error
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		var l net.Listener
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}
