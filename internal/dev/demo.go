package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"text/template"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
)

// demo is what the printed commands speak of.
type demo struct {
	user string // a clerk_user_id that has books and a run
	run  string // a run of that user's
	book string // the id of a book of theirs
	page string // the profile that the run is about
}

// readDemo finds a user to show. Which one it is follows from the rows, so that
// it stays the same from run to run.
func readDemo(ctx context.Context, url string) (demo, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return demo{}, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var d demo
	err = conn.QueryRow(ctx, `
		SELECT u.clerk_user_id, s.run_id, min(b.id::text), coalesce(min(regexp_replace(s.instagram_url, '^.*/', '')), 'somebody')
		FROM users u JOIN processing_sessions s ON s.user_id = u.id JOIN books b ON b.user_id = u.id
		WHERE u.clerk_user_id IS NOT NULL
		GROUP BY u.clerk_user_id, s.run_id
		ORDER BY bool_or(s.status = 'processing') DESC, length(s.run_id), s.run_id
		LIMIT 1`).Scan(&d.user, &d.run, &d.book, &d.page)
	if errors.Is(err, pgx.ErrNoRows) {
		return demo{}, errors.New("the database holds no user with both a run and a book to show")
	}
	if err != nil {
		return demo{}, fmt.Errorf("read a user to show: %w", err)
	}
	return d, nil
}

//go:embed try.txt
var tryText string

// print prints commands to paste.
func (d demo) print(w io.Writer, e environment, v *servers, base string) error {
	credential, err := d.credential(e, time.Now())
	if err != nil {
		return err
	}
	try, err := template.New("try").Parse(tryText)
	if err != nil {
		return fmt.Errorf("the text of what to try: %w", err)
	}
	return try.Execute(w, map[string]string{
		"Base": base, "Credential": credential, "User": d.user, "Run": d.run, "Book": d.book, "Page": d.page,
		"Events": e["EVENTS_TOKEN"], "Admin": e["ADMIN_TOKEN"],
		"Database": v.databaseURL, "Redis": v.redisURL, "Psql": v.psql(), "RedisCLI": v.redisCLI(),
	})
}

// credential is the header with which the demo's user asks.
func (d demo) credential(e environment, now time.Time) (string, error) {
	switch {
	case e["AUTH_MODE"] == "header":
		return "X-User-Id: " + d.user, nil
	case e["AUTH_MODE"] != "" && e["AUTH_MODE"] != "jwt" || e["AUTH_JWKS"] != "":
		return "Authorization: Bearer $TOKEN", nil // only its issuer can make one
	}
	claims := jwt.RegisteredClaims{Subject: d.user, Issuer: e["AUTH_ISSUER"], IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(24 * time.Hour))}
	if audience := e["AUTH_AUDIENCE"]; audience != "" {
		claims.Audience = jwt.ClaimStrings{audience}
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(e["AUTH_JWT_SECRET"]))
	if err != nil {
		return "", fmt.Errorf("sign a token for the demo: %w", err)
	}
	return "Authorization: Bearer " + token, nil
}
