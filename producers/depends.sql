-- What the query of a view reads, by its rule's dependencies: each relation with
-- the columns that are named (none where only the relation is). Plain views and
-- functions with a parsed body on the way are looked through; functions of other
-- languages are opaque. Beside the relations stand, with kind '', the rules and
-- functions on the way, each with the
-- xmin of its row for a name (and of its view's type, which is written with the name).
-- $1: the view.  $2: a relation that is not looked through, or 0.
WITH RECURSIVE readers(classid, objid) AS (
  SELECT 'pg_rewrite'::regclass::oid, r.oid FROM pg_rewrite r WHERE r.ev_class = $1::regclass
  UNION
  SELECT next.classid, next.objid
  FROM readers
  JOIN pg_depend d ON d.classid = readers.classid AND d.objid = readers.objid AND d.deptype = 'n'
  CROSS JOIN LATERAL (
    SELECT 'pg_rewrite'::regclass::oid, r.oid
    FROM pg_class c JOIN pg_rewrite r ON r.ev_class = c.oid
    WHERE d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid AND c.relkind = 'v' AND c.oid <> $2
    UNION ALL
    SELECT d.refclassid, d.refobjid WHERE d.refclassid = 'pg_proc'::regclass
  ) AS next(classid, objid)
)
SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relkind::text,
  coalesce(array_agg(DISTINCT a.attname::text) FILTER (WHERE a.attname IS NOT NULL), '{}')
FROM readers
JOIN pg_depend d ON d.classid = readers.classid AND d.objid = readers.objid AND d.deptype = 'n' AND d.refclassid = 'pg_class'::regclass
JOIN pg_class c ON c.oid = d.refobjid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid AND a.attnum > 0
WHERE c.oid <> $1::regclass AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'p', 'm', 'f', 'v')
  AND (c.relkind <> 'v' OR c.oid = $2)
GROUP BY 1, 2, 3
UNION ALL
SELECT r.oid, concat_ws(' ', r.xmin, (SELECT y.xmin FROM pg_class c JOIN pg_type y ON y.oid = c.reltype WHERE c.oid = r.ev_class)), '', '{}'
FROM readers JOIN pg_rewrite r ON r.oid = readers.objid
WHERE readers.classid = 'pg_rewrite'::regclass AND r.ev_class <> $1::regclass
UNION ALL
SELECT p.oid, p.xmin::text, '', '{}' FROM readers JOIN pg_proc p ON p.oid = readers.objid
WHERE readers.classid = 'pg_proc'::regclass
ORDER BY 2
