ALTER TABLE users ADD COLUMN name text;
UPDATE users SET name = emial WHERE id > 0;
