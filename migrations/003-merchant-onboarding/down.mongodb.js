// The files go, and with them what the back office wrote into them since `up`.
db.merchant_onboarding.drop();

// Only the states that `up` made up. The pilot's merchants, and whoever was given a state
// by the application, have no such mark and keep what they have.
db.merchants.updateMany({ "onboarding.set_by": "003-merchant-onboarding" }, { $unset: { onboarding: "" } });
