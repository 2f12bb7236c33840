//! A client for HTTP that waits, and that takes nothing amiss.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// A test that waits longer than this for one answer has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// An answer.
pub struct Answer {
    pub status: u16,
    /// By their names in small letters.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    /// The body as an object.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The code of an error.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("an error has a code").to_owned()
    }
}

/// Opens a connection and sends what a request begins with.
pub fn open(address: &str, text: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(text.as_bytes())?;
    Ok(stream)
}

/// One request on a connection of its own. `more` are further lines of its head.
pub fn ask(address: &str, method: &str, path: &str, more: &str, body: &str) -> io::Result<Answer> {
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{more}\r\n{body}"
    );
    read(open(address, &text)?)
}

/// Reads the answer, to its end.
pub fn read(mut stream: TcpStream) -> io::Result<Answer> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let pairs = lines.filter_map(|line| line.split_once(": "));
    Ok(Answer {
        status: status.ok_or(io::ErrorKind::InvalidData)?,
        headers: pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    })
}

/// Events, as they come.
pub struct Events {
    lines: BufReader<TcpStream>,
    pub status: u16,
}

impl Events {
    /// Listens. As HTTP/1.0, in which a body has no parts.
    pub fn new(address: &str) -> Events {
        let text = format!("GET /api/events HTTP/1.0\r\nHost: {address}\r\n\r\n");
        let mut lines = BufReader::new(open(address, &text).expect("it listens"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("an answer");
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        while line != "\r\n" {
            line.clear();
            lines.read_line(&mut line).expect("the rest of its head");
        }
        Events { lines, status: status.expect("a status") }
    }

    /// The data of the next event; `None` when there is no other.
    pub fn next(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("an event") == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).expect("JSON"));
            }
        }
    }

    /// The next event of a kind.
    #[track_caller]
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.next().unwrap_or_else(|| panic!("it ended before: {what}"));
            if wanted(&event) {
                return event;
            }
        }
    }
}
