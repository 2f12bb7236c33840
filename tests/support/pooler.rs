//! A pooler in front of a Postgres.

use std::fs;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::Database;
use crate::support::wait::until;

/// A pgbouncer in transaction mode, for as long as this lives.
pub struct Pooler {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Pooler {
    /// In front of a server, to which it has three sessions at most. Each transaction is
    /// in the one that rested longest.
    pub fn new(postgres_url: &str) -> Pooler {
        use std::os::unix::fs::PermissionsExt;
        let server = postgres_url.rsplit_once('@').expect("a URL with a user").1;
        let server = server.split('/').next().expect("a host").rsplit_once(':').expect("a port").1;
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let folder = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a folder");
        let file = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server} user=postgres\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = 3\nserver_round_robin = 1\n"
        );
        fs::write(&file, text).expect("a file");
        let mut command = Command::new("/usr/sbin/pgbouncer");
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        let log = fs::File::create(folder.path().join("log")).expect("a file");
        let child = command
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("pgbouncer is here: scripts/setup --tests");
        until("pgbouncer to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Pooler { child, port, folder }
    }

    /// Where a database is, through it.
    pub fn url(&self, database: &Database) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, database.name)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("pgbouncer said: {log}");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
