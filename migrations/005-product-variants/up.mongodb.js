// A list of sizes cannot say that XL costs more, or which size is which number. From now
// on a product has variants, each with a number, a price and perhaps a size.
// The change is made in one go; readers of `sizes` must be gone before.

// Products that list sizes. The array is replaced where it stands: a $set of the new name
// and an $unset of the old would put it at the end of the document, and `down` could not
// bring it back to its place.
// lockstep:ignore unbounded-write a few thousand products, written in less than a second
db.products.updateMany({ sizes: { $type: "array" } }, [
  {
    $replaceWith: {
      $arrayToObject: {
        $map: {
          input: { $objectToArray: "$$ROOT" },
          as: "field",
          in: {
            $cond: [
              { $eq: ["$$field.k", "sizes"] },
              {
                k: "variants",
                v: {
                  $map: {
                    input: "$sizes",
                    as: "size",
                    in: {
                      sku: { $concat: [{ $ifNull: ["$sku", { $concat: ["P-", { $toString: "$_id" }] }] }, "-", "$$size"] },
                      size: "$$size",
                      price: "$price",
                    },
                  },
                },
              },
              "$$field",
            ],
          },
        },
      },
    },
  },
]);

// The others have one variant, without a size. That missing size is what tells `down`
// apart a product that never had sizes from one with a single size.
// lockstep:ignore unbounded-write the same few thousand
db.products.updateMany({ sizes: { $exists: false }, variants: { $exists: false } }, [
  {
    $set: {
      variants: [{ sku: { $ifNull: ["$sku", { $concat: ["P-", { $toString: "$_id" }] }] }, price: "$price" }],
    },
  },
]);

// One number, one variant, in the whole shop. Without the filter, each product with an
// empty list would be in the index as null, and the second one a duplicate. Between
// products only: within one document MongoDB does not compare.
// lockstep:ignore unique-index-unchecked each number was made above, of what tells products apart
db.products.createIndex(
  { "variants.sku": 1 },
  { name: "variant_sku_unique", unique: true, partialFilterExpression: { "variants.sku": { $exists: true } } },
);
