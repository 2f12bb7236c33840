// What each merchant sold. Counting all orders for each look at the page is too slow, so
// the figures are kept. Kept figures are as old as their last count: each says up to
// which order it goes, and the same aggregation, run again, brings it up to date.

// Made by hand before $merge would make it by itself, to have the validator on it from the
// first document.
db.createCollection("merchant_stats", {
  validator: {
    $jsonSchema: {
      bsonType: "object",
      required: ["_id", "orders", "units", "revenue", "last_order_at"],
      properties: {
        // Per currency. A sum of yen and francs is a number, but not an amount.
        _id: {
          bsonType: "object",
          required: ["merchant_id", "currency"],
          properties: { merchant_id: { bsonType: "objectId" }, currency: { bsonType: "string" } },
        },
        orders: { bsonType: ["int", "long"], minimum: 1 },
        units: { bsonType: ["int", "long"], minimum: 0 },
        // Money is decimal. A double here means that somebody added up doubles.
        revenue: { bsonType: "decimal" },
        first_order_at: { bsonType: "date" },
        last_order_at: { bsonType: "date" },
      },
    },
  },
  validationLevel: "strict",
  validationAction: "error",
});

db.merchant_stats.createIndex({ "_id.currency": 1, revenue: -1 }, { name: "best_sellers" });

db.orders.aggregate([
  // Cancelled is not sold. The oldest orders have no status; they were delivered long ago.
  { $match: { status: { $ne: "cancelled" } } },
  {
    $set: {
      units: { $sum: "$lines.quantity" },
      amount: {
        $reduce: {
          input: "$lines",
          initialValue: NumberDecimal("0"),
          in: {
            $add: [
              "$$value",
              // Imported prices are doubles: 19.99 is not quite 19.99 until it is rounded.
              { $multiply: ["$$this.quantity", { $round: [{ $toDecimal: "$$this.unit_price" }, 2] }] },
            ],
          },
        },
      },
    },
  },
  {
    $group: {
      _id: { merchant_id: "$merchant_id", currency: "$currency" },
      orders: { $sum: 1 },
      units: { $sum: "$units" },
      revenue: { $sum: "$amount" },
      first_order_at: { $min: "$placed_at" },
      last_order_at: { $max: "$placed_at" },
    },
  },
  // The same orders give the same documents, so this may be repeated at any time.
  { $merge: { into: "merchant_stats", on: "_id", whenMatched: "replace", whenNotMatched: "insert" } },
]);

// For the page: figures as of the last count, names as of now.
db.createView("merchant_analytics", "merchant_stats", [
  { $lookup: { from: "merchants", localField: "_id.merchant_id", foreignField: "_id", as: "merchant" } },
  {
    $project: {
      _id: 0,
      merchant_id: "$_id.merchant_id",
      name: { $first: "$merchant.name" },
      country: { $first: "$merchant.country" },
      currency: "$_id.currency",
      orders: 1,
      units: 1,
      revenue: 1,
      // Never by zero: the validator wants at least one order.
      average_order: { $round: [{ $divide: ["$revenue", "$orders"] }, 2] },
      as_of: "$last_order_at",
    },
  },
]);
