ALTER TABLE people ADD COLUMN name text;
-- A function of the service, in the same transaction. See examples/embedded.rs.
CALL lockstep.fill_names('1');
ALTER TABLE people ALTER COLUMN name SET NOT NULL;
