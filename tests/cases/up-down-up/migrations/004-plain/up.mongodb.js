db.createView("big_orders", "orders", [{ $match: { total: { $gt: 15 } } }]);
