ALTER TABLE users ADD COLUMN role text;
