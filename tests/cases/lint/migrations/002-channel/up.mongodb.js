db.order_notes.updateMany({ channel: { $exists: false } }, { $set: { channel: "web" } });
