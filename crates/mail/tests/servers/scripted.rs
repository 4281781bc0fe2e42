//! A server in this process that answers each line of its client as a script says, in good faith or not.

#![allow(dead_code, reason = "each of those who include it uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use packetboat_mail::{Deadlines, Endpoint, Login, Security};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What a server does about a line.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// It sends this.
    Bytes(Vec<u8>),
    /// It sends this again and again.
    Endless(Vec<u8>),
    /// It closes the connection after this.
    Close(Vec<u8>),
}

/// Shorthand for what is sent once.
pub(crate) fn say(text: impl AsRef<[u8]>) -> Answer {
    Answer::Bytes(text.as_ref().to_vec())
}

/// Starts a server whose greeting is the answer to no line.
pub(crate) async fn serve(
    script: impl Fn(Option<&str>) -> Answer + Send + Sync + 'static,
) -> (Endpoint, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = Arc::new(script);
    let serving = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let script = Arc::clone(&script);
            tokio::spawn(async move {
                let mut socket = BufReader::new(socket);
                let mut line = None;
                loop {
                    let answer = script(line.as_deref());
                    let (bytes, again) = match &answer {
                        Answer::Bytes(bytes) | Answer::Close(bytes) => (bytes, false),
                        Answer::Endless(bytes) => (bytes, true),
                    };
                    while socket.write_all(bytes).await.is_ok() && again {}
                    if matches!(answer, Answer::Close(_)) {
                        return;
                    }
                    let mut bytes = Vec::new();
                    match socket.read_until(b'\n', &mut bytes).await {
                        Ok(count) if count > 0 => line = Some(String::from_utf8_lossy(&bytes).trim_end().to_owned()),
                        _ => return,
                    }
                }
            });
        }
    });
    (Endpoint { host: "127.0.0.1".to_owned(), port, security: Security::None }, serving)
}

/// Trusts nobody.
pub(crate) fn tls() -> Arc<ClientConfig> {
    Arc::new(ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

pub(crate) fn login() -> Login {
    Login::Password { user: "anna".to_owned(), password: "secret".to_owned() }
}

/// Short, since these servers are silent on purpose.
pub(crate) fn deadlines() -> Deadlines {
    Deadlines { connect: Duration::from_secs(10), silence: Duration::from_secs(2), answer: Duration::from_secs(10) }
}
