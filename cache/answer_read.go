package cache

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ReadAnswer reads the body of an answer. What it returns holds on to the body, which is
// not to be changed.
func ReadAnswer(body []byte) (Answer, error) {
	if a, ok := readEncoded(body); ok {
		return a, nil
	}
	var a Answer
	err := json.Unmarshal(body, &a)
	return a, err
}

// readEncoded reads an answer in the very form that Encode gives it: most of what a hit
// takes would else be encoding/json's. It reports false for any other form.
func readEncoded(body []byte) (a Answer, ok bool) {
	r := encoded{body: body, left: string(body)}
	a.Key = r.text(`{"key":`)
	a.Model = r.text(`,"model":`)
	a.Text = r.text(`,"text":`)
	a.ToolCalls = r.rawIf(`,"tool_calls":`)
	a.FinishReason = r.text(`,"finish_reason":`)
	a.Usage.PromptTokens = r.number(`,"usage":{"prompt_tokens":`)
	a.Usage.CompletionTokens = r.number(`,"completion_tokens":`)
	a.Usage.TotalTokens = r.number(`,"total_tokens":`)
	a.Usage.PromptDetails = r.rawIf(`,"prompt_tokens_details":`)
	a.Usage.CompletionDetails = r.rawIf(`,"completion_tokens_details":`)
	a.Created = r.number(`},"created":`)
	a.Brought = r.begins(`,"brought":true`)
	a.ID = r.textIf(`,"id":`)
	a.SystemFingerprint = r.textIf(`,"system_fingerprint":`)
	a.ServiceTier = r.textIf(`,"service_tier":`)
	a.Refusal = r.textIf(`,"refusal":`)
	a.NoText = r.begins(`,"no_text":true`)
	a.Logprobs = r.rawIf(`,"logprobs":`)
	a.Other = r.rawIf(`,"other":`)
	return a, r.begins("}") && r.left == "" && !r.odd
}

// encoded is what is left to be read of a body.
type encoded struct {
	body []byte
	left string // its end
	odd  bool   // it has another form
}

// begins passes over a text, and reports whether it was there.
func (r *encoded) begins(with string) (ok bool) {
	r.left, ok = strings.CutPrefix(r.left, with)
	return ok
}

// text reads the string behind a name.
func (r *encoded) text(name string) string {
	if !r.begins(name) {
		r.odd = true
		return ""
	}
	end := -1
	if r.begins(`"`) {
		end = strings.IndexByte(r.left, '"')
	}
	if end < 0 {
		r.odd = true
		return ""
	}
	text := r.left[:end]
	if strings.IndexByte(text, '\\') >= 0 {
		return r.escaped()
	}
	r.left = r.left[end+1:]
	r.odd = r.odd || !written(text)
	return text
}

// textIf is text for what may be missing.
func (r *encoded) textIf(name string) string {
	if !strings.HasPrefix(r.left, name) {
		return ""
	}
	return r.text(name)
}

// escaped reads the rest of a string that has escapes. Those of digits are rare.
func (r *encoded) escaped() string {
	text := make([]byte, 0, len(r.left))
	from := 0
	for i := 0; i < len(r.left); i++ {
		c := r.left[i]
		if c != '"' && c != '\\' && c >= ' ' {
			continue
		}
		text = append(text, r.left[from:i]...)
		if c == '"' {
			r.left = r.left[i+1:]
			r.odd = r.odd || !utf8.Valid(text)
			return string(text)
		}
		i++
		which := -1
		if c == '\\' && i < len(r.left) {
			which = strings.IndexByte(escapes, r.left[i])
		}
		if which < 0 {
			break
		}
		text = append(text, escaped[which])
		from = i + 1
	}
	r.odd = true
	return ""
}

// written reports whether a text stands for itself in a JSON string.
func written(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' {
			return false
		}
	}
	return utf8.ValidString(text)
}

// number reads the integer behind a name.
func (r *encoded) number(name string) int64 {
	if !r.begins(name) {
		r.odd = true
		return 0
	}
	end := 0
	for end < len(r.left) && (r.left[end] == '-' || '0' <= r.left[end] && r.left[end] <= '9') {
		end++
	}
	n, err := strconv.ParseInt(r.left[:end], 10, 64)
	r.odd = r.odd || err != nil || strconv.FormatInt(n, 10) != r.left[:end]
	r.left = r.left[end:]
	return n
}

// rawIf reads the value behind a name, if that is there.
func (r *encoded) rawIf(name string) json.RawMessage {
	if !r.begins(name) {
		return nil
	}
	var raw json.RawMessage
	read := json.NewDecoder(strings.NewReader(r.left))
	if err := read.Decode(&raw); err != nil || int64(len(raw)) < read.InputOffset() { // with blanks in front
		r.odd = true
		return nil
	}
	from := len(r.body) - len(r.left)
	r.left = r.left[len(raw):]
	return r.body[from : from+len(raw) : from+len(raw)]
}
