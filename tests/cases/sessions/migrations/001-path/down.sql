DROP TABLE attic.in_the_attic;
