// Preferences are read with every page, so the web servers keep a copy here.
// It can always be made again from Postgres, which is why it starts empty.

// A copy that is malformed is worse than none: the validator refuses it at the door.
db.createCollection("user_preferences_cache", {
  validator: {
    $jsonSchema: {
      bsonType: "object",
      required: ["user_id", "locale", "settings", "cached_at"],
      properties: {
        _id: {},
        // users.id is a bigint; drivers send small ones as int.
        user_id: { bsonType: ["int", "long"], minimum: 1 },
        locale: { bsonType: "string", pattern: "^[a-z]{2,3}(-[A-Z]{2})?$" },
        settings: { bsonType: "object" },
        cached_at: { bsonType: "date" },
      },
      // A misspelt field is an error, not a second field.
      additionalProperties: false,
    },
  },
  validationLevel: "strict",
  validationAction: "error",
});

// Two web servers that cache the same user at the same time must end with one document.
db.user_preferences_cache.createIndex({ user_id: 1 }, { name: "user_id_unique", unique: true });
