package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
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
		if code == "" {
			code = "rate_limit_exceeded"
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

// failAsOpenAI answers with a problem in OpenAI's form.
func failAsOpenAI(x *exchange, p *Problem) {
	h := x.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(ceilSeconds(p.retryAfter)))
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
