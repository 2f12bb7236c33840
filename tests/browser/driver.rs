//! A browser that is driven: Chromium by chromedriver, over WebDriver.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::wait::until;

/// Longer than a command takes, even where the machine has much else to do.
const PATIENCE: Duration = Duration::from_mins(2);

/// The keys that are no letters, as WebDriver names them.
pub const TAB: &str = "\u{E004}";
pub const ENTER: &str = "\u{E007}";

/// A window with a page. Dropping it ends the browser.
pub struct Browser {
    driver: Child,
    /// Who wants to write there has to be let.
    _said: BufReader<ChildStdout>,
    port: u16,
    session: String,
    profile: TempDir,
}

impl Browser {
    /// Starts one with nothing in it.
    pub fn start() -> Browser {
        let driver = program(&["chromedriver"]);
        let chromium = program(&["chromium", "google-chrome"]);
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut said = BufReader::new(driver.stdout.take().expect("it is piped"));
        let port = port(&mut said);
        let profile = tempfile::tempdir().expect("a folder");
        let mut browser = Browser { driver, _said: said, port, session: String::new(), profile };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
            // As on a phone: they take no room.
            "--hide-scrollbars",
            &format!("--user-data-dir={}", browser.profile.path().display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
        } } });
        let begun = browser.send("POST", "/session", &wanted);
        begun["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        browser
    }

    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.ask("POST", "url", &json!({ "url": url }));
    }

    /// What a function with this body returns.
    pub fn js(&self, body: &str) -> Value {
        self.ask("POST", "execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// A text that such a function returns.
    pub fn text(&self, body: &str) -> String {
        self.js(body).as_str().unwrap_or_default().to_owned()
    }

    /// Whether somebody sees this text in the element that a selector finds first.
    pub fn says(&self, selector: &str, wanted: &str) -> bool {
        let element = format!("document.querySelector({})", json!(selector));
        // What keeps a number and its unit together is a blank.
        let text = self.text(&format!("return {element} ? {element}.innerText : ''"));
        text.replace('\u{a0}', " ").contains(wanted)
    }

    /// Waits until somebody sees it.
    #[track_caller]
    pub fn until_it_says(&self, selector: &str, wanted: &str) {
        until(&format!("{selector} says {wanted}"), || self.says(selector, wanted));
    }

    /// Clicks where a selector finds something, as a person does.
    pub fn click(&self, selector: &str) {
        let found =
            self.ask("POST", "element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().and_then(|found| found.values().next()?.as_str());
        let id = id.expect("an element").to_owned();
        self.ask("POST", &format!("element/{id}/click"), &json!({}));
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub fn press(&self, keys: &str) {
        let press = |key: char| {
            let value = key.to_string();
            [
                json!({ "type": "keyDown", "value": value }),
                json!({ "type": "keyUp", "value": value }),
            ]
        };
        let actions: Vec<Value> = keys.chars().flat_map(press).collect();
        let keys = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.ask("POST", "actions", &json!({ "actions": [keys] }));
    }

    /// A command of the browser's own protocol.
    pub fn cdp(&self, command: &str, parameters: &Value) -> Value {
        self.ask("POST", "goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// How wide and high the page is seen.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.cdp("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What the system likes: `dark` or `light`.
    pub fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.cdp("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// What went wrong in the page since it was last asked.
    pub fn errors(&self) -> Vec<String> {
        let said = self.ask("POST", "se/log", &json!({ "type": "browser" }));
        let said = said.as_array().expect("entries").iter();
        let severe = said.filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].to_string()).collect()
    }

    /// All that is announced to who cannot see: role, name and level.
    pub fn announced(&self) -> Vec<(String, String, i64)> {
        let tree = self.cdp("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().expect("nodes").iter();
        let heard = nodes.filter(|node| node["ignored"] == false);
        heard
            .map(|node| {
                let text = |key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
                let mut properties = node["properties"].as_array().into_iter().flatten();
                let level = properties.find(|property| property["name"] == "level");
                let level = level.and_then(|level| level["value"]["value"].as_i64());
                (text("role"), text("name"), level.unwrap_or_default())
            })
            .collect()
    }

    /// Writes all of the page into target/browser/NAME.png.
    pub fn shoot(&self, name: &str) {
        let whole = json!({ "format": "png", "captureBeyondViewport": true });
        let shot = self.cdp("Page.captureScreenshot", &whole);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser");
        fs::create_dir_all(&folder).expect("a folder");
        let bytes = bytes(shot["data"].as_str().expect("a picture"));
        fs::write(folder.join(format!("{name}.png")), bytes).expect("a file");
    }

    fn ask(&self, method: &str, what: &str, body: &Value) -> Value {
        self.send(method, &format!("/session/{}/{what}", self.session), body)
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.exchange(method, path, body).expect("chromedriver answers");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(status, 200, "{method} {path} {body}: {answer}");
        answer["value"].clone()
    }

    fn exchange(&self, method: &str, path: &str, body: &Value) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}",
            self.port
        )?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer)?;
        Ok((status.expect("a status"), String::from_utf8(answer).expect("UTF-8")))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A driver that is killed leaves its browser behind.
        let _ = self.exchange("DELETE", &format!("/session/{}", self.session), &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The first program of these that is on the PATH.
fn program(names: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let places = names.iter().flat_map(|name| folders.iter().map(move |it| it.join(name)));
    let mut found = places.filter(|path| path.is_file());
    found.next().unwrap_or_else(|| {
        panic!("there is no {}: scripts/setup --tests installs it", names.join(" or "))
    })
}

/// The port that chromedriver says it has taken.
fn port(said: &mut BufReader<ChildStdout>) -> u16 {
    for line in said.lines() {
        let line = line.expect("text");
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return port.trim_end_matches('.').parse().expect("a port");
        }
    }
    panic!("chromedriver ended before it listened");
}

/// What is written in Base64.
fn bytes(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let letters: Vec<u8> = text.bytes().filter(|letter| *letter != b'=').map(value).collect();
    let four = letters.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0_u32, |bits, six| bits << 6 | u32::from(*six));
        let bits = bits << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    });
    four.collect()
}
