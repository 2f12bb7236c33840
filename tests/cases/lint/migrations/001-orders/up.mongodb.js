db.createCollection("order_notes");
db.order_notes.createIndex({ order_id: 1 }, { name: "order", unique: true });
