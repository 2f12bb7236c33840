// A copy: validator and index go with it, and nothing is lost.
db.profiles.drop();
