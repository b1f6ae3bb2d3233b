package producers

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// quote delimits the bodies of generated functions.
const quote = "$mythic_cache$"

// asLoads are the settings that loads have too. A mapping that makes a day of a time
// must come to the day that the load comes to, and spell it so, whatever the session
// of the app has set.
const asLoads = " SET timezone = 'UTC' SET datestyle = 'ISO'"

// slice is how many join records one outbox row carries at most.
const slice = 1000

// The transition tables of one kind of statement, and how changed is had of them.
type operation struct {
	name        string // as it ends the names of trigger and function
	event       string
	transitions string
	with        string // makes changed where no transition table is named so
}

func operations() []operation {
	return []operation{
		{"insert", "INSERT", " REFERENCING NEW TABLE AS changed", ""},
		{"update", "UPDATE", " REFERENCING OLD TABLE AS mythic_cache_old NEW TABLE AS mythic_cache_new",
			"WITH changed AS (SELECT * FROM mythic_cache_old UNION ALL SELECT * FROM mythic_cache_new) "},
		{"delete", "DELETE", " REFERENCING OLD TABLE AS changed", ""},
		{"truncate", "TRUNCATE", "", ""},
	}
}

// functionName is unique by the table's oid; its name is for the reader.
func (w *watched) functionName(op string) string {
	return fmt.Sprintf("%.30s_%d_%s", w.relname, w.oid, op)
}

func triggerName(op string) string { return "mythic_cache_" + op }

// remapName changes with all that the function is made of: an outbox row that was
// written for another form of it finds none and fences its view.
func (c capture) remapName(path string) string {
	sum := sha256.Sum256([]byte(path + "\n" + c.mapped + "\n" + c.sql))
	return fmt.Sprintf("remap_%.24s_%d_%s", c.view, c.mappedOID, hex.EncodeToString(sum[:4]))
}

// remapSQL is the function that the relay runs a joined mapping with. The planner
// may do there what the relay's own session forbids.
func (c capture) remapSQL(path string) string {
	return fmt.Sprintf(`CREATE OR REPLACE FUNCTION mythic_cache.%s(jsonb) RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = %s%s SET enable_seqscan = on SET enable_bitmapscan = on AS %s
WITH changed AS (SELECT * FROM jsonb_populate_recordset(NULL::%s, $1))
SELECT DISTINCT m.key FROM (SELECT %s AS key FROM (
%s
) AS m (%s)) AS m WHERE m.key <> ''
%s`, ident(c.remapName(path)), fixed(path), asLoads, quote, c.mapped, keyOf(c.parts), c.sql, columns(c.parts), quote)
}

// functionSQL is the trigger function of one table and one kind of statement. It
// runs as whoever installs it, with the search_path of that moment, so that an
// app's role needs no right on anything of ours.
func (w *watched) functionSQL(op operation, path string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `CREATE OR REPLACE FUNCTION mythic_cache.%s() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = %s%s AS %s
#variable_conflict use_column
DECLARE
  mc_keys    text[];
  mc_owners  text[];
  mc_joins   jsonb[];
  mc_why     jsonb;
  mc_written boolean := false;
BEGIN
`, ident(w.functionName(op.name)), fixed(path), asLoads, quote)
	if op.event == "TRUNCATE" {
		for _, c := range w.captures {
			fmt.Fprintf(&b, "  mc_written := mythic_cache.capture(%s, %s, NULL, NULL, NULL, '{\"truncated\": true}') OR mc_written;\n",
				literal(c.eventType), literal(c.view))
		}
	} else {
		fmt.Fprintf(&b, "  IF NOT EXISTS (%sSELECT FROM changed) THEN\n    RETURN NULL;\n  END IF;\n", op.with)
		for _, o := range w.owners {
			o.write(&b, op)
		}
		for _, c := range w.captures {
			c.write(&b, op, path)
		}
	}
	fmt.Fprintf(&b, "  IF mc_written THEN\n    PERFORM mythic_cache.ring();\n  END IF;\n  RETURN NULL;\nEND\n%s", quote)
	return b.String()
}

// guarded is a read whose failure fences the view instead of failing the app's
// statement. Conflicts between transactions and cancellations stay the app's.
const guarded = `  EXCEPTION
    WHEN transaction_rollback OR operator_intervention THEN
      RAISE;
    WHEN OTHERS THEN
      mc_why := jsonb_build_object('broken', SQLERRM);
  END;
`

func (c capture) write(b *strings.Builder, op operation, path string) {
	fmt.Fprintf(b, `  mc_keys := NULL; mc_joins := NULL; mc_why := NULL;
  BEGIN
    %sSELECT array_agg(d.key) INTO mc_keys FROM (SELECT DISTINCT m.key FROM (SELECT %s AS key FROM (
%s
) AS m (%s)) AS m WHERE m.key <> '') AS d;
`, op.with, keyOf(c.parts), c.sql, columns(c.parts))
	remap := "NULL"
	if c.joins != nil {
		remap = literal(c.remapName(path))
		fmt.Fprintf(b, `    %sSELECT array_agg(s.joins ORDER BY s.i) INTO mc_joins FROM (
      SELECT r.i, jsonb_agg(r.j) AS joins FROM (
        SELECT to_jsonb(d) AS j, (row_number() OVER () - 1) / %d AS i FROM (SELECT DISTINCT c.%s FROM changed c) AS d
      ) AS r GROUP BY r.i
    ) AS s;
`, op.with, slice, strings.Join(quoteAll(c.joins), ", c."))
	}
	b.WriteString(guarded)
	fmt.Fprintf(b, "  mc_written := mythic_cache.capture(%s, %s, mc_keys, mc_joins, %s, mc_why) OR mc_written;\n",
		literal(c.eventType), literal(c.view), remap)
}

// write remembers owners. A key that is longer than any entry's may be is not
// worth an index row that would not fit.
func (o ownership) write(b *strings.Builder, op operation) {
	fmt.Fprintf(b, `  mc_keys := NULL; mc_owners := NULL; mc_why := NULL;
  BEGIN
    %sSELECT array_agg(m.key), array_agg(m.owner) INTO mc_keys, mc_owners FROM (
      SELECT DISTINCT ON (m.key) m.key, coalesce(m.owner, '') AS owner FROM (SELECT %s AS key, m.owner::text AS owner FROM (
%s
) AS m (%s, owner)) AS m WHERE m.key <> '' AND octet_length(m.key) <= 512) AS m;
%s  IF mc_why IS NOT NULL THEN
    mc_written := mythic_cache.capture(%s, %s, NULL, NULL, NULL, mc_why) OR mc_written;
  ELSE
    INSERT INTO mythic_cache.owners (view, key, owner)
    SELECT %s, u.key, u.owner FROM unnest(mc_keys, mc_owners) AS u(key, owner)
    WHERE NOT EXISTS (SELECT FROM mythic_cache.owners w WHERE w.view = %s AND w.key = u.key)
    ON CONFLICT DO NOTHING;
  END IF;
`, op.with, keyOf(o.parts), o.sql, columns(o.parts), guarded, literal(o.eventType), literal(o.view), literal(o.view), literal(o.view))
}

// triggerSQL installs the function of one kind of statement.
func (w *watched) triggerSQL(op operation) string {
	return fmt.Sprintf("CREATE OR REPLACE TRIGGER %s AFTER %s ON %s%s FOR EACH STATEMENT EXECUTE FUNCTION mythic_cache.%s()",
		ident(triggerName(op.name)), op.event, w.name, op.transitions, ident(w.functionName(op.name)))
}

// statements is all that watching the table takes, and the names of the functions
// that it makes.
func (w *watched) statements(path string) (sql, functions []string) {
	for _, c := range w.captures {
		if c.joins != nil {
			sql = append(sql, c.remapSQL(path))
			functions = append(functions, c.remapName(path))
		}
	}
	for _, op := range operations() {
		sql = append(sql, w.functionSQL(op, path), w.triggerSQL(op))
		functions = append(functions, w.functionName(op.name))
	}
	for _, name := range functions {
		signature := name + "\"()"
		if strings.HasPrefix(name, "remap_") {
			signature = name + "\"(jsonb)"
		}
		sql = append(sql, "REVOKE EXECUTE ON FUNCTION mythic_cache.\""+signature+" FROM PUBLIC")
	}
	return sql, functions
}

// keyOf is the key of the columns k1, k2, ….
func keyOf(parts int) string {
	if parts == 1 {
		return "m.k1::text"
	}
	names := make([]string, parts)
	for i := range names {
		names[i] = fmt.Sprintf("m.k%d::text", i+1)
	}
	return "mythic_cache.join_key(" + strings.Join(names, ", ") + ")"
}

// fixed is a search_path in which nobody else can put a table before ours: the
// temporary schema, which is searched first where it is not named, comes last.
func fixed(path string) string {
	if path == "" {
		return "pg_temp"
	}
	return path + ", pg_temp"
}

func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
