package consumers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"mythiccache/cache/view"
	"mythiccache/producers/stream"
)

// templatePatience is how long the rows of a template wait for their turn. Nobody waits
// for them, so they come back soon and do not stand in line.
const templatePatience = 100 * time.Millisecond

// rowsOf reads the rows of a template, so many at most, each as a JSON object. They take turns with the loads of views.
func (l *Loader) rowsOf(ctx context.Context, s *started, most int) ([][]byte, error) {
	give, err := l.turns.take(ctx, "template "+s.template.Name, templatePatience)
	if err != nil {
		return nil, err
	}
	defer give()
	var all [][]byte
	args := []any{s.subject}
	if s.template.TakesData() {
		var data any // NULL
		if s.data != "" {
			data = s.data
		}
		args = append(args, data)
	}
	err = l.read(ctx, query{
		sql:  fmt.Sprintf("SELECT to_jsonb(r)::text, %s FROM (\n%s\n) r LIMIT %d", typesOf(s.template), s.template.Rows, most),
		args: args,
		scan: func(rows pgx.Rows) error {
			for rows.Next() {
				all = append(all, append([]byte(nil), rows.RawValues()[0]...))
			}
			return rows.Err()
		},
	})
	return all, err
}

// typesOf gives the parameters types that they have not been given by the query, whose
// FROM is analysed first.
func typesOf(t *view.Template) string {
	if t.TakesData() {
		return "$1::text, $2::jsonb"
	}
	return "$1::text"
}

// rowsFailure says to the stream what a query that failed means for its event: values
// of the event that do not fit the query never will.
func rowsFailure(err error) error {
	if state := sqlState(err); strings.HasPrefix(state, "22") {
		return fmt.Errorf("%w: %w", withoutRow(err), stream.ErrReject)
	}
	return loadFailure(withoutRow(err))
}

// withoutRow takes what PostgreSQL quotes of rows out of its error.
func withoutRow(err error) error {
	var server *pgconn.PgError
	if errors.As(err, &server) && !passing(server) {
		return fmt.Errorf("the rows cannot be read (SQLSTATE %s)", server.Code)
	}
	return err
}

// Check has PostgreSQL judge the queries, and compares what they tell with what the
// templates read. Its error is a *TemplateError where one is wrong, which no waiting
// mends but that of tables still to come; Handle passes over the events of that template
// until it is found right. Of a query that was refused in use, it is looked whether that
// would be so again.
func (t *Templates) Check(ctx context.Context) error {
	wrong := map[string]refused{}
	var all []error
	for _, one := range t.o.Templates.All() {
		found, err := t.examine(ctx, one)
		if err != nil {
			return err
		}
		if found.why != nil {
			wrong[one.Name] = found
			all = append(all, found.why)
		}
	}
	t.o.Counts.usable(len(wrong) == 0)
	t.wrong.replace(wrong)
	return errors.Join(all...)
}

// Refused tells when PostgreSQL has refused a query that Check had found right. Check says
// then which, and why.
func (t *Templates) Refused() <-chan struct{} { return t.wrong.news }

// examine returns what is wrong with one template, if anything is.
func (t *Templates) examine(ctx context.Context, one *view.Template) (refused, error) {
	wrong, err := t.prepare(ctx, one)
	if wrong != nil || err != nil {
		return refused{why: wrong}, err
	}
	known := t.wrong.inUse(one.Name)
	if known.seen == nil {
		return refused{}, nil
	}
	_, err = t.loader.rowsOf(ctx, known.seen, 1)
	if why := refusedFor(one, err); why != nil {
		return refused{why, known.seen}, nil //nolint:nilerr // that is what it says
	}
	if errors.Is(err, ErrPaused) || errors.Is(err, ErrBusy) {
		return known, nil // it was not run
	}
	return refused{}, nil
}

// prepare has a query judged without running it, and returns what is wrong with it.
func (t *Templates) prepare(ctx context.Context, one *view.Template) (wrong, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.loader.Deadline())
	defer cancel()
	conn, err := t.loader.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("reach PostgreSQL: %w", err)
	}
	defer conn.Release()
	told, err := conn.Conn().PgConn().Prepare(ctx, "", fmt.Sprintf("SELECT r.*, %s FROM (\n%s\n) r", typesOf(one), one.Rows), nil)
	var server *pgconn.PgError
	switch {
	case errors.As(err, &server):
		return &TemplateError{one.Place("rows"), one.Name + ".rows: PostgreSQL says: " + server.Message + " (SQLSTATE " + server.Code + ")"}, nil
	case err != nil:
		return nil, fmt.Errorf("reach PostgreSQL: %w", err)
	}
	return errors.Join(compareColumns(one, told.Fields)...), nil
}

// refusedFor is what is wrong with a template whose query was refused, and will be for every
// event: it names what is not there, or may not be read. It quotes nothing, since a
// function may have said it.
func refusedFor(one *view.Template, err error) error {
	state := sqlState(err)
	switch state[:min(2, len(state))] {
	case "42", "3F", "0A":
		return &TemplateError{one.Place("rows"), one.Name + ".rows: PostgreSQL refuses it in use (SQLSTATE " + state + ")"}
	}
	return nil
}

// TemplateError is what is wrong with a template.
type TemplateError struct{ Place, What string }

// Error implements error.
func (e *TemplateError) Error() string { return e.Place + ": " + e.What }

// compareColumns reports what a template reads and its query does not tell.
func compareColumns(t *view.Template, fields []pgconn.FieldDescription) (wrong []error) {
	told := map[string]bool{}
	parameters := strings.Count(typesOf(t), "$")
	for _, f := range fields[:len(fields)-parameters] {
		if told[f.Name] {
			wrong = append(wrong, &TemplateError{t.Place("rows"), fmt.Sprintf("%s.rows has two columns %s", t.Name, f.Name)})
		}
		told[f.Name] = true
	}
	if t.Scope != view.SharedScope && t.Scope != view.AppScope && !told[t.Scope] {
		wrong = append(wrong, &TemplateError{t.Place("scope"), fmt.Sprintf("%s.scope is %s, of which the rows have no column", t.Name, t.Scope)})
	}
	for _, column := range t.Columns {
		if !told[column] {
			wrong = append(wrong, &TemplateError{t.Place("request"), fmt.Sprintf("%s.request reads .%s, of which the rows have no column", t.Name, column)})
		}
	}
	return wrong
}
