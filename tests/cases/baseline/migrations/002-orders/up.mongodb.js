db.createCollection("order_notes");
