// Prices and numbers that were given to single variants since `up` are lost: a list of
// sizes has no room for them. Sizes that were added are kept.

// The index first. The changes below would only make work for it.
db.products.dropIndex("variant_sku_unique");

// A variant without a size: this product had no list.
db.products.updateMany({ variants: { $elemMatch: { size: { $exists: false } } } }, { $unset: { variants: "" } });

// All that are left had one. It goes back to where it stood.
db.products.updateMany({ variants: { $type: "array" } }, [
  {
    $replaceWith: {
      $arrayToObject: {
        $map: {
          input: { $objectToArray: "$$ROOT" },
          as: "field",
          in: {
            $cond: [{ $eq: ["$$field.k", "variants"] }, { k: "sizes", v: "$variants.size" }, "$$field"],
          },
        },
      },
    },
  },
]);
