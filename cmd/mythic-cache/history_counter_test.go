package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// counting makes users with one book each, whose title says how often it has been
// written: so an answer tells which writes it has seen.
func (s *system) counting(users ...string) {
	s.t.Helper()
	for _, user := range users {
		s.exec(`INSERT INTO users (clerk_user_id) VALUES ($1)`, user)
		s.exec(`INSERT INTO books (user_id, run_id, title) SELECT id, $1, '0' FROM users WHERE clerk_user_id = $1`, user)
	}
}

// countedWrite is a transaction that has committed.
type countedWrite struct {
	minXid string           // for X-Min-Xid; empty: the database was between two epochs
	counts map[string]int64 // of each user that it wrote, what the title said then
}

// countOn adds one to the titles of one or two users in one transaction. One that is
// rolled back leaves words that nobody may ever read, and is nil.
func countOn(ctx context.Context, conn *pgx.Conn, users []string) (*countedWrite, error) {
	w := &countedWrite{counts: map[string]int64{}}
	chosen := []string{users[rand.IntN(len(users))], users[rand.IntN(len(users))]}
	slices.Sort(chosen) // so that no two wait for each other
	if oneOf(2) {
		chosen = chosen[:1]
	}
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if oneOf(8) {
			if _, err := tx.Exec(ctx, `UPDATE books SET title = 'rolled back' WHERE run_id = ANY($1)`, chosen[:1]); err != nil {
				return err
			}
			return errRollback
		}
		for _, user := range chosen {
			if err := w.count(ctx, tx, user); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errRollback) {
		return nil, nil
	}
	return w, err
}

func (w *countedWrite) count(ctx context.Context, tx pgx.Tx, user string) error {
	const query = `UPDATE books SET title = (title::bigint + 1)::text WHERE run_id = $1
		RETURNING title::bigint, coalesce(mythic_cache.current_epoch() || '-' || pg_current_xact_id()::text, '')`
	var n int64
	if err := tx.QueryRow(ctx, query, user).Scan(&n, &w.minXid); err != nil {
		return err
	}
	w.counts[user] = n
	return nil
}

// countReader asks the API what titles say.
type countReader struct {
	client http.Client
	tokens map[string]string
}

func newCountReader(users []string) *countReader {
	r := &countReader{client: http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2}}, tokens: map[string]string{}}
	for _, user := range users {
		r.tokens[user] = token(user)
	}
	return r
}

// countAnswer is what it says.
type countAnswer struct {
	status int
	mark   string // X-Cache
	count  int64  // where the status is 200
	said   string
}

// read fails where nobody answers, and where the answer is none that was ever true.
func (r *countReader) read(ctx context.Context, base, user, minXid string) (countAnswer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/books/my", http.NoBody)
	if err != nil {
		return countAnswer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+r.tokens[user])
	if minXid != "" {
		request.Header.Set("X-Min-Xid", minXid)
	}
	response, err := r.client.Do(request)
	if err != nil {
		return countAnswer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return countAnswer{}, err
	}
	a := countAnswer{status: response.StatusCode, mark: response.Header.Get("X-Cache"), said: string(body)}
	if a.status != http.StatusOK {
		return a, nil
	}
	a.count, err = countOf(body, user)
	return a, err
}

// errNeverTrue says that an answer was never in the database.
var errNeverTrue = errors.New("this was never true")

func countOf(body []byte, user string) (int64, error) {
	var b books
	if err := json.Unmarshal(body, &b); err != nil {
		return 0, fmt.Errorf("%w: %s: %w", errNeverTrue, body, err)
	}
	if len(b.Books) != 1 || b.Books[0].RunID != user {
		return 0, fmt.Errorf("%w: for %s: %s", errNeverTrue, user, body)
	}
	n, err := strconv.ParseInt(b.Books[0].Title, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %w", errNeverTrue, body, err)
	}
	return n, nil
}
