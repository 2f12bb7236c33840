CREATE TABLE things (id bigint PRIMARY KEY, price text NOT NULL, cents bigint);
INSERT INTO things SELECT n, n || '.50', NULL FROM generate_series(1, 2500) AS n;
UPDATE things SET price = 'free' WHERE id IN (700, 1500, 2500);
