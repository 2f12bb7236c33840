db.merchants.drop();
