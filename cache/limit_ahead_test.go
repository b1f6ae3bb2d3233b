package cache_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

// admit reads a key of books for a caller and returns whether he was admitted.
func admit(t *testing.T, r *cache.Reader, l *cache.Limit) cache.Admission {
	t.Helper()
	got, err := r.Read(t.Context(), cache.Query{View: books(), Key: "a", Limit: l})
	if err != nil {
		t.Error(err)
	}
	if got.Admission.Allowed == (got.Why == cache.WhyLimited) {
		t.Errorf("%+v, and yet %s", got.Admission, summary(got))
	}
	return got.Admission
}

// TestNobodyIsAdmittedTooManyByManyProcesses hammers one caller's limit through several
// readers, each of which takes admissions ahead.
func TestNobodyIsAdmittedTooManyByManyProcesses(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s := newStore(t, server, cache.Options{})
	put(t, s, "a", at(20), "body")
	const allowed, readers, each = 400, 4, 300
	limit := &cache.Limit{Caller: "me", Rule: "r", Count: allowed, Per: 24 * time.Hour}
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for i := range readers {
		r := newReader(t, newStore(t, server, cache.Options{}), int64(i%2)<<20)
		for range 3 {
			wg.Go(func() {
				for range each / 3 {
					if admit(t, r, limit).Allowed {
						admitted.Add(1)
					}
				}
			})
		}
	}
	wg.Wait()
	// What was taken ahead and not used is the caller's loss: a tenth for each reader.
	if n := admitted.Load(); n > allowed || n < allowed-readers*allowed/10 {
		t.Errorf("%d of %d were admitted", n, allowed)
	}
}

// TestALoneProcessAdmitsAll that are allowed, and says how many are left.
func TestALoneProcessAdmitsAll(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	r := newReader(t, s, 1<<20)
	put(t, s, "a", at(20), "body")
	settle(t, r, book("a"))
	count := &trips{}
	s.Client().AddHook(count)
	limit := &cache.Limit{Caller: "me", Rule: "r", Count: 500, Per: 24 * time.Hour}
	for n := range 500 {
		if a := admit(t, r, limit); !a.Allowed || a.Remaining != 499-n || a.Limit != 500 || a.Reset <= 0 || a.RetryAfter != 0 {
			t.Fatalf("%d: %+v", n, a)
		}
	}
	if n := count.n.Load(); n > 250 {
		t.Errorf("500 admissions took %d round trips", n)
	}
	if a := admit(t, r, limit); a.Allowed || a.Remaining != 0 || a.RetryAfter <= 0 {
		t.Errorf("one too many: %+v", a)
	}
}

// TestAdmissionsKeepToTheRate has readers take ahead, pause and go on at random. In no
// stretch of time is more admitted than the burst and what the rate gives in it.
func TestAdmissionsKeepToTheRate(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s := newStore(t, server, cache.Options{})
	put(t, s, "a", at(20), "body")
	limit := &cache.Limit{Caller: "me", Rule: "r", Count: 200, Per: 2 * time.Second}
	type span struct{ from, to time.Time }
	var mu sync.Mutex
	var admitted []span
	var wg sync.WaitGroup
	end := time.Now().Add(4 * time.Second)
	for range 3 {
		r := newReader(t, newStore(t, server, cache.Options{}), 1<<20)
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
			for time.Now().Before(end) {
				for range random.IntN(120) {
					from := time.Now()
					if admit(t, r, limit).Allowed {
						mu.Lock()
						admitted = append(admitted, span{from, time.Now()})
						mu.Unlock()
					}
				}
				time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond) // that callers pause is what is tried
			}
		})
	}
	wg.Wait()
	slices.SortFunc(admitted, func(a, b span) int { return a.from.Compare(b.from) })
	interval := limit.Per / time.Duration(limit.Count)
	for i := range admitted {
		for j := i; j < len(admitted); j++ {
			most := limit.Count + 1 + int(admitted[j].to.Sub(admitted[i].from)/interval)
			if n := j - i + 1; n > most {
				t.Fatalf("%d were admitted within %s, where %d are allowed", n, admitted[j].to.Sub(admitted[i].from), most)
			}
		}
	}
	if len(admitted) < limit.Count {
		t.Errorf("only %d were admitted", len(admitted))
	}
}

// taker takes for a caller who is allowed one each 200 ms, 200 at once; what he takes ahead
// is good for a second.
func taker(t *testing.T, s *cache.Store, caller string) func(asked, later int) int {
	t.Helper()
	limit := cache.Limit{Caller: caller, Rule: "r", Count: 200, Per: 40 * time.Second}
	return func(asked, later int) int {
		t.Helper()
		n, err := s.TakeAhead(t.Context(), limit, asked, later)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// TestWhatIsOutDoesNotFillUpAgain asks for all that is allowed while another process
// still has some in hand. Had the rest filled up meanwhile, both together would have
// more than is allowed at once.
func TestWhatIsOutDoesNotFillUpAgain(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	for attempt := range 10 {
		take := taker(t, s, strconv.Itoa(attempt))
		begun := time.Now()
		if n := take(1, 20); n != 21 {
			t.Fatalf("%d of 21", n)
		}
		<-time.After(600 * time.Millisecond) // in which three are allowed again
		n := take(200, 0)
		if time.Since(begun) > 1800*time.Millisecond {
			continue // too late to tell
		}
		if n != 180 {
			t.Errorf("%d beside the 20 that are out", n)
		}
		// Redis forgets what is out once it is over.
		take = taker(t, s, strconv.Itoa(attempt)+" later")
		take(1, 20)
		<-time.After(2100 * time.Millisecond)
		if n := take(200, 0); n <= 180 {
			t.Errorf("%d, although what was out is over", n)
		}
		return
	}
	t.Fatal("the machine is too slow to tell")
}

// TestALimitHoldsWithoutRedis by the process's own count.
func TestALimitHoldsWithoutRedis(t *testing.T) {
	t.Parallel()
	server := testserver.NewRedis(t)
	s := newStore(t, server, cache.Options{StaleFor: time.Minute})
	r := newReader(t, s, 1<<20)
	put(t, s, "a", at(20), "body")
	settle(t, r, book("a"))
	server.Kill()
	testserver.Eventually(t, "the copy in memory", func() error {
		if readBy(t, r, book("a")).Why != cache.WhyAway {
			return errWrong
		}
		return nil
	})
	limit := &cache.Limit{Caller: "me", Rule: "r", Count: 20, Per: 24 * time.Hour}
	admitted := 0
	for range 40 {
		a := admit(t, r, limit)
		if a.Allowed {
			admitted++
			if a.Remaining != 20-admitted {
				t.Errorf("%d: %+v", admitted, a)
			}
		} else if a.RetryAfter <= 0 || a.RetryAfter > 2*time.Hour {
			t.Errorf("%+v", a)
		}
	}
	if admitted != 20 || r.Alone() != 20 {
		t.Errorf("%d were admitted, %d of them without Redis", admitted, r.Alone())
	}
	other := &cache.Limit{Caller: "you", Rule: "r", Count: 20, Per: 24 * time.Hour}
	if !admit(t, r, other).Allowed {
		t.Error("another caller was refused")
	}
}

// TestWhatIsOutIsKeptFromTheNextToo has admissions given in one life and used in the
// next: they count in that as well, or else the limiter would fill up meanwhile.
func TestWhatIsOutIsKeptFromTheNextToo(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	for attempt := range 10 {
		take := taker(t, s, strconv.Itoa(attempt))
		begun := time.Now()
		take(1, 20)
		<-time.After(800 * time.Millisecond)
		take(1, 20)
		second := time.Since(begun)
		<-time.After(time.Until(begun.Add(1600 * time.Millisecond)))
		n := take(200, 0)
		if second > 950*time.Millisecond || time.Since(begun) > 1900*time.Millisecond {
			continue // too late to tell
		}
		if n != 160 {
			t.Errorf("%d beside the 40 that have been given, half of which is out", n)
		}
		return
	}
	t.Fatal("the machine is too slow to tell")
}

// TestWhatWasTakenAheadIsOver once its life is: by then another may have been given it.
func TestWhatWasTakenAheadIsOver(t *testing.T) {
	t.Parallel()
	s := newStore(t, testserver.NewRedis(t), cache.Options{})
	r := newReader(t, s, 1<<20)
	put(t, s, "a", at(20), "body")
	settle(t, r, book("a"))
	// One each hour, 40 at once, of which four may be taken ahead for a second.
	limit := cache.Limit{Rule: "r", Count: 40, Per: 40 * time.Hour}
	testserver.Eventually(t, "something in hand", func() error {
		limit.Caller += "x"
		for range 4 {
			admit(t, r, &limit)
		}
		if r.Ahead(&limit) == 0 {
			return errWrong
		}
		return nil
	})
	<-time.After(2100 * time.Millisecond)
	if n, err := s.TakeAhead(t.Context(), limit, limit.Count, 0); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	if r.Ahead(&limit) == 0 {
		t.Error("nothing is in hand any more, so this tries nothing")
	}
	if a := admit(t, r, &limit); a.Allowed {
		t.Errorf("by what was over, although another has had all: %+v", a)
	}
}

// TestALimiterThatMayNotWriteFailsOpen has Redis become a replica: it still answers who
// reads, and refuses the limiter.
func TestALimiterThatMayNotWriteFailsOpen(t *testing.T) {
	t.Parallel()
	server, other := newPrimary(t), newPrimary(t)
	s := newStore(t, server, cache.Options{})
	put(t, s, "a", at(20), "body")
	for _, nearBytes := range []int64{0, 1 << 20} {
		r := newReader(t, s, nearBytes)
		q := book("a")
		q.Limit = &cache.Limit{Caller: strconv.FormatInt(nearBytes, 10), Rule: "r", Count: 3, Per: 24 * time.Hour}
		replicate(t, other, server)
		promote(t, other)
		replicate(t, server, other)
		if nearBytes > 0 {
			settle(t, r, book("a"))
		}
		for n := range 4 {
			got := readBy(t, r, q)
			if got.Admission.Allowed != (n < 3) || (got.Status == cache.Hit) != got.Admission.Allowed {
				t.Errorf("near %d, %d: %s, %+v", nearBytes, n, summary(got), got.Admission)
			}
		}
		if r.Alone() != 3 {
			t.Errorf("%d were admitted without Redis", r.Alone())
		}
		promote(t, server)
	}
}
