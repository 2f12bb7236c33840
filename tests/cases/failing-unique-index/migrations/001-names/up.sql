CREATE TABLE names (name text);
