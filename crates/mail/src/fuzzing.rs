//! Doors for the fuzz targets: sessions with a server whose every answer is written down before it was asked.
//!
//! Real sessions run over sockets, which a fuzz target cannot afford. [`Script`] stands in for one: it gives its bytes
//! however they are asked for, and keeps what is written to it. All else is the code that runs in earnest.
//! Compiled with the feature `fuzzing` alone, which nothing that is shipped asks for.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use mail_send::SmtpClient;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Stream;
use crate::fetched::{Arrival, Arrivals, Flags, MailboxKey, Origin, Path, UidSet};
use crate::imap::{ImapAccount, ImapError, ImapSession};
use crate::maildir::FolderName;
use crate::pop3::{Pop3Account, Pop3Error, Pop3Session};
use crate::smtp::{Connection, Failure, Server, Trust};

/// A server's side of a conversation.
///
/// What it says comes in pieces, and each is given only to who waits for it: a client which looks whether the server spoke
/// unasked, before the dot once more, finds it quiet. It hangs up behind the last one.
#[derive(Debug)]
pub struct Script {
    pieces: std::vec::IntoIter<Vec<u8>>,
    /// What of the present piece was not read yet.
    present: Vec<u8>,
    looks: u8,
    written: Written,
}

/// What a client wrote to a [`Script`].
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    /// All of it so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Script {
    /// A server that says these, in turn.
    pub fn new(pieces: Vec<Vec<u8>>) -> Self {
        Self { pieces: pieces.into_iter(), present: Vec::new(), looks: 0, written: Written::default() }
    }

    /// Where what is written to it will be found.
    pub fn written(&self) -> Written {
        self.written.clone()
    }
}

impl AsyncRead for Script {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.present.is_empty() {
            if this.looks < 2 {
                this.looks += 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.looks = 0;
            this.present = this.pieces.next().unwrap_or_default();
        }
        let count = this.present.len().min(buffer.remaining());
        buffer.put_slice(&this.present[..count]);
        this.present.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.looks = 0;
        this.written.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A trust that no session of these comes to use.
pub fn trust(config: Arc<rustls::ClientConfig>) -> Trust {
    Trust::of(config)
}

/// Logs in to a server that speaks SMTP without TLS.
pub async fn open_smtp(script: Script, server: &Server) -> Result<Connection, Failure> {
    let client = SmtpClient { stream: script, timeout: server.deadlines.tls };
    Connection::over(client, server).await
}

/// Logs in to a server that speaks POP3.
pub async fn open_pop3(script: Script, account: &Pop3Account) -> Result<Pop3Session, Pop3Error> {
    Pop3Session::over(Stream::Script(script), account).await
}

/// Logs in to a server that speaks IMAP.
pub async fn open_imap(script: Script, account: &ImapAccount) -> Result<ImapSession, ImapError> {
    ImapSession::over(Stream::Script(script), account).await
}

/// Fetches messages of the selected mailbox; says whether the server kept to the protocol.
pub async fn fetch(session: &mut ImapSession, uids: &UidSet, arrivals: &Arrivals) -> bool {
    let mailbox = MailboxKey { account: "a".into(), mailbox: "INBOX".into(), validity: 1 };
    let describe = |uid, flags: Flags, received| Arrival {
        origin: Origin::Imap { mailbox: mailbox.clone(), uid },
        folder: FolderName::inbox(),
        flags,
        received,
        path: Path::Own,
    };
    session.fetch_into(uids, describe, arrivals).await.is_ok()
}
