package producers

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/internal/testserver"
)

// beating is a leader whose heartbeats come by hand.
type beating struct {
	*bed
	lead *lead
	log  *bytes.Buffer
	seen map[string]int // fences of each view, up to the last beat
}

func (b *bed) beating() *beating {
	b.t.Helper()
	s := &beating{bed: b, log: &bytes.Buffer{}, seen: map[string]int{}}
	o := b.options()
	o.Log = zerolog.New(s.log).Level(zerolog.InfoLevel)
	r, err := NewRelay(o)
	if err != nil {
		b.t.Fatal(err)
	}
	conn := b.connect()
	if err := setUp(b.t.Context(), conn); err != nil {
		b.t.Fatal(err)
	}
	do(b.t, conn, `SET idle_session_timeout = 0`) // a test may dawdle
	s.lead = r.newLead(conn, newStreams(b.client, b.keys))
	if err := s.lead.settle(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	for _, v := range b.views.All() {
		s.seen[v.Name] = len(b.fences.of(v.Name))
	}
	return s
}

// beat is one heartbeat. It returns the views that it fenced, each with a version
// that has seen all that had committed before.
func (s *beating) beat() []string {
	s.t.Helper()
	before, err := readPresent(s.t.Context(), s.conn)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.lead.heartbeat(s.t.Context(), false); err != nil {
		s.t.Fatalf("heartbeat: %v", err)
	}
	var fenced []string
	for name, n := range s.seen {
		all := s.fences.of(name)
		for _, at := range all[n:] {
			fenced = append(fenced, name)
			if at.Compare(before.snapshot.Version()) < 0 {
				s.t.Errorf("%s was fenced at %s, and %s had been before", name, at, before.snapshot.Version())
			}
		}
		s.seen[name] = len(all)
	}
	slices.Sort(fenced)
	return fenced
}

// beats demands of the next heartbeats which views each fences.
func (s *beating) beats(what string, want ...[]string) {
	s.t.Helper()
	for n, want := range want {
		if got := s.beat(); !slices.Equal(got, want) {
			s.t.Errorf("%s: heartbeat %d fenced %q, not %q", what, n+1, got, want)
		}
	}
}

// notes are partitions and heirs beside Mythic's views, and what a load can read
// them through.
const notes = `
  notes:
    key: [owner]
    ttl: 1m
    load: SELECT to_json(sum(half(n.words))) FROM notes_seen n WHERE n.owner = $1
    tables:
      notes: SELECT owner FROM changed
      old_notes: SELECT owner FROM changed
`

const notesTables = `
	CREATE TABLE notes (owner text, words int, part int) PARTITION BY LIST (part);
	CREATE TABLE notes_1 PARTITION OF notes FOR VALUES IN (1);
	CREATE TABLE notes_2 PARTITION OF notes FOR VALUES IN (2);
	CREATE SCHEMA archive; CREATE TABLE archive.notes_0 PARTITION OF notes FOR VALUES IN (0);
	CREATE TABLE old_notes (owner text, words int); CREATE TABLE older_notes () INHERITS (old_notes);
	CREATE FUNCTION half(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1 / 2; END';
	CREATE VIEW notes_seen AS SELECT owner, words FROM notes UNION ALL SELECT owner, words FROM old_notes;
	CREATE TABLE unmapped (owner text, words int);
	INSERT INTO notes VALUES ('ann', 10, 1), ('ann', 20, 2); INSERT INTO older_notes VALUES ('ann', 5)`

func newNotesBed(t *testing.T) *bed {
	t.Helper()
	b := newBed(t)
	b.exec(notesTables)
	b.views = parse(t, mythicText()+notes)
	b.installQuietly()
	return b
}

// What is done to tables is noticed by the next heartbeat. Views whose changes may
// go unnoticed are fenced at each until that is over, and then once more; views that
// give something else, but whose changes are seen, are fenced once; no other view is.
func TestWhatIsDoneToTablesFencesTheirViews(t *testing.T) {
	b := newNotesBed(t)
	s := b.beating()
	var none []string
	const install = "install"
	s.beats("the first leader", []string{"notes", "run_status", "user_books"}, none)
	books, runs, noted := []string{"user_books"}, []string{"run_status", "user_books"}, []string{"notes"}
	for _, c := range []struct {
		what, ddl string
		fences    []string
		once      bool   // and changes are seen all the same
		says      string // "" where there is nothing to find
		mend      string
	}{
		{"a column is renamed", `ALTER TABLE users RENAME clerk_user_id TO clerk_id`, runs, false, `column u.clerk_user_id does not exist`, `ALTER TABLE users RENAME clerk_id TO clerk_user_id`},
		{"a column is dropped", `ALTER TABLE books DROP title`, books, false, `column b.title does not exist`, `ALTER TABLE books ADD title text`},
		{"a table is swapped by renaming", `CREATE TABLE books_new (LIKE books INCLUDING ALL); ALTER TABLE books RENAME TO books_old; ALTER TABLE books_new RENAME TO books`,
			books, false, "public.books is not watched", install},
		{"a table is dropped and made anew", `DROP TABLE books; ALTER TABLE books_old RENAME TO books`, books, false, "public.books is not watched", install},
		{"a table goes", `ALTER TABLE old_notes RENAME TO notes_once`, noted, false, "view notes waits for tables that do not exist yet: old_notes", `ALTER TABLE notes_once RENAME TO old_notes`},
		{"a schema comes before", `CREATE SCHEMA postgres; CREATE TABLE postgres.books (LIKE public.books)`, []string{"notes", "run_status", "user_books"}, false,
			"postgres.books is not watched", `DROP SCHEMA postgres CASCADE`},
		{"a trigger is disabled", `ALTER TABLE books DISABLE TRIGGER mythic_cache_update`, books, false, "public.books lacks triggers, or has disabled ones", `ALTER TABLE books ENABLE TRIGGER mythic_cache_update`},
		{"a trigger is dropped", `DROP TRIGGER mythic_cache_delete ON processing_sessions`, []string{"run_status"}, false, "public.processing_sessions lacks triggers", install},
		{"a trigger is disabled for one statement", `BEGIN; ALTER TABLE books DISABLE TRIGGER USER; UPDATE books SET title = 'unseen'; ALTER TABLE books ENABLE TRIGGER USER; COMMIT`, books, true, "", ""},
		{"a filled partition is attached", `CREATE TABLE notes_3 AS SELECT 'ann' AS owner, 40 AS words, 3 AS part; ALTER TABLE notes ATTACH PARTITION notes_3 FOR VALUES IN (3)`,
			noted, false, "public.notes_3 is not watched", install},
		{"a filled partition is detached", `ALTER TABLE notes DETACH PARTITION notes_3`, noted, true, "public.notes_3 is watched, but no view maps it", install},
		{"a filled partition is dropped", `DROP TABLE notes_2`, noted, true, "public.notes_2 is watched, but no view maps it", install},
		{"a partition is made", `CREATE TABLE notes_4 PARTITION OF notes FOR VALUES IN (4)`, noted, false, "public.notes_4 is not watched", install},
		{"an heir is made", `CREATE TABLE oldest_notes () INHERITS (old_notes)`, noted, false, "public.oldest_notes is not watched", install},
		{"an heir is disowned", `ALTER TABLE older_notes NO INHERIT old_notes`, noted, true, "public.older_notes is watched, but no view maps it", install},
		{"an heir is adopted", `ALTER TABLE older_notes INHERIT old_notes`, noted, false, "public.older_notes is not watched", install},
		{"a partition is renamed", `ALTER TABLE notes_1 RENAME TO notes_one`, noted, false, "public.notes_one is watched for other views than these", install},
		{"a table is renamed and back", `ALTER TABLE books RENAME TO books_old; ALTER TABLE books_old RENAME TO books`, books, true, "", ""},
		{"a schema is renamed", `ALTER SCHEMA archive RENAME TO attic`, noted, false, "attic.notes_0 is watched for other views than these", install},
		{"an heir is disowned and adopted again", `ALTER TABLE older_notes NO INHERIT old_notes; ALTER TABLE older_notes INHERIT old_notes`, noted, true, "", ""},
		{"a partition is detached and attached again", `ALTER TABLE notes DETACH PARTITION notes_one; ALTER TABLE notes ATTACH PARTITION notes_one FOR VALUES IN (1)`, noted, true, "", ""},
		{"a plain view is renamed that a load reads", `ALTER VIEW notes_seen RENAME TO notes_unseen`, noted, false, "does not exist (SQLSTATE 42P01)", `ALTER VIEW notes_unseen RENAME TO notes_seen`},
		{"a table is subscribed", `SET allow_system_table_mods = on; INSERT INTO pg_subscription_rel VALUES (1, 'notes_one'::regclass, 'r', NULL)`, noted, false,
			"public.notes_one is filled by a logical subscription", `DELETE FROM pg_subscription_rel`},
		{"rows are hidden", `ALTER TABLE books ENABLE ROW LEVEL SECURITY`, books, true, "", ""},
		{"rows are rewritten with a column's type", `ALTER TABLE books ALTER title TYPE text USING upper(title)`, books, true, "", ""},
		{"a function is replaced that a load calls", `CREATE OR REPLACE FUNCTION half(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1 / 3; END'`, noted, true, "", ""},
		{"a plain view is replaced that a load reads", `CREATE OR REPLACE VIEW notes_seen AS SELECT owner, words FROM notes UNION ALL SELECT owner, words FROM old_notes WHERE words > 1`, noted, true, "", ""},
		{"a load comes to read a table that is not mapped", `CREATE OR REPLACE VIEW notes_seen AS SELECT owner, words FROM notes UNION ALL SELECT owner, words FROM unmapped`, noted, false,
			"view notes: its load reads public.unmapped, which the view does not map", `CREATE OR REPLACE VIEW notes_seen AS SELECT owner, words FROM notes UNION ALL SELECT owner, words FROM old_notes`},
		{"what is nobody's business", `CREATE TABLE other (id int); CREATE INDEX ON books (title); GRANT SELECT ON books TO PUBLIC; ANALYZE books; TRUNCATE notes; ALTER TABLE books SET (fillfactor = 90)`,
			none, true, "", ""},
		{"triggers go", `DROP TRIGGER mythic_cache_insert ON mythic_cache.owners`, []string{"run_status"}, false, "mythic_cache.owners lacks triggers", install},
	} {
		s.log.Reset()
		b.exec(c.ddl)
		if c.once {
			s.beats(c.what, c.fences, none, none)
		} else {
			s.beats(c.what, c.fences, c.fences, c.fences)
		}
		if said := s.log.String(); (c.says == "") != (said == "") || !strings.Contains(said, c.says) || repeats(said) {
			t.Errorf("%s: the relay said\n%s", c.what, said)
		}
		s.drifted(c.what, c.fences, !c.once)
		switch c.mend {
		case "":
			continue
		case install:
			b.install()
		default:
			b.exec(c.mend)
		}
		s.log.Reset()
		s.beats(c.what+", mended", c.fences, none)
		if said := s.log.String(); !strings.Contains(said, "drift is over") || strings.Contains(said, "warn") {
			t.Errorf("%s, mended: the relay said\n%s", c.what, said)
		}
		s.drifted(c.what+", mended", nil, true)
	}
}

// repeats reports whether a line comes twice.
func repeats(said string) bool {
	lines := strings.Split(said, "\n")
	slices.Sort(lines)
	return len(slices.Compact(slices.Clone(lines))) < len(lines)
}

// drifted demands of the metric which views it names.
func (s *beating) drifted(what string, want []string, fenced bool) {
	s.t.Helper()
	for _, v := range s.views.All() {
		if v.Model {
			continue
		}
		wants := 0.0
		if fenced && slices.Contains(want, v.Name) {
			wants = 1
		}
		if got := valueOf(s.t, s.lead.relay.metrics.drifted.WithLabelValues(v.Name)); got != wants {
			s.t.Errorf("%s: the metric says %v of %s", what, got, v.Name)
		}
	}
}

// What was done while nobody led, or by whom nobody saw, the next leader fences; and
// nothing where nothing was done.
func TestALeaderFencesWhatItsPredecessorDidNot(t *testing.T) {
	b := newNotesBed(t)
	var none []string
	b.beating().beats("the first leader", []string{"notes", "run_status", "user_books"}, none)
	b.beating().beats("its successor", none, none)
	b.exec(`ALTER TABLE notes DETACH PARTITION notes_2`)
	b.install() // so that nothing drifts
	b.beating().beats("a successor after a partition went", []string{"notes"}, none)
	b.beating().beats("its successor", none, none)
	// Redis loses what it wrote last: note and fence, or the note alone.
	if err := b.client.HDel(t.Context(), b.keys.Position(), "shape:notes").Err(); err != nil {
		t.Fatal(err)
	}
	s := b.beating()
	s.beats("after Redis lost the note", []string{"notes"}, none)
	if err := b.client.HDel(t.Context(), b.keys.Position(), "shape:notes").Err(); err != nil {
		t.Fatal(err)
	}
	s.beats("after Redis lost the note under a leader", []string{"notes"}, none)
}

// A leader that was superseded leaves no note.
func TestAShapeIsNotedBesideOnesOwnPositionAlone(t *testing.T) {
	b := newNotesBed(t)
	s := b.beating()
	b.beating()
	if err := s.lead.streams.NoteFenced(t.Context(), s.lead.placed, runID(t, b.client), map[string]shape{"notes": {}}); !errors.Is(err, errMoved) {
		t.Errorf("got %v", err)
	}
	if found, err := s.lead.streams.Fenced(t.Context(), []string{"notes"}); err != nil || found.shapes["notes"] != "" {
		t.Errorf("found %q, %v", found.shapes, err)
	}
}

// DDL that holds its lock for long keeps an examination from its end: the views are
// fenced, and the relay is not held up.
func TestALockedTableIsFencedUntilItCanBeExamined(t *testing.T) {
	b := newNotesBed(t)
	s := b.beating()
	s.beat()
	b.exec(`ALTER TABLE books ADD subtitle text`)
	other := b.connect()
	do(t, other, `BEGIN; LOCK TABLE books IN ACCESS EXCLUSIVE MODE`)
	started := time.Now()
	s.beats("locked", []string{"user_books"}, []string{"user_books"}, []string{"user_books"})
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("three heartbeats took %s", took)
	}
	if said := s.log.String(); strings.Count(said, "could not be examined") != 1 || !strings.Contains(said, "lock timeout") {
		t.Errorf("the relay said\n%s", said)
	}
	do(t, other, `COMMIT`)
	s.beats("no longer locked", []string{"user_books"}, nil)
	s.drifted("no longer locked", nil, true)
}

// What mends a drift may lie where no shape shows it: here, in a setting of the role.
func TestDriftIsExaminedAgain(t *testing.T) {
	b := newNotesBed(t)
	b.exec(`CREATE SCHEMA early`)
	s := b.beating()
	all := []string{"notes", "run_status", "user_books"}
	do(t, s.lead.conn, `SET search_path = early, public`)
	s.beats("tables are found by another way", all, all)
	do(t, s.lead.conn, `RESET search_path`)
	s.beats("not examined again yet", all)
	s.lead.relay.watch.at = time.Now().Add(-examineAgain)
	s.beats("examined again", all, nil)
}

// Only what it touches has an installation invalidate, and the relay does not take
// that for a broken mapping.
func TestInstallInvalidatesWhatItTouches(t *testing.T) {
	b := newNotesBed(t)
	fences := func() []string {
		t.Helper()
		rows := one[[]string](b, `SELECT coalesce(array_agg(concat_ws(' ', type, view, subject) ORDER BY view), '{}') FROM mythic_cache.outbox WHERE data = '{"installed": true}'`)
		b.exec(`TRUNCATE mythic_cache.outbox`)
		return rows
	}
	for _, c := range []struct {
		ddl  string
		want []string
	}{
		{`CREATE TABLE notes_3 PARTITION OF notes FOR VALUES IN (3)`, []string{"notes.changed notes"}},
		{`ALTER TABLE notes DETACH PARTITION notes_3`, []string{"notes.changed notes"}},
		{`ALTER TABLE users DISABLE TRIGGER mythic_cache_insert`, []string{"processing_sessions.changed run_status", "books.changed user_books"}},
		{`CREATE TABLE other (id int)`, nil},
	} {
		b.exec(c.ddl)
		b.install()
		if got := fences(); !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
			t.Errorf("%s: invalidated %q", c.ddl, got)
		}
	}
	s := b.beating()
	r, stop := b.relay()
	defer stop()
	got := b.changes(func() {
		b.exec(`CREATE TABLE notes_4 PARTITION OF notes FOR VALUES IN (4)`)
		b.install()
	})
	if !slices.Equal(got, []string{"notes.changed notes"}) {
		t.Errorf("entries %q", got)
	}
	if n := valueOf(t, r.metrics.broken.WithLabelValues("notes")); n != 0 || strings.Contains(s.log.String(), "keys cannot be told") {
		t.Errorf("%v mappings are taken for broken", n)
	}
}

// Whoever writes to a table that is not watched yet has committed before the view is
// invalidated:
//
//  1. a writer that no trigger sees has not committed;
//  2. Install waits for the table's lock, and nothing of it is to be seen;
//  3. the writer commits, then Install: the relay's snapshot of 3 has seen 1.
func TestInstallInvalidatesAfterTheLastUnseenWriter(t *testing.T) {
	b := newNotesBed(t)
	b.exec(`CREATE TABLE notes_3 PARTITION OF notes FOR VALUES IN (3)`)
	writer, installer := b.connect(), b.connect()
	do(t, writer, `BEGIN; INSERT INTO notes_3 VALUES ('ann', 1, 3)`)
	done := make(chan error, 1)
	go func() { _, err := Install(t.Context(), installer, b.views); done <- err }()
	testserver.Eventually(t, "Install waits", func() error {
		if one[int](b, `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'notes_3'::regclass`) == 0 {
			return errors.New("it does not")
		}
		return nil
	})
	rows := func() int { return one[int](b, `SELECT count(*) FROM mythic_cache.outbox WHERE view = 'notes'`) }
	if n := rows(); n != 0 {
		t.Errorf("%d rows before the writer has committed", n)
	}
	do(t, writer, `COMMIT`)
	if err := <-done; err != nil || rows() != 1 {
		t.Errorf("%d rows, %v", rows(), err)
	}
}

// Mend does what Install does, but not for ever, and not against others.
func TestMendLeavesAloneWhatIsOthers(t *testing.T) {
	b := newNotesBed(t)
	b.exec(`CREATE TABLE notes_3 PARTITION OF notes FOR VALUES IN (3)`)
	said, err := Mend(t.Context(), b.conn, b.views)
	if err != nil || !slices.Equal(said, []string{"public.notes_3 is watched for notes"}) {
		t.Errorf("Mend said %q, %v", said, err)
	}
	other := b.connect()
	b.exec(`CREATE TABLE old_notes_2 () INHERITS (old_notes)`)
	do(t, other, `BEGIN; LOCK TABLE old_notes_2 IN ROW EXCLUSIVE MODE`)
	started := time.Now()
	if _, err := Mend(t.Context(), b.conn, b.views); err == nil || !strings.Contains(err.Error(), "lock timeout") || time.Since(started) > installWait {
		t.Errorf("with a writer in there, Mend said %v after %s", err, time.Since(started))
	}
	do(t, other, `COMMIT`)
	// Another release, or other views, came since: whose they are, they mend.
	newer := parse(t, strings.ReplaceAll(mythicText()+notes, "SELECT owner FROM changed", "SELECT lower(owner) FROM changed"))
	if _, err := Install(t.Context(), b.conn, newer); err != nil {
		t.Fatal(err)
	}
	before := one[string](b, `SELECT string_agg(hash, '' ORDER BY relation) FROM mythic_cache.triggers`)
	if _, err := Mend(t.Context(), b.conn, b.views); !errors.Is(err, ErrOthersViews) {
		t.Errorf("Mend against others said %v", err)
	}
	if after := one[string](b, `SELECT string_agg(hash, '' ORDER BY relation) FROM mythic_cache.triggers`); after != before {
		t.Error("Mend undid what others installed")
	}
	if said, err := Mend(t.Context(), b.conn, newer); err != nil || len(said) > 0 {
		t.Errorf("Mend of the newer one said %q, %v", said, err)
	}
}

// Beside writers, too, a relay notices drift, fences its views again and again, and
// notices its end.
func TestDriftIsNoticedBesideWriters(t *testing.T) {
	b := newNotesBed(t)
	r, _ := b.relay()
	b.sync()
	testserver.Eventually(t, "its first heartbeat", func() error {
		if len(b.fences.of("notes")) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	stop := b.write(4)
	defer stop()
	before := len(b.fences.of("notes"))
	started := time.Now()
	b.exec(`CREATE TABLE notes_3 PARTITION OF notes FOR VALUES IN (3)`)
	testserver.Eventually(t, "three fences", func() error {
		if n := len(b.fences.of("notes")) - before; n < 3 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	t.Logf("three fences took %s", time.Since(started))
	if n := valueOf(t, r.metrics.drifted.WithLabelValues("notes")); n != 1 {
		t.Errorf("the metric says %v", n)
	}
	b.install()
	testserver.Eventually(t, "it is over", func() error {
		if n := valueOf(t, r.metrics.drifted.WithLabelValues("notes")); n != 0 {
			return fmt.Errorf("the metric says %v", n)
		}
		return nil
	})
	if r.Ready() != nil {
		t.Errorf("the relay is not ready: %v", r.Ready())
	}
}
