package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Scopes that are nobody's. No user can have these names: a NUL is in none.
const (
	SharedScope = "\x00shared" // answers that everybody may have
	AppScope    = "\x00app"    // what the app asks on nobody's behalf
)

// ErrModel is wrapped, beside ErrRequest, where a request names a model that is not
// one of those that are configured.
var ErrModel = errors.New("unknown model")

// Models are the names under which a model may be asked for. The zero value takes
// every name, has no default, and shares nothing.
type Models struct {
	fallback string
	names    []string          // in the order in which they are configured
	models   map[string]string // by name
	shared   []string
}

// ParseModels reads which models there are: the one of a request that names none,
// which may be empty; names with commas between, each a model's or of the form
// name=model, where an empty text means any; and the models whose answers everybody
// may have, * for all. Its errors say which of the settings is wrong.
func ParseModels(fallback, list, shared string) (Models, error) {
	m := Models{fallback: fallback, models: map[string]string{}}
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		name, model, alias := strings.Cut(item, "=")
		name, model = strings.TrimSpace(name), strings.TrimSpace(model)
		if !alias {
			model = name
		}
		if name == "" || model == "" {
			return Models{}, fmt.Errorf("AI_MODELS: %q is neither a model nor of the form name=model", item)
		}
		if _, twice := m.models[name]; twice {
			return Models{}, fmt.Errorf("AI_MODELS: %q stands there twice", name)
		}
		m.names = append(m.names, name)
		m.models[name] = model
	}
	for name, model := range m.models {
		if other, known := m.models[model]; known && other != model {
			return Models{}, fmt.Errorf("AI_MODELS: %q stands for %q, which stands for another one", name, model)
		}
	}
	if _, known := m.models[fallback]; fallback != "" && len(m.names) > 0 && !known {
		return Models{}, fmt.Errorf("AI_MODELS: does not name %q, which LLM_MODEL says is the default", fallback)
	}
	for item := range strings.SplitSeq(shared, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		if model, known := m.models[item]; known {
			item = model
		} else if item != "*" && len(m.names) > 0 && !m.means(item) {
			return Models{}, fmt.Errorf("AI_SHARED_MODELS: %q is not one of AI_MODELS", item)
		}
		m.shared = append(m.shared, item)
	}
	return m, nil
}

// means reports whether some name stands for a model.
func (m Models) means(model string) bool {
	for _, one := range m.models {
		if one == model {
			return true
		}
	}
	return false
}

// Configured reports whether a model is one of those that are configured, rather than one
// that a caller has named.
func (m Models) Configured(model string) bool {
	if len(m.names) == 0 {
		return model == m.fallback
	}
	return m.means(model)
}

// Names returns what may be asked for; where every name is taken, only the default.
func (m Models) Names() []string {
	if len(m.names) == 0 && m.fallback != "" {
		return []string{m.fallback}
	}
	return slices.Clone(m.names)
}

// Resolve returns the model that a name stands for.
func (m Models) Resolve(name string) (model string, ok bool) {
	if len(m.names) == 0 {
		return name, true
	}
	model, ok = m.models[name]
	return model, ok
}

// Shared reports whether everybody may have a model's answers.
func (m Models) Shared(model string) bool {
	return slices.Contains(m.shared, model) || slices.Contains(m.shared, "*")
}

// Sharing reports whether any model's answers are shared.
func (m Models) Sharing() bool { return len(m.shared) > 0 }

// Meant is Request for who has been let in already: a name that is not configured is
// taken for a model's.
func (m Models) Meant(body json.RawMessage) (request json.RawMessage, err error) {
	q, _, err := m.question(body)
	return q.Request, err
}

// Request is ChatRequest with the model that is meant in place of the name under
// which it was asked for, so that one question has one key. It returns the model too.
// A name that is not configured is refused, wrapping ErrModel.
func (m Models) Request(body json.RawMessage) (request json.RawMessage, model string, err error) {
	q, err := m.Question(body)
	return q.Request, q.Model, err
}

// Question is a request that has been read.
type Question struct {
	Request json.RawMessage // as AnswerKey returns it
	Model   string          // that is meant
}

// Question is Request, without what changes nothing of the answer.
func (m Models) Question(body json.RawMessage) (Question, error) {
	q, known, err := m.question(body)
	if err == nil && !known {
		err = fmt.Errorf("%w: %w", ErrRequest, ErrModel)
	}
	if err != nil {
		return Question{}, err
	}
	return q, nil
}

// Key is AnswerKey of the question.
func (q Question) Key(provider, scope string) (string, error) {
	if err := checkNames(provider, scope); err != nil {
		return "", err
	}
	return keyOfAnswer(provider, scope, q.Request), nil
}

// OneTimeKey is the package's OneTimeKey of the question.
func (q Question) OneTimeKey(provider, scope, nonce string) (string, error) {
	shared, err := q.Key(provider, scope)
	if err != nil {
		return "", err
	}
	return oneTimeKey(shared, nonce)
}

// question reads a request, and reports whether the name of its model is configured.
func (m Models) question(body []byte) (q Question, known bool, err error) {
	all, name, err := readChat(body, m.fallback)
	if err != nil {
		return Question{}, false, err
	}
	model, known := m.Resolve(name)
	switch {
	case !known:
		model = name
	case model != name:
		all = all.with("model", canonicalString(model))
	}
	return Question{Request: all.without(unasked...).object(), Model: model}, known, nil
}
