package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"mythiccache/cache"
)

// chatStream writes an answer as server-sent events in OpenAI's form.
//
// A worker that dies has a successor, whose model begins anew. Whoever has been told a
// part of the first attempt hears nothing of the second while it repeats that part, and
// then its rest; where the two differ the stream ends with an error, since nobody is to
// be told two halves that belong to no whole.
type chatStream struct {
	x        *exchange
	control  *http.ResponseController
	chat     chat
	patience time.Duration

	head       []byte       // what is the same in all chunks, up to the choices; nil: not known yet
	generation string       // the attempt that is being followed
	over       bool         // it has come to its end
	now        cache.Draft  // what it has said
	said       cache.Answer // what the client was told of earlier attempts
	behind     bool         // this one has not come so far
	opened     bool         // the client has been told the role
}

func newChatStream(x *exchange, c chat, patience time.Duration) *chatStream {
	return &chatStream{x: x, control: http.NewResponseController(x), chat: c, patience: patience}
}

// running reports whether an attempt is being followed.
func (s *chatStream) running() bool { return s.generation != "" && !s.over }

// tell tells the client what a piece of a flow says. It reports whether that was the
// end; its error is errDiffers, or one of writing.
func (s *chatStream) tell(p cache.FlowPiece) (over bool, err error) {
	if p.Generation != s.generation {
		if p.Over {
			return false, nil // it was for others; whoever asks now is told by the announcement
		}
		if err := s.renew(p.Generation); err != nil {
			return false, err
		}
	}
	if p.End != "" {
		s.over = true
		if p.End != cache.FlowDone || !s.now.Finished() || s.behind {
			return false, nil // the announcement says what now
		}
		a, err := s.now.Answer()
		if err != nil {
			return false, nil //nolint:nilerr // the announcement brings it in a form that can be read
		}
		return true, s.end(a)
	}
	if err := s.now.Add(p.Part); err != nil {
		s.over = true
		return false, nil //nolint:nilerr // as above
	}
	if s.behind {
		return false, s.catchUp()
	}
	s.name(cache.Answer{ID: p.Part.ID, Created: p.Part.Created, Model: p.Part.Model, ServiceTier: p.Part.ServiceTier, SystemFingerprint: p.Part.SystemFingerprint})
	if len(p.Part.Delta) == 0 && len(p.Part.Logprobs) == 0 {
		return false, nil // how it ended is told when it is certain
	}
	return false, s.pass(p.Part)
}

// renew begins to follow another attempt.
func (s *chatStream) renew(generation string) error {
	if s.generation != "" && !s.behind {
		said, err := s.now.Answer()
		if err != nil {
			return errDiffers
		}
		s.said = said
	}
	s.behind = s.said.Text != "" || s.said.Refusal != "" || len(s.said.ToolCalls) > 0 || len(s.said.Other) > 0
	s.generation, s.over, s.now = generation, false, cache.Draft{}
	return nil
}

// catchUp tells what this attempt has more than the earlier ones, once it has.
func (s *chatStream) catchUp() error {
	answer, err := s.now.Answer()
	if err != nil {
		return errDiffers
	}
	rest, err := restOf(s.said, answer)
	switch {
	case errors.Is(err, errShort):
		return nil
	case err != nil:
		return errDiffers
	}
	s.behind = false
	for i := range rest {
		if err := s.delta(&rest[i]); err != nil {
			return err
		}
	}
	return nil
}

// settle ends the stream with an answer that has been stored.
func (s *chatStream) settle(a cache.Answer) error {
	if !s.opened {
		return s.whole(a)
	}
	said := s.said
	if !s.behind {
		var err error
		if said, err = s.now.Answer(); err != nil {
			return errDiffers
		}
	}
	rest, err := restOf(said, a)
	if err != nil {
		return errDiffers
	}
	for i := range rest {
		if err := s.delta(&rest[i]); err != nil {
			return err
		}
	}
	return s.end(a)
}

// whole tells a whole answer.
func (s *chatStream) whole(a cache.Answer) error {
	s.name(a)
	rest, err := restOf(cache.Answer{}, a)
	if err != nil {
		return errDiffers
	}
	s.opened = true
	opening := `{"role":"assistant","content":""}`
	if hasNoText(&a) {
		opening = `{"role":"assistant","content":null}`
	}
	b := make([]byte, 0, len(a.Text)+(len(rest)+4)*(len(s.head)+chunkBytes))
	last := func(is bool) json.RawMessage { // carries what there is but once
		if is {
			return a.Logprobs
		}
		return nil
	}
	b = s.append(b, []byte(opening), last(len(rest) == 0))
	for i := range rest {
		if b, err = s.appendDelta(b, &rest[i], last(i == len(rest)-1)); err != nil {
			return err
		}
	}
	return s.send(s.appendEnd(b, &a))
}

// chunkBytes is about what a chunk has besides its head and what it says.
const chunkBytes = 100

// name notes what is the same in all chunks. The first to say it counts.
func (s *chatStream) name(a cache.Answer) {
	if s.head != nil {
		return
	}
	b := appendText([]byte(`data: {"id":`), completionID(a.ID, s.chat.key))
	b = strconv.AppendInt(append(b, `,"object":"chat.completion.chunk","created":`...), a.Created, 10)
	b = appendText(append(b, `,"model":`...), a.Model)
	s.head = append(appendMaker(b, &a), `,"choices":[`...)
}

// pass passes on what the model said, behind a first chunk that names the role.
func (s *chatStream) pass(part cache.FlowPart) error {
	raw := withoutRole(part.Delta)
	var b []byte
	if !s.opened {
		s.opened = true
		b = s.append(b, []byte(`{"role":"assistant","content":""}`), nil)
	}
	if len(raw) > 0 || len(part.Logprobs) > 0 {
		if raw == nil {
			raw = json.RawMessage("{}")
		}
		b = s.append(b, raw, part.Logprobs)
	}
	return s.send(b)
}

// delta sends one chunk.
func (s *chatStream) delta(one *delta) error {
	b, err := s.appendDelta(nil, one, nil)
	if err != nil {
		return err
	}
	return s.send(b)
}

// appendDelta appends a chunk with a difference.
func (s *chatStream) appendDelta(b []byte, one *delta, logprobs json.RawMessage) ([]byte, error) {
	if one.Content != nil && one.Role == "" && one.Refusal == nil && one.ToolCalls == nil { // as most have
		b = append(append(b, s.head...), `{"index":0,"delta":{"content":`...)
		return s.close(append(appendText(b, *one.Content), '}'), logprobs), nil
	}
	if one.other != nil {
		return s.append(b, one.other, logprobs), nil
	}
	raw, err := plainJSON(one)
	if err != nil {
		return b, err
	}
	return s.append(b, raw, logprobs), nil
}

// append appends a chunk with a delta.
func (s *chatStream) append(b, raw []byte, logprobs json.RawMessage) []byte {
	b = append(append(b, s.head...), `{"index":0,"delta":`...)
	return s.close(append(b, raw...), logprobs)
}

// close ends a chunk behind its delta.
func (s *chatStream) close(b []byte, logprobs json.RawMessage) []byte {
	b = appendRaw(append(b, `,"logprobs":`...), logprobs)
	b = append(b, `,"finish_reason":null}]`...)
	return append(s.noUsage(b), "}\n\n"...)
}

// noUsage appends the null that stands for the usage in all chunks but the last, where
// it was asked for.
func (s *chatStream) noUsage(b []byte) []byte {
	if s.chat.usage {
		b = append(b, `,"usage":null`...)
	}
	return b
}

// end sends how an answer ended.
func (s *chatStream) end(a cache.Answer) error { return s.send(s.appendEnd(nil, &a)) }

// appendEnd appends why the model stopped, the usage where it was asked for, and the
// end of the stream.
func (s *chatStream) appendEnd(b []byte, a *cache.Answer) []byte {
	b = append(append(b, s.head...), `{"index":0,"delta":{},"logprobs":null,"finish_reason":`...)
	b = s.noUsage(append(appendText(b, a.FinishReason), "}]"...))
	b = append(b, "}\n\n"...)
	if s.chat.usage {
		b = append(append(b, s.head...), `],"usage":`...)
		b = append(appendUsage(b, &a.Usage), "}\n\n"...)
	}
	return append(b, "data: [DONE]\n\n"...)
}

// beat is a sign of life, so that nobody on the way takes the stream for dead: a comment
// without the empty line behind it, which some clients would take for an empty event.
func (s *chatStream) beat() error { return s.send([]byte(":\n")) }

// fail ends the stream with an error; where none has begun it returns that.
func (s *chatStream) fail(err error) error {
	var p *Problem
	if s.x.status == 0 || !errors.As(err, &p) {
		return err
	}
	s.x.server.log.Debug().Str("route", s.x.route.path).Str("why", p.Detail).Msg("answer broken off")
	_ = s.send(append(append([]byte("data: "), openAIBody(p)...), "\n\n"...)) // or the client is gone
	return nil
}

// send sends text at once, to a client that has to read.
func (s *chatStream) send(text []byte) error {
	if s.x.status == 0 {
		h := s.x.Header()
		h["Content-Type"] = []string{eventStream + "; charset=utf-8"}
		h["X-Accel-Buffering"] = []string{"no"} // or nginx would keep events back
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(s.patience)) // where there is none, there is nobody to wait for
	if _, err := s.x.Write(text); err != nil {
		return err
	}
	return s.control.Flush()
}
