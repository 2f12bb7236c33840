db.createCollection("merchants", {
  validator: { $jsonSchema: { bsonType: "object", required: ["name"], properties: { name: { bsonType: "string" } } } },
  validationLevel: "strict",
});
db.merchants.createIndex({ name: 1 }, { unique: true, name: "name_unique" });
db.merchants.insertOne({ _id: 1, name: "Ann's" });
db.merchants.insertMany([{ _id: 2, name: "Bert" }, { _id: 3, name: "Cleo", rating: 4.5 }]);
db.orders.updateMany({ total: { $gte: 10 } }, { $set: { merchant: 1, currency: "EUR" } });
