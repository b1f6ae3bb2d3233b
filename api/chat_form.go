package api

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"mythiccache/cache"
)

// completionID names an answer: as the provider did, else by its key.
func completionID(id, key string) string {
	if id != "" {
		return id
	}
	return "chatcmpl-" + key[:min(len(key), 29)]
}

// hasNoText reports whether calls or a refusal stand in place of a text, as a stream that
// began with an empty one does not say.
func hasNoText(a *cache.Answer) bool {
	return a.Text == "" && (a.NoText || a.Refusal != "" || len(a.ToolCalls) > 0)
}

// appendCompletion appends an answer in the form of OpenAI's API. Answers are written by
// hand, since most of what a hit takes would else be encoding/json's.
func appendCompletion(b []byte, a *cache.Answer) []byte {
	b = appendText(append(b, `{"id":`...), completionID(a.ID, a.Key))
	b = strconv.AppendInt(append(b, `,"object":"chat.completion","created":`...), a.Created, 10)
	b = appendText(append(b, `,"model":`...), a.Model)
	b = append(b, `,"choices":[{"index":0,"message":{"role":"assistant","content":`...)
	if hasNoText(a) {
		b = append(b, "null"...)
	} else {
		b = appendText(b, a.Text)
	}
	b = append(b, `,"refusal":`...)
	if a.Refusal != "" {
		b = appendText(b, a.Refusal)
	} else {
		b = append(b, "null"...)
	}
	if len(a.ToolCalls) > 0 {
		b = append(append(b, `,"tool_calls":`...), a.ToolCalls...)
	}
	if len(a.Other) > len("{}") { // an object whose names are none of those
		b = append(append(b, ','), a.Other[1:len(a.Other)-1]...)
	}
	b = appendRaw(append(b, `},"logprobs":`...), a.Logprobs)
	b = appendText(append(b, `,"finish_reason":`...), a.FinishReason)
	b = appendUsage(append(b, `}],"usage":`...), &a.Usage)
	return append(appendMaker(b, a), '}')
}

// appendMaker appends who made an answer, as far as that is known.
func appendMaker(b []byte, a *cache.Answer) []byte {
	if a.ServiceTier != "" {
		b = appendText(append(b, `,"service_tier":`...), a.ServiceTier)
	}
	if a.SystemFingerprint != "" {
		b = appendText(append(b, `,"system_fingerprint":`...), a.SystemFingerprint)
	}
	return b
}

func appendUsage(b []byte, u *cache.Usage) []byte {
	b = strconv.AppendInt(append(b, `{"prompt_tokens":`...), u.PromptTokens, 10)
	b = strconv.AppendInt(append(b, `,"completion_tokens":`...), u.CompletionTokens, 10)
	b = strconv.AppendInt(append(b, `,"total_tokens":`...), u.TotalTokens, 10)
	if len(u.PromptDetails) > 0 {
		b = append(append(b, `,"prompt_tokens_details":`...), u.PromptDetails...)
	}
	if len(u.CompletionDetails) > 0 {
		b = append(append(b, `,"completion_tokens_details":`...), u.CompletionDetails...)
	}
	return append(b, '}')
}

// appendRaw appends JSON; null where there is none.
func appendRaw(b []byte, raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return append(b, "null"...)
	}
	return append(b, raw...)
}

// appendText appends a JSON string, with <, > and & as they are.
func appendText(b []byte, text string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, text[from:i]...)
			b = appendEscaped(b, c)
			i++
			from = i
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(append(b, text[from:i]...), `\ufffd`...)
			from = i + size
		case r == '\u2028' || r == '\u2029': // line ends for some who read JSON as a script
			b = append(append(b, text[from:i]...), `\u202`...)
			b = append(b, "89"[r-'\u2028'])
			from = i + size
		}
		i += size
	}
	return append(append(b, text[from:]...), '"')
}

func appendEscaped(b []byte, c byte) []byte {
	const digits = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, `\b`...)
	case '\f':
		return append(b, `\f`...)
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	}
	return append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
}

// plainJSON writes JSON with <, > and & as they are.
func plainJSON(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// chunkOfText is about how many bytes of an answer that is there go in one chunk.
const chunkOfText = 256

// splitText cuts a text into parts, behind a space where there is one near, and never
// inside a character.
func splitText(text string) []string {
	var parts []string
	for len(text) > chunkOfText {
		end := strings.LastIndexByte(text[:chunkOfText], ' ') + 1
		if end < chunkOfText/2 {
			for end = chunkOfText; end > chunkOfText-utf8.UTFMax && !utf8.RuneStart(text[end]); {
				end--
			}
		}
		parts = append(parts, text[:end])
		text = text[end:]
	}
	if text != "" {
		parts = append(parts, text)
	}
	return parts
}
