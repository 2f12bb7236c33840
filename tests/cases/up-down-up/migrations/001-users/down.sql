DROP FUNCTION shout(text);
DROP TABLE users;
DROP TYPE role;
