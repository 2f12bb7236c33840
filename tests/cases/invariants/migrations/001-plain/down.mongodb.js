db.t.drop();
