// New merchants are checked before they sell. Each has a state in its own document, which
// the shop reads, and those still being checked have a file, which the back office works on.

db.createCollection("merchant_onboarding", {
  validator: {
    $jsonSchema: {
      bsonType: "object",
      required: ["_id", "status", "steps"],
      properties: {
        // The merchant's own _id: one file a merchant, without a second index to say so.
        _id: { bsonType: "objectId" },
        status: { enum: ["pending", "in_review", "approved", "rejected"] },
        steps: {
          bsonType: "array",
          items: {
            bsonType: "object",
            required: ["name", "done"],
            properties: { name: { bsonType: "string" }, done: { bsonType: "bool" } },
          },
        },
        assigned_to: { bsonType: "string" },
        // For a file that was begun and never handed in.
        draft_expires_at: { bsonType: "date" },
      },
    },
  },
  validationLevel: "strict",
  validationAction: "error",
});

// The queue: what is waiting, oldest merchant first.
db.merchant_onboarding.createIndex({ status: 1, _id: 1 }, { name: "queue" });

// "My files": few files are assigned, so only those are in the index.
db.merchant_onboarding.createIndex(
  { assigned_to: 1, status: 1 },
  { name: "assigned", partialFilterExpression: { assigned_to: { $exists: true } } },
);

// Merchants of the pilot have a state already; it is theirs and stays. Each state that is
// made up here says so, because that is how `down` knows which ones to take away again.
// lockstep:ignore unbounded-write a few hundred merchants, written in some milliseconds
db.merchants.updateMany({ onboarding: { $exists: false } }, [
  {
    $set: {
      onboarding: {
        status: { $cond: ["$verified", "approved", "pending"] },
        set_by: "003-merchant-onboarding",
      },
    },
  },
]);

// A file for everyone who waits. keepExisting makes it harmless to repeat: a file that
// somebody has begun to work on is not replaced by an empty one.
db.merchants.aggregate([
  { $match: { "onboarding.status": "pending" } },
  {
    $replaceWith: {
      _id: "$_id",
      status: "pending",
      steps: [
        { name: "identity", done: false },
        // What we know need not be asked again.
        { name: "tax number", done: { $ne: [{ $type: "$vat_id" }, "missing"] } },
        { name: "bank account", done: false },
      ],
    },
  },
  { $merge: { into: "merchant_onboarding", on: "_id", whenMatched: "keepExisting", whenNotMatched: "insert" } },
]);
