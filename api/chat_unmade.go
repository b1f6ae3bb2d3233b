package api

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"mythiccache/cache"
)

// unmade is the problem of an answer that there is none of.
func (d *chatDesk) unmade(x *exchange, err error) error {
	var failed *fillFailed
	switch {
	case errors.As(err, &failed):
		return notAnswered(failed.reason)
	case errors.Is(err, errStopping):
		return problem(kindBusy, "the service is stopping; another process will do").later(time.Second)
	case errors.Is(err, errBusy):
		return problem(kindBusy, "too many requests are waiting for answers").later(time.Second)
	case errors.Is(err, errNotFilled), errors.Is(err, context.DeadlineExceeded):
		return problem(kindNotFilled, "the answer is being made; it was not there in time").later(time.Second)
	}
	return x.notFilled(err)
}

// cutRefused returns why the model refuses; "" where it does not.
func cutRefused(reason string) string {
	why, refused := strings.CutPrefix(reason, cache.AnswerRefused)
	if !refused {
		return ""
	}
	return why
}

// notAnswered is the problem of a reason that a worker gave.
func notAnswered(reason string) *Problem {
	if after, why, busy := cache.Busy(reason); busy {
		p := problem(kindBusy, why).later(after)
		p.code = "model_busy"
		return p
	}
	why := cutRefused(reason)
	if why == "" {
		p := problem(kindNotFilled, reason).later(time.Second)
		p.code = "model_failed"
		return p
	}
	return refusedByModel(why)
}

// emptyFor is after what time it is worth to ask an account again that had no money.
const emptyFor = time.Minute

// toldStatus, toldParam and toldCode find what a worker's sentence tells of the provider's
// error.
var (
	toldStatus = regexp.MustCompile(`\(status (\d{3})\)`)
	toldParam  = regexp.MustCompile(`\(param ([a-z_]+(?:\[\d+\])?)\)`)
	toldCode   = regexp.MustCompile(`\(([a-z0-9_]+)\)$`)
)

// wrongMember is the member of a request that a provider's code is about.
var wrongMember = map[string]string{"context_length_exceeded": "messages", "string_above_max_length": "messages", "model_not_found": "model"}

// refusedByModel is the problem of a question that the provider does not take, with the
// provider's status where that says something of the request, and its code.
func refusedByModel(why string) *Problem {
	p := problem(kindBadRequest, why)
	if code := toldCode.FindStringSubmatch(why); code != nil {
		p.code, p.param = code[1], wrongMember[code[1]]
	}
	if param := toldParam.FindStringSubmatch(why); param != nil {
		p.param = param[1]
	}
	told := toldStatus.FindStringSubmatch(why)
	if told == nil {
		return p
	}
	switch status, _ := strconv.Atoi(told[1]); status {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden:
		// The provider does not take the worker's key: nothing that the caller could mend.
		p = refusal(why)
		p.code = "model_refused"
	case http.StatusTooManyRequests:
		p.Status = status // an account without money stays so for a while
		p.retryAfter = emptyFor
	default:
		p.Status = status
	}
	return p
}
