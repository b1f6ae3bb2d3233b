package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// Bounds of a call where the options do not say otherwise. Lease and call
// together must stay below the store's FenceTTL.
const (
	defaultCallFor  = 90 * time.Second
	defaultLeaseFor = 10 * time.Second
	// givingBack bounds what is said to Redis after a call is over, whatever ended it.
	givingBack = 5 * time.Second
)

// WarmerOptions says what a Warmer asks, and how.
type WarmerOptions struct {
	View     *view.View    // of the answers
	Model    Model         //
	Models   cache.Models  // that may be asked for, and what requests that name none are sent to
	CallFor  time.Duration // that one call may take; 90 s
	LeaseFor time.Duration // that a worker which died keeps others from asking; 10 s

	KeepTruncated bool                  // answers that a limit on tokens cut short are kept like others
	Budgets       Budgets               // what may be asked in all; the zero value is any amount
	WarmInFlight  int                   // questions at a time that nobody waits for; 16
	Account       *Account              // nil: one of its own, without metrics
	Templates     *TemplateCounts       // what becomes of their questions; nil: it is not counted
	Metrics       prometheus.Registerer // of budgets and breakers; nil: none
	Log           zerolog.Logger
}

// Warmer has a model answer what the app and its users ask, once, and keeps the
// answers. Its Handle is for the topic ai, behind stream.RecordFailure; or its Ask and its
// Tell, each for a group of its own, so that what needs no model does not wait for one.
//
// One call per answer, however many ask in however many processes:
//
//  1. whoever finds no answer takes the key's lease and renews it while the
//     model thinks. Then it looks again, since the answer may have come between;
//  2. where the lease is taken, the event joins the one for which the answer is being
//     made, and is done: no place is held by who waits. See cache.Answers.Join for why
//     nothing is lost by that;
//  3. the one that was joined is done only once its answer stands or cannot be had. When
//     its worker dies it comes again, and takes the lease when that has run out.
//
// What has been a call of the model costs a delivery, unless the model was busy (for others,
// too: see heed) or this process is stopped, so that no mishap is paid for without end. No prompt is ever
// written to a log, a metric or an error, nor left in a dead letter; but for that of an event
// whose fields could not be read, or that has killed whoever handled it, which is the
// stream's and as it came.
//
// Questions for which nobody waits (warm) give way: they have fewer places, a share of
// the budget, and are dropped, which is counted, where they would wait for long.
type Warmer struct {
	o        WarmerOptions
	store    *cache.Store
	answers  *cache.Answers
	account  *Account
	pauses   pauses
	breakers *breakers
	warm     chan struct{} // has room for the questions that nobody waits for
	strange  strange
	dropped  *prometheus.CounterVec
}

// NewWarmer checks the options.
func NewWarmer(store *cache.Store, o WarmerOptions) (*Warmer, error) {
	if o.View == nil || !o.View.Model {
		return nil, errors.New("warmer: there is no view of answers")
	}
	if o.Model == nil {
		return nil, errors.New("warmer: there is no model")
	}
	if o.CallFor <= 0 {
		o.CallFor = defaultCallFor
	}
	if o.LeaseFor <= 0 {
		o.LeaseFor = defaultLeaseFor
	}
	if o.CallFor+o.LeaseFor >= store.FenceTTL() {
		return nil, fmt.Errorf("warmer: CallFor (%s) and LeaseFor (%s) together reach the store's FenceTTL (%s): an answer could outlast the fence that is to keep it out",
			o.CallFor, o.LeaseFor, store.FenceTTL())
	}
	if o.WarmInFlight <= 0 {
		o.WarmInFlight = defaultWarmInFlight
	}
	if o.Account == nil {
		account, err := NewAccount(AccountOptions{})
		if err != nil {
			return nil, fmt.Errorf("warmer: %w", err)
		}
		o.Account = account
	}
	w := &Warmer{
		o: o, store: store, answers: store.NewAnswers(o.View), account: o.Account, pauses: newPauses(),
		breakers: newBreakers(o.Account.label, o.CallFor+2*givingBack), // its flow is closed, and its end told
		warm:     make(chan struct{}, o.WarmInFlight), dropped: newDropped(),
	}
	if o.Metrics == nil {
		return w, nil
	}
	for _, c := range []prometheus.Collector{w.breakers.state, w.dropped} {
		if err := o.Metrics.Register(c); err != nil {
			return nil, fmt.Errorf("warmer: register metrics: %w", err)
		}
	}
	return w, nil
}

// Handle does what an event of the topic ai says. It is a
// message.NoPublishHandlerFunc.
func (w *Warmer) Handle(m *message.Message) error {
	e, err := stream.EventOf(m)
	if err != nil {
		return err
	}
	if needsNoModel(e) {
		return w.told(m, e)
	}
	return w.asked(m, e)
}

// Ask is the half of Handle that may have to wait for a model.
func (w *Warmer) Ask(m *message.Message) error {
	e, err := stream.EventOf(m)
	if err != nil {
		return err
	}
	if needsNoModel(e) {
		return nil
	}
	return w.asked(m, e)
}

// Tell is the other half: ai.forget and ai.answered. What it does may come before what
// Ask does with earlier events, and after.
func (w *Warmer) Tell(m *message.Message) error {
	e, err := stream.EventOf(m)
	if err != nil || !needsNoModel(e) {
		return nil //nolint:nilerr // Ask says so
	}
	return w.told(m, e)
}

func needsNoModel(e event.Event) bool { return e.Type == event.AIAnswered || e.Type == event.AIForget }

// asked handles a question.
func (w *Warmer) asked(m *message.Message, e event.Event) (err error) {
	var data aiData
	defer func() { err = w.calm(e, data, recover(), err) }()
	if e.Type != event.AIRequested {
		return unquoted(e, aiData{}, fmt.Errorf("no event of this type is known: %w", stream.ErrReject))
	}
	if data, err = w.read(e, entryID(m, e)); err != nil {
		return unquoted(e, data, fmt.Errorf("%s: %w: %w", e.Type, err, stream.ErrReject))
	}
	if entry, ok := stream.EntryOf(m); ok {
		data.deliveries = entry.Deliveries
	}
	if data.source == fromAPI && data.awaits != "" && data.awaits != data.key {
		return w.foreign(m.Context(), data)
	}
	return w.conclude(e, data, w.admit(m.Context(), data))
}

// told handles what needs no model.
func (w *Warmer) told(m *message.Message, e event.Event) (err error) {
	var data aiData
	defer func() { err = w.calm(e, data, recover(), err) }()
	if data, err = w.read(e, entryID(m, e)); err != nil {
		return unquoted(e, data, fmt.Errorf("%s: %w: %w", e.Type, err, stream.ErrReject))
	}
	if e.Type == event.AIForget {
		return w.forget(m.Context(), data)
	}
	return unquoted(e, data, w.take(m.Context(), data))
}

// entryID returns the id of the message's stream entry, which orders it among
// the others. A message that comes from elsewhere is placed by its time.
func entryID(m *message.Message, e event.Event) string {
	if entry, ok := stream.EntryOf(m); ok {
		return entry.ID
	}
	at := e.Time
	if at.IsZero() {
		at = time.Now()
	}
	return strconv.FormatInt(at.UnixMilli(), 10) + "-0"
}

// aiData is what an event of the topic ai carries.
type aiData struct {
	entry string // id of the stream entry
	// deliveries of it, this one included; 0 where it came by no stream
	deliveries int

	scope     string
	key       string
	model     string          // that is asked
	canonical json.RawMessage // the request
	noStore   bool            // the answer is for those alone who wait for it
	warm      bool            // nobody waits for it
	durable   bool            // it is the app's own: it is answered, however late, or a dead letter says that it was not
	source    string          // of its event
	asker     string          // who asks in a scope that is nobody's, by a name that says nothing; empty: it is not told
	awaits    string          // the key of which whoever asked expects the answer; empty: it is not told
	template  string          // that asks it; empty: none
	instead   *Replaced       // it is only asked while this is its answer, which is served meanwhile
	before    cache.Deferral  // how the provider had no time for the question before
	answer    cache.Answer    // of ai.answered
}

// read reads an event's data. Its errors wrap cache.ErrRequest and quote nothing.
func (w *Warmer) read(e event.Event, entry string) (aiData, error) {
	var fields map[string]json.RawMessage
	if e.Type == event.AIForget && len(e.Data) == 0 {
		fields = map[string]json.RawMessage{} // the subject says whose answers
	} else if err := json.Unmarshal(e.Data, &fields); err != nil || fields == nil {
		return aiData{}, fmt.Errorf("%w: data is not a JSON object", cache.ErrRequest)
	}
	d := aiData{entry: entry, source: e.Source}
	if err := takeText(fields, "scope", &d.scope); err != nil {
		return aiData{}, err
	}
	if e.Type == event.AIForget {
		err := d.readForget(fields, e)
		return d, err
	}
	if d.scope == "" {
		d.scope = e.Subject
	}
	body, err := requestOf(fields)
	if err != nil {
		return aiData{}, err
	}
	request, err := w.o.Models.Meant(body)
	if err != nil {
		return aiData{}, err
	}
	if err := d.readTerms(fields, w.o.Model.Name(), request); err != nil {
		return aiData{}, err
	}
	if e.Type == event.AIAnswered {
		err = d.readAnswer(fields, e)
	}
	return d, err
}

// requestOf returns the request, or the prompt in the form of one.
func requestOf(fields map[string]json.RawMessage) (json.RawMessage, error) {
	request, hasRequest := fields["request"]
	prompt, hasPrompt := fields["prompt"]
	switch {
	case hasRequest && hasPrompt:
		return nil, fmt.Errorf("%w: request and prompt exclude one another", cache.ErrRequest)
	case hasRequest:
		return request, nil
	case hasPrompt:
		return append(append([]byte(`{"prompt":`), prompt...), '}'), nil
	}
	return nil, fmt.Errorf("%w: neither request nor prompt say what is asked", cache.ErrRequest)
}

// readTerms reads on which terms something is asked, and makes its key of that.
func (d *aiData) readTerms(fields map[string]json.RawMessage, provider string, request json.RawMessage) error {
	nonce := d.entry
	err := errors.Join(takeBool(fields, "no_store", &d.noStore), takeBool(fields, "warm", &d.warm), takeText(fields, "nonce", &nonce),
		takeText(fields, "template", &d.template), takeText(fields, "asker", &d.asker), takeText(fields, "awaits", &d.awaits), d.readInstead(fields))
	if err != nil {
		return err
	}
	if len(d.asker) > maxAsker {
		d.asker = ""
	}
	d.durable = d.source != fromAPI && !d.warm && !d.noStore
	if d.noStore {
		d.key, d.canonical, err = cache.OneTimeKey(provider, d.scope, nonce, request)
	} else {
		d.key, d.canonical, err = cache.AnswerKey(provider, d.scope, request)
	}
	if err != nil {
		return err
	}
	var asked map[string]json.RawMessage // names that differ in case are others
	_ = json.Unmarshal(d.canonical, &asked)
	_ = json.Unmarshal(asked["model"], &d.model) // cache.ChatRequest has seen that it is a name
	return nil
}

// takeBool reads a member that is true or false where it is there.
func takeBool(fields map[string]json.RawMessage, name string, into *bool) error {
	raw, ok := fields[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%w: %s is neither true nor false", cache.ErrRequest, name)
	}
	return nil
}

// takeText reads a member that is a string where it is there.
func takeText(fields map[string]json.RawMessage, name string, into *string) error {
	raw, ok := fields[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%w: %s is not a text", cache.ErrRequest, name)
	}
	return nil
}

// later puts an event off without blaming it.
func later(why string, args ...any) error {
	return fmt.Errorf(why+": %w", append(args, stream.ErrPause)...)
}

// afterwards is a context for what must be said even when ctx has ended.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), givingBack)
}
