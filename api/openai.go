package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// openAIError is an error in the form that OpenAI's clients read.
type openAIError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

// openAIForm gives a problem that form.
func openAIForm(p *Problem) openAIError {
	e := openAIError{Message: p.Detail, Type: "invalid_request_error"}
	if e.Message == "" {
		e.Message = p.Title
	}
	code := p.code
	switch p.Status {
	case http.StatusUnauthorized:
		code = "invalid_api_key"
	case http.StatusRequestEntityTooLarge:
		code = "request_too_large"
	case http.StatusTooManyRequests:
		e.Type = "requests"
		switch code {
		case "":
			code = "rate_limit_exceeded"
		case noMoney:
			e.Type = noMoney
		}
	}
	if p.Status >= http.StatusInternalServerError {
		e.Type = "server_error"
		if code == "" {
			code = strings.ReplaceAll(strings.TrimPrefix(p.Type, "/docs#"), "-", "_")
		}
	}
	if p.param != "" {
		e.Param = &p.param
	}
	if code != "" {
		e.Code = &code
	}
	return e
}

// noMoney is the code of an account that has none.
const noMoney = "insufficient_quota"

// longRetry is after what time it is no use that a client asks again by itself: OpenAI's
// own would not wait for so long, but ask at once.
const longRetry = time.Minute

// failAsAsked answers with the problem of a request that no route is for, in the form of
// the API that it was meant for.
func failAsAsked(x *exchange, p *Problem) {
	if x.server.chat != nil && strings.HasPrefix(x.request.URL.Path, "/v1/") {
		failAsOpenAI(x, p)
		return
	}
	p.write(x)
}

// failAsOpenAI answers with a problem in OpenAI's form.
func failAsOpenAI(x *exchange, p *Problem) {
	h := x.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(ceilSeconds(p.retryAfter)))
		if p.retryAfter > longRetry || p.code == noMoney {
			h.Set("X-Should-Retry", "false")
		}
	}
	if p.challenge != "" {
		h.Set("WWW-Authenticate", p.challenge)
	}
	body := openAIBody(p)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.WriteHeader(p.Status)
	_, _ = x.Write(body) // the client may be gone
}

// openAIBody is what a client is sent of an error, as an answer or in a stream.
func openAIBody(p *Problem) []byte {
	body, err := json.Marshal(struct {
		Error openAIError `json:"error"`
	}{openAIForm(p)})
	if err != nil {
		return []byte(`{"error":{}}`) // texts can be written, always
	}
	return body
}

// wrongParam is the problem of one member of a request.
func wrongParam(param, detail string) *Problem {
	p := problem(kindBadRequest, detail)
	p.param = param
	return p
}
