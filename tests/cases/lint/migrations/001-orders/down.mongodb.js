db.order_notes.drop();
