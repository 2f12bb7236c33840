db.t.insertMany([{ _id: 1 }, { _id: 2 }]);
