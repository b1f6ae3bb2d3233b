-- The parsed trees of the query of a view and of all that it reads through: plain views
-- and functions with a parsed body. Comments and texts are in no tree.
-- $1: the view.
WITH RECURSIVE readers(classid, objid) AS (
  SELECT 'pg_rewrite'::regclass::oid, r.oid FROM pg_rewrite r WHERE r.ev_class = $1::regclass
  UNION
  SELECT next.classid, next.objid
  FROM readers
  JOIN pg_depend d ON d.classid = readers.classid AND d.objid = readers.objid AND d.deptype = 'n'
  CROSS JOIN LATERAL (
    SELECT 'pg_rewrite'::regclass::oid, r.oid
    FROM pg_class c JOIN pg_rewrite r ON r.ev_class = c.oid
    WHERE d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid AND c.relkind = 'v'
    UNION ALL
    SELECT d.refclassid, d.refobjid WHERE d.refclassid = 'pg_proc'::regclass
  ) AS next(classid, objid)
)
SELECT r.ev_action::text FROM readers JOIN pg_rewrite r ON r.oid = readers.objid WHERE readers.classid = 'pg_rewrite'::regclass
UNION ALL
SELECT p.prosqlbody::text FROM readers JOIN pg_proc p ON p.oid = readers.objid WHERE readers.classid = 'pg_proc'::regclass AND p.prosqlbody IS NOT NULL
