-- A default that is a constant is kept in the catalog: no row is rewritten.
ALTER TABLE users ADD COLUMN roles_array text[] NOT NULL DEFAULT '{}';

-- Two releases write this table until the cleanup: the old one knows `role`, the new one
-- `roles_array`. Whichever of the two a statement changes, the other follows.
CREATE FUNCTION users_roles_follow() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.roles_array = '{}'
       OR TG_OP = 'UPDATE' AND NEW.role IS DISTINCT FROM OLD.role THEN
        NEW.roles_array := CASE WHEN NEW.role IS NULL THEN '{}' ELSE ARRAY[NEW.role] END;
    ELSE
        NEW.role := NEW.roles_array[1];
    END IF;
    RETURN NEW;
END;
$$;

CREATE TRIGGER users_roles_follow
    BEFORE INSERT OR UPDATE OF role, roles_array ON users
    FOR EACH ROW EXECUTE FUNCTION users_roles_follow();

-- On its own, outside of any transaction: the application goes on writing meanwhile.
CREATE INDEX CONCURRENTLY users_roles ON users USING gin (roles_array);
