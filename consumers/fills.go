package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// Reasons of a fill that does not happen because of the transaction that it was
// to have seen. They concern nobody but whoever asked for that transaction.
const (
	ReasonXidOpen    = "xid in progress"
	ReasonXidUnknown = "xid unknown" // never handed out, or of another epoch
)

// nobodyWaits is the age at which a request for a fill is given up when its load
// has to wait: its reader has had an answer and asks again when it needs to.
const nobodyWaits = time.Minute

// earlyFor is the age at which a request to make an entry anew before its time is
// dropped: there is more to do than is done, and those who miss come first.
const earlyFor = 3 * time.Second

// FillsOptions are the choices of Fills. The zero value is usable.
type FillsOptions struct {
	Concurrency int // fills of one view at a time in one batch; 8
	Log         zerolog.Logger
}

// Fills serves readers who missed. Handle is the handler of group "precompute"
// for topic "fill".
type Fills struct {
	store  *cache.Store
	filler *Filler
	judge  *judge
	views  *view.Set
	o      FillsOptions
}

// NewFills makes the handler of requests for fills.
func NewFills(store *cache.Store, filler *Filler, views *view.Set, o FillsOptions) *Fills {
	if o.Concurrency <= 0 {
		o.Concurrency = 8
	}
	return &Fills{store: store, filler: filler, judge: &judge{loader: filler.loader}, views: views, o: o}
}

// request is one key that readers wait for, and what it must have seen.
type request struct {
	view   *view.View
	key    string
	minXid *cache.MinXid
	early  *Replaced // nobody waits: the entry is to be made anew before its time is over
	asked  time.Time // the youngest
	places []int
}

// Handle works through a batch, each key (and transaction asked for) once. A
// request whose load fails is announced as failed and done: its reader asks
// again. One for whose load there is no turn is done too: a view whose loads take
// long must not hold the places of those who ask for others. While a server is away a
// request is kept, for as long as somebody may wait.
func (f *Fills) Handle(ctx context.Context, messages []*message.Message) []error {
	b := newBatch(messages)
	var order []*request
	known := make(map[string]*request)
	b.events(func(place int, e event.Event) {
		asked, err := f.requestOf(e)
		if err != nil {
			b.fail(err, place)
			return
		}
		id := view.JoinKey(asked.view.Name, asked.key, string(e.Data))
		if known[id] == nil {
			known[id] = asked
			order = append(order, asked)
		}
		r := known[id]
		r.places = append(r.places, place)
		if e.Time.After(r.asked) {
			r.asked = e.Time
		}
	})
	errs := inLanes(ctx, f.o.Concurrency, order, func(r *request) *view.View { return r.view }, f.serve)
	for n, r := range order {
		b.fail(f.conclude(r, errs[n]), r.places...)
	}
	return b.result()
}

// requestOf reads what is asked for.
func (f *Fills) requestOf(e event.Event) (*request, error) {
	if e.Type != event.FillRequested {
		return nil, fmt.Errorf("%w: %s is no request for a fill", stream.ErrReject, e.Type)
	}
	v, ok := f.views.Lookup(e.View)
	if !ok {
		return nil, fmt.Errorf("%w: no view %s", stream.ErrReject, e.View)
	}
	if v.Model {
		return nil, fmt.Errorf("%w: %s is answered by a model; ask with %s", stream.ErrReject, e.View, event.AIRequested)
	}
	r := &request{view: v, key: e.Subject}
	if err := r.read(e.Data); err != nil {
		return nil, fmt.Errorf("%w: %w", stream.ErrReject, err)
	}
	return r, nil
}

// read reads {"min_xid":"123","epoch":"5"}, or {"instead":"<version>","saved":"<ms>"}
// of an entry that is to be made anew, which may be absent in part or whole. Numbers
// travel as text, since JSON's end at 2^53 for many readers.
func (r *request) read(data json.RawMessage) error {
	var asked struct {
		MinXid  string `json:"min_xid"`
		Epoch   string `json:"epoch"`
		Instead string `json:"instead"`
		Saved   string `json:"saved"`
	}
	if len(data) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, &asked); err != nil {
		return fmt.Errorf("data of a request for a fill: %w", err)
	}
	var err error
	if asked.MinXid != "" {
		r.minXid, err = minXidOf(asked.MinXid, asked.Epoch)
	}
	if asked.Instead != "" && err == nil {
		r.early, err = replacedOf(asked.Instead, asked.Saved)
	}
	return err
}

func minXidOf(xid, epoch string) (*cache.MinXid, error) {
	var m cache.MinXid
	var err error
	if m.Xid, err = strconv.ParseUint(xid, 10, 64); err != nil || m.Xid == 0 {
		return nil, fmt.Errorf("min_xid %q is no transaction id", xid)
	}
	if epoch == "" {
		return &m, nil
	}
	if m.Epoch, err = strconv.ParseUint(epoch, 10, 64); err != nil {
		return nil, fmt.Errorf("epoch %q is no number", epoch)
	}
	return &m, nil
}

func replacedOf(text, saved string) (*Replaced, error) {
	at, err := version.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("instead: %w", err)
	}
	ms, err := strconv.ParseInt(saved, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("saved %q is no time in milliseconds", saved)
	}
	return &Replaced{Version: at, Saved: time.UnixMilli(ms)}, nil
}

// serve fills one key.
func (f *Fills) serve(ctx context.Context, r *request) error {
	reason, err := f.judge.judge(ctx, r.minXid)
	if err == nil && reason != "" {
		return paused(f.store.AnnounceFailure(ctx, r.view.Name, r.key, r.minXid, reason))
	}
	if err != nil {
		if told := f.store.AnnounceFailure(ctx, r.view.Name, r.key, r.minXid, outcomeOf(err)); told != nil {
			f.o.Log.Debug().Err(told).Msg("failure not announced")
		}
		return err
	}
	if r.early != nil {
		return f.renew(ctx, r)
	}
	return f.filler.Fill(ctx, r.view, r.key, FillOptions{MinXid: r.minXid})
}

// renew makes an entry anew before its time is over, for which nobody waits. That
// there is no turn for it now does not say that there is none for a reader, who is
// patient: so it ends no lane.
func (f *Fills) renew(ctx context.Context, r *request) error {
	if time.Since(r.asked) > earlyFor {
		return nil
	}
	err := f.filler.Fill(ctx, r.view, r.key, FillOptions{Instead: r.early})
	if errors.Is(err, ErrBusy) {
		f.o.Log.Debug().Err(err).Str("view", r.view.Name).Msg("fill given up")
		return nil
	}
	return err
}

// conclude returns what a request has failed with, nil where it is done. That
// somebody else is at it, or that the key changed meanwhile, is an answer: the
// announcement tells whom it serves, and whoever is left asks again.
func (f *Fills) conclude(r *request, err error) error {
	if err == nil || errors.Is(err, cache.ErrLeased) || errors.Is(err, cache.ErrRefused) {
		return nil
	}
	if !errors.Is(err, ErrBusy) {
		err = loadFailure(err)
		if errors.Is(err, stream.ErrPause) && r.early == nil && time.Since(r.asked) < nobodyWaits {
			return err
		}
	}
	f.o.Log.Debug().Err(err).Str("view", r.view.Name).Msg("fill given up")
	return nil
}
