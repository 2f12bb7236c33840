DROP INDEX CONCURRENTLY users_roles;
DROP TRIGGER users_roles_follow ON users;
DROP FUNCTION users_roles_follow();
ALTER TABLE users DROP COLUMN roles_array;
