// Validator and index belong to the collection and go with it. Nothing is lost: it was a
// copy. It goes before the table does, so that it is never a copy of nothing.
db.user_preferences_cache.drop();
