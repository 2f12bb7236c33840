DROP TABLE ordres;
