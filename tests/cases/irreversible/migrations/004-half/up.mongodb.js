db.createCollection("half");
