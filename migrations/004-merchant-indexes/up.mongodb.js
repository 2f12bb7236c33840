// One index of each kind, each for a question that is really asked. All have names of our
// own: `down` needs them, and a generated name changes when a field is added.

// Compound, in the order equality, equality, sort: the back office lists the merchants of
// a country in one state, newest first, and the index delivers them sorted.
db.merchants.createIndex(
  { country: 1, "onboarding.status": 1, created_at: -1 },
  { name: "country_status_newest" },
);

// The index above answers what the one on country alone did. Hide that one before anybody
// drops it: the planner no longer sees it, writes still keep it, and if a dashboard turns
// slow, bringing it back takes a moment instead of a rebuild.
db.merchants.hideIndex("country_1");

// Unique, without regard to case: Shop.2@ and shop.2@ are one mailbox. Strength 2 compares
// letters and accents but not case. A query uses this index only if it asks with the same
// collation. Partial, because merchants without an address are not duplicates of each other;
// and $exists rather than $type, because the planner sees that { email: "x" } exists, but
// not that it is a string, and would not use the index at all.
// lockstep:ignore unique-index-unchecked the back office has merged the shops that shared an address
db.merchants.createIndex(
  { "contact.email": 1 },
  {
    name: "email_unique",
    unique: true,
    collation: { locale: "en", strength: 2 },
    partialFilterExpression: { "contact.email": { $exists: true } },
  },
);

// Unique and sparse: a missing number is not in the index, so any number of merchants may
// lack one. Sparse would not do if the field were there as null: a null is a value, and
// the second one a duplicate.
// lockstep:ignore unique-index-unchecked the tax office gives each number once, and the form asks it
db.merchants.createIndex({ vat_id: 1 }, { name: "vat_id_unique", unique: true, sparse: true });

// Words in names; a hit in the name weighs more than one in the city. Our documents have a
// field `language` which means the merchant's. To a text index that name means its grammar,
// and the build stops at the first "gsw". So point it at a field that nobody has.
db.merchants.createIndex(
  { name: "text", city: "text" },
  { name: "words", weights: { name: 10, city: 2 }, default_language: "none", language_override: "text_index_language" },
);

// Two at once. A map looks for shops near a point (2dsphere skips shops that gave none),
// and support filters by whichever setting today's question is about (wildcard).
db.runCommand({
  createIndexes: "merchants",
  indexes: [
    { key: { location: "2dsphere" }, name: "near" },
    { key: { "settings.$**": 1 }, name: "any_setting" },
  ],
});

// TTL: drafts remove themselves when their time has come. It is a delete that nobody
// reviews, so look first at what has the field. A document without it never expires.
// lockstep:ignore ttl-index 003 made the collection, and no document of it has the field yet
db.merchant_onboarding.createIndex({ draft_expires_at: 1 }, { name: "drafts_expire", expireAfterSeconds: 0 });
