package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rs/cors"
)

// preflightFor is how long a browser may remember what it was allowed.
const preflightFor = 10 * time.Minute

// parseOrigins reads CORS_ORIGINS: https://app.example.com,https://*.example.com, or *
// for everybody. An empty text names none.
func parseOrigins(text string) ([]string, error) {
	var origins []string
	for item := range strings.SplitSeq(text, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		if err := checkOrigin(item); err != nil {
			return nil, fmt.Errorf("CORS_ORIGINS: %q %w", item, err)
		}
		origins = append(origins, item)
	}
	return origins, nil
}

// checkOrigin takes scheme://host[:port]. A star stands for the first labels of the
// host: anywhere else it would allow hosts of strangers.
func checkOrigin(text string) error {
	if text == "*" {
		return nil
	}
	u, err := url.Parse(strings.Replace(text, "://*.", "://any.", 1))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || text != strings.ToLower(text) ||
		u.Scheme+"://"+u.Host != strings.Replace(text, "://*.", "://any.", 1) {
		return errors.New("is no origin such as https://app.example.com or https://*.example.com, in lower case, without a path")
	}
	if strings.Contains(u.Host, "*") {
		return errors.New("has a star elsewhere than for the first part of the host")
	}
	return nil
}

// crossOrigin lets pages of other origins call: it answers what browsers ask before
// they let them, and says what of an answer they may see. Tokens travel in headers,
// which a page has to set itself; cookies are not asked for.
func crossOrigin(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost},
		AllowedHeaders: []string{
			"Accept", "Authorization", "Cache-Control", "Content-Type", "If-None-Match", "Last-Event-ID", "Prefer", "X-Min-Xid",
		},
		ExposedHeaders: []string{
			"Age", "Cache-Status", "Content-Location", "ETag", "Location", "Preference-Applied", "RateLimit", "RateLimit-Policy",
			"Retry-After", "Server-Timing", "X-Cache", "X-Process-Time",
		},
		MaxAge:             int(preflightFor / time.Second),
		OptionsPassthrough: true, // our own answer to OPTIONS follows
	}).Handler(next)
}
