CREATE TABLE users (id int PRIMARY KEY, email text, score numeric(6, 2), seen timestamptz);
INSERT INTO users SELECT n, 'user' || n || '@example.com', n + 0.5, timestamptz '2026-11-01 10:00:00.123456+00' FROM generate_series(1, 100) AS n;
