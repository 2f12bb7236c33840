CREATE TABLE half ();
