package consumers

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"mythiccache/internal/testserver"
	"mythiccache/migrations"
)

func TestLoadReadsValueAndSnapshotTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	tx, err := w.pool.Begin(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(w.ctx)
	var xid uint64
	if err := tx.QueryRow(w.ctx, "UPDATE things SET n = 2 WHERE id = 'a' RETURNING pg_current_xact_id()").Scan(&xid); err != nil {
		t.Fatal(err)
	}
	before, err := w.loader.Load(w.ctx, w.view("thing"), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(w.ctx); err != nil {
		t.Fatal(err)
	}
	after, err := w.loader.Load(w.ctx, w.view("thing"), "a")
	if err != nil {
		t.Fatal(err)
	}
	if string(before.Body) != `{"n":1}` || before.Snapshot.Sees(xid) {
		t.Errorf("before the commit: %s, sees it: %v", before.Body, before.Snapshot.Sees(xid))
	}
	if string(after.Body) != `{"n":2}` || !after.Snapshot.Sees(xid) || after.Version.Compare(before.Version) <= 0 {
		t.Errorf("after the commit: %s, sees it: %v, %s after %s", after.Body, after.Snapshot.Sees(xid), after.Version, before.Version)
	}
	if after.Version != after.Snapshot.Version() || after.Version.Epoch() == 0 {
		t.Errorf("version %s, snapshot %s of epoch %d", after.Version, after.Snapshot, after.Snapshot.Epoch)
	}
}

func TestLoadTellsWhatARowMeans(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, `
views:
  plain: {key: [id], load: "SELECT json_build_object('n', n) FROM things WHERE id = $1"}
  binary: {key: [id], load: "SELECT jsonb_build_object('n', n) FROM things WHERE id = $1;"}
  text: {key: [id], load: "SELECT id FROM things WHERE id = $1 -- a comment"}
  nothing: {key: [id], load: SELECT NULL::json FROM things WHERE id = $1}
  two: {key: [id], load: "SELECT '1'::json FROM things, generate_series(1, 2) WHERE id = $1"}
  odd: {key: [id], load: "SELECT '1'::json, n FROM things WHERE id = $1"}
  owned: {key: [id], load: "SELECT '1'::json, n AS owner FROM things WHERE id = $1"}
  nobodys: {key: [id], load: "SELECT '1'::json, NULL AS owner FROM things WHERE id = $1"}
  lost: {key: [id], load: "SELECT '1'::json, '' AS owner FROM things WHERE id = $1"}
  parts: {key: [a, b], load: "SELECT to_json($1::text || $2::text)"}
  typed: {key: [id], load: "SELECT to_json($1::uuid)"}
  broken: {key: [id], load: "SELECT to_json(id::uuid) FROM things WHERE id = $1"}
  writes: {key: [id], load: "SELECT to_json(pg_current_xact_id()::text || $1)"}
  moment: {key: [id], load: "SELECT to_json(timestamptz '2026-01-02 03:04:05+09') WHERE $1 <> ''"}
`)
	w.exec("ALTER DATABASE " + w.text("SELECT current_database()") + " SET TimeZone = 'Asia/Tokyo'")
	w.pool.Reset()
	w.set("a", 7)
	for _, c := range []struct{ view, key, want string }{
		{"plain", "a", `{"n":7}`},
		{"plain", "b", "absent"},
		{"binary", "a", `{"n":7}`},
		{"text", "a", "error: not JSON"},
		{"nothing", "a", "absent"},
		{"two", "a", "error: more than one row"},
		{"odd", "a", "error: a column n"},
		{"owned", "a", "1 of 7"},
		{"nobodys", "a", "1"},
		{"lost", "a", "1 of "},
		{"parts", "x%3Ay:z", `"x:yz"`},
		{"parts", "x", "absent"},
		{"typed", "not-a-uuid", "absent"},
		{"typed", "00000000-0000-0000-0000-000000000001", `"00000000-0000-0000-0000-000000000001"`},
		{"broken", "a", "error: invalid input syntax"},
		{"writes", "a", "error: the load writes"},
		{"moment", "a", `"2026-01-01T18:04:05+00:00"`},
	} {
		loaded, err := w.loader.Load(w.ctx, w.view(c.view), c.key)
		got := string(loaded.Body)
		switch {
		case err != nil:
			got = "error: " + err.Error()
		case !loaded.Found:
			got = "absent"
		case loaded.Owned:
			got += " of " + loaded.Owner
		}
		if cause, ok := strings.CutPrefix(c.want, "error: "); ok && err != nil && strings.Contains(got, cause) {
			continue
		}
		if got != c.want {
			t.Errorf("%s of %s is %s, want %s", c.view, c.key, got, c.want)
		}
		if err == nil && loaded.Version.IsZero() {
			t.Errorf("%s of %s has no version", c.view, c.key)
		}
	}
}

func TestLoadIsRefusedWithoutAnEpoch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.set("a", 1)
	w.exec("DELETE FROM mythic_cache.epoch")
	if _, err := w.loader.Load(w.ctx, w.view("thing"), "a"); !errors.Is(err, ErrNoEpoch) {
		t.Errorf("load without an epoch: %v", err)
	}
}

func TestLoadEndsInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	loader, err := NewLoader(w.pool, LoaderOptions{Timeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w.set("a", 1)
	release := w.blockLoads()
	defer release()
	_, err = loader.Load(w.ctx, w.view("slow"), "a")
	if sqlState(err) != pgQueryCanceled || errors.Is(err, ErrPaused) || outcomeOf(err) != "timeout" {
		t.Errorf("a load that takes too long: %v", err)
	}
}

// One view may have so many loads at a time, and no more of them wait for long.
func TestLoadsOfAViewAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	turns := int(w.pool.Config().MaxConns) / 3
	for n := range turns {
		w.set(strconv.Itoa(n), n)
	}
	release := w.blockLoads()
	ended := make(chan error, turns)
	for n := range turns {
		go func() {
			_, err := w.loader.Load(w.ctx, w.view("slow"), strconv.Itoa(n))
			ended <- err
		}()
	}
	testserver.Eventually(t, "all turns are taken", func() error {
		if n := w.waiting(); n != turns {
			return fmt.Errorf("%d loads wait", n)
		}
		return nil
	})
	if _, err := w.loader.Load(w.ctx, w.view("slow"), "one more"); !errors.Is(err, ErrBusy) {
		t.Errorf("one load more than a view may have: %v", err)
	}
	if _, err := w.loader.Load(w.ctx, w.view("thing"), "a"); err != nil {
		t.Errorf("a load of another view: %v", err)
	}
	release()
	for range turns {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if _, err := w.loader.Load(w.ctx, w.view("slow"), "one more"); err != nil {
		t.Errorf("a load after the others: %v", err)
	}
}

// waiting returns how many loads are held up.
func (w *world) waiting() int {
	w.Helper()
	n, err := strconv.Atoi(w.text(`SELECT count(*)::text FROM pg_locks
		WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`))
	if err != nil {
		w.Fatal(err)
	}
	return n
}

func TestLoadPausesWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	pg := testserver.NewPostgres(t, nil)
	w := newWorld(t, pg, things)
	w.set("a", 1)
	load := func() error {
		_, err := w.loader.Load(w.ctx, w.view("thing"), "a")
		return err
	}
	if err := load(); err != nil {
		t.Fatal(err)
	}
	pg.Stop()
	for range 3 {
		if err := load(); !errors.Is(err, ErrPaused) {
			t.Fatalf("load without PostgreSQL: %v", err)
		}
	}
	if err := pg.Start(w.ctx); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "load again", load)

	// A crash empties the epoch: nothing may be read until the relay names one.
	pg.Kill()
	if err := pg.Start(w.ctx); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "be refused after the crash", func() error {
		if err := load(); !errors.Is(err, ErrNoEpoch) {
			return errors.Join(errors.New("not refused"), err)
		}
		return nil
	})
}

func TestLoadPausesBeforeTheMigrations(t *testing.T) {
	t.Parallel()
	pool, err := NewPool(t.Context(), postgres.Database(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	loader, err := NewLoader(pool, LoaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, views: mythic(t)}
	if _, err := loader.Load(t.Context(), w.view("user_books"), "user_1"); !errors.Is(err, ErrPaused) {
		t.Errorf("load before the migrations: %v", err)
	}
}

func TestMythicsViewsLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, postgres, things)
	w.views = mythic(t)
	w.exec(migrations.DemoTables())
	w.exec(migrations.DemoRows())
	for _, c := range []struct{ view, key, body, owner string }{
		{"user_books", "user_1", `"total":3`, ""},
		{"user_books", "nobody", `"total":0`, ""},
		{"run_status", "RUN1", `"RUN1"`, "user_2"},
	} {
		loaded, err := w.loader.Load(w.ctx, w.view(c.view), c.key)
		if err != nil || !strings.Contains(string(loaded.Body), c.body) || loaded.Owner != c.owner || loaded.Owned != (c.owner != "") {
			t.Errorf("%s of %s: %s of %q, %v", c.view, c.key, loaded.Body, loaded.Owner, err)
		}
	}
	if loaded, err := w.loader.Load(w.ctx, w.view("run_status"), "RUN0"); err != nil || loaded.Found {
		t.Errorf("a run that never was: %+v, %v", loaded, err)
	}
}
