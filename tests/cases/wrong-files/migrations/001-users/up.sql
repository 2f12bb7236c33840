CREATE TABLE users (id integer PRIMARY KEY);
BEGIN;
INSERT INTO users VALUES (1);
COMMIT;
\i other.sql
