package view

import (
	"fmt"
	"strconv"
	"time"
)

// maxTTL keeps every deadline far inside what Redis and time.Duration hold.
const maxTTL = 10 * 365 * 24 * time.Hour

// parseTTL reads 90s, 30m, 1h30m, or whole seconds.
func parseTTL(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if seconds, errSeconds := strconv.ParseUint(text, 10, 32); errSeconds == nil {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is no duration: write 90s, 30m, or whole seconds", text)
	case d < time.Millisecond:
		return 0, fmt.Errorf("%q is too short: everything cached lives for a millisecond at least", text)
	case d > maxTTL:
		return 0, fmt.Errorf("%q is too long: everything cached expires within ten years", text)
	}
	return d, nil
}
