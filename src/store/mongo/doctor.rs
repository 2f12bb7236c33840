//! What `migrate doctor` asks a MongoDB: commands that read, and no others.

use super::{Mongo, failed};
use crate::core::doctor::{DiskFacts, Grant, GrantOn, HISTORY, MembersFacts, MongoFacts};
use crate::engine::Clock;
use crate::store::StoreError;
use bson::{Bson, Document, doc};
use std::time::Instant;

const ASK: &str = "examine the server";

impl Mongo {
    /// Finds out what matters before a deployment. Changes nothing.
    ///
    /// # Errors
    /// A lost connection, or a server that does not answer what everybody may
    /// ask.
    pub async fn examine(&self, clock: &dyn Clock) -> Result<MongoFacts, StoreError> {
        let admin = self.client.database("admin");
        let before = clock.now().0;
        let began = Instant::now();
        let hello = self.database.run_command(doc! { "hello": 1 }).await;
        let hello = hello.map_err(|error| failed(ASK, &error))?;
        let took = began.elapsed();
        let middle = before.midpoint(clock.now().0);
        let server_now = hello.get_datetime("localTime").map_or(middle, |it| it.timestamp_millis());

        let status =
            admin.run_command(doc! { "connectionStatus": 1, "showPrivileges": true }).await;
        let status = status.map_err(|error| failed(ASK, &error))?;
        // What is asked for is small: no section of it is wanted.
        let load = admin.run_command(doc! {
            "serverStatus": 1, "repl": 0, "metrics": 0, "locks": 0, "wiredTiger": 0, "tcmalloc": 0,
        });
        let server_status = load.await.map(drop).map_err(|error| failed(ASK, &error).said.message);
        let members = admin.run_command(doc! { "replSetGetStatus": 1 }).await;
        let members = members
            .map(|status| members_of(&status))
            .map_err(|error| failed(ASK, &error).said.message);
        let disk = self.database.run_command(doc! { "dbStats": 1 }).await.ok();
        let disk = disk.map(|stats| DiskFacts {
            database: number(&stats, "storageSize").saturating_add(number(&stats, "indexSize")),
            free: number(&stats, "fsTotalSize").saturating_sub(number(&stats, "fsUsedSize")),
            total: number(&stats, "fsTotalSize"),
        });
        // Without the privilege to list them we do not know, and ask for more
        // than may be needed.
        let present = self.database.list_collection_names().await.unwrap_or_default();
        Ok(MongoFacts {
            place: self.place.clone(),
            database: self.database.name().to_owned(),
            version: self.server().version,
            topology: self.topology,
            latency_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            tls: self.tls,
            local: self.local,
            skew_ms: server_now.saturating_sub(middle),
            writable: hello.get_bool("isWritablePrimary").unwrap_or(false),
            grants: grants(&status, server_status.is_ok()),
            present: present.into_iter().filter(|it| HISTORY.contains(&it.as_str())).collect(),
            members,
            server_status,
            disk,
        })
    }
}

/// `None` where access is not controlled: nobody is logged in, and we may look at
/// what nobody may without a login where it is.
fn grants(status: &Document, may_look: bool) -> Option<Vec<Grant>> {
    let info = status.get_document("authInfo").ok()?;
    if info.get_array("authenticatedUsers").is_ok_and(Vec::is_empty) {
        return if may_look { None } else { Some(Vec::new()) };
    }
    let privileges = info.get_array("authenticatedUserPrivileges").ok()?;
    Some(privileges.iter().filter_map(Bson::as_document).filter_map(grant).collect())
}

fn grant(privilege: &Document) -> Option<Grant> {
    let resource = privilege.get_document("resource").ok()?;
    let text = |field: &str| resource.get_str(field).map(str::to_owned).ok();
    let on = match (text("db"), text("collection")) {
        (Some(database), Some(collection)) => GrantOn::Collection { database, collection },
        _ if resource.get_bool("anyResource").unwrap_or(false) => GrantOn::Anything,
        _ if resource.get_bool("cluster").unwrap_or(false) => GrantOn::Cluster,
        _ => return None,
    };
    let actions = privilege.get_array("actions").ok()?;
    let actions = actions.iter().filter_map(|action| action.as_str().map(str::to_owned)).collect();
    Some(Grant { on, actions })
}

/// Whatever kind of number the server chose.
fn number(document: &Document, field: &str) -> u64 {
    match document.get(field) {
        Some(Bson::Int32(number)) => u64::try_from(*number).unwrap_or(0),
        Some(Bson::Int64(number)) => u64::try_from(*number).unwrap_or(0),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a size in bytes; what does not fit is cut off at the end of the range"
        )]
        Some(Bson::Double(number)) => *number as u64,
        _ => 0,
    }
}

fn members_of(status: &Document) -> MembersFacts {
    const DATA: [i32; 2] = [1, 2]; // PRIMARY, SECONDARY
    let empty = Vec::new();
    let members = status.get_array("members").unwrap_or(&empty);
    let mut facts = MembersFacts { all: members.len(), ..MembersFacts::default() };
    let mut optimes = Vec::new();
    for member in members.iter().filter_map(Bson::as_document) {
        let text = |field: &str| member.get_str(field).unwrap_or_default();
        let state = member.get_i32("state").unwrap_or(0);
        // Bad health is 0 and comes as a double.
        let healthy = member.get_f64("health").unwrap_or(0.0) > 0.0;
        if DATA.contains(&state) && healthy {
            facts.up += 1;
            optimes.extend(member.get_datetime("optimeDate").map(|it| it.timestamp_millis()));
        } else if state != 7 {
            // An arbiter holds no data and is well all the same.
            facts.down.push(format!("{} {}", text("name"), text("stateStr")));
        }
    }
    facts.needed = i64::try_from(number(status, "writeMajorityCount")).unwrap_or(i64::MAX);
    let newest = optimes.iter().max().copied().unwrap_or(0);
    facts.lag_ms = newest - optimes.iter().min().copied().unwrap_or(newest);
    facts
}
