db.createCollection("orders");
db.orders.insertOne({ _id: 1 });
