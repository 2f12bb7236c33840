-- Everybody's preferences go with the table. The index and the trigger belong to it and
-- need no statement; the function stands alone. No CASCADE: if something else has come to
-- depend on the table, this should stop and say so.
DROP TABLE user_preferences;
DROP FUNCTION user_preferences_touch();
