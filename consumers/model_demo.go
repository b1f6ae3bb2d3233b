package consumers

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"mythiccache/cache"
)

// DemoModelName names the built-in model, as provider and as model.
const DemoModelName = "mythic-demo"

// demo is the built-in model.
type demo struct{}

// NewDemoModel returns the built-in model: it needs no key and no network, gives
// the same answer to the same request always, and says in each that it is no
// language model. It is there so that the program can be tried.
func NewDemoModel() Model { return demo{} }

// Name returns DemoModelName.
func (demo) Name() string { return DemoModelName }

// Answer tells a tale that hangs on the request alone.
func (demo) Answer(ctx context.Context, request json.RawMessage, tell func(cache.FlowPart)) (cache.Answer, error) {
	if err := ctx.Err(); err != nil {
		return cache.Answer{}, fmt.Errorf("ask the model: %w", err)
	}
	var asked struct {
		Messages []json.RawMessage `json:"messages"`
	}
	if err := json.Unmarshal(request, &asked); err != nil || len(asked.Messages) == 0 {
		return cache.Answer{}, &ModelError{Why: "was sent no messages", Refused: true}
	}
	digest := sha256.Sum256(request)
	text := demoTale(digest)
	usage := cache.Usage{PromptTokens: int64(len(request)+3) / 4, CompletionTokens: int64(len(strings.Fields(text)))}
	usage.TotalTokens = usage.PromptTokens + usage.CompletionTokens
	// No clock: the same request gives the same bytes.
	answer := cache.Answer{ID: "chatcmpl-demo-" + hex.EncodeToString(digest[:8]), Model: DemoModelName, Text: text, FinishReason: "stop", Usage: usage}
	for i, word := range strings.SplitAfter(text, " ") {
		part := cache.FlowPart{}
		if i == 0 {
			part.ID, part.Model = answer.ID, answer.Model
		}
		part.Delta = demoDelta(word, i == 0)
		tell(part)
	}
	cost, err := json.Marshal(usage)
	tell(cache.FlowPart{FinishReason: answer.FinishReason, Usage: cost})
	return answer, err
}

// demoDelta is a word of the tale.
func demoDelta(word string, first bool) json.RawMessage {
	delta := map[string]string{"content": word}
	if first {
		delta["role"] = "assistant"
	}
	text, err := json.Marshal(delta)
	if err != nil {
		panic(err) // it is made of texts
	}
	return text
}

func demoTale(digest [sha256.Size]byte) string {
	pick := func(i int, words ...string) string {
		return words[binary.BigEndian.Uint32(digest[4*i:])%uint32(len(words))]
	}
	return fmt.Sprintf("This is Mythic Cache's built-in demo model, not a language model; set LLM_BASE_URL for a real one. "+
		"It tells of %s who %s %s, and %s.",
		pick(0, "a heron", "a lighthouse keeper", "two sisters", "a cartographer", "an old baker"),
		pick(1, "found", "lost", "painted", "borrowed", "could not forget"),
		pick(2, "a door in the dunes", "the last photograph", "a song without an end", "the map of a smaller sea", "a jar of thunder"),
		pick(3, "told nobody", "went home by another road", "began again in the morning", "wrote it all down", "laughed until the tide turned"))
}
