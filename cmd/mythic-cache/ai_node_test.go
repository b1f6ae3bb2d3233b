//go:build node

package main

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"testing"

	"mythiccache/internal/modelserver"
)

// TestConformanceOpenAINode runs OpenAI's client for Node against the program. The
// folder that OPENAI_NODE names has it installed, beside what it is to do: see make
// conformance-openai.
func TestConformanceOpenAINode(t *testing.T) {
	model := modelserver.New(t)
	broken := false
	model.Respond(func(c modelserver.Call) modelserver.Reply {
		switch c.Prompt {
		case "with tools":
			tool := json.RawMessage(`[{"id":"call_1","type":"function","function":{"name":"look","arguments":"{\"at\": \"the <sea>\"}"}}]`)
			return modelserver.Reply{ToolCalls: tool, FinishReason: "tool_calls"}
		case "declined":
			return modelserver.Reply{Refusal: "I would rather not."}
		case "too long":
			return modelserver.Reply{Status: http.StatusBadRequest, Code: "context_length_exceeded"}
		case "breaks":
			if broken = !broken; broken {
				return modelserver.Reply{Text: "one two three four", Cut: true}
			}
			return modelserver.Reply{Text: "something else"}
		}
		return modelserver.Reply{}
	})
	s := newSystem(t, map[string]string{"LLM_BASE_URL": model.URL(), "LLM_MODEL": "writer", "AI_MODELS": "writer"})
	node := exec.CommandContext(t.Context(), "node", "chat.mjs")
	node.Dir = os.Getenv("OPENAI_NODE")
	node.Env = append(os.Environ(), "BASE_URL="+s.base+"/v1", "API_KEY="+eventsToken)
	said, err := node.CombinedOutput()
	t.Logf("\n%s", said)
	if err != nil {
		t.Error(err)
	}
}
