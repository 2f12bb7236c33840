DROP TABLE lines, orders;
