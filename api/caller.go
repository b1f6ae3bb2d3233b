package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"mythiccache/producers/event"
)

// caller is who asks, as far as it has been verified.
type caller struct {
	user    string // the verified user; empty: anonymous, or the app for itself
	app     bool   // showed EVENTS_TOKEN; user is then whom the app named
	limited string // whose count the limiter keeps; empty: nobody's
}

// owns reports whether an entry's owner is the caller. An owner who is gone is
// stored as "", which nobody is.
func (c caller) owns(owner string) bool { return c.user != "" && c.user == owner }

// userCaller is a verified user.
func userCaller(user string) caller { return caller{user: user, limited: "user:" + user} }

// appCaller is the app, for itself or on a user's behalf. For itself it is not
// limited; what it asks for a user counts as the user's.
func appCaller(user string) caller {
	c := caller{app: true}
	if user != "" {
		c = userCaller(user)
		c.app = true
	}
	return c
}

// addressCaller is an anonymous caller, told apart by address. Of IPv6 the first
// 64 bits count, since whoever has one address there has all that share them.
// Behind a gateway that is trusted with X-User-Id, the address is the one that
// the gateway itself appended to X-Forwarded-For.
func addressCaller(r *http.Request, gateway bool) caller {
	text, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		text = r.RemoteAddr
	}
	if values := r.Header["X-Forwarded-For"]; gateway && len(values) > 0 {
		list := values[len(values)-1]
		text = strings.TrimSpace(list[strings.LastIndexByte(list, ',')+1:])
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return caller{limited: "address:unknown"}
	}
	address = address.Unmap().WithZone("")
	if address.Is6() {
		prefix, _ := address.Prefix(64) // 64 bits always fit
		return caller{limited: "address:" + prefix.String()}
	}
	return caller{limited: "address:" + address.String()}
}

// nameable reports whether a text can be a user or a key.
func nameable(text string) bool {
	return text != "" && len(text) <= event.MaxName && validText(text)
}
