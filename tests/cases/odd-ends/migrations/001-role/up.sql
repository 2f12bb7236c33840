CREATE TABLE secrets (id integer);
SET ROLE pg_read_all_data;
