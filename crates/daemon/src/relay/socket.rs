//! Requests to the companion from a command, by the daemon's control socket.
//!
//! ```text
//! command   a line of JSON: {"do":"relay"}      then any number of times
//! command   length u32 little-endian | request | the object, where the request says that one follows
//! daemon    length u32 little-endian | answer
//! ```
//!
//! A connection carries one request at a time; a command that works with several threads has several connections, and
//! keeps them for the next request. The daemon puts each request to the companion over the link of the time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use packetboat_link::Session;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::answer::{self, AskError};
use super::message::{Answer, Request};
use super::store::Ask;
use crate::files::with_causes;
use crate::home::Home;

/// A command's way to the companion.
pub struct SocketAsk {
    socket: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
}

impl SocketAsk {
    /// The way by the daemon of a home, whether it runs or not.
    pub fn new(home: &Home) -> Self {
        Self { socket: home.socket(), idle: Mutex::default() }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        stream.write_all(b"{\"do\":\"relay\"}\n")?;
        Ok(stream)
    }
}

impl Ask for SocketAsk {
    fn ask(&self, request: &Request, body: &[u8]) -> io::Result<Answer> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let encoded = request.encode();
        let mut head = (encoded.len() as u32).to_le_bytes().to_vec();
        head.extend_from_slice(&encoded);
        stream.write_all(&head)?;
        stream.write_all(body)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u64::from(u32::from_le_bytes(length));
        if length > request.answer_limit() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = Vec::new();
        (&mut stream).take(length).read_to_end(&mut bytes)?;
        let answer = Answer::decode(&bytes).map_err(io::Error::other)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        Ok(answer)
    }
}

/// The daemon's side: puts what a command asks to the companion, until the command goes away.
pub async fn serve(
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    session: watch::Receiver<Option<Session>>,
) -> io::Result<()> {
    loop {
        let mut length = [0; 4];
        match timeout(IDLE, read.read_exact(&mut length)).await {
            Ok(Ok(_)) => {}
            // A command that ends between two requests ends as it should.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > REQUEST_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut encoded = vec![0; length];
        read.read_exact(&mut encoded).await?;
        let request = Request::decode(&encoded).map_err(io::Error::other)?;
        let mut body = vec![0; usize::try_from(request.body_size().unwrap_or(0)).map_err(io::Error::other)?];
        read.read_exact(&mut body).await?;
        let current = session.borrow().clone();
        let answered = match current {
            Some(session) => answer::ask(&session, &request, &body).await,
            None => Err(AskError::Down),
        };
        let bytes = answered.unwrap_or_else(|error| Answer::Failed(with_causes(&error))).encode();
        let framed = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        write.write_all(&framed.to_le_bytes()).await?;
        write.write_all(&bytes).await?;
        write.flush().await?;
    }
}

/// How long a command waits: longer than the link does, so that the reason comes through.
const ANSWER: Duration = Duration::from_secs(120);

/// How long a command may think between two requests; a round reads a folder meanwhile.
const IDLE: Duration = Duration::from_secs(3600);

const REQUEST_BYTES: usize = 1024;
