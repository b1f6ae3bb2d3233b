package producers

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"mythiccache/producers/event"
)

// quote delimits the bodies of generated functions.
const quote = "$mythic_cache$"

// asLoads are the settings that loads have too. A mapping that makes a day of a time
// must come to the day that the load comes to, and spell it so, whatever the session
// of the app has set.
const asLoads = " SET timezone = 'UTC' SET datestyle = 'ISO'"

// Names of the transition tables.
const (
	before = "mythic_cache_old"
	after  = "mythic_cache_new"
)

// operation is one kind of statement and the transition tables it has.
type operation struct {
	name  string // as it ends the names of trigger and function
	event string
	rows  []string
}

func operations() []operation {
	return []operation{
		{"insert", "INSERT", []string{after}},
		{"update", "UPDATE", []string{before, after}},
		{"delete", "DELETE", []string{before}},
		{"truncate", "TRUNCATE", nil},
	}
}

// transitions is the clause that names the transition tables.
func (op operation) transitions() string {
	if op.rows == nil {
		return ""
	}
	named := map[string]string{before: "OLD TABLE AS " + before, after: "NEW TABLE AS " + after}
	clauses := make([]string, len(op.rows))
	for i, table := range op.rows {
		clauses[i] = named[table]
	}
	return " REFERENCING " + strings.Join(clauses, " ")
}

// changed begins a query with the rows that a statement changed, of the columns
// that it names: each combination once, where equal values are the same. A statement
// that touches many rows of few keys is so read in one pass, and joined for few.
func changed(columns []string, distinct bool, tables ...string) string {
	selected := "*"
	if len(columns) > 0 {
		selected = strings.Join(quoteAll(columns), ", ")
	}
	rows, union := "SELECT ", " UNION ALL "
	switch {
	case distinct && len(tables) == 1:
		rows = "SELECT DISTINCT "
	case distinct:
		union = " UNION "
	}
	rows += selected + " FROM "
	return "WITH changed AS (" + rows + strings.Join(tables, union+rows) + ") "
}

// functionName is unique by the table's oid; its name is for the reader.
func (w *watched) functionName(op string) string {
	return fmt.Sprintf("%.30s_%d_%s", w.relname, w.oid, op)
}

func triggerName(op string) string { return "mythic_cache_" + op }

// remapArguments are the types of what a function that maps again takes: join
// columns, and the number of keys that are wanted at most.
const remapArguments = "jsonb[], integer"

// remapName changes with all that the function is made of: an outbox row that was
// written for another form of it finds none and fences its view.
func (c capture) remapName(path string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{remapArguments, path, c.mapped, c.sql, c.definitions()}, "\n")))
	return fmt.Sprintf("remap_%.24s_%d_%s", c.view, c.mappedOID, hex.EncodeToString(sum[:4]))
}

// definitions are the columns that the mapping names, with their types.
func (c capture) definitions() string {
	all := make([]string, len(c.columns))
	for i, name := range quoteAll(c.columns) {
		all[i] = name + " " + c.types[i]
	}
	return strings.Join(all, ", ")
}

// remapSQL is the function that the relay runs a joined mapping with. The planner
// may do there what the relay's own session forbids. It is no SQL function, since
// one of those is planned anew at each call; and of an array the planner expects few
// rows, where it expects a hundred of a function and reads a whole table for them.
func (c capture) remapSQL(path string) string {
	return fmt.Sprintf(`CREATE OR REPLACE FUNCTION mythic_cache.%s(%s) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = %s%s SET enable_seqscan = on SET enable_bitmapscan = on AS %s
#variable_conflict use_column
DECLARE
  mc_keys text[];
BEGIN
  WITH changed AS (SELECT c.* FROM pg_catalog.unnest($1) AS j(record) CROSS JOIN LATERAL pg_catalog.jsonb_to_record(j.record) AS c(%s))
  SELECT pg_catalog.array_agg(k.key) INTO mc_keys FROM (SELECT DISTINCT m.key COLLATE "C" AS key FROM (SELECT %s AS key FROM (
%s
) AS m (%s)) AS m WHERE m.key <> '' LIMIT $2) AS k;
  RETURN mc_keys;
END
%s`, ident(c.remapName(path)), remapArguments, fixed(path), asLoads, quote, c.definitions(),
		keyOf(c.parts), c.sql, columns(c.parts), quote)
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
  mc_joins   jsonb;
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
		for _, o := range w.owners {
			o.write(&b, op)
		}
		for _, c := range w.captures {
			c.write(&b, op, path)
		}
	}
	fmt.Fprintf(&b, "  IF mc_written AND %s THEN\n    PERFORM mythic_cache.ring();\n  END IF;\n  RETURN NULL;\nEND\n%s", asleep, quote)
	return b.String()
}

// asleep spares most statements the call of ring(), which decides. It reads the
// sequence as ring() does, in an expression that needs no query of its own.
const asleep = "coalesce(pg_catalog.pg_sequence_last_value('mythic_cache.awake_until'), 0) < extract(epoch FROM pg_catalog.clock_timestamp()) * 1000"

// guarded is a read whose failure fences the view instead of failing the app's
// statement. Conflicts between transactions and cancellations stay the app's. The
// block writes nothing, so its subtransaction takes no xid.
const guarded = `  EXCEPTION
    WHEN transaction_rollback OR operator_intervention THEN
      RAISE;
    WHEN OTHERS THEN
      mc_why := pg_catalog.jsonb_build_object('broken', SQLERRM);
  END;
`

// write reads keys and join columns in one pass over what changed.
func (c capture) write(b *strings.Builder, op operation, path string) {
	joins, remap := "NULL::jsonb", "NULL"
	if c.joined {
		joins, remap = "(SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(c)) FROM changed c)", literal(c.remapName(path))
		if !c.distinct { // as text, since numbers in JSON are equal whatever their scale
			joins = `(SELECT pg_catalog.jsonb_agg(j.j::jsonb) FROM (SELECT DISTINCT pg_catalog.to_jsonb(c)::text COLLATE "C" AS j FROM changed c) AS j)`
		}
	}
	fmt.Fprintf(b, `  mc_keys := NULL; mc_joins := NULL; mc_why := NULL;
  BEGIN
    %sSELECT (SELECT pg_catalog.array_agg(DISTINCT pg_catalog."left"(m.key, %d) COLLATE "C") FROM (SELECT %s AS key FROM (
%s
) AS m (%s)) AS m WHERE m.key <> ''), %s INTO mc_keys, mc_joins;
%s  mc_written := mythic_cache.capture(%s, %s, mc_keys, mc_joins, %s, mc_why) OR mc_written;
`, changed(c.columns, c.distinct, op.rows...), event.MaxName+1, keyOf(c.parts), c.sql, columns(c.parts), joins,
		guarded, literal(c.eventType), literal(c.view), remap)
}

// write remembers owners. An update can only bring those that its new rows give
// and its old ones do not: most bring none, and write nothing. What is there
// already is not looked for first, since a SERIALIZABLE transaction would conflict
// with every other that looks at the same page of the index. A key that is longer
// than any entry's may be is not worth an index row that would not fit. They are
// written in the order of their keys, or two statements could wait for each other.
func (o ownership) write(b *strings.Builder, op operation) {
	read := func(table string) string {
		return fmt.Sprintf(`(%sSELECT %s COLLATE "C" AS key, coalesce(m.owner::text, '') COLLATE "C" AS owner FROM (
%s
) AS m (%s, owner))`, changed(nil, false, table), keyOf(o.parts), o.sql, columns(o.parts))
	}
	owned := read(op.rows[len(op.rows)-1])
	if op.event == "UPDATE" {
		owned = "(" + owned + "\nEXCEPT\n" + read(before) + ")"
	}
	fmt.Fprintf(b, `  mc_keys := NULL; mc_owners := NULL; mc_why := NULL;
  BEGIN
    SELECT pg_catalog.array_agg(m.key ORDER BY m.key), pg_catalog.array_agg(m.owner ORDER BY m.key) INTO mc_keys, mc_owners FROM %s AS m
    WHERE m.key <> '' AND pg_catalog.octet_length(m.key) <= %d;
%s  IF mc_why IS NOT NULL THEN
    mc_written := mythic_cache.capture(%s, %s, NULL, NULL, NULL, mc_why) OR mc_written;
  ELSIF mc_keys IS NOT NULL THEN
    INSERT INTO mythic_cache.owners (view, key, owner)
    SELECT %s, u.key, u.owner FROM ROWS FROM (pg_catalog.unnest(mc_keys), pg_catalog.unnest(mc_owners)) AS u(key, owner) ON CONFLICT DO NOTHING;
  END IF;
`, owned, event.MaxName, guarded, literal(o.eventType), literal(o.view), literal(o.view))
}

// triggerSQL installs the function of one kind of statement.
func (w *watched) triggerSQL(op operation) string {
	return fmt.Sprintf("CREATE OR REPLACE TRIGGER %s AFTER %s ON %s%s FOR EACH STATEMENT EXECUTE FUNCTION mythic_cache.%s()",
		ident(triggerName(op.name)), op.event, w.name, op.transitions(), ident(w.functionName(op.name)))
}

// statements is all that watching the table takes, and the names of the functions
// that it makes.
func (w *watched) statements(path string) (sql, functions []string) {
	for _, c := range w.captures {
		if c.joined {
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
			signature = name + "\"(" + remapArguments + ")"
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
