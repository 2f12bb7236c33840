db.orders.insertONe({ _id: 1 });
db.orders.insertOne({ _id: 1, at: new Date() });
