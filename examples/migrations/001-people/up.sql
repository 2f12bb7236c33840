CREATE TABLE people (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mail text NOT NULL);
INSERT INTO people (mail) VALUES ('ada@example.org'), ('grace.hopper@example.org');
