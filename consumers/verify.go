package consumers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
)

// Verdict is what an audit says of an entry.
type Verdict string

// The verdicts. Behind is no fault: the change is on its way.
const (
	Fresh  Verdict = "fresh"  // equal to what SQL says
	Behind Verdict = "behind" // it differs, and a change is on its way
	Wrong  Verdict = "wrong"  // it differs, and nothing will mend it before its TTL
	Unread Verdict = "unread" // what SQL says could not be had
)

// VerifyOptions are the choices of Verify. The zero value audits everything.
type VerifyOptions struct {
	Sample   int           // at most so many entries of each view, chosen at random; 0: all
	Repair   bool          // drop what is wrong
	Rate     float64       // entries a second at most; 0: as fast as it goes
	Road     Road          //
	Settle   time.Duration // how long a difference must last that nothing is on its way to mend; 5 s
	Patience time.Duration // how long a difference is looked at; what is not known to be wrong by then is behind; 20 s
}

// Finding is an entry that is not fresh.
type Finding struct {
	View    string          `json:"view"`
	Key     string          `json:"key"`
	Verdict Verdict         `json:"verdict"`
	Why     string          `json:"why"`
	Entry   version.Version `json:"-"` // what the entry has seen
	Truth   version.Version `json:"-"` // what it was compared with
}

// Audit is the outcome of Verify.
type Audit struct {
	Checked  int       `json:"checked"`
	Fresh    int       `json:"fresh"`
	Behind   int       `json:"behind"`
	Wrong    int       `json:"wrong"`
	Unread   int       `json:"unread"` // and not among those that were checked
	Findings []Finding `json:"findings,omitempty"`
}

// suspectsMost bounds how many entries are looked at again together.
const suspectsMost = 1000

// Verify compares what is cached with what SQL says. Views that a model answers
// have no truth to compare with and are left out.
func Verify(ctx context.Context, store *cache.Store, loader *Loader, views *view.Set, o VerifyOptions) (Audit, error) {
	p := pass{
		examiner: &examiner{store: store, loader: loader, road: o.Road, settle: cmp.Or(o.Settle, defaultSettle)},
		repairs:  o.Repair, patience: cmp.Or(o.Patience, 4*defaultSettle),
	}
	if o.Rate > 0 {
		p.pause = time.Duration(float64(time.Second) / o.Rate)
	}
	for _, v := range views.All() {
		if v.Model {
			continue
		}
		if err := p.verify(ctx, v, o.Sample); err != nil {
			return p.audit, fmt.Errorf("verify %s: %w", v.Name, err)
		}
	}
	if err := p.follow(ctx); err != nil {
		return p.audit, fmt.Errorf("verify: %w", err)
	}
	return p.audit, nil
}

// pass is one walk over all that is cached.
type pass struct {
	*examiner

	repairs  bool
	pause    time.Duration // between two entries
	patience time.Duration
	suspects []*suspicion
	audit    Audit
}

// verify looks at the entries of one view.
func (p *pass) verify(ctx context.Context, v *view.View, sample int) error {
	keys, err := CachedKeys(ctx, p.store, v, sample)
	if err != nil {
		return err
	}
	for _, key := range keys {
		seen, err := p.look(ctx, v, key)
		if errors.Is(err, errUnread) {
			p.audit.add(uncompared(v.Name, key, err))
			continue
		}
		if err != nil {
			return err
		}
		switch seen.state {
		case same:
			p.audit.add(Finding{View: v.Name, Key: key, Verdict: Fresh})
		case differs:
			p.suspects = append(p.suspects, p.suspect(v, key, seen))
		case unsure:
			p.audit.add(Finding{View: v.Name, Key: key, Verdict: Behind, Why: "nobody answers for it at the moment: Redis or PostgreSQL was restarted"})
		case gone:
		}
		if len(p.suspects) >= suspectsMost {
			if err := p.follow(ctx); err != nil {
				return err
			}
		}
		if err := sleep(ctx, p.pause); err != nil {
			return err
		}
	}
	return nil
}

// follow looks at what differed until it is known why, or for as long as it may.
func (p *pass) follow(ctx context.Context) error {
	for end := time.Now().Add(p.patience); len(p.suspects) > 0; {
		last := !time.Now().Before(end)
		var left []*suspicion
		for _, s := range p.suspects {
			judged, err := p.reconsider(ctx, s, last)
			if err != nil {
				return err
			}
			if !judged {
				left = append(left, s)
			}
		}
		if p.suspects = left; left == nil {
			return nil
		}
		if err := sleep(ctx, min(p.settle, 100*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// reconsider looks at a suspect again when it is time, or a last time, and reports whether
// it has been judged.
func (p *pass) reconsider(ctx context.Context, s *suspicion, last bool) (judged bool, err error) {
	if !last && time.Until(s.due) > 0 {
		return false, nil
	}
	final, err := p.again(ctx, s)
	switch {
	case err != nil && !errors.Is(err, errUnread):
		return false, err
	case !final && !last:
		return false, sleep(ctx, p.pause)
	case err != nil:
		p.audit.add(uncompared(s.View, s.Key, err))
		return true, nil
	}
	if !final && s.unled {
		s.Why += "; no relay leads, so it cannot be told whether a change is on its way"
	}
	p.audit.add(s.Finding)
	if s.Verdict != Wrong || !p.repairs {
		return true, nil
	}
	return true, p.repair(ctx, s)
}

// uncompared is what there is to say of an entry whose truth could not be read.
func uncompared(name, key string, err error) Finding {
	f := Finding{View: name, Key: key, Verdict: Unread, Why: "not compared: " + err.Error()}
	if passes(err) {
		f.Verdict = Behind
	}
	return f
}

// passes reports whether others merely came first: loads, a lock that somebody holds.
func passes(err error) bool {
	return errors.Is(err, ErrBusy) || errors.Is(err, errUnread) && errors.Is(err, context.DeadlineExceeded) ||
		sqlState(err) == pgLockNotAvailable || sqlState(err) == pgQueryCanceled
}

const pgLockNotAvailable = "55P03"

func (a *Audit) add(f Finding) {
	switch f.Verdict {
	case Fresh:
		a.Fresh++
	case Behind:
		a.Behind++
	case Wrong:
		a.Wrong++
	case Unread:
		a.Unread++
	default:
		return
	}
	a.Checked = a.Fresh + a.Behind + a.Wrong
	if f.Verdict != Fresh {
		a.Findings = append(a.Findings, f)
	}
}

// CachedKeys returns the keys of a view that Redis holds something for, all of
// them or a random sample (reservoir sampling, Vitter 1985, algorithm R).
func CachedKeys(ctx context.Context, store *cache.Store, v *view.View, sample int) ([]string, error) {
	empty, err := store.Inspect(ctx, v, "")
	if err != nil {
		return nil, err
	}
	// The name of an entry is its key between what the empty key's name holds.
	before, after := strings.TrimSuffix(empty.Name, "}"), "}"
	var keys []string
	seen := make(map[string]bool) // SCAN may return a name twice
	for names := store.Client().Scan(ctx, 0, escapeGlob(before)+"*"+after, 1000).Iterator(); ; {
		if !names.Next(ctx) {
			return keys, names.Err()
		}
		key := strings.TrimSuffix(strings.TrimPrefix(names.Val(), before), after)
		if seen[key] {
			continue
		}
		seen[key] = true
		if sample <= 0 || len(keys) < sample {
			keys = append(keys, key)
		} else if i := rand.IntN(len(seen)); i < sample {
			keys[i] = key
		}
	}
}

func escapeGlob(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(name)
}
