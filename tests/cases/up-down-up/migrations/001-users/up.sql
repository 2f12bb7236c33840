-- Several statements, one transaction.
CREATE TYPE role AS ENUM ('student', 'teacher');
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL UNIQUE,
    role role NOT NULL DEFAULT 'student'
);
INSERT INTO users (email) VALUES ('ada@example.com'), ('bob;@example.com');
CREATE FUNCTION shout(text) RETURNS text LANGUAGE sql AS $$ SELECT upper($1); $$;
