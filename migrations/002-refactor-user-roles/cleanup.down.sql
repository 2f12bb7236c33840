-- The column comes back empty, and last in the table; a backfill fills it. Who has got
-- several roles since keeps the first.
ALTER TABLE users RENAME COLUMN roles TO roles_array;
ALTER TABLE users ADD COLUMN role text;

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
