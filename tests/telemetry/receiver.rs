//! A server that takes requests and remembers them: a Pushgateway or a collector, as
//! far as a run can tell.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// `PUT /metrics/job/lockstep`.
    pub what: String,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    /// A header, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// How it answers.
#[derive(Clone, Copy)]
pub enum Answer {
    /// With a status, and a text.
    With(u16, &'static str),
    /// Not at all: the request hangs.
    Never,
}

/// A server, as long as the test lasts.
pub struct Receiver {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    /// Takes whatever comes.
    pub fn new() -> Receiver {
        Receiver::answering(Answer::With(200, ""))
    }

    /// Answers so.
    pub fn answering(answer: Answer) -> Receiver {
        Receiver::serving(answer, None)
    }

    /// Takes whatever comes through TLS, with a certificate and its key in PEM.
    pub fn with_tls(certificate: &str, key: &str) -> Receiver {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("it has versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they fit");
        Receiver::serving(Answer::With(200, ""), Some(Arc::new(config)))
    }

    fn serving(answer: Answer, tls: Option<Arc<ServerConfig>>) -> Receiver {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it has one");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&requests);
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, taken) = (stream.expect("a connection"), Arc::clone(&taken));
                let tls = tls.clone();
                std::thread::spawn(move || match tls {
                    None => serve(stream, answer, &taken),
                    Some(config) => {
                        let session = ServerConnection::new(config).expect("a session");
                        serve(StreamOwned::new(session, stream), answer, &taken);
                    }
                });
            }
        });
        Receiver { address, requests }
    }

    /// `127.0.0.1:40123`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has come, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("nobody panics with it").clone()
    }

    /// The one that has come.
    #[track_caller]
    pub fn request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests.remove(0)
    }
}

/// Where nobody listens, as far as that can be had: somebody did, a moment ago.
pub fn nobody() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    format!("http://{}", listener.local_addr().expect("it has one"))
}

/// The requests of one connection, until the other side ends it.
fn serve(stream: impl Read + Write, answer: Answer, taken: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        taken.lock().expect("nobody panics with it").push(request);
        let Answer::With(status, text) = answer else {
            std::thread::park();
            return;
        };
        let length = text.len();
        let answer = format!("HTTP/1.1 {status} Told\r\ncontent-length: {length}\r\n\r\n{text}");
        let stream = reader.get_mut();
        if stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let what = first.strip_suffix(" HTTP/1.1").expect("HTTP/1.1").to_owned();
    let mut headers = Vec::new();
    loop {
        let header = line()?;
        let Some((name, value)) = header.split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().expect("a number"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { what, headers, body: String::from_utf8(body).expect("text") })
}
