// Every call and every literal that the reader knows. mongosh runs this file,
// the reader reads it, and the two databases must be equal afterwards.
"use strict";
db.dropDatabase();

/* ---- constants and arithmetic ---- */
const admin = "admin", seconds = 60 * 60 * 24;
const address = { city: 'Zürich', zip: 8001 }
const list = [1, "two", address];

/* ---- numbers ---- */
db.numbers.insertOne({
  int32: 7, max: 2147483647, min: -2147483648, over: 2147483648, under: -2147483649,
  billions: 5000000000, minusZero: -0, exponent: 1e3, fraction: 1.5, tiny: 1e-7, huge: 1e300,
  hex: 0xff, octal: 0o17, binary: 0b101, separated: 1_000_000, plus: +5, minus: -(5), double: 1.0,
  nan: NaN, infinity: Infinity, minusInfinity: -Infinity, overflow: 1e999,
  sum: 0.1 + 0.2, days: seconds * 7, quotient: 1 / 3, even: 6 / 2, zero: 1 / 0, rest: -7 % 3, rest0: -6 % 3,
  difference: 1 - 2 - 3, precedence: 1 + 2 * 3, parentheses: (1 + 2) * 3,
  bigint: 5n, bigintMin: -9223372036854775808n, bigintHex: 0xffn,
});
db.numbers.insertMany([
  { long: NumberLong("9223372036854775807"), longMin: NumberLong("-9223372036854775808") },
  { long: NumberLong(1), negative: NumberLong(-1), large: NumberLong(5000000000), zero: NumberLong("0") },
  { long: NumberLong(NumberInt(3)), fromLong: NumberLong(NumberLong("5")), int: NumberInt(NumberLong("6")) },
  { long: Long("12345678901"), fromNumber: Long(5), from: Long.fromString("-42"), made: new Long("7") },
  { int: NumberInt(7), text: NumberInt("-8"), alias: Int32(9), made: new Int32("10") },
  { double: Double(1), text: Double("2.50"), made: new Double(-0), exp: Double("1e3"), nan: Double(NaN) },
  {
    decimal: NumberDecimal("1.50"), exponent: NumberDecimal("1E+3"), negative: NumberDecimal("-0.001"),
    nan: NumberDecimal("NaN"), infinity: NumberDecimal("-Infinity"), zero: NumberDecimal("0.00"),
    digits: NumberDecimal("9.999999999999999999999999999999999E+6144"),
    small: NumberDecimal("1E-6176"), alias: Decimal128("12345678901234567890.12345"), minusZero: Decimal128("-0"),
    from: Decimal128.fromString("0.1"), made: new Decimal128("7"), number: NumberDecimal(5), fraction: NumberDecimal(1.5),
    lower: NumberDecimal("1e3"), dot: NumberDecimal(".5"), plus: NumberDecimal("+5"), inf: NumberDecimal("Infinity"),
  },
], { ordered: true });

/* ---- texts ---- */
db.texts.insertOne({
  single: 'a "b"', double: "a 'b'", escapes: "tab\t newline\n quote\" \x41 \u00e9 \u{1F600} \0 null",
  continued: "a\
b", template: `no substitutions, "quotes", \`ticks\`
and a line break`, joined: "a" + 'b' + `c`, constant: admin, empty: "", emoji: "😀", pair: "\ud83d\ude00",
  separator: "\u2028",
});

/* ---- keys: the order is JavaScript's ---- */
db.keys.insertOne({ _id: 1, b: 1, 10: "ten", a: 2, 2: "two", "1": "one", "01": "text", 4294967294: "last index", 4294967295: "text" });
db.keys.insertOne({ _id: 2, a: 1, b: 2, a: 3, 5: 1, 5: 2 });
db.keys.insertOne({ _id: 3, 1.5: "fraction", 0x10: "hex", 1e21: "exponent", "-1": "negative", "with space": 1, "": "empty", "a.b": 1, $dollar: 1 });
db.keys.insertOne({ _id: 4, nested: { z: 1, 3: 3, y: { 2: 2, x: 1, 1: 1 } }, null: null, true: true, if: false, ünï: 1, \u0061bc: 2 });
db.keys.insertOne({ c: 1, _id: 5 });

/* ---- other values ---- */
db.values.insertOne({
  nothing: null, yes: true, no: false, list: list, nested: [[], {}, [[1]], [null,],], address: address, trailing: [1, 2, ],
  id: ObjectId("65a1b2c3d4e5f60718293a4b"), made: new ObjectId("65A1B2C3D4E5F60718293A4B"),
  uuid: UUID("0188a5c4-7e2f-7000-8000-0123456789ab"), made2: new UUID("0188A5C47E2F700080000123456789AB"),
  binary: BinData(0, "aGVsbG8="), user: BinData(128, ""), old: BinData(2, "aGVsbG8="), uuid4: BinData(4, "ABEiM0RVZneImaq7zN3u/w=="),
  hex: HexData(0, "00ff10"), md5: MD5("d41d8cd98f00b204e9800998ecf8427e"), made3: new BinData(5, "1B2M2Y8AsgTpgAmY7PhCfg=="),
  timestamp: Timestamp(1700000000, 7), object: Timestamp({ t: 1700000000, i: 4294967295 }), seconds: Timestamp(5), made4: new Timestamp(1, 2),
  min: MinKey, min2: MinKey(), min3: new MinKey(), min4: new MinKey, max: MaxKey, max2: MaxKey(), max3: new MaxKey(), max4: new MaxKey,
  regex: /^a.*[/]b\/c$/, flags: /x/im, made5: new RegExp("a/b[/]\\d", "i"), called: RegExp("^ab"), empty: new RegExp(""),
  bson: BSONRegExp("(?i)a/b", "xsim"), made6: new BSONRegExp("x"),
  reference: DBRef("users", 7), made7: new DBRef("users", ObjectId("65a1b2c3d4e5f60718293a4b"), "other"),
});
db.dates.insertOne({
  day: ISODate("2024-02-29"), zulu: ISODate("2024-01-31T12:34:56Z"), millis: ISODate("2024-01-31T12:34:56.789Z"), cut: ISODate("2024-01-31T12:34:56.7899Z"),
  noZone: ISODate("2024-01-31T12:34:56"), space: ISODate("2024-01-31 12:34:56"), offset: ISODate("2024-01-31T12:34:56+02:00"), compact: ISODate("20240131T123456Z"),
  compactOffset: ISODate("20240131T123456.5-0330"), minutes: ISODate("2024-01-31T12:34"), hour: ISODate("2024-01-31T12"), old: ISODate("0001-01-01T00:00:00Z"),
  number: ISODate(1700000000000), made: new ISODate("2024-01-31T12:34:56Z"), far: ISODate("9999-12-31T23:59:59.999Z"), tenth: ISODate("2024-01-31T12:34:56.1Z"),
  date: new Date("2024-02-29"), dateZulu: new Date("2024-01-31T12:34:56Z"), dateMillis: new Date("2024-01-31T12:34:56.789Z"), dateCut: new Date("2024-01-31T12:34:56.7899Z"),
  dateOffset: new Date("2024-01-31T12:34:56-05:30"), dateMinutes: new Date("2024-01-31T12:34Z"), dateNumber: new Date(1700000000000), negative: new Date(-1), computed: new Date(1000 * seconds),
});

/* ---- collections and views ---- */
db.createCollection("plain");
db.createCollection("capped", { capped: true, size: 4096, max: 10 });
db.createCollection("validated", {
  validator: { $jsonSchema: { bsonType: "object", required: ["name"], properties: { name: { bsonType: "string" }, age: { minimum: 0 } } } },
  validationLevel: "moderate", validationAction: "error", collation: { locale: "de", strength: 2 },
  storageEngine: { wiredTiger: { configString: "block_compressor=zlib" } }, writeConcern: { w: "majority" },
});
db.createCollection("measured", { timeseries: { timeField: "at", metaField: "sensor", granularity: "minutes" }, expireAfterSeconds: 3600 });
db.createCollection("clustered", { clusteredIndex: { key: { _id: 1 }, unique: true, name: "by id" } });
db.createCollection("imaged", { changeStreamPreAndPostImages: { enabled: true } });
db.createCollection("viewed", { viewOn: "keys", pipeline: [{ $match: { a: 1 } }] });
db.createView("view", "values", [{ $match: { yes: true } }, { $project: { yes: 1 } }]);
db.createView("ordered", "texts", [], { collation: { locale: "fr" } });
db["with-dash"].insertOne({ a: 1 });
db["dotted.name"].insertOne({ a: 1 });
db.dotted.twice.more.insertOne({ a: 1 });
db.getCollection("stats").insertOne({ a: 1 });
db.getCollection("_hidden").sub["x y"].insertOne({ a: 1 });
(db.parenthesized).insertOne(({ a: (1) }));

/* ---- indexes ---- */
db.createCollection("indexed");
db.indexed.createIndex({ a: 1 });
db.indexed.createIndex({ a: 1, b: -1 });
db.indexed.createIndex({ z: 1, 7: -1, 3: 1 });
db.indexed.createIndex({ half: 1.5, long: NumberLong(1), int: NumberInt(-1), double: Double(2) });
db.indexed.createIndex({ hashed: "hashed" });
db.indexed.createIndex({ title: "text", body: "text" }, { weights: { title: 10 }, default_language: "german", language_override: "lang", textIndexVersion: 3 });
db.indexed.createIndex({ where: "2dsphere" }, { "2dsphereIndexVersion": 3 });
db.indexed.createIndex({ flat: "2d" }, { bits: 20, min: -100, max: 100 });
db.indexed.createIndex({ "wild.$**": 1 });
db.indexed.createIndex({ "$**": 1 }, { name: "all", wildcardProjection: { secret: 0 } });
db.indexed.createIndex({ email: 1 }, { unique: true, name: "email", sparse: true, background: true });
db.indexed.createIndex({ at: 1 }, { expireAfterSeconds: seconds, hidden: true }, "majority");
db.indexed.createIndex({ part: 1 }, { partialFilterExpression: { part: { $gt: 5 } }, collation: { locale: "en", strength: 1 }, commitQuorum: 1, writeConcern: { w: 1 } });
db.indexed.createIndexes([{ one: 1 }, { two: 1, three: -1 }], { sparse: true }, 1);
db.indexed.createIndexes([{ four: 1 }]);
db.indexed.createIndex({ gone1: 1 }); db.indexed.createIndex({ gone2: 1 }); db.indexed.createIndex({ gone3: 1 }); db.indexed.createIndex({ gone4: 1 });
db.indexed.dropIndex("gone1_1");
db.indexed.dropIndex({ gone2: 1 });
db.indexed.dropIndexes(["gone3_1", "gone4_1"]);
db.indexed.hideIndex("a_1");
db.indexed.hideIndex({ one: 1 });
db.indexed.hideIndex("four_1");
db.indexed.unhideIndex("four_1");
db.indexed.unhideIndex({ at: 1 });
db.createCollection("bare");
db.bare.createIndex({ a: 1 }); db.bare.createIndex({ b: 1 }); db.bare.createIndex({ c: 1 });
db.bare.dropIndexes({ a: 1 });
db.bare.dropIndexes("b_1");
db.bare.dropIndexes();

/* ---- documents ---- */
const fruit = [{ _id: 1, n: 1, tags: ["a", "b"] }, { _id: 2, n: 2, tags: [] }, { _id: 3, n: 3, items: [{ x: 1 }, { x: 2 }] }, { _id: 4, n: 4 }, { _id: 5, n: 5 }];
db.fruit.insertMany(fruit);
db.fruit.insertMany([{ name: "no id" }, { name: "no id either", _id: "x" }], { ordered: false, writeConcern: { w: "majority" } });
db.validated.insertOne({ age: -1 }, { bypassDocumentValidation: true, writeConcern: { w: 1 } });
db.fruit.updateOne({ _id: 1 }, { $set: { b: 1, a: 2, 9: 3 }, $inc: { n: 10 }, $push: { tags: { $each: ["c"], $position: 0 } } });
db.fruit.updateMany({ n: { $gte: 3 } }, { $set: { large: true }, $rename: { n: "m" } });
db.fruit.updateMany({ _id: 3 }, { $set: { "items.$[item].seen": true } }, { arrayFilters: [{ "item.x": { $gt: 1 } }] });
db.fruit.updateMany({}, [{ $set: { size: { $size: { $ifNull: ["$tags", []] } } } }, { $unset: "large" }]);
db.fruit.updateOne({ _id: 6 }, { $set: { up: 1 }, $setOnInsert: { new: true } }, { upsert: true });
db.fruit.updateOne({ name: "upserted" }, { $set: { up: 2 } }, { upsert: true, writeConcern: { w: "majority" } });
db.fruit.updateOne({ $expr: { $eq: ["$_id", "$$wanted"] } }, [{ $set: { found: "$$wanted" } }], { let: { wanted: 2 } });
db.fruit.updateOne({ name: "NO ID" }, { $set: { matched: true } }, { collation: { locale: "en", strength: 2 }, hint: "_id_" });
db.validated.updateMany({}, { $set: { age: -2 } }, { bypassDocumentValidation: true });
db.fruit.replaceOne({ _id: 4 }, { z: 1, a: { b: [1, 2.5] } });
db.fruit.replaceOne({ _id: 7 }, { made: true }, { upsert: true, hint: { _id: 1 } });
db.fruit.replaceOne({ _id: "x" }, {});
db.fruit.deleteOne({ _id: 5 }, { hint: { _id: 1 } });
db.fruit.deleteMany({ name: "NO ID" }, { collation: { locale: "en", strength: 2 }, writeConcern: { w: 1 } });
db.fruit.deleteMany({ $expr: { $eq: ["$_id", "$$gone"] } }, { let: { gone: 7 } });
db.bulk.bulkWrite([
  { insertOne: { document: { _id: 1, a: 1 } } },
  { insertOne: { document: { _id: 2, a: 2, list: [2] } } },
  { updateOne: { filter: { _id: 1 }, update: { $set: { b: 1 } } } },
  { updateMany: { filter: {}, update: [{ $set: { c: "$a" } }], collation: { locale: "en" } } },
  { updateOne: { filter: { _id: 3 }, update: { $set: { up: 1 } }, upsert: true, hint: "_id_" } },
  { updateMany: { filter: { list: [2] }, update: { $set: { "list.$[e]": 1 } }, arrayFilters: [{ e: 2 }] } },
  { replaceOne: { filter: { _id: 2 }, replacement: { r: 1 } } },
  { replaceOne: { filter: { _id: 9 }, replacement: { r: 2 }, upsert: true } },
  { deleteOne: { filter: { _id: 9 } } },
  { insertOne: { document: { last: true } } },
  { deleteMany: { filter: { r: 5 }, collation: { locale: "en" } } },
]);
db.bulk.bulkWrite([{ insertOne: { document: { _id: 10 } } }, { deleteMany: { filter: { none: 1 } } }, { updateMany: { filter: {}, update: { $set: { d: 1 } } } }], { ordered: false, bypassDocumentValidation: true, writeConcern: { w: 1 } });

/* ---- pipelines that write ---- */
db.fruit.aggregate([{ $match: { n: { $exists: true } } }, { $out: "copied" }]);
db.fruit.aggregate([{ $project: { n: 1 } }, { $merge: { into: "merged", on: "_id", whenMatched: "replace", whenNotMatched: "insert" } }], { allowDiskUse: true, let: { x: 1 }, collation: { locale: "en" }, maxTimeMS: 60000 });
db.fruit.aggregate([{ $match: { _id: 1 } }, { $merge: "merged" }], { bypassDocumentValidation: true, hint: "_id_", readConcern: { level: "local" }, writeConcern: { w: "majority" } });

/* ---- commands ---- */
db.runCommand({ create: "commanded", capped: true, size: 8192 });
db.runCommand({ createIndexes: "commanded", indexes: [{ key: { a: 1 }, name: "mine", unique: true }] });
db.runCommand({ collMod: "validated", validationAction: "warn" });
db.runCommand({ insert: "commanded", documents: [{ _id: 1, a: 1 }, { _id: 2, a: 2.5 }] });
db.runCommand({ update: "commanded", updates: [{ q: { _id: 1 }, u: { $set: { a: 9 } } }] });
db.runCommand({ findAndModify: "commanded", query: { _id: 2 }, update: { $inc: { a: 1 } } });
db.runCommand({ aggregate: "commanded", pipeline: [{ $out: "commanded2" }], cursor: {} });
db.runCommand("dropAllRolesFromDatabase");
db.adminCommand({ setParameter: 1, notablescan: false });
db.createCollection("converted"); db.converted.insertOne({ a: 1 });
db.converted.convertToCapped(16384);
db.createCollection("before"); db.before.insertOne({ a: 1 });
db.before.renameCollection("after");
db.createCollection("again"); db.again.insertOne({ a: 2 });
db.again.renameCollection("after", true);
db.createCollection("dropped"); db.dropped.drop();
db.createCollection("dropped2"); db.dropped2.drop({ writeConcern: { w: "majority" } })
;;
