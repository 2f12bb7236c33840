// Every profile was compared with its user. From here on a malformed one is refused.
db.runCommand({ collMod: "profiles", validationLevel: "strict", validationAction: "error" });
