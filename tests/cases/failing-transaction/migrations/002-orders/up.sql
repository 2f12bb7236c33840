-- The first one is fine, the second is not.
CREATE TABLE orders (id integer PRIMARY KEY, user_id integer REFERENCES users);
INSERT INTO orders
VALUES (1, 1),
       (2, 7);
