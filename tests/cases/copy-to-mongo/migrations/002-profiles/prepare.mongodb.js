db.createCollection("profiles");
