package api

import (
	"net/http"
	"strconv"
	"strings"

	"mythiccache/cache"
	"mythiccache/cache/view"
)

// getWatched answers as getView does, and with the entry's next state, or with all
// of them, where that is asked for.
func (s *Server) getWatched(x *exchange, v *view.View) error {
	if x.request.Method == http.MethodHead {
		return s.getView(x, v)
	}
	if wantsEvents(x.request.Header["Accept"]) {
		if x.atOnce {
			return errNotAtOnce
		}
		return s.stream(x, v)
	}
	wait, err := parseWait(x.request.Header["Prefer"])
	if err != nil {
		return err
	}
	if wait > 0 && len(x.request.Header["If-None-Match"]) > 0 {
		return s.poll(x, v, wait)
	}
	return s.getView(x, v)
}

// mayRead reports whether there is an entry, and it is the caller's to read.
func mayRead(c caller, e cache.Entry) bool {
	return !e.Negative && (!e.Owned || c.owns(e.Owner))
}

const eventStream = "text/event-stream"

// wantsEvents reports whether Accept prefers server-sent events to JSON. Who names
// both alike gets JSON: that is an answer with an end.
func wantsEvents(values []string) bool {
	var events, json float64
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			media, parameters, _ := strings.Cut(part, ";")
			switch strings.ToLower(strings.TrimSpace(media)) {
			case eventStream:
				events = quality(parameters)
			case "application/json":
				json = quality(parameters)
			}
		}
	}
	return events > json
}

// quality reads the weight among the parameters of a media range (RFC 9110, 12.4.2).
func quality(parameters string) float64 {
	for part := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if !strings.EqualFold(name, "q") {
			continue
		}
		if q, err := strconv.ParseFloat(value, 64); err == nil && q >= 0 && q <= 1 {
			return q
		}
		return 0
	}
	return 1
}
