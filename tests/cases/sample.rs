//! The sample project with its fixtures: what crosses from one store to the other.

use std::fs;
use std::path::Path;

use bson::doc;

use crate::project::{Project, write};

/// All migrations of the sample, and what was there before them. MongoDB's part of that
/// is a migration of its own here: it is a script.
fn sample(name: &str) -> Project {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = Project::new(name, &[]);
    for folder in root.join("migrations").read_dir().unwrap().map(Result::unwrap) {
        for file in folder.path().read_dir().unwrap().map(Result::unwrap) {
            let path = project.path("migrations").join(folder.file_name()).join(file.file_name());
            write(&path, &fs::read_to_string(file.path()).unwrap());
        }
    }
    let fixture = |name: &str| fs::read_to_string(root.join("fixtures").join(name)).unwrap();
    project.database.sql(&fixture("000-base.sql"));
    project.write("000-base/up.mongodb.js", &fixture("000-base.mongodb.js"));
    project
}

#[test]
fn users_become_profiles_and_go_again() {
    let project = sample("sample_profiles");
    project.ok(&["up", "--to", "1"]);
    let preferences =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/001-user-preferences.sql");
    project.database.sql(&fs::read_to_string(preferences).unwrap());
    project.ok(&["up", "--to", "8", "--unthrottled"]);
    let profiles = project.database.documents("profiles");
    let users = project.database.value("SELECT count(*) FROM users");
    assert_eq!(profiles.len().to_string(), users);
    let with_preferences =
        profiles.iter().filter(|profile| profile.get_document("settings").is_ok());
    let rows = project.database.value("SELECT count(*) FROM user_preferences");
    assert_eq!(with_preferences.count().to_string(), rows);
    // Its rule is strict by now.
    let malformed = project.database.mongo(async |database| {
        database.collection("profiles").insert_one(doc! { "_id": 1_000_000_i64 }).await
    });
    assert!(malformed.is_err());
    project.ok(&["down", "--yes"]);
    assert_eq!(project.database.documents("profiles").len(), 0);
}

#[test]
fn orders_and_their_lines_become_tables_and_go_again() {
    let project = sample("sample_orders");
    project.ok(&["up", "--unthrottled"]);
    let orders = project.database.value("SELECT count(*) FROM orders");
    assert_eq!(orders, "5000");
    let unknown = "SELECT count(*) FROM orders WHERE status = 'unknown'";
    assert_eq!(project.database.value(unknown), "40", "the oldest orders know no status");
    let guests = "SELECT count(*) > 0 AND bool_and(shipping ->> 'name' LIKE 'Customer%') FROM orders \
                  WHERE customer_id IS NULL";
    assert_eq!(project.database.value(guests), "t");
    let gifts =
        "SELECT count(*) > 0 AND bool_and(gift ? 'card') FROM order_lines WHERE gift IS NOT NULL";
    assert_eq!(project.database.value(gifts), "t");
    let constraint = "SELECT convalidated FROM pg_constraint WHERE conname = 'order_lines_order'";
    assert_eq!(project.database.value(constraint), "t");
    // An order as a whole, by its number.
    let row = "SELECT concat_ws(' ', id, merchant_id, customer_id, currency, total, placed_at AT TIME ZONE 'UTC', \
               (SELECT count(*) FROM order_lines WHERE order_id = o.id)) FROM orders AS o WHERE number = 'O-100007'";
    let found = project.database.mongo(async |database| {
        let all = database.collection::<bson::Document>("orders");
        all.find_one(doc! { "number": "O-100007" }).await.unwrap().unwrap()
    });
    let placed = found.get_datetime("placed_at").unwrap().try_to_rfc3339_string().unwrap();
    let expected = format!(
        "{} {} {} {} {} {} {}",
        found.get_object_id("_id").unwrap(),
        found.get_object_id("merchant_id").unwrap(),
        found.get_i32("customer_id").unwrap(),
        found.get_str("currency").unwrap(),
        found.get_decimal128("total").unwrap(),
        placed.trim_end_matches('Z').replace('T', " "),
        found.get_array("lines").unwrap().len()
    );
    assert_eq!(project.database.value(row), expected);

    project.ok(&["down", "--yes"]);
    assert_eq!(project.database.value("SELECT count(to_regclass('orders'))"), "0");
    project.ok(&["up", "--unthrottled"]);
    assert_eq!(project.database.value("SELECT count(*) FROM orders"), orders);
}
