CREATE TABLE users (id integer PRIMARY KEY, email text NOT NULL);
INSERT INTO users VALUES (1, 'ada@example.com'), (2, 'ada@example.com');
CREATE UNIQUE INDEX CONCURRENTLY users_email
    ON users (email);
INSERT INTO users VALUES (3, 'bob@example.com');
