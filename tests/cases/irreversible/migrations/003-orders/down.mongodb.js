db.orders.drop();
