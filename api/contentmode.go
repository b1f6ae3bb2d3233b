package api

import (
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// The content modes of CloudEvents' HTTP binding, and what is sent without
// naming one (curl -d @event.json): the body then tells, and what an event
// lacks but its type is filled in.
type mode int

const (
	modeGuess mode = iota
	modeStructured
	modeBatch
	modeBinary
)

// The media types that CloudEvents has for events as JSON.
const (
	mediaEvents = "application/cloudevents"
	mediaEvent  = mediaEvents + "+json"
	mediaBatch  = mediaEvents + "-batch+json"
)

// contentMode reads the mode off the headers. Where Content-Type names a format of
// events, it decides, and ce- headers are copies that a sender may add (HTTP
// binding, 3 and 3.2.2).
func contentMode(r *http.Request) (mode, error) {
	text := r.Header.Get("Content-Type")
	media, params, err := mime.ParseMediaType(text)
	if !strings.HasPrefix(media, mediaEvents) && attributed(r.Header) {
		return modeBinary, nil
	}
	switch charset := params["charset"]; {
	case text == "":
		return modeGuess, nil
	case err != nil:
		return 0, problem(kindMediaType, "Content-Type cannot be read")
	case charset != "" && !strings.EqualFold(charset, "utf-8"):
		return 0, problem(kindMediaType, "events are UTF-8")
	}
	switch media {
	case mediaEvent:
		return modeStructured, nil
	case mediaBatch:
		return modeBatch, nil
	case "application/json", "application/x-www-form-urlencoded": // the latter is what curl says
		return modeGuess, nil
	}
	return 0, problem(kindMediaType, "events come as application/cloudevents+json, as application/cloudevents-batch+json, or with ce- headers")
}

// attributed reports whether headers have one of the attributes that every event has.
func attributed(h http.Header) bool {
	for _, name := range []string{"Ce-Specversion", "Ce-Type", "Ce-Id", "Ce-Source"} {
		if len(h[name]) > 0 {
			return true
		}
	}
	return false
}

// headerValue decodes the header of an attribute (HTTP binding, 3.1.3.2): quotes,
// which older versions allowed, go away, and percent signs are undone once.
func headerValue(text string) string {
	if n := len(text); n >= 2 && text[0] == '"' && text[n-1] == '"' {
		plain := make([]byte, 0, n-2)
		for i := 1; i < n-1; i++ {
			if text[i] == '\\' && i+1 < n-1 {
				i++
			}
			plain = append(plain, text[i])
		}
		text = string(plain)
	}
	value, err := url.PathUnescape(text)
	if err != nil {
		return text
	}
	return value
}
