package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache/view"
)

// Status says what a Read found.
type Status int

// What a Read can find.
const (
	Miss  Status = iota // nothing that may be served
	Hit                 // a fresh entry
	Stale               // one past its time, or from before Redis was restarted
)

// String returns the word that X-Cache uses.
func (s Status) String() string {
	switch s {
	case Hit:
		return "HIT"
	case Stale:
		return "STALE"
	default:
		return "MISS"
	}
}

// Why a Read was no Hit: Result.Why.
const (
	WhyAbsent      = "uri-miss"    // nothing there
	WhyStale       = "stale"       // past its time
	WhyUnconfirmed = "unconfirmed" // Redis was restarted since, and nobody has confirmed that nothing is missing; a new fill makes it a Hit
	WhyFenced      = "fenced"      // invalidated, alone or with its whole view
	WhyMinXid      = "min-xid"     // it has not seen the caller's transaction
	WhyLimited     = "limited"     // the limiter did not admit the caller, so nothing was looked at
	WhyAway        = "redis-away"  // Redis does not answer a Reader, who had kept an entry
)

// MinXid is a transaction that an answer must have seen.
type MinXid struct {
	Epoch uint64 // 0: any
	Xid   uint64
}

// seenBy reports whether an entry has seen the transaction.
func (m MinXid) seenBy(e *Entry) bool {
	return (m.Epoch == 0 || m.Epoch == e.Snapshot.Epoch) && e.Snapshot.Sees(m.Xid)
}

// Query asks for one entry.
type Query struct {
	View   *view.View
	Key    string
	Limit  *Limit  // nil: none
	MinXid *MinXid // an entry that has not seen it is a Miss; ignored where the view is a model's
	Asker  string  // who asks: without Redis, a Reader gives an entry with an owner to nobody else
}

// Result is the answer to a Query.
type Result struct {
	Entry     Entry // of a Miss only View and Key mean anything
	Status    Status
	Why       string    // why it is no Hit; empty for one
	Early     bool      // of a Hit: its time is over soon, and this reader is the one to ask for the next; not where a model answers
	Admission Admission // zero without a Limit
	Now       time.Time // the clock of Redis when it answered, to tell an entry's age
	Near      bool      // a Reader had it in memory
}

// Read looks up one entry, and the limiter where there is a Limit, in one round
// trip. The error is that of Redis: what it holds, however odd, is no error.
func (s *Store) Read(ctx context.Context, q Query) (Result, error) {
	started := time.Now()
	var limited *redis.Cmd
	var entry, fence *redis.StringCmd
	err := s.pipeline(ctx, func(p redis.Pipeliner) {
		if q.Limit != nil {
			limited = s.addLimit(ctx, p, *q.Limit)
		}
		entry = p.Get(ctx, s.keys.entry(q.View.Name, q.Key))
		fence = p.Get(ctx, s.keys.view(q.View.Name))
	})
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return Result{}, fmt.Errorf("read %s: %w", q.View.Name, err)
	}
	result := Result{Entry: Entry{View: q.View.Name, Key: q.Key}, Why: WhyLimited}
	if limited != nil {
		if result.Admission, err = s.admission(limited, *q.Limit, started); err != nil {
			return Result{}, fmt.Errorf("read %s: %w", q.View.Name, err)
		}
	}
	result.Now = s.peer.now()
	if limited == nil || result.Admission.Allowed {
		if err := s.judge(&result, q, entry, fence); err != nil {
			return Result{}, fmt.Errorf("read %s: %w", q.View.Name, err)
		}
	}
	result.Early = result.Status == Hit && !q.View.Model && result.Entry.early(result.Now, draw())
	s.noteRead(&result, s.observe("read", started))
	return result, nil
}

// judge decides what an entry is worth.
func (s *Store) judge(r *Result, q Query, entry, fence *redis.StringCmd) error {
	whole, known, err := decodeViewReply(fence)
	if err != nil {
		return err
	}
	e, h, err := decodeEntryReply(q.View.Name, q.Key, entry)
	if err == nil {
		e, err = s.unsealed(e)
	}
	if err != nil && !errors.Is(err, errCorrupt) {
		return err
	}
	s.judgeEntry(r, q, &look{entry: e, header: h, err: err, whole: whole, known: known})
	return nil
}

// judgeEntry decides what an entry is worth that has been found.
func (s *Store) judgeEntry(r *Result, q Query, l *look) {
	switch {
	case l.err != nil:
		r.Why = WhyAbsent
	case l.header.state == stateFence && l.header.version.IsZero():
		r.Why = WhyAbsent
	case l.header.state == stateFence, !l.known:
		r.Why = WhyFenced
	default:
		s.weigh(r, q, &l.entry, l.header.run, l.whole)
	}
}

// weigh decides what a value is worth that was put under a run_id.
func (s *Store) weigh(r *Result, q Query, e *Entry, run string, whole viewKey) {
	switch {
	case e.Version.Compare(whole.fence) < 0:
		r.Why = WhyFenced
	case q.MinXid != nil && !q.View.Model && !q.MinXid.seenBy(e):
		r.Why = WhyMinXid
	default:
		r.Entry = *e
		r.Status, r.Why = s.freshness(q.View, e, run, whole, r.Now)
	}
}

// freshness tells a Hit from a Stale entry and from one that is too old even
// for that. A negative entry is never served stale: what did not exist a while
// ago may exist now, and no reader is helped by hearing otherwise.
func (s *Store) freshness(v *view.View, e *Entry, run string, whole viewKey, now time.Time) (Status, string) {
	late := now.Sub(e.FreshUntil)
	if late >= 0 && (e.Negative || late >= s.graceOf(v)) {
		return Miss, WhyStale
	}
	if late >= 0 {
		return Stale, WhyStale
	}
	// A value put under this very run_id had its lease taken after the restart,
	// so its snapshot is later than whatever the restart may have lost.
	if runID := s.RunID(); run != runOf(runID) && whole.confirmed != runID {
		if v.Fresh {
			return Miss, WhyUnconfirmed
		}
		return Stale, WhyUnconfirmed
	}
	return Hit, ""
}

// graceOf returns how long past its time an entry of a view may be served.
func (s *Store) graceOf(v *view.View) time.Duration {
	if v.Fresh {
		return 0
	}
	return s.staleFor
}

// decodeEntryReply reads a reply to GET. Where there is no entry, or none that
// this release understands, the error is errCorrupt.
func decodeEntryReply(name, key string, cmd *redis.StringCmd) (Entry, header, error) {
	b, err := cmd.Bytes()
	if errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "WRONGTYPE") {
		return Entry{}, header{}, errCorrupt
	}
	if err != nil {
		return Entry{}, header{}, err
	}
	return decodeEntry(name, key, b)
}
