db.createCollection("merchants");
db.merchants.createIndex({ name: 1 }, { unique: true, name: "name_unique" });
db.merchants.insertMany([
  { _id: 1, name: "Ann" },
  { _id: 2, name: "Bert" },
  { _id: 3, name: "Ann" },
]);
db.merchants.updateMany({}, { $set: { rating: 0 } });
