package api

import (
	"mime"
	"net/http"
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

// contentMode reads the mode off the headers.
func contentMode(r *http.Request) (mode, error) {
	if r.Header.Get("Ce-Specversion") != "" || r.Header.Get("Ce-Type") != "" {
		return modeBinary, nil
	}
	text := r.Header.Get("Content-Type")
	if text == "" {
		return modeGuess, nil
	}
	media, params, err := mime.ParseMediaType(text)
	if err != nil {
		return 0, problem(kindMediaType, "Content-Type cannot be read")
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return 0, problem(kindMediaType, "events are UTF-8")
	}
	switch media {
	case "application/cloudevents+json":
		return modeStructured, nil
	case "application/cloudevents-batch+json":
		return modeBatch, nil
	case "application/json", "application/x-www-form-urlencoded": // the latter is what curl says
		return modeGuess, nil
	}
	return 0, problem(kindMediaType, "events come as application/cloudevents+json, as application/cloudevents-batch+json, or with ce- headers")
}
