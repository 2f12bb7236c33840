CREATE TYPE role AS ENUM ('user', 'admin');
CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL, role role, balance numeric, tags text[], settings jsonb, created_at timestamptz NOT NULL);
INSERT INTO users VALUES
    (1, 'one@example.com', 'admin', 1.50, ARRAY['a', 'b'], '{"theme": "dark", "size": 1.5}', '2026-01-01 12:00:00.123456+00'),
    (2, 'two@example.com', 'user', 0, '{}', NULL, '2026-01-02 12:00:00+00'),
    (3, 'three@example.com', NULL, 1234567890123456789012345678901234567890, NULL, '[1, null]', '2026-01-03 12:00:00+00');
