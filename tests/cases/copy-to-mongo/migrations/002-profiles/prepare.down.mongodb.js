db.profiles.drop();
