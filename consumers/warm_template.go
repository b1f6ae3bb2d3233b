package consumers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// Appender appends events to their streams.
type Appender interface {
	Append(ctx context.Context, events ...event.Event) (ids []string, err error)
}

// TemplatesOptions say what is asked ahead, and of whom.
type TemplatesOptions struct {
	Templates *view.Templates
	View      *view.View   // of the answers
	Models    cache.Models // that may be asked for
	Provider  string       // the model's name, of which answers' keys are made
	Publisher Appender
	Counts    *TemplateCounts // nil: none
	Log       zerolog.Logger
}

// Templates make questions that nobody has asked yet: an event that begins a template
// tells rows, and each row one request of a model. Handle is the handler of group
// "warm" for the topics of those events.
//
// It asks nothing itself. What it makes are ai.requested events for which nobody waits,
// so that budgets, breakers and places are the Warmer's. A request has the key that it
// has when the app sends it, so an answer that is there is not asked for again, however
// often the event comes.
type Templates struct {
	o       TemplatesOptions
	store   *cache.Store
	answers *cache.Answers
	loader  *Loader
	most    int // questions of one event
	wrong   refusals
	letters letters
}

// Bounds of what one event makes.
const (
	templatesAtATime = 4
	rowsOfTemplate   = 1000 // questions of one event
	questionsAtATime = 50   // that are published together
)

// NewTemplates checks that each template's request can be asked, and in its scope. Its
// errors join all mistakes, each with its place in the file.
func NewTemplates(store *cache.Store, loader *Loader, o TemplatesOptions) (*Templates, error) {
	t := &Templates{o: o, store: store, loader: loader, most: rowsOfTemplate, wrong: refusals{news: make(chan struct{}, 1)}}
	if store != nil { // else they are only to be checked
		t.answers = store.NewAnswers(o.View)
	}
	return t, CheckTemplates(o.Templates, o.Models)
}

// CheckTemplates reports what of the templates cannot be asked of these models.
func CheckTemplates(templates *view.Templates, models cache.Models) error {
	var wrong []error
	for _, t := range templates.All() {
		_, model, err := models.Request(t.Sample())
		switch {
		case errors.Is(err, cache.ErrModel):
			wrong = append(wrong, fmt.Errorf("%s: %s.request.model is %s, which is not one of AI_MODELS", t.Place("request"), t.Name, t.Model))
		case err != nil:
			wrong = append(wrong, fmt.Errorf("%s: %s.request: %s", t.Place("request"), t.Name, strings.TrimPrefix(err.Error(), cache.ErrRequest.Error()+": ")))
		case t.Scope == view.SharedScope && !models.Shared(model):
			wrong = append(wrong, fmt.Errorf("%s: %s.scope is %s, but the answers of %s are not: see AI_SHARED_MODELS", t.Place("scope"), t.Name, t.Scope, model))
		case t.Scope != view.SharedScope && models.Shared(model):
			wrong = append(wrong, fmt.Errorf("%s: %s.scope is %s, but AI_SHARED_MODELS makes the answers of %s everybody's: say %s", t.Place("scope"), t.Name, t.Scope, model, view.SharedScope))
		}
	}
	return errors.Join(wrong...)
}

// started is one template that an event has begun.
type started struct {
	template *view.Template
	subject  string
	data     string
	trace    string
	places   []int
}

// Handle works through a batch. An event is done when its questions are in the stream, or
// when nothing is to be asked: PostgreSQL refuses the template's query, or it is of long ago.
func (t *Templates) Handle(ctx context.Context, messages []*message.Message) []error {
	b := newBatch(messages)
	var order []*started
	known := map[[3]string]*started{}
	b.events(func(place int, e event.Event) {
		if e.Subject == "" {
			return // a whole view, of which no row is named
		}
		for _, template := range t.o.Templates.All() {
			if !template.Begins(e.Type, e.View, e.Data) {
				continue
			}
			if why := t.void(template, e); why != "" {
				t.o.Counts.count(template.Name, why)
				continue
			}
			s := &started{template: template, subject: e.Subject, trace: e.Traceparent}
			if template.TakesData() {
				s.data = string(e.Data)
			}
			id := [3]string{template.Name, s.subject, s.data}
			if known[id] == nil {
				known[id] = s
				order = append(order, s)
			}
			known[id].places = append(known[id].places, place)
		}
	})
	errs := together(ctx, templatesAtATime, order, t.ask)
	for i, s := range order {
		b.fail(errs[i], s.places...)
	}
	return b.result()
}

// void says why an event begins nothing; empty: it does. What is older than an answer
// lasts has had its answers, or nobody has wanted them: streams that are read again, or
// from their beginning, are not to be paid for once more.
func (t *Templates) void(template *view.Template, e event.Event) string {
	switch {
	case t.wrong.has(template.Name):
		return "refused"
	case !e.Time.IsZero() && time.Since(e.Time) > max(t.o.View.TTL, warmAge):
		return "late"
	}
	return ""
}

// ask publishes the questions of a template.
func (t *Templates) ask(ctx context.Context, s *started) error {
	rows, err := t.loader.rowsOf(ctx, s, t.most+1)
	if err != nil {
		return t.unread(s, err)
	}
	if len(rows) > t.most {
		rows = rows[:t.most]
		t.o.Counts.count(s.template.Name, "beyond")
		t.o.Log.Warn().Str("template", s.template.Name).Str("subject", s.subject).Int("rows", t.most).Msg("a template has more rows than are asked about")
	}
	var unfit []error
	for some := range slices.Chunk(rows, questionsAtATime) {
		bad, err := t.publish(ctx, s, some)
		if err != nil {
			return fmt.Errorf("template %s: %w", s.template.Name, paused(err))
		}
		unfit = append(unfit, bad...)
	}
	if len(unfit) > 0 {
		return t.reject(s, fmt.Errorf("template %s: %d of %d rows make no question: %w: %w", s.template.Name, len(unfit), len(rows), unfit[0], stream.ErrReject))
	}
	return nil
}

// unread decides what becomes of an event whose rows could not be read.
func (t *Templates) unread(s *started, err error) error {
	if why := refusedFor(s.template, err); why != nil {
		t.o.Counts.count(s.template.Name, "refused")
		if t.wrong.add(s.template.Name, refused{why, s}) {
			t.o.Counts.usable(false)
		}
		return nil
	}
	err = fmt.Errorf("template %s: %w", s.template.Name, rowsFailure(err))
	if errors.Is(err, stream.ErrReject) {
		return t.reject(s, err)
	}
	return err
}

// reject ends an event that will never be right: in a dead letter, but where there is one
// already.
func (t *Templates) reject(s *started, err error) error {
	if t.letters.due(s, err.Error(), time.Now()) {
		return err
	}
	t.o.Log.Debug().Err(err).Str("subject", s.subject).Msg("an event has its dead letter already")
	return nil
}

// publish publishes the questions of some rows, but for those that are answered, or
// asked already. Of rows that make no question it returns why.
func (t *Templates) publish(ctx context.Context, s *started, rows [][]byte) (unfit []error, err error) {
	var events []event.Event
	var keys []string
	for _, row := range rows {
		key, e, err := t.question(s, row)
		if err != nil {
			unfit = append(unfit, err)
			t.o.Counts.count(s.template.Name, "unfit")
			continue
		}
		stands, err := t.standing(ctx, key)
		switch {
		case err != nil:
			return unfit, err
		case stands != "":
			t.o.Counts.count(s.template.Name, stands)
		default:
			events, keys = append(events, e), append(keys, key)
		}
	}
	if len(events) == 0 {
		return unfit, nil
	}
	if _, err := t.o.Publisher.Append(ctx, events...); err != nil {
		return unfit, err
	}
	if err := t.answers.NoteAhead(ctx, min(warmAge, t.o.View.TTL), keys...); err != nil {
		t.o.Log.Debug().Err(err).Msg("what was asked ahead is not noted")
	}
	for range events {
		t.o.Counts.count(s.template.Name, "asked")
	}
	t.o.Log.Debug().Str("template", s.template.Name).Str("subject", s.subject).Int("questions", len(events)).Msg("asked ahead")
	return unfit, nil
}

// question makes the event of a row, and the key that its answer will have.
func (t *Templates) question(s *started, row []byte) (key string, e event.Event, err error) {
	scope, err := scopeOf(s.template, row)
	if err != nil {
		return "", e, err
	}
	body, err := s.template.Request(row)
	if err != nil {
		return "", e, err
	}
	request, _, err := t.o.Models.Request(body)
	if err != nil {
		return "", e, err
	}
	key, canonical, err := cache.AnswerKey(t.o.Provider, scope, request)
	if err != nil {
		return "", e, err
	}
	e = event.Event{Type: event.AIRequested, Source: "template " + s.template.Name, Traceparent: s.trace}
	if !strings.HasPrefix(scope, "\x00") { // the scopes that are nobody's are no subjects
		e.Subject = scope
	}
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false)
	err = encoder.Encode(struct {
		Scope    string          `json:"scope"`
		Warm     bool            `json:"warm"`
		Template string          `json:"template"`
		Request  json.RawMessage `json:"request"`
	}{scope, true, s.template.Name, canonical})
	e.Data = bytes.TrimSpace(data.Bytes())
	if err == nil && e.Validate() != nil {
		err = fmt.Errorf("the question is longer than %d bytes, or its scope is no name", event.MaxData)
	}
	return key, e, err
}

// scopeOf returns whose the answer of a row is.
func scopeOf(t *view.Template, row []byte) (string, error) {
	switch t.Scope {
	case view.SharedScope:
		return cache.SharedScope, nil
	case view.AppScope:
		return cache.AppScope, nil
	}
	var columns map[string]json.RawMessage
	var user *string
	if err := json.Unmarshal(row, &columns); err != nil || json.Unmarshal(columns[t.Scope], &user) != nil || user == nil || *user == "" {
		return "", fmt.Errorf("column %s, the scope, names nobody", t.Scope)
	}
	if !utf8.ValidString(*user) || strings.HasPrefix(*user, "\x00") {
		return "", fmt.Errorf("column %s, the scope, is no name", t.Scope)
	}
	return *user, nil
}

// standing says why an answer is not to be asked for; empty: it is. It is there, as
// Warmer.present has it; or somebody makes it, or it was asked ahead so short a time ago
// that its question may be still to come: events are repeated sooner than models answer.
func (t *Templates) standing(ctx context.Context, key string) (string, error) {
	found, err := t.store.Inspect(ctx, t.o.View, key)
	switch {
	case err != nil:
		return "", err
	case found.Status == cache.Hit || found.Status == cache.Stale && found.Why != cache.WhyStale:
		return "there", nil
	case found.Holder != "":
		return "coming", nil
	}
	if ahead, err := t.answers.Ahead(ctx, key); err != nil || !ahead {
		return "", err
	}
	return "coming", nil
}
