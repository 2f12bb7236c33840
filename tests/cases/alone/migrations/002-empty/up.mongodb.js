db.createCollection("later");
