package consumers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"mythiccache/cache"
)

// Model answers chat requests.
type Model interface {
	// Answer asks the model once: it repeats nothing by itself. It tells each part of
	// the answer when that has come, from its own goroutine, and returns the whole.
	// What the model or the way to it refuses is a *ModelError; no error quotes the
	// request. An answer in which the model declines, or is cut short, is one.
	Answer(ctx context.Context, request json.RawMessage, tell func(cache.FlowPart)) (cache.Answer, error)
	// Name names the provider, of which answers' keys are made: two models of
	// the same name give answers that may stand for one another.
	Name() string
}

// ModelError says why a model gave no answer. It holds nothing of what the
// provider wrote but its code, since providers quote prompts. Whoever asked is told
// what Error says.
type ModelError struct {
	Status     int           // of HTTP; 0 where none came
	Code       string        // the provider's, where it has the form of one
	Param      string        // the member of the request that is wrong, such as messages[3]; empty: it is not told
	Why        string        // a sentence's end: "the model …"
	Detail     string        // for the log alone, since it may name inner addresses; no secrets
	RetryAfter time.Duration // what the provider asked for; 0 where it did not
	Refused    bool          // the model understood and declined
}

// Error returns a sentence that is safe to log.
func (e *ModelError) Error() string {
	text := "the model " + e.Why
	if e.Status != 0 {
		text += fmt.Sprintf(" (status %d)", e.Status)
	}
	if e.Param != "" {
		text += " (param " + e.Param + ")"
	}
	if e.Code != "" {
		text += " (" + e.Code + ")"
	}
	return text
}

// Permanent reports that asking the same again would end the same way.
func (e *ModelError) Permanent() bool {
	if e.Refused {
		return true
	}
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return e.Status >= 400 && e.Status < 500
}

// unpaid reports that the provider takes no call before somebody pays. It is not the
// request that is wrong, but to repeat it at once is of no use either.
func (e *ModelError) unpaid() bool {
	return e.Status == http.StatusTooManyRequests && e.Code == "insufficient_quota"
}

// final reports that the question is not asked again by itself.
func (e *ModelError) final() bool { return e.Permanent() || e.unpaid() }

// tag names the error in a word, for those who follow the answer: the provider's code
// where there is one.
func (e *ModelError) tag() string {
	switch {
	case e.Code != "":
		return e.Code
	case e.Status != 0:
		return "status_" + strconv.Itoa(e.Status)
	default:
		return "model"
	}
}

// Busy reports that the provider has too much to do: no fault of the request's,
// which is to come back after RetryAfter. An account without money answers 429,
// too, but stays so.
func (e *ModelError) Busy() bool {
	return e.Status == http.StatusTooManyRequests && !e.unpaid()
}

// slows reports that the provider wants no calls for a while, whoever asks, unless it turns
// out to take others' (see Warmer.heed). What it says of when to come back beside another
// error is about that one request.
func (e *ModelError) slows() bool {
	return e.Busy() || e.Status == http.StatusServiceUnavailable && e.RetryAfter > 0
}
