-- Some hundreds of users, books and runs. Ids follow from numbers, so that
-- loading them again changes nothing.
INSERT INTO users (id, clerk_user_id, email, full_name, created_at, updated_at)
SELECT md5('mythic demo user ' || n)::uuid, 'user_' || n, 'user_' || n || '@example.com', 'Reader ' || n, at, at
FROM generate_series(1, 300) AS n, LATERAL (SELECT timestamptz '2025-01-01 00:00:00Z' + n * interval '1 hour') AS t(at)
ON CONFLICT DO NOTHING;

INSERT INTO books (id, user_id, run_id, title, profile_username, profile_full_name, profile_followers, profile_posts_count,
  html_path, pdf_path, images_path, is_completed, has_html, has_pdf, created_at, updated_at, book_metadata)
SELECT md5('mythic demo book ' || n)::uuid, u.id, 'RUN' || n, 'The Book of ' || p.name, p.name, initcap(replace(p.name, '_', ' ')),
  (n * 7919) % 100000, (n * 31) % 900,
  '/books/RUN' || n || '/index.html', CASE WHEN n % 3 > 0 THEN '/books/RUN' || n || '/book.pdf' END, '/books/RUN' || n || '/images',
  true, true, n % 3 > 0, t.at, t.at, jsonb_build_object('pages', 20 + n % 60, 'style', CASE n % 2 WHEN 0 THEN 'classic' ELSE 'modern' END)
FROM generate_series(1, 900) AS n
CROSS JOIN LATERAL (SELECT 'profile_' || n % 120 AS name) AS p
CROSS JOIN LATERAL (SELECT timestamptz '2025-02-01 00:00:00Z' + n * interval '37 minutes' AS at) AS t
JOIN users u ON u.clerk_user_id = 'user_' || 1 + n % 300
ON CONFLICT DO NOTHING;

INSERT INTO processing_sessions (id, run_id, user_id, instagram_url, status, current_stage, progress_percentage, error_message, started_at, completed_at)
SELECT md5('mythic demo run ' || n)::uuid, 'RUN' || n, u.id, 'https://www.instagram.com/profile_' || n % 120,
  s.status, s.stage, s.percentage, CASE s.status WHEN 'failed' THEN 'The profile is private.' END,
  t.at, CASE WHEN s.status IN ('completed', 'failed') THEN t.at + interval '4 minutes' END
FROM generate_series(1, 400) AS n
CROSS JOIN LATERAL (SELECT timestamptz '2025-02-01 00:00:00Z' + n * interval '37 minutes' AS at) AS t
CROSS JOIN LATERAL (
  SELECT CASE WHEN n % 20 = 0 THEN 'failed' WHEN n % 20 = 1 THEN 'processing' ELSE 'completed' END,
    CASE WHEN n % 20 = 0 THEN 'scraping' WHEN n % 20 = 1 THEN 'generating' ELSE 'done' END,
    CASE WHEN n % 20 = 0 THEN 10 WHEN n % 20 = 1 THEN 60 ELSE 100 END) AS s(status, stage, percentage)
JOIN users u ON u.clerk_user_id = 'user_' || 1 + n % 300
ON CONFLICT DO NOTHING;
