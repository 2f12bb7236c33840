db.orders.deleteOne({ _id: 1 });
db.orders.drop();
