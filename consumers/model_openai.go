package consumers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"mythiccache/cache"
)

const (
	// maxCompletion bounds what a completion says, in bytes.
	maxCompletion = 8 << 20
	// maxResponse bounds what is read of one response: each of its many pieces repeats
	// whose piece it is.
	maxResponse = 128 << 20
)

// openAI is a model behind OpenAI's wire format.
type openAI struct {
	name        string
	completions openai.ChatCompletionService
}

// NewOpenAI returns the model behind an endpoint that speaks OpenAI's wire
// format, such as https://api.openai.com/v1. The key may be empty. The client is
// nil for one of the model's own, and is not closed.
func NewOpenAI(baseURL, key string, client *http.Client) (Model, error) {
	base, err := url.Parse(baseURL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		// The parser's error would quote the URL, which may hold a password.
		return nil, errors.New("the model's base URL is not of the form https://host/path")
	}
	if client == nil {
		client = &http.Client{Transport: newWay()} // deadlines come with the contexts
	}
	bounded := *client
	bounded.Transport = boundedTransport{next: client.Transport}
	// The service rather than openai.NewClient, which reads the environment.
	options := []option.RequestOption{
		option.WithBaseURL(strings.TrimRight(baseURL, "/") + "/"),
		option.WithHTTPClient(&bounded),
		// The stream repeats what failed, with backoff; a repetition in here would
		// be neither counted nor visible.
		option.WithMaxRetries(0),
	}
	if key != "" {
		options = append(options, option.WithAPIKey(key))
	}
	return &openAI{
		name:        base.Host + strings.TrimRight(base.Path, "/"),
		completions: openai.NewChatCompletionService(options...),
	}, nil
}

// Name returns host and path of the endpoint.
func (m *openAI) Name() string { return m.name }

// Answer asks for one completion, in pieces.
func (m *openAI) Answer(ctx context.Context, request json.RawMessage, tell func(cache.FlowPart)) (cache.Answer, error) {
	var response *http.Response
	stream := m.completions.NewStreaming(ctx, openai.ChatCompletionNewParams{},
		option.WithRequestBody("application/json", inPieces(request)), option.WithResponseInto(&response))
	defer stream.Close()
	var draft cache.Draft
	var last cache.FlowPart
	size := 0
	for stream.Next() {
		part, ok := partOf(stream.Current(), &last)
		if !ok {
			continue
		}
		if part.Delta, ok = inOneText(part.Delta); !ok {
			return cache.Answer{}, &ModelError{Why: "sent a completion that cannot be read"}
		}
		size += len(part.Delta) + len(part.Logprobs) + len(part.Usage)
		if size > maxCompletion {
			return cache.Answer{}, &ModelError{Why: "sent a completion that is too long"}
		}
		if err := draft.Add(part); err != nil {
			return cache.Answer{}, &ModelError{Why: "sent a completion that cannot be read"}
		}
		tell(part)
	}
	if err := stream.Err(); err != nil {
		return cache.Answer{}, modelError(ctx, response, err)
	}
	if ctx.Err() != nil {
		return cache.Answer{}, fmt.Errorf("ask the model: %w", ctx.Err())
	}
	if !draft.Finished() {
		return cache.Answer{}, &ModelError{Why: "sent a completion that is not finished"}
	}
	answer, err := draft.Answer()
	if err != nil {
		return cache.Answer{}, &ModelError{Why: "sent a completion that cannot be read"}
	}
	if answer.Created == 0 {
		answer.Created = time.Now().Unix()
	}
	return answer, nil
}

// inPieces adds to a request, a JSON object that says nothing of it, that the answer is
// to come in pieces and to end with what it cost.
func inPieces(request json.RawMessage) []byte {
	rest := request[bytes.IndexByte(request, '{')+1:]
	return append([]byte(`{"stream":true,"stream_options":{"include_usage":true},`), rest...)
}

// partOf reads a chunk. What the parts before have said of the whole, which is in
// last, is not said again; a chunk that says nothing then is no part.
func partOf(c openai.ChatCompletionChunk, last *cache.FlowPart) (part cache.FlowPart, ok bool) {
	if last.ID == "" && c.ID != "" {
		part.ID, part.Model, part.Created = c.ID, c.Model, c.Created
		last.ID = c.ID
	}
	if last.Model == "" && c.Model != "" {
		part.Model, part.Created = c.Model, c.Created
		last.Model = c.Model
	}
	if fingerprint := textOf(c.JSON.SystemFingerprint.Raw()); fingerprint != last.SystemFingerprint {
		part.SystemFingerprint, last.SystemFingerprint = fingerprint, fingerprint
	}
	if tier := string(c.ServiceTier); tier != last.ServiceTier {
		part.ServiceTier, last.ServiceTier = tier, tier
	}
	if raw := c.JSON.Usage.Raw(); raw != "" && raw != "null" {
		part.Usage = json.RawMessage(raw)
	}
	for _, choice := range c.Choices {
		if choice.Index != 0 {
			continue // an answer has one choice
		}
		part.FinishReason = choice.FinishReason
		if raw := choice.JSON.Delta.Raw(); raw != "" && raw != "null" && raw != "{}" {
			part.Delta = json.RawMessage(raw)
		}
		if raw := choice.JSON.Logprobs.Raw(); raw != "" && raw != "null" {
			part.Logprobs = json.RawMessage(raw)
		}
	}
	ok = part.ID != "" || part.FinishReason != "" || part.Delta != nil || part.Logprobs != nil || part.Usage != nil
	return part, ok
}

// textOf reads a JSON string; "" where it is none.
func textOf(raw string) string {
	var text string
	_ = json.Unmarshal([]byte(raw), &text) // null, or nothing at all
	return text
}

// modelError makes one of our own of whatever went wrong.
func modelError(ctx context.Context, response *http.Response, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ask the model: %w", ctx.Err())
	}
	if response != nil && response.StatusCode >= http.StatusBadRequest {
		e := &ModelError{Status: response.StatusCode, Why: "answered with an error", RetryAfter: retryAfter(response.Header, time.Now())}
		if told, ok := errors.AsType[*openai.Error](err); ok {
			e.Code, e.Param = codeOf(told.Code), paramOf(told.Param)
		}
		return e
	}
	if told, ok := errors.AsType[*ssestream.StreamError](err); ok {
		return &ModelError{Why: "broke off with an error", Code: codeOf(brokeOff(told.Event.Data))}
	}
	if response != nil {
		// What follows may quote the response, and that the request.
		return &ModelError{Why: "sent a completion that cannot be read"}
	}
	// No response: the way there.
	return unreached(err)
}

// brokeOff returns the code of an error that came in place of a piece.
func brokeOff(event []byte) string {
	var told struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	_ = json.Unmarshal(event, &told) // an error of another form has no code
	return told.Error.Code
}

// codeOf lets pass what has the form of an error's code, as rate_limit_exceeded.
func codeOf(code string) string {
	if len(code) > 64 || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return ""
	}
	return code
}

// member is a member of a request, or an item of it, and whether more follows.
var member = regexp.MustCompile(`^([a-z_]{1,32}(?:\[\d{1,5}\])?)(?:$|[.\[])`)

// paramOf lets pass which member of a request is wrong, as messages[3]; but not where in
// it, since deeper names are the caller's own, as those of a schema.
func paramOf(param string) string {
	if found := member.FindStringSubmatch(param); found != nil {
		return found[1]
	}
	return ""
}

// retryAfter reads the header, in seconds or as a date (RFC 9110, 10.2.3), or
// OpenAI's own in milliseconds.
func retryAfter(header http.Header, now time.Time) time.Duration {
	const most = 24 * time.Hour // keeps the arithmetic sane; the caller bounds it further
	if ms, err := strconv.ParseFloat(header.Get("Retry-After-Ms"), 64); err == nil && ms >= 0 {
		return time.Duration(min(ms, float64(most/time.Millisecond)) * float64(time.Millisecond))
	}
	text := header.Get("Retry-After")
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, most.Seconds()) * float64(time.Second))
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), most)
	}
	return 0
}
