db.createCollection("orders");
db.orders.insertOne({ _id: 1 });
db.orders.insertOne({ _id: 1 });
