// Pages show a person in one read, so there is a document for each.

// Until the copy was compared, the rule warns and lets pass: the release that writes
// profiles beside users is new, and an error of it should be found in the log, not in a
// customer's face. The cleanup makes the rule strict.
db.createCollection("profiles", {
  validator: {
    $jsonSchema: {
      bsonType: "object",
      required: ["email", "full_name", "roles", "created_at"],
      properties: {
        // users.id is a bigint; drivers send small ones as int.
        _id: { bsonType: ["int", "long"], minimum: 1 },
        email: { bsonType: "string" },
        full_name: { bsonType: "string" },
        roles: { bsonType: "array", items: { bsonType: "string" } },
        born_on: { bsonType: ["date", "null"] },
        created_at: { bsonType: "date" },
        last_seen_at: { bsonType: ["date", "null"] },
        // Who has no preferences has null in both.
        locale: { bsonType: ["string", "null"] },
        settings: { bsonType: ["object", "null"] },
      },
      additionalProperties: false,
    },
  },
  validationLevel: "strict",
  validationAction: "warn",
});

// users.email is unique, and so it is here. Before there are documents: an index of an
// empty collection is there at once.
db.profiles.createIndex({ email: 1 }, { name: "email_unique", unique: true });
