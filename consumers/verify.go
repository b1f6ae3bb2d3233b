package consumers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
)

// Verdict is what an audit says of an entry.
type Verdict string

// The verdicts. Behind is no fault: the change is on its way.
const (
	Fresh  Verdict = "fresh"  // equal to what SQL says
	Behind Verdict = "behind" // it differs, and the outbox holds a change that it has not seen
	Wrong  Verdict = "wrong"  // it differs, and nothing will mend it before its TTL
)

// VerifyOptions are the choices of Verify. The zero value audits everything.
type VerifyOptions struct {
	Sample int  // at most so many entries of each view, chosen at random; 0: all
	Repair bool // drop what is wrong
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
	Findings []Finding `json:"findings,omitempty"`
}

// Verify compares what is cached with what SQL says. Views that a model answers
// have no truth to compare with and are left out.
func Verify(ctx context.Context, store *cache.Store, loader *Loader, views *view.Set, o VerifyOptions) (Audit, error) {
	var audit Audit
	for _, v := range views.All() {
		if v.Model {
			continue
		}
		keys, err := CachedKeys(ctx, store, v, o.Sample)
		if err != nil {
			return audit, fmt.Errorf("verify %s: %w", v.Name, err)
		}
		for _, key := range keys {
			finding, err := verifyKey(ctx, store, loader, v, key)
			if err != nil {
				return audit, fmt.Errorf("verify %s: %w", v.Name, err)
			}
			audit.add(finding)
			if finding.Verdict == Wrong && o.Repair {
				if _, err := store.Invalidate(ctx, []cache.Change{{View: v, Key: key}}); err != nil {
					return audit, fmt.Errorf("repair %s: %w", v.Name, err)
				}
			}
		}
	}
	return audit, nil
}

func (a *Audit) add(f Finding) {
	switch f.Verdict {
	case Fresh:
		a.Fresh++
	case Behind:
		a.Behind++
	case Wrong:
		a.Wrong++
	default:
		return
	}
	a.Checked++
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

// verifyKey judges one entry. A finding without a verdict says that there was
// none to judge.
func verifyKey(ctx context.Context, store *cache.Store, loader *Loader, v *view.View, key string) (Finding, error) {
	f := Finding{View: v.Name, Key: key}
	before, err := store.Inspect(ctx, v, key)
	if err != nil || before.Status == cache.Miss {
		return f, err
	}
	f.Entry = before.Entry.Version
	truth, coming, err := loader.truth(ctx, v, key, before.Entry.Snapshot)
	if err != nil {
		return f, err
	}
	f.Truth = truth.Version
	if f.Why = difference(before.Entry, truth); f.Why == "" {
		f.Verdict = Fresh
		return f, nil
	}
	f.Verdict = Behind
	if coming || truth.Version.Epoch() != f.Entry.Epoch() {
		return f, nil
	}
	// The truth was read after the entry, which may have been replaced between.
	now, err := store.Inspect(ctx, v, key)
	if err != nil {
		return f, err
	}
	if now.Status != cache.Miss && now.Entry.Version == before.Entry.Version {
		f.Verdict = Wrong
	}
	return f, nil
}

// truth reads what SQL says of a key and, in the same snapshot, whether the
// outbox holds a change of the key, of its whole view, or one whose keys are yet
// to be found, that an entry of that snapshot has not seen.
func (l *Loader) truth(ctx context.Context, v *view.View, key string, seen version.Snapshot) (truth Loaded, coming bool, err error) {
	coming, err = l.compare(ctx, v, key, key, seen, &truth)
	if badKey(err) {
		// As in load: no row can have such a key, and an entry that says so is right.
		truth = Loaded{}
		coming, err = l.compare(ctx, v, "", key, seen, &truth)
	}
	return truth, coming, err
}

// compare loads one key, and looks in the same snapshot for changes of another
// that are on their way: the two differ where no row can have the key.
func (l *Loader) compare(ctx context.Context, v *view.View, load, key string, seen version.Snapshot, truth *Loaded) (coming bool, err error) {
	err = l.read(ctx, repeatableRead, loadOf(v, load, truth), query{
		sql: `SELECT EXISTS (
			SELECT FROM mythic_cache.outbox o
			WHERE o.view = $1 AND (o.subject = $2 OR o.subject IS NULL OR o.joins IS NOT NULL)
				AND NOT pg_visible_in_snapshot(o.xid, $3::text::pg_snapshot))`,
		args: []any{v.Name, key, seen.String()},
		scan: func(rows pgx.Rows) error {
			_, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
				return struct{}{}, row.Scan(&coming)
			})
			return err
		},
	})
	return coming, err
}

// difference says in what an entry differs from the truth, "" where in nothing.
func difference(e cache.Entry, truth Loaded) string {
	switch {
	case e.Negative && truth.Found:
		return "cached as absent, but there is a row"
	case !e.Negative && !truth.Found:
		return "cached, but there is no row"
	case e.Owned != truth.Owned || e.Owner != truth.Owner:
		return "it belongs to somebody else"
	case !e.Negative && !sameJSON(e.Body, truth.Body):
		return "the document differs"
	}
	return ""
}

// sameJSON compares documents by what they say: the order of an object's fields
// and white space say nothing, the digits of a number do.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var documents [2]any
	for i, text := range [][]byte{a, b} {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&documents[i]); err != nil {
			return false
		}
	}
	return reflect.DeepEqual(documents[0], documents[1])
}
