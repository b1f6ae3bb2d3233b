package capture

import (
	"context"
	"fmt"
)

// rows is what the app's tables hold: users 1 to users, and books and sessions
// that belong to them in turn. Row n has the id that idOf gives it.
type rows struct{ users, books, sessions int }

// idOf is the SQL for the id of row n.
func idOf(n string) string {
	return fmt.Sprintf("('00000000-0000-4000-8000-' || lpad((%s)::text, 12, '0'))::uuid", n)
}

// fill gives every contestant the same rows. No trigger fires meanwhile.
func (b *bed) fill(ctx context.Context, r rows) error {
	if b.filled == r {
		return nil
	}
	b.sayf("filling the tables with %d users, %d books and %d sessions", r.users, r.books, r.sessions)
	for _, c := range b.all() {
		if err := c.fill(ctx, r); err != nil {
			return err
		}
	}
	b.filled = r
	return nil
}

func (c *contestant) fill(ctx context.Context, r rows) error {
	user := idOf(fmt.Sprintf("1 + (n - 1) %% %d", r.users))
	statements := []string{
		"SET session_replication_role = replica",
		// Room in the pages, so that an update need not go elsewhere.
		"ALTER TABLE books SET (fillfactor = 80)", "ALTER TABLE processing_sessions SET (fillfactor = 80)",
		"TRUNCATE users, books, processing_sessions",
		fmt.Sprintf(`INSERT INTO users (id, clerk_user_id, email, full_name)
			SELECT %s, 'user_' || n, 'user_' || n || '@example.com', 'Reader ' || n FROM generate_series(1, %d) AS n`, idOf("n"), r.users),
		fmt.Sprintf(`INSERT INTO books (id, user_id, run_id, title, profile_username, html_path, images_path, is_completed, has_html)
			SELECT %s, %s, 'RUN' || n, 'The Book of ' || n, 'profile_' || n, '/books/RUN' || n || '/index.html', '/books/RUN' || n || '/images', true, true
			FROM generate_series(1, %d) AS n`, idOf("n"), user, r.books),
		fmt.Sprintf(`INSERT INTO processing_sessions (id, run_id, user_id, instagram_url, status, current_stage)
			SELECT %s, 'RUN' || n, %s, 'https://www.instagram.com/profile_' || n, 'processing', 'scraping'
			FROM generate_series(1, %d) AS n`, idOf("n"), user, r.sessions),
	}
	if c.name == "ours" { // it knows the owners of rows that were there before
		statements = append(statements, "TRUNCATE mythic_cache.owners",
			"INSERT INTO mythic_cache.owners (view, key, owner) SELECT 'run_status', run_id, user_id::text FROM processing_sessions")
	}
	statements = append(statements, "SET session_replication_role = origin",
		"VACUUM (ANALYZE) users", "VACUUM (ANALYZE) books", "VACUUM (ANALYZE) processing_sessions")
	return c.exec(ctx, statements...)
}
