-- The old release is gone by now. From here on `role` can only be had back by a down.
DROP TRIGGER users_roles_follow ON users;
DROP FUNCTION users_roles_follow();
ALTER TABLE users DROP COLUMN role;
-- lockstep:ignore rename-column the release that is left asks for either name
ALTER TABLE users RENAME COLUMN roles_array TO roles;
