//! A network that goes away at the worst moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// When the network goes away.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// The request never reaches the server.
    Request,
    /// The server has answered, and the answer is lost.
    Reply,
}

/// Starts a proxy to `server` that goes away for good with the first request that
/// has `needle` in it after one that has `arm` in it, and returns its address.
pub async fn cutting_after(
    server: &str,
    arm: &'static str,
    needle: &'static str,
    cut: Cut,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let gone = Arc::new(AtomicBool::new(false));
    let server = server.to_owned();
    tokio::spawn(async move {
        while !gone.load(Ordering::SeqCst) {
            let Ok((client, _)) = listener.accept().await else { return };
            let (gone, server) = (gone.clone(), server.clone());
            tokio::spawn(async move {
                if !gone.load(Ordering::SeqCst)
                    && let Ok(server) = TcpStream::connect(&server).await
                {
                    let _ = forward(client, server, [arm, needle], cut, &gone).await;
                }
            });
        }
    });
    address
}

async fn forward(
    mut client: TcpStream,
    mut server: TcpStream,
    [arm, needle]: [&str; 2],
    cut: Cut,
    gone: &AtomicBool,
) -> std::io::Result<()> {
    let has = |bytes: &[u8], text: &str| {
        text.is_empty() || bytes.windows(text.len()).any(|part| part == text.as_bytes())
    };
    let mut armed = false;
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let bytes = &up[..read?];
                if bytes.is_empty() || gone.load(Ordering::SeqCst) {
                    return Ok(());
                }
                armed = armed || has(bytes, arm);
                if armed && has(bytes, needle) {
                    gone.store(true, Ordering::SeqCst);
                    if matches!(cut, Cut::Reply) {
                        server.write_all(bytes).await?;
                        let _: usize = server.read(&mut down).await?;
                    }
                    return Ok(());
                }
                server.write_all(bytes).await?;
            }
            read = server.read(&mut down) => {
                let bytes = &down[..read?];
                if bytes.is_empty() || gone.load(Ordering::SeqCst) {
                    return Ok(());
                }
                client.write_all(bytes).await?;
            }
        }
    }
}
