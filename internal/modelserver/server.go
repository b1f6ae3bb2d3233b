package modelserver

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// maxBody bounds what the server reads of one request, in bytes.
const maxBody = 8 << 20

// Call is one request for a completion, as it arrived.
type Call struct {
	Number int    // from 1
	From   string // the other end of the connection
	Header http.Header
	Body   []byte
	Model  string
	Prompt string // the text of the last message
	Stream bool   // the reply is to come in pieces
	Usage  bool   // and to end with what it cost
}

// Server is a running model.
type Server struct {
	http    *httptest.Server
	closing chan struct{}
	once    sync.Once // closes closing
	arrived chan Call

	mu     sync.Mutex
	reply  func(Call) Reply
	calls  []Call
	hangUp int
}

// New starts a server that is closed after the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := Start()
	t.Cleanup(s.Close)
	return s
}

// Start starts a server that answers everything until it is told otherwise.
func Start() *Server {
	s := &Server{
		closing: make(chan struct{}),
		arrived: make(chan Call, 4096),
		reply:   func(Call) Reply { return Reply{} },
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.complete)
	mux.HandleFunc("GET /v1/models", s.models)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, "unknown_url", "Unknown request URL: "+r.Method+" "+r.URL.Path)
	})
	s.http = httptest.NewServer(mux)
	return s
}

// Close ends the server; calls that are held are cut. It may be called again.
func (s *Server) Close() {
	s.once.Do(func() { close(s.closing) })
	s.http.Close()
}

// URL returns the base URL, as LLM_BASE_URL wants it.
func (s *Server) URL() string { return s.http.URL + "/v1" }

// Address returns host and port.
func (s *Server) Address() string { return s.http.Listener.Addr().String() }

// Respond says how the calls that arrive from now on are answered.
func (s *Server) Respond(reply func(Call) Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reply = reply
}

// Calls returns the calls that have arrived, in their order.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// HungUp returns how many clients have gone before their reply was written.
func (s *Server) HungUp() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hangUp
}

// Arrived delivers each call when it has arrived, before it is answered.
func (s *Server) Arrived() <-chan Call { return s.arrived }

func (s *Server) complete(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		writeError(w, http.StatusBadRequest, "", "the body cannot be read")
		return
	}
	call, why := parse(body)
	if why != "" {
		writeError(w, http.StatusBadRequest, "", why)
		return
	}
	call.Header, call.From = r.Header.Clone(), r.RemoteAddr

	s.mu.Lock()
	call.Number = len(s.calls) + 1
	s.calls = append(s.calls, call)
	reply := s.reply
	s.mu.Unlock()
	select {
	case s.arrived <- call:
	default: // nobody has looked for a long time
	}

	answer := reply(call)
	if !answer.wait(r.Context(), s.closing) {
		s.mu.Lock()
		s.hangUp++
		s.mu.Unlock()
		return
	}
	answer.write(r.Context(), w, call, s.closing)
}

// parse reads what of a request the server understands, or says why it cannot.
func parse(body []byte) (Call, string) {
	var request struct {
		Model   string `json:"model"`
		Stream  bool   `json:"stream"`
		Options struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
		Messages []struct {
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return Call{}, "the body is not JSON: " + err.Error()
	}
	switch {
	case request.Model == "":
		return Call{}, "you must provide a model parameter"
	case len(request.Messages) == 0:
		return Call{}, "[] is too short - 'messages'"
	}
	last := request.Messages[len(request.Messages)-1].Content
	var prompt string
	if err := json.Unmarshal(last, &prompt); err != nil {
		prompt = strings.TrimSpace(string(last)) // parts
	}
	return Call{Body: body, Model: request.Model, Prompt: prompt, Stream: request.Stream, Usage: request.Options.IncludeUsage}, ""
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []any{
		map[string]any{"id": "test-model", "object": "model", "created": 1, "owned_by": "tests"},
	}})
}
