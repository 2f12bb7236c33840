ALTER TABLE users ADD COLUMN name text;
UPDATE users SET name = split_part(email, '@', 1);
-- No transaction can hold this one: the script is cut around it.
CREATE INDEX CONCURRENTLY users_name ON users (lower(name));
ALTER TABLE users ALTER COLUMN name SET NOT NULL;
