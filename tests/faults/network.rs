//! A network that cuts, delays and half-delivers, at any byte of any connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockstep::core::id::StoreName;

use crate::dump::dump;
use crate::killed::undisturbed;
use crate::project::{Project, seeded};
use crate::repeat;
use crate::support::Database;
use crate::time::leases_run_out;

/// A network that is slow stands still for so long.
const DELAY: Duration = Duration::from_millis(700);

/// What the network does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Harm {
    /// It is gone.
    Cut,
    /// It stands still, and goes on.
    Delay,
    /// It stands still in the middle of a message, and is gone.
    Half,
}

/// Where it does it: after so many bytes, both ways together, of a connection.
#[derive(Clone, Copy, Debug)]
struct At {
    connection: usize,
    bytes: usize,
}

/// Stands between a run and a server, until it is dropped.
struct Network {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    /// Bytes of each connection so far.
    seen: Arc<Mutex<Vec<Arc<AtomicUsize>>>>,
}

impl Network {
    fn new(server: SocketAddr, harm: Option<(Harm, At)>) -> Network {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let network = Network { address, over: Arc::default(), seen: Arc::default() };
        let (over, seen) = (network.over.clone(), network.seen.clone());
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = TcpStream::connect(server) else { return };
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let bytes = Arc::new(AtomicUsize::new(0));
                let mut seen = seen.lock().expect("nobody panics with it");
                let harm = harm.filter(|(_, at)| at.connection == seen.len());
                seen.push(bytes.clone());
                let both = |stream: &TcpStream| stream.try_clone().expect("a handle");
                let (up, down) = ((both(&client), both(&server)), (server, client));
                for (from, to) in [up, down] {
                    let bytes = bytes.clone();
                    std::thread::spawn(move || {
                        let _ = forward(&from, &to, &bytes, harm);
                        let _ = from.shutdown(Shutdown::Both);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        network
    }

    /// How many bytes went through each connection.
    fn bytes(&self) -> Vec<usize> {
        let seen = self.seen.lock().expect("nobody panics with it");
        seen.iter().map(|bytes| bytes.load(Ordering::SeqCst)).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Whoever waits for a connection finds out by getting one.
        let _ = TcpStream::connect(self.address);
    }
}

fn forward(
    mut from: &TcpStream,
    mut to: &TcpStream,
    bytes: &AtomicUsize,
    harm: Option<(Harm, At)>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 14];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        let before = bytes.fetch_add(read, Ordering::SeqCst);
        let chunk = &buffer[..read];
        match harm {
            Some((harm, at)) if (before..before + read).contains(&at.bytes) => {
                let (first, rest) = chunk.split_at(at.bytes - before);
                match harm {
                    Harm::Cut => return to.write_all(first),
                    Harm::Half => {
                        to.write_all(first)?;
                        std::thread::sleep(DELAY);
                        return Ok(());
                    }
                    Harm::Delay => {
                        to.write_all(first)?;
                        std::thread::sleep(DELAY);
                        to.write_all(rest)?;
                    }
                }
            }
            _ => to.write_all(chunk)?,
        }
    }
}

/// The URLs of both stores, one of them by way of a network.
fn through(
    database: &Database,
    store: StoreName,
    harm: Option<(Harm, At)>,
) -> (Network, [String; 2]) {
    let [mut postgres, mut mongo] = [database.postgres_url.clone(), database.mongo_uri.clone()];
    let url = match store {
        StoreName::Postgres => &mut postgres,
        StoreName::Mongo => &mut mongo,
    };
    let start = url.find("127.0.0.1:").expect("a server of this machine");
    let end = start + url[start..].find('/').expect("a database");
    let network = Network::new(url[start..end].parse().expect("an address"), harm);
    url.replace_range(start..end, &network.address.to_string());
    (network, [postgres, mongo])
}

/// Some byte of a conversation that was so long.
fn any(sizes: &[usize]) -> At {
    let mut bytes =
        usize::try_from(uuid::Uuid::new_v4().as_u128() % sizes.iter().sum::<usize>() as u128)
            .expect("less than a usize");
    let mut connection = 0;
    while bytes >= sizes[connection] {
        bytes -= sizes[connection];
        connection += 1;
    }
    At { connection, bytes }
}

fn harmed(trials: usize) {
    let project = Project::usual();
    let _ = undisturbed();
    let sizes = StoreName::BOTH.map(|store| {
        let database = seeded("whole_network");
        let (network, [postgres, mongo]) = through(&database, store, None);
        project.migrate_at(&postgres, &mongo, &["up"]).succeeds();
        (store, network.bytes())
    });
    let ends = Mutex::new([0, 0]);
    repeat(trials, |number| {
        let (store, sizes) = &sizes[number % 2];
        let harm = [Harm::Cut, Harm::Half, Harm::Delay][number / 2 % 3];
        let at = any(sizes);

        let database = seeded("network");
        let (network, [postgres, mongo]) = through(&database, *store, Some((harm, at)));
        let first = project.migrate_at(&postgres, &mongo, &["up"]).run();
        drop(network);
        let trial = format!("{harm:?} in {} at {at:?} of {sizes:?}: {}", store.title(), first.text);
        match harm {
            Harm::Delay => assert_eq!(first.code, Some(0), "{trial}"),
            Harm::Cut | Harm::Half => {
                assert!(matches!(first.code, Some(0 | 7)), "{:?} {trial}", first.code);
            }
        }
        ends.lock().expect("nobody panics with it")[usize::from(first.code != Some(0))] += 1;
        leases_run_out(&database);
        let again = project.migrate(&database, &["up"]).succeeds();
        let mut found = dump(&database);
        if again.text.contains("nothing to do") {
            found.left.clear();
        }
        found.is(&undisturbed().up, &format!("{}\nafter {trial}", again.text));
    });
    let [whole, broken] = *ends.lock().expect("nobody panics with it");
    eprintln!("{trials} connections were harmed: {whole} runs came to their end, {broken} did not");
}

#[test]
fn connections_cut_delayed_and_half_delivered_leave_nothing_that_up_does_not_mend() {
    harmed(36);
}

#[test]
#[ignore = "minutes: scripts/test --faults"]
fn many_connections_cut_delayed_and_half_delivered() {
    harmed(crate::killed::random_trials().max(180));
}
