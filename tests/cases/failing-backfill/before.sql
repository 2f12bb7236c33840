CREATE TABLE things (id bigint PRIMARY KEY, n bigint NOT NULL, doubled bigint CHECK (doubled <> 3000));
INSERT INTO things SELECT n, n, NULL FROM generate_series(1, 2500) AS n;
