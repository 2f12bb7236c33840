CREATE TABLE settings AS
SELECT name, setting FROM pg_settings WHERE name IN
    ('search_path', 'lock_timeout', 'statement_timeout', 'default_transaction_read_only', 'TimeZone', 'DateStyle', 'session_replication_role', 'standard_conforming_strings');
CREATE TABLE leftovers AS
SELECT 'table' AS kind, relname::text AS name FROM pg_class WHERE relnamespace = pg_my_temp_schema()
UNION ALL SELECT 'statement', name FROM pg_prepared_statements
UNION ALL SELECT 'cursor', name FROM pg_cursors
UNION ALL SELECT 'lock', objid::text FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'channel', pg_listening_channels();
