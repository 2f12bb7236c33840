// First the one that deletes by itself. What it has deleted stays deleted.
db.merchant_onboarding.dropIndex("drafts_expire");

db.merchants.dropIndex("any_setting");
db.merchants.dropIndex("near");
db.merchants.dropIndex("words");
db.merchants.dropIndex("vat_id_unique");
db.merchants.dropIndex("email_unique");

// Back before its replacement goes: at no moment is there no index on country.
db.merchants.unhideIndex("country_1");
db.merchants.dropIndex("country_status_newest");
