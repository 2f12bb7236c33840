db.visits.drop();
