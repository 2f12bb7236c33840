CREATE VIEW teachers AS SELECT * FROM users WHERE role = 'teacher';
