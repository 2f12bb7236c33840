db.runCommand({ collMod: "profiles", validationLevel: "strict", validationAction: "warn" });
