//! Reading command lines: whole ones, of limited length, that end as they must.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// A stream with what was read ahead of it, and the replies that wait to be written.
///
/// Replies wait as long as there is another whole command to be read, so a group of commands is answered in one piece.
pub(super) struct Wire<S> {
    stream: S,
    /// What was read and not yet taken.
    read: Vec<u8>,
    replies: Vec<u8>,
    /// For a piece to come, or a reply to be taken.
    deadline: Duration,
}

/// What came instead of a line.
#[derive(Debug)]
pub(super) enum NoLine {
    /// The program hung up.
    Closed,
    /// Nothing came in time.
    Deadline,
    /// Longer than a line may be.
    TooLong,
    /// It ends in LF alone, and may not.
    BareLineEnd,
}

impl From<io::Error> for NoLine {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, deadline: Duration) -> Self {
        Self { stream, read: Vec::new(), replies: Vec::new(), deadline }
    }

    /// The stream alone, for TLS to be begun on it; nothing if the program said something before TLS that would be
    /// taken as said within it.
    pub(super) fn into_quiet_stream(self) -> Option<S> {
        self.read.is_empty().then_some(self.stream)
    }

    pub(super) fn queue_reply(&mut self, text: &str) {
        self.replies.extend_from_slice(text.as_bytes());
        self.replies.extend_from_slice(b"\r\n");
    }

    /// Writes what waits to be written.
    pub(super) async fn flush(&mut self) -> Result<(), NoLine> {
        let write = async {
            self.stream.write_all(&self.replies).await?;
            self.stream.flush().await
        };
        let result = timeout(self.deadline, write).await;
        self.replies.clear();
        result.map_err(|_| NoLine::Deadline)?.map_err(NoLine::from)
    }

    /// Says that nothing more will be written.
    pub(super) async fn close(&mut self) {
        // Whoever is gone need not be told.
        let _gone = timeout(self.deadline, self.stream.shutdown()).await;
    }

    /// The next line without its end.
    pub(super) async fn line(&mut self, limit: usize, lenient: bool, deadline: Duration) -> Result<Vec<u8>, NoLine> {
        timeout(deadline, self.next_line(limit, lenient)).await.map_err(|_| NoLine::Deadline)?
    }

    async fn next_line(&mut self, limit: usize, lenient: bool) -> Result<Vec<u8>, NoLine> {
        let mut scanned = 0;
        loop {
            if let Some(end) = self.read[scanned..].iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.read.drain(..scanned + end + 1).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                } else if !lenient {
                    return Err(NoLine::BareLineEnd);
                }
                return if line.len() > limit { Err(NoLine::TooLong) } else { Ok(line) };
            }
            if self.read.len() > limit {
                return Err(NoLine::TooLong);
            }
            scanned = self.read.len();
            if self.fill().await? == 0 {
                return Err(NoLine::Closed);
            }
        }
    }

    /// A piece of a message: what was read ahead, or else the next that comes.
    pub(super) async fn piece(&mut self) -> Result<Vec<u8>, NoLine> {
        if self.read.is_empty() {
            let filled = timeout(self.deadline, self.fill()).await.map_err(|_| NoLine::Deadline)?;
            if filled? == 0 {
                return Err(NoLine::Closed);
            }
        }
        Ok(std::mem::take(&mut self.read))
    }

    /// Gives back the part of a piece that was not the message's.
    pub(super) fn give_back(&mut self, rest: &[u8]) {
        debug_assert!(self.read.is_empty());
        self.read.extend_from_slice(rest);
    }

    async fn fill(&mut self) -> Result<usize, NoLine> {
        if !self.replies.is_empty() {
            self.flush().await?;
        }
        self.read.reserve(READ_AHEAD);
        Ok(self.stream.read_buf(&mut self.read).await?)
    }
}

/// Bytes read at once.
const READ_AHEAD: usize = 32 << 10;
