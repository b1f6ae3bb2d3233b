package producers

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"mythiccache/producers/event"
)

// Any schedule of writers, batches as small as they get, the position through its
// text each time: each committed row once, and none before its transaction is over.
func TestAnyScheduleReadsEachRowOnce(t *testing.T) {
	b := newBed(t)
	reader := b.connect()
	var writers []*pgx.Conn
	for range 5 {
		writers = append(writers, b.connect())
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	open := make([][]string, len(writers)) // what each has written and not committed
	committed, got := map[string]bool{}, map[string]int{}
	at := fromStart(1, "t")
	advance := func() (more bool) {
		found, err := read(t.Context(), reader, at, 1+random.IntN(4), remapKeys)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range found.steps(at, func(event.Event, string) {}) {
			for _, e := range s.events {
				if got[e.Subject]++; !committed[e.Subject] {
					t.Errorf("seed %d: %s was read before it committed", seed, e.Subject)
				}
			}
			if at, err = parsePosition(s.to.String()); err != nil {
				t.Fatal(err)
			}
		}
		if len(found.rows) == 0 {
			if at.part == nil {
				at.seen = found.snapshot
				return false
			}
			at.seen, at.part = at.part.target, nil
		}
		return true
	}
	end := func(w int, how string) {
		if open[w] == nil {
			return
		}
		do(t, writers[w], how)
		if how == "COMMIT" {
			for _, subject := range open[w] {
				committed[subject] = true
			}
		}
		open[w] = nil
	}
	for n := range 600 {
		w := random.IntN(len(writers))
		switch random.IntN(8) {
		case 0, 1, 2:
			if open[w] == nil {
				do(t, writers[w], "BEGIN")
			}
			subject := fmt.Sprint(n)
			open[w] = append(open[w], subject)
			do(t, writers[w], "SELECT mythic_cache.publish('run.started', '"+subject+"')")
		case 3:
			end(w, "COMMIT")
		case 4:
			end(w, "ROLLBACK")
		default:
			advance()
		}
	}
	for w := range writers {
		end(w, "COMMIT")
	}
	for n := 0; advance(); n++ {
		if n > 10_000 {
			t.Fatalf("seed %d: reading comes to no end", seed)
		}
	}
	for subject := range committed {
		if got[subject] != 1 {
			t.Errorf("seed %d: %s was read %d times", seed, subject, got[subject])
		}
	}
}

// What waits is found by what waits, not by what is kept.
func TestReadingCostsNoMoreForWhatIsKept(t *testing.T) {
	b := newBed(t)
	b.exec(`SELECT count(mythic_cache.publish('run.started', 'r' || n)) FROM generate_series(1, 30000) n`)
	b.exec(`SET enable_seqscan = off; SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan`)
	xmax := one[string](b, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text`)
	b.exec(write)
	explain := `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ` + drainSQL
	var plan []struct {
		Plan struct {
			Rows    float64 `json:"Actual Rows"`
			Buffers int     `json:"Shared Hit Blocks"`
			Read    int     `json:"Shared Read Blocks"`
		}
	}
	// xmax itself belongs to the row: read behind the one before it.
	var before string
	if err := b.conn.QueryRow(t.Context(), `SELECT ($1::bigint - 1)::text`, xmax).Scan(&before); err != nil {
		t.Fatal(err)
	}
	text := one[string](b, explain, []string{"5", "7"}, []int64{-1, -1}, before, int64(1<<62), nil, "9223372036854775807", 2000, 1000)
	if err := json.Unmarshal([]byte(text), &plan); err != nil {
		t.Fatal(err)
	}
	if p := plan[0].Plan; p.Rows != 1 || p.Buffers+p.Read > 60 {
		t.Errorf("one row of 30,001 took %d pages and gave %v rows", p.Buffers+p.Read, p.Rows)
	}
}

func TestABatchIsCutIntoScripts(t *testing.T) {
	t.Parallel()
	b := batch{snapshot: at(100).seen}
	b.rows = append(b.rows, row{again: true, typ: "books.changed", view: "v", subject: "k1"}, row{again: true, typ: "books.changed", view: "v", subject: "only again"})
	for n := range 600 {
		b.rows = append(b.rows, row{xid: uint64(n), id: int64(n), typ: "books.changed", view: "v", subject: fmt.Sprintf("k%d", n/2)})
	}
	b.rows = append(b.rows, row{xid: 700, typ: "books.changed", view: "v", joined: true}, row{xid: 701, typ: "users.changed", view: "v", data: `{"broken": "x"}`},
		row{xid: 702, typ: "books.changed", view: "v", subject: "\xff"})
	var why []string
	steps := b.steps(at(50), func(_ event.Event, text string) {
		if text != "" {
			why = append(why, text)
		}
	})
	var keys []string
	for i, s := range steps {
		if len(s.events) > scriptRows+1 {
			t.Errorf("a script of %d events", len(s.events))
		}
		if last := i == len(steps)-1; (s.to.part == nil) != last {
			t.Errorf("step %d of %d goes to %s", i, len(steps), s.to)
		}
		for _, e := range s.events {
			if e.Version != at(100).seen.Version().String() && e.Version != "" || e.Validate() != nil {
				t.Errorf("%+v", e)
			}
			keys = append(keys, e.Type+e.Subject)
		}
	}
	slices.Sort(keys)
	// 300 keys, the one of the second run alone, and two whole views.
	if len(keys) != 303 || len(slices.Compact(keys)) != 303 || len(why) != 2 {
		t.Errorf("%d events, %d distinct; whole views: %q", len(keys), len(slices.Compact(keys)), why)
	}
	b.more = true
	if steps = b.steps(at(50), func(event.Event, string) {}); steps[len(steps)-1].to.part == nil {
		t.Error("a batch with more behind it ends at a whole position")
	}
}
