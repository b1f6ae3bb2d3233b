-- The baseline's capture: on every statement one row for each distinct key, with
-- the mappings that the program's own views have, and a NOTIFY in every
-- transaction.
CREATE SCHEMA bare;
CREATE TABLE bare.outbox (
  id      bigserial   PRIMARY KEY,
  type    text        NOT NULL,
  view    text        NOT NULL,
  subject text        NOT NULL,
  at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE FUNCTION bare.mark(subject text) RETURNS void LANGUAGE sql AS $$
  INSERT INTO bare.outbox (type, view, subject) VALUES ('bench.marked', 'none', $1);
  SELECT pg_notify('bare', '');
$$;

DO $do$
DECLARE
  m  record;
  op record;
BEGIN
  FOR m IN VALUES
    ('books', 'user_books', 'SELECT u.clerk_user_id AS key FROM changed c JOIN users u ON u.id = c.user_id'),
    ('users', 'user_books', 'SELECT clerk_user_id AS key FROM changed'),
    ('users', 'run_status', 'SELECT s.run_id AS key FROM changed c JOIN processing_sessions s ON s.user_id = c.id'),
    ('processing_sessions', 'run_status', 'SELECT run_id AS key FROM changed')
  LOOP
    FOR op IN VALUES
      ('insert', 'NEW TABLE AS changed', ''),
      ('update', 'OLD TABLE AS gone NEW TABLE AS come', 'WITH changed AS (SELECT * FROM gone UNION ALL SELECT * FROM come) '),
      ('delete', 'OLD TABLE AS changed', '')
    LOOP
      EXECUTE format($f$
        CREATE FUNCTION bare.%1$I() RETURNS trigger LANGUAGE plpgsql AS $b$
        BEGIN
          INSERT INTO bare.outbox (type, view, subject)
          %2$s SELECT DISTINCT %3$L, %4$L, m.key FROM (%5$s) AS m;
          PERFORM pg_notify('bare', '');
          RETURN NULL;
        END
        $b$
      $f$, m.column1 || '_' || m.column2 || '_' || op.column1, op.column3, m.column1 || '.changed', m.column2, m.column3);
      EXECUTE format('CREATE TRIGGER %I AFTER %s ON %I REFERENCING %s FOR EACH STATEMENT EXECUTE FUNCTION bare.%I()',
        'bare_' || m.column2 || '_' || op.column1, op.column1, m.column1, op.column2, m.column1 || '_' || m.column2 || '_' || op.column1);
    END LOOP;
  END LOOP;
END
$do$;
