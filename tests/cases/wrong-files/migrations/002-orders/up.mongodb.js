db.createCollection("orders");
for (let i = 0; i < 10; i++) {
  db.orders.insertOne({ _id: i });
}
