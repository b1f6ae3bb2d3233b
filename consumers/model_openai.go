package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"mythiccache/cache"
)

// maxCompletion bounds what is read of one response, in bytes.
const maxCompletion = 4 << 20

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
		client = &http.Client{} // deadlines come with the contexts
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

// Answer asks for one completion.
func (m *openAI) Answer(ctx context.Context, request json.RawMessage) (cache.Answer, error) {
	var response *http.Response
	completion, err := m.completions.New(ctx, openai.ChatCompletionNewParams{},
		option.WithRequestBody("application/json", []byte(request)), option.WithResponseInto(&response))
	if err != nil {
		return cache.Answer{}, modelError(ctx, response, err)
	}
	if len(completion.Choices) == 0 {
		return cache.Answer{}, &ModelError{Why: "sent a completion without a choice"}
	}
	choice := completion.Choices[0]
	if choice.Message.Refusal != "" || choice.FinishReason == "content_filter" {
		return cache.Answer{}, &ModelError{Why: "declined to answer", Refused: true}
	}
	if choice.FinishReason == "" {
		return cache.Answer{}, &ModelError{Why: "sent a completion that is not finished"}
	}
	answer := cache.Answer{
		Model: completion.Model, Text: choice.Message.Content, FinishReason: choice.FinishReason, Created: completion.Created,
		Usage: cache.Usage{
			PromptTokens: completion.Usage.PromptTokens, CompletionTokens: completion.Usage.CompletionTokens, TotalTokens: completion.Usage.TotalTokens,
		},
	}
	if calls := choice.Message.JSON.ToolCalls; len(choice.Message.ToolCalls) > 0 {
		answer.ToolCalls = json.RawMessage(calls.Raw())
	}
	if answer.Created == 0 {
		answer.Created = time.Now().Unix()
	}
	return answer, nil
}

// modelError makes one of our own of whatever went wrong.
func modelError(ctx context.Context, response *http.Response, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ask the model: %w", ctx.Err())
	}
	if response != nil && response.StatusCode >= http.StatusBadRequest {
		e := &ModelError{Status: response.StatusCode, Why: "answered with an error", RetryAfter: retryAfter(response.Header, time.Now())}
		if told, ok := errors.AsType[*openai.Error](err); ok {
			e.Code = codeOf(told.Code)
		}
		return e
	}
	if response != nil {
		// What follows may quote the response, and that the request.
		return &ModelError{Why: "sent a completion that cannot be read"}
	}
	// No response: the way there. The URL that net/http puts around it may hold a password.
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return &ModelError{Why: "cannot be reached: " + err.Error()}
}

// codeOf lets pass what has the form of an error's code, as rate_limit_exceeded.
func codeOf(code string) string {
	if len(code) > 64 || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return ""
	}
	return code
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

// boundedTransport ends responses that do not end by themselves.
type boundedTransport struct{ next http.RoundTripper }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	next := t.next
	if next == nil {
		next = http.DefaultTransport
	}
	response, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	response.Body = http.MaxBytesReader(nil, response.Body, maxCompletion)
	return response, nil
}
