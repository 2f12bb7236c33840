db.merchants.dropIndex("name_unique");
db.merchants.updateMany({}, { $unset: { active: "" } });
