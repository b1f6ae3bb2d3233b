package cache

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A flow is what a model has said so far of an answer that is being made. It stands
// in a stream beside the answer's entry, in the same slot, and each piece of it is
// published on a channel of the same name. A piece has the fields
//
//	g    the generation: who makes the answer, by the token of its lease
//	n    the piece's number within the generation, from 0
//	c    a FlowPart as JSON, sealed where answers are; or
//	end  the last: done, failed:<code> or refused:<code>
//
// and is published as "<id of the stream entry> <g> <n> c|end <the rest>". The stream
// holds one generation: when a worker dies, its successor begins from the start.
//
// Readers subscribe first and then read the stream, so that nothing falls between
// the two; both are in the order of the ids. An answer's entry is there, and has been
// announced to Waiters, before its flow ends with done.
const (
	// flowFor is how long a flow is kept after its last piece.
	flowFor = 2 * time.Minute
	// flowMost bounds the pieces of a flow. Their bytes are bounded by what a worker
	// reads of one response.
	flowMost = 1 << 16
)

// How a flow ends. The last two have a code behind them: the provider's own, as
// context_length_exceeded, or one of ours, as timeout.
const (
	FlowDone    = "done"
	FlowFailed  = "failed:"  // it may be tried again
	FlowRefused = "refused:" // trying again would end the same way
)

// flowForgotten ends a flow whose answer is to be forgotten.
const flowForgotten = FlowFailed + "forgotten"

// FlowPart is what one piece of a flow says, in the terms of a chunk of OpenAI's
// chat completions. The first piece names the completion.
type FlowPart struct {
	ID                string          `json:"id,omitempty"`
	Model             string          `json:"model,omitempty"`
	Created           int64           `json:"created,omitempty"` // Unix seconds
	SystemFingerprint string          `json:"system_fingerprint,omitempty"`
	ServiceTier       string          `json:"service_tier,omitempty"`
	Delta             json.RawMessage `json:"delta,omitempty"` // role, content, refusal, tool_calls, …
	Logprobs          json.RawMessage `json:"logprobs,omitempty"`
	FinishReason      string          `json:"finish_reason,omitempty"`
	Usage             json.RawMessage `json:"usage,omitempty"`
}

// FlowPiece is one piece of a flow.
type FlowPiece struct {
	Generation string   // another one than before: everything begins anew
	Number     int      // within the generation, from 0, without gaps
	Part       FlowPart // zero at the end
	End        string   // how the flow ended; empty before
	Over       bool     // its generation had ended by the time that it was read

	id flowID
}

// aiFlow names a flow and its channel.
func (k keys) aiFlow(key string) string { return k.prefix + "ai_flow:{" + key + "}" }

// flowID is the id of a stream entry.
type flowID struct{ ms, seq uint64 }

func parseFlowID(text string) (flowID, bool) {
	first, second, ok := strings.Cut(text, "-")
	ms, err := strconv.ParseUint(first, 10, 64)
	seq, err2 := strconv.ParseUint(second, 10, 64)
	return flowID{ms, seq}, ok && err == nil && err2 == nil
}

func (id flowID) after(other flowID) bool {
	return id.ms > other.ms || id.ms == other.ms && id.seq > other.seq
}

func (id flowID) String() string {
	return strconv.FormatUint(id.ms, 10) + "-" + strconv.FormatUint(id.seq, 10)
}

// generation is the name that readers know a lease by.
func generation(l Lease) string { return hex.EncodeToString([]byte(l.token)) }

// Erase removes, of answers that are forgotten, what has been told of them while they
// were made, and how making them failed. Who follows a flow is told that it failed.
func (a *Answers) Erase(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		flow := a.store.keys.aiFlow(key)
		if err := a.flows.undo.Run(ctx, a.store.client, []string{flow}, flow, flowForgotten, flowFor.Milliseconds()).Err(); err != nil {
			return fmt.Errorf("erase a flow: %w", err)
		}
	}
	return a.write(ctx, "erase failures", func(p redis.Pipeliner) {
		for _, key := range keys {
			p.Del(ctx, a.store.keys.aiFailed(key), a.store.keys.aiDropped(key), a.store.keys.aiDeferred(key))
		}
	})
}
