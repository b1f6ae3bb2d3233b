package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers/event"
)

// viewRoutes are the routes of the views file. Answers of a model have routes of
// their own.
func (s *Server) viewRoutes() []route {
	var routes []route
	for _, v := range s.views.All() {
		if v.HTTP == nil || v.Model {
			continue
		}
		r := route{
			method: http.MethodGet, path: v.HTTP.Path, access: anyone, near: true, limited: true,
			operation: "getView", view: v,
			handle: func(x *exchange) error { return s.getView(x, v) },
		}
		if v.HTTP.Key == view.Caller {
			r.access = named
		}
		if v.HTTP.Watch != "" {
			r.handle = func(x *exchange) error { return s.getWatched(x, v) }
		}
		routes = append(routes, r)
	}
	return routes
}

// getView answers with an entry of a view.
func (s *Server) getView(x *exchange, v *view.View) error {
	e, from, err := s.find(x, v)
	if err != nil {
		return err
	}
	return x.serve(v, e, from)
}

// find returns the entry that is asked for, and where it came from: the cache, or
// a worker that was asked to load it.
func (s *Server) find(x *exchange, v *view.View) (cache.Entry, source, error) {
	key, err := x.key(v)
	if err != nil {
		return cache.Entry{}, source{}, err
	}
	minXid, err := parseMinXid(x.request.Header["X-Min-Xid"])
	if err != nil {
		return cache.Entry{}, source{}, err
	}
	result, err := x.read(v, key, minXid)
	if err != nil {
		return cache.Entry{}, source{}, err
	}
	switch result.Status {
	case cache.Hit:
		if result.Early {
			s.refreshes.ask(v, result.Entry)
		}
		return result.Entry, hitSource(result), nil
	case cache.Stale:
		if result.Why == cache.WhyAway { // nobody can be asked for a newer one
			return result.Entry, staleSource(result, false), nil
		}
		// An old copy of another's is as good as none: while nobody fills, 404 would
		// tell that there is one.
		if mayRead(x.caller, result.Entry) {
			return s.refresh(x, v, key, minXid, result)
		}
	}
	got, err := x.await(ask{view: v, key: key, minXid: minXid, event: fillRequest(v, key, minXid)})
	if err != nil {
		return cache.Entry{}, source{}, x.notFilled(err)
	}
	return got.entry, missed(result.Why, got), nil
}

// refresh asks for a newer entry and falls back on the old one.
func (s *Server) refresh(x *exchange, v *view.View, key string, minXid *cache.MinXid, result cache.Result) (cache.Entry, source, error) {
	got, err := x.await(ask{view: v, key: key, minXid: minXid, event: fillRequest(v, key, minXid), spare: true})
	if err != nil {
		x.server.log.Debug().Err(err).Str("view", v.Name).Msg("serving a stale entry")
		return result.Entry, staleSource(result, asked(err)), nil
	}
	return got.entry, missed(result.Why, got), nil
}

// asked reports whether an error of await is that of one who has asked a worker.
func asked(err error) bool {
	var failed *fillFailed
	return errors.Is(err, errNotFilled) || errors.As(err, &failed)
}

// key forms the entry's key: the verified caller, or what stands in the path.
func (x *exchange) key(v *view.View) (string, error) {
	if v.HTTP.Key == view.Caller {
		return x.caller.user, nil
	}
	key := x.request.PathValue(v.HTTP.Key)
	if !nameable(key) {
		return "", problem(kindBadRequest, fmt.Sprintf("a key is UTF-8 text of at most %d bytes without NUL", event.MaxName))
	}
	if _, ok := view.SplitKey(key, len(v.Key)); !ok {
		return "", problem(kindBadRequest, fmt.Sprintf("a key has %d parts with colons between", len(v.Key)))
	}
	return key, nil
}

// await waits for an entry and keeps the time that it took.
func (x *exchange) await(a ask) (filled, error) {
	begun := time.Now()
	got, err := x.server.misses.await(x.request.Context(), a)
	x.fill += time.Since(begun)
	return got, err
}

// notFilled makes a problem of an error of await.
func (x *exchange) notFilled(err error) error {
	var failed *fillFailed
	switch {
	case errors.Is(err, errXidOpen):
		return problem(kindXidOpen, "the transaction of X-Min-Xid has not committed yet: send its number after COMMIT").later(time.Second)
	case errors.Is(err, errXidUnknown):
		return problem(kindXidUnknown, "the transaction of X-Min-Xid has not been begun by this database")
	case errors.Is(err, errBusy):
		return problem(kindBusy, "too many requests are waiting for entries").later(time.Second)
	case errors.Is(err, errNotFilled), errors.Is(err, errInVain):
		return problem(kindNotFilled, "the entry is being made; it was not there in time").later(time.Second)
	case errors.Is(err, context.Canceled):
		return err // nobody is there to be told
	case errors.As(err, &failed):
		x.server.log.Debug().Str("reason", failed.reason).Msg("fill failed")
		return problem(kindNotFilled, "the entry could not be made just now").later(time.Second)
	default:
		return x.cacheAway(err)
	}
}

// fillRequest is the event that makes a worker load an entry.
func fillRequest(v *view.View, key string, minXid *cache.MinXid) event.Event {
	e := event.Event{Type: event.FillRequested, Source: "api", View: v.Name, Subject: key}
	if minXid != nil {
		data := strconv.AppendUint([]byte(`{"min_xid":"`), minXid.Xid, 10)
		if minXid.Epoch != 0 {
			data = strconv.AppendUint(append(data, `","epoch":"`...), minXid.Epoch, 10)
		}
		data = append(data, `"}`...)
		e.Data = data
	}
	return e
}

// renewRequest is the event that makes a worker load an entry again, provided that
// it is still the one that was seen.
func renewRequest(v *view.View, e cache.Entry) event.Event {
	data := append([]byte(`{"instead":"`), e.Version.String()...)
	data = strconv.AppendInt(append(data, `","saved":"`...), e.Saved.UnixMilli(), 10)
	return event.Event{Type: event.FillRequested, Source: "api", View: v.Name, Subject: e.Key, Data: append(data, `"}`...)}
}

// parseMinXid reads X-Min-Xid: <xid8>, or <epoch>-<xid8>.
func parseMinXid(values []string) (*cache.MinXid, error) {
	if len(values) == 0 {
		return nil, nil
	}
	bad := problem(kindBadRequest, "X-Min-Xid is neither a transaction's number nor <epoch>-<number>")
	if len(values) > 1 {
		return nil, bad
	}
	var minXid cache.MinXid
	xid := values[0]
	if epoch, rest, ok := strings.Cut(xid, "-"); ok {
		n, err := strconv.ParseUint(epoch, 10, 64)
		if err != nil || n == 0 {
			return nil, bad
		}
		minXid.Epoch, xid = n, rest
	}
	n, err := strconv.ParseUint(xid, 10, 64)
	if err != nil || n == 0 {
		return nil, bad
	}
	minXid.Xid = n
	return &minXid, nil
}
