CREATE TABLE users (id integer PRIMARY KEY, email text);
CREATE INDEX CONCURRENTLY users_email ON users (email);
