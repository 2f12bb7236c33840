db.orders.updateMany({}, { $unset: { merchant: "", currency: "" } });
db.merchants.drop();
