-- What a user chose, one row a person. Rows appear when somebody changes a setting: a
-- user without a row has the defaults, so there is nothing to fill in here.

CREATE TABLE user_preferences (
    -- One row a user, so the user is the key; and who leaves takes the preferences along.
    -- The foreign key locks users against writes until this script commits. There are no
    -- rows to check, so that is a moment.
    user_id    bigint PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    locale     text NOT NULL DEFAULT 'en' CHECK (locale ~ '^[a-z]{2,3}(-[A-Z]{2})?$'),
    -- jsonb takes any JSON, 42 and [] included. The application reads keys, so say so.
    settings   jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- For "who wants the weekly digest": settings @> '{"digest": "weekly"}'. jsonb_path_ops
-- knows what is under which key and not keys alone, and is smaller and faster for it. The
-- table is empty and nobody waits, so the index need not be built concurrently.
CREATE INDEX user_preferences_settings ON user_preferences USING gin (settings jsonb_path_ops);

-- An updated_at that every writer must remember is soon wrong. The table remembers.
CREATE FUNCTION user_preferences_touch() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END;
$$;

CREATE TRIGGER user_preferences_touch
    BEFORE UPDATE ON user_preferences
    FOR EACH ROW EXECUTE FUNCTION user_preferences_touch();
