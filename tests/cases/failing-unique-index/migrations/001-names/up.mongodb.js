db.merchants.updateMany({}, { $set: { active: true } });
db.merchants.createIndex(
  { name: 1 },
  { unique: true, name: "name_unique" },
);
