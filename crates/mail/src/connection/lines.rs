//! Lines from a server, each at most so long and none waited for too long.
//!
//! A line ends with LF; a CR before it belongs to the end. What is longer than the limit is an error and not a line.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// A stream that is read by lines.
#[derive(Debug)]
pub(crate) struct Lines<S> {
    stream: S,
    buffer: Vec<u8>,
    /// What was taken from the front of the buffer.
    taken: usize,
    silence: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lines<S> {
    pub(crate) fn new(stream: S, silence: Duration) -> Self {
        Self { stream, buffer: Vec::new(), taken: 0, silence }
    }

    /// The next line, without its end.
    pub(crate) async fn line(&mut self, limit: usize) -> Result<Vec<u8>, LineError> {
        let mut searched = 0;
        loop {
            let waiting = self.waiting();
            if let Some(at) = waiting[searched..].iter().position(|byte| *byte == b'\n') {
                let end = searched + at;
                let line = &waiting[..end];
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.take(end + 1);
                return if line.len() > limit { Err(LineError::TooLong { limit }) } else { Ok(line) };
            }
            searched = waiting.len();
            if searched > limit + 1 {
                return Err(LineError::TooLong { limit });
            }
            self.fill().await?;
        }
    }

    /// What came and was not taken.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    pub(crate) fn take(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.buffer.len());
    }

    /// Waits for more bytes.
    pub(crate) async fn fill(&mut self) -> Result<(), LineError> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + READ_AT_ONCE, 0);
        let read = timeout(self.silence, self.stream.read(&mut self.buffer[before..])).await;
        let count = match read {
            Ok(Ok(count)) => count,
            _ => 0,
        };
        self.buffer.truncate(before + count);
        match read {
            Err(_) => Err(LineError::Silent(self.silence)),
            Ok(Err(error)) => Err(LineError::Broken(error)),
            Ok(Ok(0)) => Err(LineError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// Sends all of it.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(self.silence, sending).await {
            Ok(sent) => sent.map_err(LineError::Broken),
            Err(_) => Err(LineError::Silent(self.silence)),
        }
    }

    /// The stream, and what came on it ahead of its being read.
    pub(crate) fn into_parts(self) -> (S, Vec<u8>) {
        let ahead = self.waiting().to_vec();
        (self.stream, ahead)
    }
}

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("the connection broke off")]
    Broken(#[source] io::Error),
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
    #[error("the server sent a line of more than {limit} bytes")]
    TooLong { limit: usize },
}

const READ_AT_ONCE: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;
    use tokio::runtime::Builder;

    use super::*;

    fn lines_of(bytes: &[u8], piece: usize, limit: usize) -> Vec<Result<Vec<u8>, String>> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (mut server, client) = duplex(piece);
            let mut lines = Lines::new(client, Duration::from_secs(60));
            let bytes = bytes.to_vec();
            let sending = async move { server.write_all(&bytes).await };
            let reading = async move {
                let mut read = Vec::new();
                loop {
                    match lines.line(limit).await {
                        Ok(line) => read.push(Ok(line)),
                        Err(error) => return [read, vec![Err(error.to_string())]].concat(),
                    }
                }
            };
            tokio::join!(sending, reading).1
        })
    }

    #[test]
    fn an_endless_line_is_refused_before_it_is_kept() {
        let read = lines_of(&vec![b'x'; 1 << 20], 1024, 512);
        assert_eq!(read, [Err("the server sent a line of more than 512 bytes".to_owned())]);
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (_server, client) = duplex(64);
            let error = Lines::new(client, Duration::from_secs(60)).line(10).await.unwrap_err();
            assert_eq!(error.to_string(), "the server was silent for 60s");
        });
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_come(bytes in "[a\r\n]{0,40}", piece in 1usize..9) {
            let read = lines_of(bytes.as_bytes(), piece, 100);
            let mut expected: Vec<_> = bytes.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
            expected.iter_mut().for_each(|line| *line = line.strip_suffix("\r\n").unwrap_or(&line[..line.len() - 1]));
            let whole: Vec<_> = read.into_iter().filter_map(Result::ok).map(|line| String::from_utf8(line).unwrap()).collect();
            prop_assert_eq!(whole, expected);
        }
    }
}
