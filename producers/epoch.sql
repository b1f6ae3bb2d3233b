-- What a relay has to know of the database before it trusts a position.
SELECT coalesce(mythic_cache.current_epoch(), 0), pg_is_in_recovery(),
  CASE WHEN NOT pg_is_in_recovery() THEN pg_current_snapshot()::text ELSE '1:1:' END,
  coalesce((SELECT t.xid::text FROM mythic_cache.outbox_truncated t), '0')
