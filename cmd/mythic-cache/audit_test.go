package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"mythiccache/internal/testserver"
)

// violation is a line of the log that an auditor writes.
type violation struct {
	Message, View, Key, Why string
	Cached                  string `json:"cached_sha256"`
	Truth                   string `json:"truth_sha256"`
	CachedSnapshot          string `json:"cached_snapshot"`
	TruthSnapshot           string `json:"truth_snapshot"`
	Events                  []string
}

// violations returns what an auditor has logged.
func (l *programLog) violations() (all []violation) {
	for text := range strings.Lines(l.String()) {
		var line violation
		if json.Unmarshal([]byte(text), &line) == nil && strings.HasPrefix(line.Message, "the cache was wrong") {
			all = append(all, line)
		}
	}
	return all
}

// entry returns the bytes of the books of a user in Redis.
func (s *system) entry(user string) string {
	s.t.Helper()
	value, err := s.client.Get(s.t.Context(), "mythic:user_books:{"+user+"}").Result()
	if err != nil {
		s.t.Fatal(err)
	}
	return value
}

// put overwrites them as nobody may.
func (s *system) put(user, value string) {
	s.t.Helper()
	if err := s.client.Set(s.t.Context(), "mythic:user_books:{"+user+"}", value, 10*time.Minute).Err(); err != nil {
		s.t.Fatal(err)
	}
}

// dropEvents takes the events of a user's books out of the stream: a change has one of
// each time that it is mapped, and all of it come together.
func (s *system) dropEvents(user string, after int64) {
	s.t.Helper()
	const stream = "mythic:{stream}:books"
	testserver.Eventually(s.t, "the events are in the stream", func() error {
		entries, err := s.client.XRange(s.t.Context(), stream, "-", "+").Result()
		if err != nil {
			return err
		}
		if int64(len(entries)) <= after {
			return errors.New("they are not")
		}
		for _, e := range entries {
			if e.Values["subject"] == user {
				if err := s.client.XDel(s.t.Context(), stream, e.ID).Err(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// inStream is how many events of books there are.
func (s *system) inStream() int64 {
	s.t.Helper()
	n, err := s.client.XLen(s.t.Context(), "mythic:{stream}:books").Result()
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// Whatever goes wrong on the way to the cache, or in it, the auditor finds, tells what it
// takes to look into it, and mends it. What is merely on its way is no violation.
func TestAuditorFindsPlantedFaults(t *testing.T) {
	t.Parallel()
	s := newSystemWithoutWorkers(t)
	s.settings = map[string]string{"AUDIT_RATE": "0"}
	users := []string{"altered", "dropped", "unseen", "forced", "late", "same"}
	s.people(users...)
	w := s.newWorker()
	s.awaitReading(w)
	s.cached(users...)

	old := s.entry("forced")
	s.exec(`UPDATE books SET title = 'newer' WHERE run_id = 'forced1'`)
	s.fresh("forced")
	s.put("forced", old) // a fill from before the change that no fence has kept out
	w.stop()

	before := s.inStream()
	s.exec(`UPDATE books SET title = 'newer' WHERE run_id = 'dropped1'`)
	s.dropEvents("dropped", before)
	s.put("altered", strings.Replace(s.entry("altered"), "Book 1", "Bock 1", 1))
	s.exec(`SET session_replication_role = replica`)
	s.exec(`UPDATE books SET title = 'newer' WHERE run_id = 'unseen1'`)
	s.exec(`RESET session_replication_role`)
	s.exec(`UPDATE books SET title = 'newer' WHERE run_id = 'late1'`)

	s.settings["AUDIT_RATE"] = "200"
	w = s.newWorker()
	s.awaitReading(w)
	want := []string{"altered", "dropped", "forced", "unseen"}
	found := map[string]violation{}
	testserver.Eventually(t, "the auditor finds all faults", func() error {
		for _, v := range w.log.violations() {
			found[v.Key] = v
		}
		if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, want) {
			return fmt.Errorf("it found %q", got)
		}
		return nil
	})
	for key, v := range found {
		if v.View != "user_books" || len(v.Cached) != 64 || len(v.Truth) != 64 || v.Cached == v.Truth ||
			!strings.Contains(v.CachedSnapshot, ":") || !strings.Contains(v.TruthSnapshot, ":") || v.Why == "" {
			t.Errorf("%s: %+v", key, v)
		}
	}
	// What the streams hold of a key is told. What both were made with is the same; one
	// has had a change since, the other's is not there.
	changes := func(key string) int { return strings.Count(fmt.Sprint(found[key].Events), "books.changed") }
	if changes("dropped") == 0 || changes("forced") <= changes("dropped") {
		t.Errorf("events of forced: %q, of dropped: %q", found["forced"].Events, found["dropped"].Events)
	}
	s.fresh(users...)
	s.cached(users...)
	if all := w.log.violations(); len(all) != len(want) {
		t.Errorf("%d violations were logged: %+v", len(all), all)
	}
	if strings.Contains(w.log.String(), "Bock 1") {
		t.Error("a value is in the log")
	}
	if out, err := s.try("verify", "--all"); err != nil || !strings.Contains(out, `"wrong": 0`) {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// verify finds out, too, that an event was lost.
func TestVerifyFindsALostEvent(t *testing.T) {
	t.Parallel()
	s := newSystemWithoutWorkers(t)
	s.settings = map[string]string{"AUDIT_RATE": "0"}
	s.people("ann", "bob")
	w := s.newWorker()
	s.awaitReading(w)
	s.cached("ann", "bob")
	w.stop()
	before := s.inStream()
	s.exec(`UPDATE books SET title = 'newer' WHERE run_id IN ('ann1', 'bob1')`)
	s.dropEvents("ann", before)
	out, err := s.try("verify", "--all")
	if err != nil || !strings.Contains(out, `"behind": 2`) || !strings.Contains(out, `"wrong": 0`) {
		t.Errorf("while nobody works on the events: %v\n%s", err, out)
	}
	s.awaitReading(s.newWorker())
	out, err = s.try("verify", "--all")
	if err == nil || !strings.Contains(out, `"wrong": 1`) || !strings.Contains(out, `"ann"`) {
		t.Errorf("when all has been done: %v\n%s", err, out)
	}
}

// Views whose loads change by themselves are named at start and by doctor.
func TestUnsteadyLoadsAreWarnedOf(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	file := t.TempDir() + "/views.yaml"
	const views = `views: {moment: {key: [id], load: "SELECT to_json(title || now()) FROM books WHERE run_id = $1", tables: {books: SELECT run_id FROM changed}}}`
	if err := os.WriteFile(file, []byte(views), 0o600); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.settings = map[string]string{"VIEWS_FILE": file}
	s.command("migrate", "up")
	s.start()
	testserver.Eventually(t, "the log names the view", func() error {
		if !strings.Contains(s.log.String(), "now(), whose answer passes with time") {
			return errors.New("it does not")
		}
		return nil
	})
	if out := s.command("doctor"); !strings.Contains(out, "view moment") || !strings.Contains(out, "now()") {
		t.Errorf("doctor: %s", out)
	}
}
