//! Connections: who is let in, for how long, and what goes with every answer.

use super::{Shared, api, closed};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// So many connections at the same time; more are turned away at once, so that they
/// do not wait behind the others.
const CONNECTIONS_MAX: usize = 256;

/// The head of a request is there within this, and an idle connection ends after it.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The head of a request is no larger than this, in bytes; nothing here needs cookies.
const HEAD_MAX: usize = 16 * 1024;

/// Nor is the body: a pause and its reason.
pub const BODY_MAX: usize = 4 * 1024;

/// An answer begins within this.
const REQUEST_TIME: Duration = Duration::from_secs(15);

/// No connection lasts longer, whatever happens on it.
const CONNECTION_TIME: Duration = Duration::from_hours(2);

/// What is under way when it ends has this long.
pub const CLOSING_TIME: Duration = Duration::from_secs(3);

/// Serves until it is told to close; returns when the last connection has ended.
pub async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let routes = api::routes(&shared)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard))
        .layer(middleware::map_response(with_headers));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut closing = shared.closing.clone();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed(&mut closing) => break,
        };
        while connections.try_join_next().is_some() {}
        match (accepted, Arc::clone(&room).try_acquire_owned()) {
            (Ok((stream, _)), Ok(permit)) => {
                let closing = shared.closing.clone();
                connections.spawn(connection(stream, routes.clone(), permit, closing));
            }
            (Ok((stream, _)), Err(_)) => {
                let full = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.try_write(full);
            }
            // Out of file descriptors, or whoever came is gone.
            (Err(_), _) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    routes: Router,
    permit: OwnedSemaphorePermit,
    mut closing: tokio::sync::watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_MAX);
    let service = TowerToHyperService::new(routes);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    tokio::select! {
        _ = &mut served => {}
        () = tokio::time::sleep(CONNECTION_TIME) => {}
        () = closed(&mut closing) => {
            served.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(CLOSING_TIME, served).await;
        }
    }
    drop(permit);
}

/// Who may ask at all, and for how long they wait.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if shared.is_local && !is_meant_for_us(&request) {
        return api::refuse(
            StatusCode::FORBIDDEN,
            "FORBIDDEN",
            "this listens to this machine alone, and the request is for another name",
            "ask for http://localhost or an address; a proxy must send such a Host",
        );
    }
    match tokio::time::timeout(REQUEST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => api::refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "TIMEOUT",
            "the answer took too long",
            "ask again; `/health/ready` says how the databases are",
        ),
    }
}

/// A page from elsewhere, open in a browser of this machine, can have its own name
/// point here, and then read what we answer: but only by that name.
fn is_meant_for_us(request: &Request) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host else { return true };
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// What goes with every answer.
async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, policy());
    response
}

/// Nothing from elsewhere, and of what is inline only what stands in our page.
fn policy() -> HeaderValue {
    static POLICY: std::sync::OnceLock<HeaderValue> = std::sync::OnceLock::new();
    let made = POLICY.get_or_init(|| {
        let policy = format!(
            "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            sources(api::PAGE, "script"),
            sources(api::PAGE, "style"),
        );
        // Digits, letters and marks.
        HeaderValue::from_str(&policy).expect("a policy is plain text")
    });
    made.clone()
}

/// The checksums of what stands between such marks in a page, as a policy has them.
fn sources(page: &str, element: &str) -> String {
    let (open, close) = (format!("<{element}"), format!("</{element}>"));
    let mut sources = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once(&open) {
        let Some((attributes, after)) = after.split_once('>') else { break };
        let Some((text, after)) = after.split_once(&close) else { break };
        rest = after;
        if attributes.is_empty() || attributes.starts_with(' ') {
            sources.push(format!("'sha256-{}'", base64(&Sha256::digest(text.as_bytes()))));
        }
    }
    if sources.is_empty() { "'none'".to_owned() } else { sources.join(" ") }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = LETTERS[usize::try_from(bits >> (18 - 6 * at) & 63).unwrap_or_default()];
            text.push(if at <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_letters() {
        for (bytes, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
    }

    #[test]
    fn a_policy_names_what_is_inline_and_nothing_else() {
        let page = "<style>a{}</style><styled><script>1</script><script>2</script>";
        assert_eq!(sources(page, "style").matches("'sha256-").count(), 1);
        let expected = "'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s=' \
                        'sha256-1HNeOiZeFu7gP1lxi5tdAwGcB9i2xR+Q2jpmbuwTqzU='";
        assert_eq!(sources(page, "script"), expected);
        assert_eq!(sources("<p>", "script"), "'none'");
    }

    #[test]
    fn a_page_from_elsewhere_cannot_borrow_our_name() {
        let asks = |host: &str| {
            let request = Request::builder().header(header::HOST, host);
            is_meant_for_us(&request.body(axum::body::Body::empty()).expect("a request"))
        };
        for ours in ["localhost", "localhost:9180", "127.0.0.1:9180", "[::1]:9180", "10.0.0.7"] {
            assert!(asks(ours), "{ours}");
        }
        for other in ["evil.example", "evil.example:9180", "localhost.evil.example", ""] {
            assert!(!asks(other), "{other}");
        }
    }
}
