CREATE TABLE users (id bigint PRIMARY KEY, role text);
INSERT INTO users SELECT n, CASE WHEN n % 3 = 0 THEN NULL WHEN n % 5 = 0 THEN '' ELSE 'role ' || n END FROM generate_series(1, 2500) AS n;
CREATE TABLE orders (id bigint PRIMARY KEY);
