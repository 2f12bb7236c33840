db.big_orders.drop();
