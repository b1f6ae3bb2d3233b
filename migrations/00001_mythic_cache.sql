-- Everything that Mythic Cache keeps in PostgreSQL lives in schema mythic_cache,
-- which the program makes before goose runs, since goose's own table is in it.

-- +goose Up

-- The number of the present run of xids. UNLOGGED: crash recovery, promotion and
-- restore empty it, a clean restart keeps it. Without its row nothing may be
-- cached, because a crash restart hands out again the xids of transactions whose
-- abort was never flushed. A dump holds the row all the same, and brings it back
-- in a table of another oid, hence relation.
CREATE UNLOGGED TABLE mythic_cache.epoch (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  epoch    bigint  NOT NULL CHECK (epoch BETWEEN 1 AND (1::bigint << 48) - 1),
  database oid     NOT NULL,
  system   bigint  NOT NULL,
  timeline text    NOT NULL,
  relation oid     NOT NULL
);

-- +goose StatementBegin
-- The epoch that snapshots of this moment belong to; NULL where there is none
-- yet, where the row came from another database, cluster, timeline or a dump, and in
-- recovery (an unlogged table cannot be read there, hence no plain SQL).
CREATE FUNCTION mythic_cache.current_epoch() RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF pg_is_in_recovery() THEN
    RETURN NULL;
  END IF;
  RETURN (
    SELECT e.epoch
    FROM mythic_cache.epoch e
    WHERE e.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND e.system = (SELECT c.system_identifier FROM pg_control_system() c)
      AND e.timeline = left(pg_walfile_name(pg_current_wal_lsn()), 8)
      AND e.relation = e.tableoid
  );
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- The text form of a snapshot's version, as package cache/version writes it.
CREATE FUNCTION mythic_cache.version_text(epoch bigint, snapshot pg_snapshot) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT lpad(to_hex(epoch), 12, '0')
      || lpad(to_hex(pg_snapshot_xmax(snapshot)::text::bigint), 16, '0')
      || lpad(to_hex(4294967295 - (SELECT count(*) FROM pg_snapshot_xip(snapshot))), 8, '0')
$$;
-- +goose StatementEnd

-- The outbox: what committed and has to reach the streams. Rows are inserted and
-- never updated (but see begin_epoch) or deleted; whole partitions are truncated,
-- so nothing rots.
-- A row is one of four things:
--   event_id set         an event of the app's, from publish()
--   view and subject     a key of a view whose rows changed
--   view, no subject     the whole view is to be fenced; data may say why
--   joins set            also, or only: join columns that the relay maps again,
--                        with the function named in remap
CREATE SEQUENCE mythic_cache.outbox_id CACHE 100;

-- The slot that is written to. A sequence and no row: it is read in a microsecond
-- (pg_sequence_last_value needs no query), newest value for old snapshots too.
CREATE SEQUENCE mythic_cache.outbox_slot MINVALUE 0 MAXVALUE 3 START 0;

-- Milliseconds since 1970 by PostgreSQL's clock until which the relay looks by
-- itself, so that writers need not ring. Reset by a crash: then they ring.
CREATE UNLOGGED SEQUENCE mythic_cache.awake_until MINVALUE 0 START 0;

CREATE TABLE mythic_cache.outbox (
  id       bigint      NOT NULL DEFAULT nextval('mythic_cache.outbox_id'),
  xid      xid8        NOT NULL DEFAULT pg_current_xact_id(),
  slot     integer     NOT NULL DEFAULT coalesce(pg_sequence_last_value('mythic_cache.outbox_slot'), 0),
  at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  type     text        NOT NULL,
  view     text,
  subject  text,
  event_id uuid,
  data     jsonb,
  joins    jsonb,
  remap    text
) PARTITION BY LIST (slot);
CREATE TABLE mythic_cache.outbox_0 PARTITION OF mythic_cache.outbox FOR VALUES IN (0) WITH (autovacuum_analyze_scale_factor = 0.5);
CREATE TABLE mythic_cache.outbox_1 PARTITION OF mythic_cache.outbox FOR VALUES IN (1) WITH (autovacuum_analyze_scale_factor = 0.5);
CREATE TABLE mythic_cache.outbox_2 PARTITION OF mythic_cache.outbox FOR VALUES IN (2) WITH (autovacuum_analyze_scale_factor = 0.5);
CREATE TABLE mythic_cache.outbox_3 PARTITION OF mythic_cache.outbox FOR VALUES IN (3) WITH (autovacuum_analyze_scale_factor = 0.5);
CREATE INDEX outbox_xid_id ON mythic_cache.outbox (xid, id);

-- What rotation has thrown away, and when the present slot was opened.
CREATE TABLE mythic_cache.outbox_truncated (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  xid      xid8,
  at       timestamptz,
  opened   timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO mythic_cache.outbox_truncated DEFAULT VALUES;

-- +goose StatementBegin
-- Writes a new epoch, above the present one and at least the one asked for.
-- A restore brings rows of the outbox whose xids another cluster handed out. One
-- that no snapshot of ours has seen yet would be new to the relay at every reading,
-- until our own xids get there; such rows become rows of this transaction. What was
-- truncated under other epochs concerns no position of this one.
CREATE FUNCTION mythic_cache.begin_epoch(at_least bigint) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  UPDATE mythic_cache.outbox SET xid = pg_current_xact_id()
  WHERE xid >= pg_snapshot_xmin(pg_current_snapshot()) AND NOT pg_visible_in_snapshot(xid, pg_current_snapshot())
    AND xid <> pg_current_xact_id();
  UPDATE mythic_cache.outbox_truncated SET xid = NULL WHERE xid IS NOT NULL;
  INSERT INTO mythic_cache.epoch AS e (epoch, database, system, timeline, relation)
  SELECT greatest(at_least, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint),
    (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()),
    (SELECT c.system_identifier FROM pg_control_system() c),
    left(pg_walfile_name(pg_current_wal_lsn()), 8), 'mythic_cache.epoch'::regclass
  ON CONFLICT (only_row) DO UPDATE SET
    epoch = greatest(excluded.epoch, e.epoch + 1),
    database = excluded.database, system = excluded.system, timeline = excluded.timeline, relation = excluded.relation
  RETURNING epoch
$$;
-- +goose StatementEnd

-- Where the relay was, now and then: what a truncation must have been behind for
-- one whole retention.
CREATE TABLE mythic_cache.positions (
  at       timestamptz PRIMARY KEY DEFAULT clock_timestamp(),
  epoch    bigint      NOT NULL,
  snapshot pg_snapshot NOT NULL
);

-- +goose StatementBegin
-- Rings the relay's doorbell unless it is awake. A writer calls it after its
-- outbox row is in, never before: the relay relies on a writer that did not ring
-- having had its xid by the time it read awake_until. Where transactions can be
-- prepared nobody rings, since PREPARE TRANSACTION refuses one that did.
CREATE FUNCTION mythic_cache.ring() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF coalesce(pg_sequence_last_value('mythic_cache.awake_until'), 0) < extract(epoch FROM clock_timestamp()) * 1000
    AND current_setting('max_prepared_transactions') = '0'
  THEN
    PERFORM pg_notify('mythic_cache', '');
  END IF;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Publishes an event of the app's when, and only when, its transaction commits.
-- It refuses what package producers/event refuses.
CREATE FUNCTION mythic_cache.publish(type text, subject text DEFAULT NULL, data jsonb DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  id    uuid := gen_random_uuid();
  topic text := split_part($1, '.', 1);
BEGIN
  IF coalesce(topic, '') = '' OR strpos($1, '.') = 0 OR substr($1, length(topic) + 2) = '' THEN
    RAISE EXCEPTION 'type % is not of the form <topic>.<what happened>', quote_nullable(left($1, 64)) USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF topic ~ '[:{} ]' THEN
    RAISE EXCEPTION 'topic % holds a colon, a brace or a space', quote_literal(left(topic, 64)) USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF topic IN ('dead', 'parked', 'position') THEN
    RAISE EXCEPTION 'topic % is the name of something else beside the streams', quote_literal(topic) USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF octet_length(convert_to($1, 'UTF8')) > 512 OR octet_length(convert_to($2, 'UTF8')) > 512 THEN
    RAISE EXCEPTION 'type and subject may have 512 bytes each at most' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF $1 = 'fill.requested' THEN
    RAISE EXCEPTION 'fill.requested is the workers'' own and cannot be published' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF coalesce($2, '') = '' AND $1 NOT IN ('ai.requested', 'ai.answered', 'ai.forget', 'session.created', 'session.revoked') THEN
    RAISE EXCEPTION '% needs a subject', $1 USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF octet_length(convert_to($3::text, 'UTF8')) > 1048576 THEN
    RAISE EXCEPTION 'data may have 1048576 bytes at most' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  INSERT INTO mythic_cache.outbox (type, subject, event_id, data) VALUES ($1, nullif($2, ''), id, $3);
  PERFORM mythic_cache.ring();
  RETURN id;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- One key of a view's key parts, as view.JoinKey makes it; NULL where a part is
-- NULL, since a row without a key concerns no entry.
CREATE FUNCTION mythic_cache.join_key(VARIADIC parts text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN array_position(parts, NULL) IS NOT NULL THEN NULL
    WHEN cardinality(parts) = 1 THEN parts[1]
    ELSE (
      SELECT string_agg(replace(replace(p.part, '%', '%25'), ':', '%3A'), ':' ORDER BY p.n)
      FROM unnest(parts) WITH ORDINALITY AS p(part, n))
  END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- What one statement did to one view, as the generated trigger functions call it: a
-- row for each key, join columns (at most a thousand combinations a row) beside them,
-- or one row that fences the whole view where why says that the keys are not known.
-- Reports whether anything was written. There is no EXCEPTION block around the
-- insert: it would cost a subtransaction with an xid, and an insert that fails has to
-- fail the app's statement, since letting it pass would lose the change. It goes
-- straight to a partition, which spares it the routing.
CREATE FUNCTION mythic_cache.capture(type text, view text, keys text[], joins jsonb, remap text, why jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  slot integer := coalesce(pg_sequence_last_value('mythic_cache.outbox_slot'), 0);
BEGIN
  IF why IS NOT NULL THEN
    INSERT INTO mythic_cache.outbox (type, view, data) VALUES (type, view, why);
    RETURN true;
  ELSIF keys IS NULL AND joins IS NULL THEN
    RETURN false;
  ELSIF jsonb_array_length(joins) > 1000 THEN
    -- Spread over the keys, so that no batch of the relay has to map them all.
    INSERT INTO mythic_cache.outbox (type, view, subject, joins, remap)
    SELECT type, view, k.key, s.joins, CASE WHEN s.joins IS NOT NULL THEN remap END
    FROM unnest(keys) WITH ORDINALITY AS k(key, n)
    FULL JOIN (
      SELECT jsonb_agg(j.value) AS joins,
        1 + (j.n - 1) / 1000 * greatest(coalesce(cardinality(keys), 0) / (1 + (jsonb_array_length(joins) - 1) / 1000), 1) AS n
      FROM jsonb_array_elements(joins) WITH ORDINALITY AS j(value, n)
      GROUP BY (j.n - 1) / 1000
    ) AS s ON s.n = k.n
    ORDER BY coalesce(k.n, s.n);
    RETURN true;
  END IF;
  keys := coalesce(keys, ARRAY[NULL]);
  CASE slot
    WHEN 0 THEN
      INSERT INTO mythic_cache.outbox_0 (slot, type, view, subject, joins, remap)
      SELECT slot, type, view, u.key, u.joins, CASE WHEN u.joins IS NOT NULL THEN remap END FROM unnest(keys, ARRAY[joins]) AS u(key, joins);
    WHEN 1 THEN
      INSERT INTO mythic_cache.outbox_1 (slot, type, view, subject, joins, remap)
      SELECT slot, type, view, u.key, u.joins, CASE WHEN u.joins IS NOT NULL THEN remap END FROM unnest(keys, ARRAY[joins]) AS u(key, joins);
    WHEN 2 THEN
      INSERT INTO mythic_cache.outbox_2 (slot, type, view, subject, joins, remap)
      SELECT slot, type, view, u.key, u.joins, CASE WHEN u.joins IS NOT NULL THEN remap END FROM unnest(keys, ARRAY[joins]) AS u(key, joins);
    ELSE
      INSERT INTO mythic_cache.outbox_3 (slot, type, view, subject, joins, remap)
      SELECT slot, type, view, u.key, u.joins, CASE WHEN u.joins IS NOT NULL THEN remap END FROM unnest(keys, ARRAY[joins]) AS u(key, joins);
  END CASE;
  RETURN true;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- The distinct keys that joined mappings give for the join columns of outbox
-- rows, in the snapshot of the statement that calls it (STABLE, hence). A key of
-- NULL with broken set means that the mapping could not be run or gives more keys
-- than it is worth telling apart: the whole view has to be fenced. With at_most
-- below zero nothing is run and every view is.
CREATE FUNCTION mythic_cache.remap(function text, joins jsonb[], at_most integer) RETURNS TABLE (key text, broken text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  keys text[];
BEGIN
  IF at_most < 0 THEN
    RETURN QUERY SELECT NULL::text, 'took too long'::text;
    RETURN;
  END IF;
  BEGIN
    EXECUTE format('SELECT mythic_cache.%I($1, $2)', function) INTO keys USING joins, at_most + 1;
  EXCEPTION
    WHEN transaction_rollback OR operator_intervention THEN
      RAISE;
    WHEN OTHERS THEN
      RETURN QUERY SELECT NULL::text, SQLERRM;
      RETURN;
  END;
  IF cardinality(keys) > at_most THEN
    RETURN QUERY SELECT NULL::text, 'more than ' || at_most || ' keys';
    RETURN;
  END IF;
  RETURN QUERY SELECT k, NULL::text FROM unnest(keys) AS k;
END
$$;
-- +goose StatementEnd

-- The triggers that are installed, one row for each table. The hash covers all
-- that they were generated from.
CREATE TABLE mythic_cache.triggers (
  relation  oid         PRIMARY KEY,
  name      text        NOT NULL,
  views     text[]      NOT NULL,
  functions text[]      NOT NULL,
  hash      text        NOT NULL,
  installed timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What the triggers were last brought in line with: the views, and the release that
-- generated them.
CREATE TABLE mythic_cache.installation (
  only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
  generation text        NOT NULL,
  at         timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The events of runs, for as long as their documents may be asked for. The same
-- event twice is one row.
CREATE TABLE mythic_cache.run_events (
  source   text        NOT NULL,
  event_id text        NOT NULL,
  run_id   text        NOT NULL,
  type     text        NOT NULL,
  time     timestamptz NOT NULL,
  data     jsonb,
  PRIMARY KEY (source, event_id)
);
CREATE INDEX run_events_run_id ON mythic_cache.run_events (run_id);

-- Whose an entry is, for ever: an owner stays when the row that named it goes.
CREATE TABLE mythic_cache.owners (
  view  text NOT NULL,
  key   text NOT NULL,
  owner text NOT NULL,
  PRIMARY KEY (view, key)
);

-- +goose StatementBegin
-- JSON merge patch (RFC 7396, section 2).
CREATE FUNCTION mythic_cache.merge_patch(target jsonb, patch jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  name  text;
  value jsonb;
BEGIN
  IF patch IS NULL THEN
    RETURN target; -- there is no patch, which is not the patch null
  END IF;
  IF jsonb_typeof(patch) <> 'object' THEN
    RETURN patch;
  END IF;
  IF target IS NULL OR jsonb_typeof(target) <> 'object' THEN
    target := '{}';
  END IF;
  FOR name, value IN SELECT * FROM jsonb_each(patch) LOOP
    IF jsonb_typeof(value) = 'null' THEN
      target := target - name;
    ELSIF jsonb_typeof(value) = 'object' THEN
      target := target || jsonb_build_object(name, mythic_cache.merge_patch(target -> name, value));
    ELSE
      target := target || jsonb_build_object(name, value);
    END IF;
  END LOOP;
  RETURN target;
END
$$;
-- +goose StatementEnd

CREATE AGGREGATE mythic_cache.fold(jsonb) (SFUNC = mythic_cache.merge_patch, STYPE = jsonb);

-- +goose StatementBegin
-- The document of one run. Events are folded by time and id, terminal ones last
-- whenever they came, so that repeats and disorder change nothing. Where the run
-- has a session row, that row's four fields stand as they are, NULLs included.
-- BEGIN ATOMIC, so that pg_depend knows which table it reads.
CREATE FUNCTION mythic_cache.run_document(
  run_id text, has_session boolean, status text, current_stage text, progress_percentage double precision, error_message text
) RETURNS json
LANGUAGE sql STABLE
BEGIN ATOMIC
  WITH blank AS (
    SELECT jsonb_build_object(
      'runId', $1, 'message', NULL, 'style', NULL, 'format', NULL,
      'stages', jsonb_build_object('data_collected', false, 'images_downloaded', false, 'book_generated', false),
      'files', jsonb_build_object(), 'profile', jsonb_build_object(),
      'status', 'processing', 'current_stage', NULL, 'progress_percentage', NULL, 'error_message', NULL) AS document
  ), steps AS (
    SELECT 0 AS rank, NULL::timestamptz AS time, NULL::text COLLATE "C" AS source, NULL::text COLLATE "C" AS id, blank.document AS patch
    FROM blank
    UNION ALL
    SELECT CASE WHEN e.type IN ('run.finished', 'run.failed') THEN 2 ELSE 1 END, e.time, e.source, e.event_id,
      CASE e.type WHEN 'run.finished' THEN '{"status": "completed"}' WHEN 'run.failed' THEN '{"status": "failed"}' ELSE '{}'::jsonb END
      || CASE WHEN jsonb_typeof(e.data) = 'object' THEN e.data ELSE '{}' END
    FROM mythic_cache.run_events e
    WHERE e.run_id = $1
  ), folded AS (
    SELECT mythic_cache.fold(patch ORDER BY rank, time, id, source) AS document FROM steps
  )
  SELECT json_object_agg(f.key, f.value ORDER BY
      array_position(ARRAY['runId', 'status', 'current_stage', 'progress_percentage', 'error_message', 'message', 'style', 'format', 'stages', 'files', 'profile'], f.key), f.key)
  FROM blank, folded, jsonb_each(
    blank.document || folded.document
    -- Its three members are always there, whatever a patch took away.
    || jsonb_build_object('runId', $1, 'stages', (blank.document -> 'stages')
      || CASE WHEN jsonb_typeof(folded.document -> 'stages') = 'object' THEN folded.document -> 'stages' ELSE '{}' END)
    || CASE WHEN $2 THEN jsonb_build_object('status', $3, 'current_stage', $4, 'progress_percentage', $5, 'error_message', $6) ELSE '{}' END) AS f;
END;
-- +goose StatementEnd

-- An app's role needs nothing but to call publish(); its writes reach the outbox
-- through trigger functions that run as whoever installed them.
GRANT USAGE ON SCHEMA mythic_cache TO PUBLIC;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA mythic_cache FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mythic_cache.publish(text, text, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION mythic_cache.join_key(text[]) TO PUBLIC;

-- +goose Down
DROP FUNCTION mythic_cache.run_document(text, boolean, text, text, double precision, text);
DROP AGGREGATE mythic_cache.fold(jsonb);
DROP FUNCTION mythic_cache.merge_patch(jsonb, jsonb);
DROP TABLE mythic_cache.owners;
DROP TABLE mythic_cache.run_events;
DROP TABLE mythic_cache.installation;
DROP TABLE mythic_cache.triggers;
DROP FUNCTION mythic_cache.remap(text, jsonb[], integer);
DROP FUNCTION mythic_cache.capture(text, text, text[], jsonb, text, jsonb);
DROP FUNCTION mythic_cache.join_key(text[]);
DROP FUNCTION mythic_cache.publish(text, text, jsonb);
DROP FUNCTION mythic_cache.ring();
DROP TABLE mythic_cache.positions;
DROP FUNCTION mythic_cache.begin_epoch(bigint);
DROP TABLE mythic_cache.outbox_truncated;
DROP TABLE mythic_cache.outbox;
DROP SEQUENCE mythic_cache.awake_until;
DROP SEQUENCE mythic_cache.outbox_slot;
DROP SEQUENCE mythic_cache.outbox_id;
DROP FUNCTION mythic_cache.version_text(bigint, pg_snapshot);
DROP FUNCTION mythic_cache.current_epoch();
DROP TABLE mythic_cache.epoch;
