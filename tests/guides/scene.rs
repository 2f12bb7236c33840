//! The situations that guides are about.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;

use crate::project::{Project, Running, remove, until, write};

/// Between what two commands of a block print.
const MARK: &str = "\u{1e}";

/// The project that the guides tell of: `users` in Postgres, `profiles` in MongoDB.
const SHOP: [(&str, &str); 4] = [
    (
        "001-users/up.sql",
        "CREATE TABLE users (id bigint PRIMARY KEY, role text);\n\
         INSERT INTO users VALUES (1, 'admin'), (2, 'user'), (3, 'user');\n",
    ),
    ("001-users/down.sql", "DROP TABLE users;\n"),
    (
        "001-users/up.mongodb.js",
        "db.createCollection(\"profiles\");\n\
         db.profiles.insertMany([{ _id: 1, role: \"admin\" }, { _id: 2, role: \"user\" }]);\n\
         db.profiles.createIndex({ role: 1 }, { name: \"role\" });\n",
    ),
    ("001-users/down.mongodb.js", "db.profiles.drop();\n"),
];

/// `role` becomes `roles`, in phases.
const ROLES: [(&str, &str); 7] = [
    ("002-roles/prepare.sql", "ALTER TABLE users ADD COLUMN roles text[] NOT NULL DEFAULT '{}';\n"),
    ("002-roles/prepare.down.sql", "ALTER TABLE users DROP COLUMN roles;\n"),
    ("002-roles/cleanup.sql", "ALTER TABLE users DROP COLUMN role;\n"),
    ("002-roles/cleanup.down.sql", "ALTER TABLE users ADD COLUMN role text;\n"),
    ("002-roles/migration.toml", ROLES_TOML),
    ("002-roles/cleanup.mongodb.js", "db.profiles.dropIndex(\"role\");\n"),
    (
        "002-roles/cleanup.down.mongodb.js",
        "db.profiles.createIndex({ role: 1 }, { name: \"role\" });\n",
    ),
];

const ROLES_TOML: &str = r#"description = "Roles as an array"

[[backfill]]
name = "roles as an array"
postgres = { table = "users", set = "roles = ARRAY[role]", where = "role IS NOT NULL AND roles = '{}'" }

[[backfill]]
direction = "down"
name = "role as a text again"
postgres = { table = "users", set = "role = roles[1]", where = "role IS NULL AND roles <> '{}'" }

[[invariant]]
name = "no user lost a role"
postgres = "SELECT count(*) FROM users WHERE role IS NOT NULL AND roles IS DISTINCT FROM ARRAY[role]"
sample = "SELECT id, role, roles FROM users WHERE role IS NOT NULL AND roles IS DISTINCT FROM ARRAY[role] ORDER BY id LIMIT 10"
"#;

/// A hook that lets the run stand still until somebody makes the file `go`.
const STANDS_STILL: &str = "[hooks]\nbefore_up = [\"until [ -e go ]; do sleep 0.1; done\"]\n";

/// A project in a situation.
pub struct Scene {
    project: Project,
    /// Variables that are another for a while.
    variables: Vec<(&'static str, String)>,
    /// A run that is at work meanwhile, and its id.
    running: Option<Running>,
    run_id: Option<String>,
}

impl Scene {
    fn new(name: &str, files: &[(&str, &str)]) -> Scene {
        let scene = Scene {
            project: Project::new(name, files),
            variables: Vec::new(),
            running: None,
            run_id: None,
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::create_dir(scene.project.path("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_migrate"), scene.project.path("bin/migrate")).unwrap();
        symlink(root.join("deploy"), scene.project.path("deploy")).unwrap();
        scene
    }

    fn shop(more: &[(&str, &str)]) -> Scene {
        Scene::new("guides", &[&SHOP[..], more].concat())
    }

    fn configure(&self, toml: &str) {
        write(&self.project.path("migrate.toml"), toml);
    }

    /// Makes a situation, or changes the one that there is.
    pub fn given(scene: &mut Option<Scene>, what: &str) {
        let here = |scene: &mut Option<Scene>| scene.take().expect("something was given before");
        *scene = Some(match what {
            // Projects.
            "two migrations, none applied" => Scene::shop(&ROLES),
            "two migrations, none applied, and a policy" => {
                let scene = Scene::shop(&ROLES);
                scene.configure("[cleanup]\npolicy = \"next-release\"\n");
                scene
            }
            "the first release, whose cleanup is held" => {
                let scene = Scene::shop(&ROLES);
                scene.project.ok(&["up", "--through", "validate", "--release", "1.4"]);
                scene
            }
            "the release with its cleanup" => {
                let scene = Scene::shop(&ROLES);
                scene.project.ok(&["up", "--release", "1.4"]);
                scene
            }
            "two migrations of one release" => {
                let scene = Scene::shop(&[
                    ("002-carts/up.sql", "CREATE TABLE carts (id bigint PRIMARY KEY);\n"),
                    ("002-carts/down.sql", "DROP TABLE carts;\n"),
                    ("003-notes/up.mongodb.js", "db.createCollection(\"notes\");\n"),
                    ("003-notes/down.mongodb.js", "db.notes.drop();\n"),
                ]);
                scene.project.ok(&["up", "--to", "1", "--release", "1.3"]);
                scene.project.ok(&["up", "--release", "1.4"]);
                scene
            }
            "a migration without a way back" => {
                let scene =
                    Scene::shop(&[("002-carts/up.sql", "CREATE TABLE carts (id bigint);\n")]);
                scene.project.ok(&["up"]);
                scene
            }
            "a statement that fails" => Scene::shop(&[
                ("002-carts/up.sql", "CREATE TABLE carts (user_id bigint REFERENCES user (id));\n"),
                ("002-carts/down.sql", "DROP TABLE carts;\n"),
            ]),
            "the statement is corrected" => {
                let scene = here(scene);
                scene.project.write(
                    "002-carts/up.sql",
                    "CREATE TABLE carts (user_id bigint REFERENCES users (id));\n",
                );
                scene
            }
            "a setting that does not exist" => {
                let scene = Scene::shop(&[]);
                scene.configure("[cleanup]\npolcy = \"hold\"\n");
                scene
            }
            "the setting is corrected" => {
                let scene = here(scene);
                scene.configure("[cleanup]\npolicy = \"hold\"\n");
                scene
            }
            "a migration behind one that is held" => {
                let scene = Scene::shop(&ROLES);
                scene
                    .project
                    .write("003-names/up.sql", "ALTER TABLE users ADD COLUMN name text;\n");
                scene.project.write("003-names/down.sql", "ALTER TABLE users DROP COLUMN name;\n");
                scene
            }
            "a run that is at work" => {
                let mut scene = Scene::shop(&ROLES);
                scene.configure(STANDS_STILL);
                scene.begin();
                scene
            }
            "the run is gone" => {
                let mut scene = here(scene);
                drop(scene.running.take());
                // Its hook waits for that, and no other does.
                write(&scene.project.path("go"), "");
                remove(&scene.project.path("migrate.toml"));
                scene
            }
            "a file that was edited after it was applied" => {
                let scene = Scene::shop(&[]);
                scene.project.ok(&["up"]);
                scene.project.write("001-users/down.sql", "DROP TABLE IF EXISTS users;\n");
                scene
            }
            "data that offends an invariant" => {
                let scene = Scene::shop(&ROLES);
                scene.project.ok(&["up", "--through", "validate"]);
                scene.project.database.sql("UPDATE users SET roles = '{}' WHERE id = 2");
                scene
            }
            "the data is mended" => {
                let scene = here(scene);
                scene.project.database.sql("UPDATE users SET roles = ARRAY[role] WHERE id = 2");
                scene
            }
            "a database that does not answer" => {
                let mut scene = Scene::shop(&[]);
                // Nobody listens there, and nobody who is no administrator could.
                let url = "postgres://shop@127.0.0.1:1/shop".to_owned();
                scene.variables.push(("DATABASE_URL", url));
                scene
            }
            "the database answers again" => {
                let mut scene = here(scene);
                scene.variables.clear();
                scene
            }
            "a step that takes longer than thought" => Scene::shop(&[
                ("002-slow/up.sql", "SELECT pg_sleep(11);\n"),
                ("002-slow/down.sql", "SELECT 1;\n"),
                ("002-slow/up.mongodb.js", "db.createCollection(\"slow\");\n"),
                ("002-slow/down.mongodb.js", "db.slow.drop();\n"),
            ]),
            "cleanups that need a backup" => {
                let scene = Scene::shop(&ROLES);
                scene.configure("[cleanup]\nrequire_backup = \"24h\"\n");
                scene.project.ok(&["up", "--through", "validate", "--release", "1.4"]);
                scene
            }
            "a hook that makes backups" => {
                let mut scene = Scene::shop(&ROLES);
                scene.configure(
                    "[hooks]\nbefore_cleanup = [\"./deploy/backup/backup.sh\"]\ntimeout = \"1h\"\n\
                     [cleanup]\nrequire_backup = \"24h\"\n",
                );
                let folder = scene.project.path("backups").to_str().unwrap().to_owned();
                scene.variables.push(("BACKUP_DIR", folder));
                scene
            }
            "SIGTERM while it is at work" => {
                let scene = Scene::shop(&ROLES);
                scene.configure("[hooks]\nbefore_up = [\"kill -TERM $PPID; sleep 60\"]\n");
                scene
            }
            "Ctrl-C while it is at work" => {
                let scene = Scene::shop(&ROLES);
                scene.configure("[hooks]\nbefore_up = [\"kill -INT $PPID; sleep 60\"]\n");
                scene
            }
            "nobody stops it" => {
                let scene = here(scene);
                remove(&scene.project.path("migrate.toml"));
                scene
            }
            what => panic!("nobody knows how to give `{what}`"),
        });
    }

    /// Starts a run, and waits until it has the lease.
    fn begin(&mut self) {
        self.running = Some(self.project.start(&["up", "--release", "1.4"]));
        let mut id = None;
        until("the lease", || {
            let status = self.project.migrate(&["status", "--output", "json"]);
            let status = status.objects().pop().unwrap_or_default();
            id = status["lease"]["run_id"].as_str().map(str::to_owned);
            id.is_some()
        });
        self.run_id = id;
    }

    /// What these commands print, and how they end.
    pub fn run(&mut self, commands: &[&str]) -> Vec<(String, i32)> {
        let id = Regex::new(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}").unwrap();
        let mut script = "s=0\n".to_owned();
        for command in commands {
            // A run that a guide names is the one that is at work here.
            let command = match &self.run_id {
                Some(run_id) => id.replace_all(command, run_id.as_str()).into_owned(),
                None => (*command).to_owned(),
            };
            script.push_str(&format!("(exit $s)\n{command}\ns=$?\nprintf '{MARK}%s\\n' \"$s\"\n"));
        }
        write(&self.project.path("commands.sh"), &script);
        let like = self.project.command(&[]);
        let output = Command::new("sh")
            .args(["-c", "exec sh ./commands.sh 2>&1"])
            .current_dir(self.project.path(""))
            .env_clear()
            .envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("PATH", self.path())
            .env("NODE_PATH", modules())
            .env("USER", "deploy")
            .env("LOCKSTEP_MONGOD", mongod())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let said = self.as_shown(&said);
        let mut parts = said.split(MARK);
        let mut ran = Vec::new();
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (code, rest) = part.split_once('\n').expect("a line");
            ran.push((std::mem::replace(&mut text, rest.to_owned()), code.parse().unwrap()));
        }
        assert_eq!(ran.len(), commands.len(), "the block came to its end:\n{said}");
        ran
    }

    /// This project's `migrate` first; what stands in for MongoDB's tools last.
    fn path(&self) -> std::ffi::OsString {
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guides/mongo-tools");
        for program in ["mongodump", "mongorestore"] {
            let mode = fs::metadata(stand_in.join(program)).unwrap().permissions().mode();
            assert_eq!(mode & 0o100, 0o100, "{program} can be run");
        }
        let before = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(self.project.path("bin"))
            .chain(std::env::split_paths(&before))
            .chain([stand_in]);
        std::env::join_paths(paths).unwrap()
    }

    /// With the names that the guides use for what is another each time.
    fn as_shown(&self, text: &str) -> String {
        let folder = self.project.path("");
        let folder = folder.to_str().unwrap().trim_end_matches('/');
        let real = fs::canonicalize(folder).unwrap();
        let text = text
            .replace(real.to_str().unwrap(), "/srv/shop")
            .replace(folder, "/srv/shop")
            .replace("/srv/shop/backups", "/var/backups/lockstep")
            .replace(&self.project.database.name, "shop")
            .replace("127.0.0.1:1/", "db.internal:5432/")
            .replace("tester@", "deploy@");
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        text.replace(&format!("@{host}"), "@ci-7")
    }
}

/// Where the tests' modules for Node are.
fn modules() -> String {
    format!("{}/.tools/mongosh/node_modules", env!("CARGO_MANIFEST_DIR"))
}

/// For a sandbox: it looks around in the project's folder, which has none.
fn mongod() -> String {
    let find = |name: &str| std::env::var(name).ok();
    let found = lockstep::sandbox::find(&find).mongod;
    found.map(|path| path.display().to_string()).unwrap_or_default()
}
