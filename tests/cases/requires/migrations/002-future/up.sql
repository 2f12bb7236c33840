CREATE TABLE future ();
