db.visits.createIndex({ person: 1, at: -1 }, { name: "visits_of" });
