-- The app's tables, as Mythic has them, made only where they are missing.
CREATE TABLE IF NOT EXISTS users (
  id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  clerk_user_id text UNIQUE,
  email         text,
  full_name     text,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS books (
  id                  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id             uuid REFERENCES users (id) ON DELETE CASCADE,
  run_id              text,
  title               text,
  profile_username    text,
  profile_full_name   text,
  profile_followers   integer,
  profile_posts_count integer,
  html_path           text,
  pdf_path            text,
  images_path         text,
  is_completed        boolean NOT NULL DEFAULT false,
  has_html            boolean NOT NULL DEFAULT false,
  has_pdf             boolean NOT NULL DEFAULT false,
  created_at          timestamptz NOT NULL DEFAULT now(),
  updated_at          timestamptz NOT NULL DEFAULT now(),
  book_metadata       jsonb
);
CREATE INDEX IF NOT EXISTS books_user_id_created_at ON books (user_id, created_at DESC);

CREATE TABLE IF NOT EXISTS processing_sessions (
  id                  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  run_id              text NOT NULL UNIQUE,
  user_id             uuid REFERENCES users (id) ON DELETE CASCADE,
  instagram_url       text,
  status              text NOT NULL DEFAULT 'pending',
  current_stage       text,
  progress_percentage integer NOT NULL DEFAULT 0,
  error_message       text,
  started_at          timestamptz NOT NULL DEFAULT now(),
  completed_at        timestamptz
);
CREATE INDEX IF NOT EXISTS processing_sessions_user_id ON processing_sessions (user_id);
