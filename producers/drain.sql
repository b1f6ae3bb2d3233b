-- The rows that became visible since a position, a batch of them in the order of
-- xid and id, and what their joined mappings give now. One statement, so that the
-- rows, the keys and the snapshot that becomes the position are of one moment. The
-- outbox is reached by its index on both ways, however long a transaction is open.
-- Always at least one row, for the snapshot.
-- $1, $2 the transactions in progress of the position's snapshot, and the id in each
--     behind which to read
-- $3, $4 xid and id behind which to read the rest. One comparison of both: beside
--     a second bound the index may begin at the wrong one, and read all there is
-- $5  target of a backlog under way, or NULL   $6 its xmax
-- $7  how many rows   $8 how many keys a mapping may give
WITH present AS MATERIALIZED (
  SELECT pg_current_snapshot()::text AS snapshot, pg_current_xact_id_if_assigned() IS NULL AS clean
), waiting AS MATERIALIZED (
  SELECT * FROM (
    (SELECT o.* FROM unnest($1::text[]::xid8[], $2::bigint[]) AS open(xid, id) CROSS JOIN LATERAL (
      SELECT r.* FROM mythic_cache.outbox r
      WHERE r.xid = open.xid AND r.id > open.id
        AND ($5::text IS NULL OR pg_visible_in_snapshot(r.xid, $5::text::pg_snapshot))
      ORDER BY r.xid, r.id LIMIT $7::int) AS o)
    UNION ALL
    (SELECT r.* FROM mythic_cache.outbox r
      WHERE (r.xid, r.id) > ($3::text::xid8, $4::bigint) AND r.xid < $6::text::xid8
        AND ($5::text IS NULL OR pg_visible_in_snapshot(r.xid, $5::text::pg_snapshot))
      ORDER BY r.xid, r.id LIMIT $7::int)
  ) AS either
  ORDER BY xid, id LIMIT $7::int
), again AS (
  SELECT w.remap, w.view, w.type, min(w.at) AS at, array_agg(DISTINCT j.value::text COLLATE "C")::jsonb[] AS joins
  FROM waiting w CROSS JOIN LATERAL jsonb_array_elements(w.joins) AS j(value)
  GROUP BY 1, 2, 3
)
SELECT p.snapshot, p.clean, e.again, coalesce(e.xid::text, '0'), coalesce(e.id, 0), e.at,
  coalesce(e.type, ''), coalesce(e.view, ''), coalesce(e.subject, ''), coalesce(e.event_id::text, ''), coalesce(e.data, ''), coalesce(e.joined, false)
FROM present p LEFT JOIN LATERAL (
  SELECT true AS again, NULL::xid8 AS xid, NULL::bigint AS id, a.at, a.type, a.view, m.key AS subject, NULL::uuid AS event_id,
    m.broken AS data, false AS joined
  FROM again a CROSS JOIN LATERAL mythic_cache.remap(a.remap, a.joins, $8::int) AS m
  UNION ALL
  SELECT false, w.xid, w.id, w.at, w.type, w.view, w.subject, w.event_id, w.data::text, w.joins IS NOT NULL
  FROM waiting w
) AS e ON true
ORDER BY e.again DESC, e.xid, e.id
