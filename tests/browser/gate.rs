//! A way to a server that can be closed: the server is away then, for who goes that
//! way.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Open until it is closed. Dropping it ends it.
pub struct Gate {
    address: SocketAddr,
    open: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    through: Arc<Mutex<Vec<TcpStream>>>,
}

impl Gate {
    /// In front of the server of a URL; and the URL by way of it.
    pub fn before(url: &str) -> (Gate, String) {
        let start = url.find("127.0.0.1:").expect("a server of this machine");
        let end = start + url[start..].find('/').expect("a database");
        let server: SocketAddr = url[start..end].parse().expect("an address");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let gate = Gate {
            address,
            open: Arc::new(AtomicBool::new(true)),
            over: Arc::default(),
            through: Arc::default(),
        };
        let (open, over, through) = (gate.open.clone(), gate.over.clone(), gate.through.clone());
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let mut through = through.lock().expect("nobody panics with it");
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(server) else { continue };
                let twin = |stream: &TcpStream| stream.try_clone().expect("a handle");
                through.extend([twin(&client), twin(&server)]);
                let back = (twin(&server), twin(&client));
                for (mut from, mut to) in [(client, server), back] {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        let by = format!("{}{address}{}", &url[..start], &url[end..]);
        (gate, by)
    }

    /// Nobody comes through any more, and who was through is thrown out.
    pub fn close(&self) {
        let mut through = self.through.lock().expect("nobody panics with it");
        self.open.store(false, Ordering::SeqCst);
        for stream in through.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// As it was.
    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.close();
        // Whoever waits for a connection finds out by getting one.
        let _ = TcpStream::connect(self.address);
    }
}
