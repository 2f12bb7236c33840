// Every product gets a stock, a whole number. The data comes first, the rule after it:
// collMod does not look at what is there, so a rule over bad data is not noticed until
// somebody saves a product and cannot.

// What is there but is no whole number: strings and doubles from a spreadsheet, nulls. What
// can be read as a number is, the rest becomes 0, and the old value is put aside for
// `down`. Before the next statement, which makes stocks that are whole numbers.
// lockstep:ignore unbounded-write a few thousand products, written in less than a second
db.products.updateMany({ stock: { $exists: true, $not: { $type: "int" } } }, [
  {
    $set: {
      stock_before: "$stock",
      stock: { $convert: { input: "$stock", to: "int", onError: 0, onNull: 0 } },
    },
  },
]);

// What is missing becomes 0, and says that nobody counted it: for `down`, and for whoever
// has to order and should not believe it.
// lockstep:ignore unbounded-write the same few thousand
db.products.updateMany({ stock: { $exists: false } }, { $set: { stock: 0, stock_assumed: true } });

// The old rule with stock added to it: collMod replaces the validator as a whole.
// Some products are oversold and stand at -3, and that is true, so it stays. "moderate"
// lets a document that already breaks the rule be saved; all others must keep it.
// lockstep:ignore validator-without-warning the statements above have mended every stock there is
db.runCommand({
  collMod: "products",
  validator: {
    $jsonSchema: {
      bsonType: "object",
      required: ["merchant_id", "name", "price", "stock"],
      properties: {
        name: { bsonType: "string" },
        price: { bsonType: "number" },
        stock: { bsonType: "int", minimum: 0 },
      },
    },
  },
  validationLevel: "moderate",
  validationAction: "error",
});

// "What must be ordered soon": a merchant's products that are nearly out. The many that
// are not stay out of the index.
db.products.createIndex(
  { merchant_id: 1, stock: 1 },
  { name: "low_stock", partialFilterExpression: { stock: { $lte: 5 } } },
);
