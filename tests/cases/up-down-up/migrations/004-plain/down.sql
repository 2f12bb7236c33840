DROP VIEW teachers;
