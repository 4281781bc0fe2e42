//! What a server says, and reading it: never without a deadline, never without a limit.

use std::fmt;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smtp_proto::Response;
use smtp_proto::response::parser::ResponseReceiver;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::{Failure, Stage};

/// A server's answer to one command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Three digits (RFC 5321, 4.2).
    pub code: u16,
    /// Class, subject and detail (RFC 3463), where the server gave them.
    pub enhanced: Option<[u8; 3]>,
    /// The rest, in one line, without control characters.
    pub text: String,
}

impl Reply {
    /// An answer that the server would have given, or need not be asked for.
    pub(crate) fn ours(code: u16, enhanced: [u8; 3], text: impl Into<String>) -> Self {
        Self { code, enhanced: Some(enhanced), text: text.into() }
    }

    /// 2xx.
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 5xx: trying again changes nothing.
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// The status code of a report (RFC 3464, 2.3.4).
    pub fn status(&self) -> [u8; 3] {
        self.enhanced.unwrap_or([(self.code / 100).min(5) as u8, 0, 0])
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some([class, subject, detail]) = self.enhanced {
            write!(f, " {class}.{subject}.{detail}")?;
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

impl From<Response<String>> for Reply {
    fn from(response: Response<String>) -> Self {
        let words: String = response.message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = words.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { code: response.code, enhanced: (response.esc[0] != 0).then_some(response.esc), text }
    }
}

/// A stream, and what was read from it and not yet looked at.
pub(super) struct Replies<S> {
    stream: S,
    read: Vec<u8>,
    parser: ResponseReceiver,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Replies<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, read: Vec::new(), parser: ResponseReceiver::default() }
    }

    /// Writes, and waits until all of it was handed on.
    pub(super) async fn write(&mut self, bytes: &[u8], deadline: Duration, stage: Stage) -> Result<(), Failure> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(deadline, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(Failure::Closed { stage, source: Some(source) }),
            Err(_) => Err(Failure::Deadline { stage, after: deadline }),
        }
    }

    /// The next reply. The deadline is for the whole of it: a server that sends one byte a minute is not waited for.
    pub(super) async fn reply(&mut self, deadline: Duration, stage: Stage) -> Result<Reply, Failure> {
        match timeout(deadline, self.next(stage)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Deadline { stage, after: deadline }),
        }
    }

    /// A command and its reply.
    pub(super) async fn exchange(
        &mut self,
        command: &[u8],
        deadline: Duration,
        stage: Stage,
    ) -> Result<Reply, Failure> {
        self.write(command, deadline, stage).await?;
        self.reply(deadline, stage).await
    }

    async fn next(&mut self, stage: Stage) -> Result<Reply, Failure> {
        loop {
            let mut bytes = self.read.iter();
            let parsed = self.parser.parse(&mut bytes);
            let left = bytes.len();
            self.read.drain(..self.read.len() - left);
            match parsed {
                Ok(response) => {
                    self.parser.reset();
                    return match response.code {
                        200..600 => Ok(response.into()),
                        _ => Err(Failure::Garbled { stage }),
                    };
                }
                Err(smtp_proto::Error::NeedsMoreData { .. }) => {}
                // A reply of more than four KiB ends here too.
                Err(_) => return Err(Failure::Garbled { stage }),
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece).await {
                Ok(0) => return Err(Failure::Closed { stage, source: None }),
                Ok(count) => self.read.extend_from_slice(&piece[..count]),
                Err(source) => return Err(Failure::Closed { stage, source: Some(source) }),
            }
        }
    }

    /// What the server has said already that it was not asked for: the reason why it hung up, perhaps.
    pub(super) async fn last_words(&mut self, stage: Stage) -> Option<Reply> {
        self.reply(LAST_WORDS, stage).await.ok()
    }

    /// Whether the server has neither said anything unasked nor hung up.
    pub(super) fn is_quiet(&mut self) -> bool {
        if !self.read.is_empty() {
            return false;
        }
        let mut piece = [0; 512];
        let mut buffer = ReadBuf::new(&mut piece);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => {
                self.read.extend_from_slice(buffer.filled());
                false
            }
            Poll::Ready(Err(_)) => false,
        }
    }

    /// As [`Self::is_quiet`], from within a task, whose runtime is asked for news first.
    pub(super) async fn is_quiet_now(&mut self) -> bool {
        tokio::task::yield_now().await;
        self.is_quiet()
    }
}

/// How long a server is listened to after it stopped listening.
const LAST_WORDS: Duration = Duration::from_millis(500);
