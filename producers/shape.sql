-- What the catalogs say of all that views rest on, a row for each view: a digest of
-- its tables and, beside it, the rules and functions that it reads through. Each row
-- of a catalog stands there with its xmin, so that what was changed and changed back
-- (a trigger that was disabled for one statement) is not as it was. TRUNCATE, VACUUM,
-- new indexes and rights on tables leave all of it alone. Every catalog is reached by its index,
-- a row at a time: OFFSET 0 keeps the planner from joining whole catalogs.
-- $1, $2  views, and tables that they map, in pairs
-- $3, $4  views, and the oids of rules and functions that they read through, in pairs
WITH RECURSIVE named AS MATERIALIZED (
  SELECT m.view, to_regclass(m.name)::oid AS oid FROM unnest($1::text[], $2::text[]) AS m(view, name)
), kin(view, oid) AS ( -- the tables, those that have our triggers, and all that inherits from either
  (SELECT n.view, n.oid FROM named n WHERE n.oid IS NOT NULL
   UNION
   SELECT n.view, t.relation FROM named n JOIN mythic_cache.triggers t ON n.view = ANY (t.views))
  UNION
  SELECT k.view, below.oid
  FROM kin k CROSS JOIN LATERAL (SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = k.oid OFFSET 0) AS below(oid)
), member AS MATERIALIZED (
  SELECT k.oid, ROW(k.oid, c.shape,
    (SELECT string_agg(concat_ws(' ', i.inhrelid, i.xmin), ',' ORDER BY i.inhrelid) FROM pg_inherits i WHERE i.inhparent = k.oid),
    (SELECT string_agg(concat_ws(' ', g.oid, g.xmin), ',' ORDER BY g.oid) FROM pg_trigger g
     WHERE g.tgrelid = k.oid AND NOT g.tgisinternal AND g.tgname LIKE 'mythic\_cache\_%'),
    (SELECT string_agg(s.srsubid::text, ',' ORDER BY s.srsubid) FROM pg_subscription_rel s WHERE s.srrelid = k.oid))::text AS shape
  FROM (SELECT DISTINCT oid FROM kin) AS k
  LEFT JOIN LATERAL (
    -- The row of a table's type is written with the table's name and schema; that of
    -- the table is with every TRUNCATE. A partition has the columns of its parent.
    SELECT ROW(c.relrowsecurity,
      (SELECT n.nspname FROM pg_namespace n WHERE n.oid = c.relnamespace),
      (SELECT y.xmin FROM pg_type y WHERE y.oid = c.reltype),
      (SELECT string_agg(concat_ws(' ', a.attnum, a.xmin), ',' ORDER BY a.attnum) FROM pg_attribute a
       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT c.relispartition))::text AS shape
    FROM pg_class c WHERE c.oid = k.oid OFFSET 0
  ) AS c ON true
)
SELECT v.view,
  (SELECT md5(coalesce(string_agg(m.shape, E'\n' ORDER BY m.oid), '')) FROM kin k JOIN member m USING (oid) WHERE k.view = v.view),
  (SELECT coalesce(string_agg(concat_ws(' ', o.oid, o.xmin), ',' ORDER BY o.oid), '')
   FROM unnest($3::text[], $4::text[]) AS u(view, oid)
   CROSS JOIN LATERAL (
     SELECT r.oid, concat_ws(' ', r.xmin, (SELECT y.xmin FROM pg_class c JOIN pg_type y ON y.oid = c.reltype WHERE c.oid = r.ev_class))
     FROM pg_rewrite r WHERE r.oid = u.oid::oid
     UNION ALL
     SELECT p.oid, p.xmin::text FROM pg_proc p WHERE p.oid = u.oid::oid) AS o(oid, xmin)
   WHERE u.view = v.view)
FROM (SELECT DISTINCT n.view FROM named n) AS v
