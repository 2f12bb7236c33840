CREATE TABLE users (id integer PRIMARY KEY);
CREATE TABLE flyway_schema_history (
    installed_rank int NOT NULL PRIMARY KEY, version varchar(50), description varchar(200) NOT NULL,
    type varchar(20) NOT NULL, script varchar(1000) NOT NULL, checksum int, installed_by varchar(100) NOT NULL,
    installed_on timestamp NOT NULL DEFAULT now(), execution_time int NOT NULL, success boolean NOT NULL
);
INSERT INTO flyway_schema_history VALUES (1, '1', 'Create users', 'SQL', 'V1__Create_users.sql', 1, 'me', now(), 1, true);
