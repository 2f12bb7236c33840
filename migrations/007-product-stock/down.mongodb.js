db.products.dropIndex("low_stock");

// The rule before the data, or it would refuse the data as it was. Word for word the
// validator of before, with its level and action: what collMod is not told it leaves.
db.runCommand({
  collMod: "products",
  validator: {
    $jsonSchema: {
      bsonType: "object",
      required: ["merchant_id", "name", "price"],
      properties: { name: { bsonType: "string" }, price: { bsonType: "number" } },
    },
  },
  validationLevel: "strict",
  validationAction: "error",
});

// A 0 that was assumed and is still 0 was never a count. One that has changed since was
// counted by somebody: it stays, and loses only its mark.
db.products.updateMany({ stock_assumed: true, stock: 0 }, { $unset: { stock: "" } });
db.products.updateMany({ stock_assumed: { $exists: true } }, { $unset: { stock_assumed: "" } });

// The same for what was put aside: it comes back unless the stock was changed since. $set
// leaves a field where it stands, so the documents are again what they were, byte for byte.
db.products.updateMany(
  {
    stock_before: { $exists: true },
    $expr: { $eq: ["$stock", { $convert: { input: "$stock_before", to: "int", onError: 0, onNull: 0 } }] },
  },
  [{ $set: { stock: "$stock_before" } }],
);
db.products.updateMany({ stock_before: { $exists: true } }, { $unset: { stock_before: "" } });
