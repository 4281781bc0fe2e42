//! One bidirectional stream of bytes, over QUIC or in memory, and the patience with which a peer is waited for.
//!
//! Everything above speaks to these two halves alone, so messages and bodies do not know their transport.
//! Both kinds keep what QUIC promises: bytes arrive in order and once; an end that was meant (`finish`) is told from
//! one that was not; a writer waits while the reader does not keep up; and dropping a half abandons it.
//!
//! Reading is cancel-safe: what was taken off the wire stays in the half until it is given to someone.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use quinn::VarInt;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::session::SessionError;
use crate::settings::Limits;

/// Both halves of a stream.
pub(crate) struct Stream {
    pub(crate) writer: StreamWriter,
    pub(crate) reader: StreamReader,
}

impl Stream {
    pub(crate) fn quic((send, receive): (quinn::SendStream, quinn::RecvStream), limits: &Limits) -> Self {
        Self::new(SendHalf::Quic(send), ReceiveHalf::Quic(receive), limits)
    }

    /// Two streams of which each is the other's far end, for as long as the session is not `closed`.
    pub(crate) fn memory(limits: &Limits, closed: &Closed) -> (Self, Self) {
        let ((to_there, from_here), (to_here, from_there)) = (mpsc::channel(PIECES), mpsc::channel(PIECES));
        let end = |send, receive| {
            Self::new(
                SendHalf::Memory(Some(send), closed.clone()),
                ReceiveHalf::Memory(receive, closed.clone()),
                limits,
            )
        };
        (end(to_there, from_there), end(to_here, from_here))
    }

    /// Keeps a permit for as long as the stream is written to or its end awaited.
    pub(crate) fn holding(mut self, permit: OwnedSemaphorePermit) -> Self {
        self.reader._permit = Some(permit);
        self
    }

    fn new(send: SendHalf, receive: ReceiveHalf, limits: &Limits) -> Self {
        Self {
            writer: StreamWriter { half: send, patience: Patience::new(limits), finished: false },
            reader: StreamReader {
                half: receive,
                patience: Patience::new(limits),
                buffer: BytesMut::new(),
                _permit: None,
            },
        }
    }
}

/// The half that is written to.
pub(crate) struct StreamWriter {
    half: SendHalf,
    patience: Patience,
    finished: bool,
}

enum SendHalf {
    Quic(quinn::SendStream),
    /// Nothing once the end was announced.
    Memory(Option<mpsc::Sender<Piece>>, Closed),
}

impl StreamWriter {
    /// Writes all of it, waiting while the peer does not keep up, for as long as it makes some progress.
    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let half = &mut self.half;
            let taken = bytes.len().min(GREATEST_PIECE);
            let piece = bytes.split_to(taken);
            let written = async {
                match half {
                    SendHalf::Quic(send) => send.write_chunk(piece).await.map_err(StreamError::from),
                    SendHalf::Memory(Some(send), closed) => tokio::select! {
                        biased;
                        _ = closed.wait_for(Option::is_some) => Err(StreamError::Lost),
                        sent = send.send(Piece::Bytes(piece)) => sent.map_err(|_| StreamError::Stopped),
                    },
                    SendHalf::Memory(None, _) => Err(StreamError::Stopped),
                }
            };
            self.patience.wait(written, |()| taken as u64).await?;
        }
        Ok(())
    }

    /// Writes one frame: a length of four bytes, little-endian, and that many bytes.
    pub(crate) async fn write_frame(&mut self, frame: &[u8]) -> Result<(), StreamError> {
        let mut framed = BytesMut::with_capacity(4 + frame.len());
        framed.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        framed.extend_from_slice(frame);
        self.write(framed.freeze()).await
    }

    /// Announces that this was all.
    pub(crate) async fn finish(&mut self) -> Result<(), StreamError> {
        self.finished = true;
        match &mut self.half {
            SendHalf::Quic(send) => send.finish().map_err(|_| StreamError::Stopped),
            SendHalf::Memory(send, _) => {
                let send = send.take().ok_or(StreamError::Stopped)?;
                send.send(Piece::End).await.map_err(|_| StreamError::Stopped)
            }
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        // Quinn would announce an orderly end for whoever forgot to; what is abandoned must not look complete.
        // After a meant end a reset would throw away what is still on its way.
        if let (SendHalf::Quic(send), false) = (&mut self.half, self.finished) {
            let _already_stopped = send.reset(ABANDONED);
        }
    }
}

/// The half that is read from.
pub(crate) struct StreamReader {
    half: ReceiveHalf,
    patience: Patience,
    /// Read and not yet given to anyone.
    buffer: BytesMut,
    /// In memory, the place among the streams that may be open at once.
    _permit: Option<OwnedSemaphorePermit>,
}

enum ReceiveHalf {
    Quic(quinn::RecvStream),
    /// In memory, after the end.
    Ended,
    Memory(mpsc::Receiver<Piece>, Closed),
}

/// Why a session in memory is over, once it is.
pub(crate) type Closed = watch::Receiver<Option<SessionError>>;

/// What a stream in memory carries; a channel that closes without an end was abandoned.
enum Piece {
    Bytes(Bytes),
    End,
}

impl StreamReader {
    /// The next bytes, at most `greatest`; nothing at the end.
    pub(crate) async fn chunk(&mut self, greatest: usize) -> Result<Option<Bytes>, StreamError> {
        if self.buffer.is_empty() {
            let read = self.patience.wait(self.half.read(), |read| read.as_ref().map_or(0, |read| read.len() as u64));
            let Some(mut read) = read.await? else { return Ok(None) };
            if read.len() > greatest {
                self.buffer.extend_from_slice(&read.split_off(greatest));
            }
            return Ok(Some(read));
        }
        let taken = self.buffer.len().min(greatest);
        Ok(Some(self.buffer.split_to(taken).freeze()))
    }

    /// The next frame, for which it waits as long as it takes to begin, and then with the usual patience.
    ///
    /// Nothing at an end between two frames.
    pub(crate) async fn frame(&mut self, limit: usize) -> Result<Option<Vec<u8>>, StreamError> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<4>() {
                let length = u32::from_le_bytes(*header) as usize;
                // Refused by the announcement alone, before anything is kept of it.
                if length > limit {
                    return Err(StreamError::TooLong { limit });
                }
                if self.buffer.len() >= 4 + length {
                    self.buffer.advance(4);
                    self.patience.restart();
                    return Ok(Some(self.buffer.split_to(length).to_vec()));
                }
            }
            let begun = !self.buffer.is_empty();
            let read = match begun {
                true => {
                    let length = |read: &Option<Bytes>| read.as_ref().map_or(0, |read| read.len() as u64);
                    self.patience.wait(self.half.read(), length).await?
                }
                false => self.half.read().await?,
            };
            match read {
                Some(read) => self.buffer.extend_from_slice(&read),
                None if begun => return Err(StreamError::Abandoned),
                None => return Ok(None),
            }
        }
    }

    /// Tells the peer that no more of this is wanted.
    pub(crate) fn stop(&mut self) {
        match &mut self.half {
            ReceiveHalf::Quic(receive) => {
                let _already_ended = receive.stop(ABANDONED);
            }
            ReceiveHalf::Memory(receive, _) => receive.close(),
            ReceiveHalf::Ended => {}
        }
    }
}

impl ReceiveHalf {
    async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        match self {
            Self::Quic(receive) => match receive.read_chunk(GREATEST_PIECE, true).await? {
                Some(chunk) => Ok(Some(chunk.bytes)),
                None => Ok(None),
            },
            Self::Ended => Ok(None),
            Self::Memory(receive, closed) => {
                let piece = tokio::select! {
                    biased;
                    _ = closed.wait_for(Option::is_some) => return Err(StreamError::Lost),
                    piece = receive.recv() => piece,
                };
                match piece {
                    Some(Piece::Bytes(bytes)) => Ok(Some(bytes)),
                    Some(Piece::End) => {
                        *self = Self::Ended;
                        Ok(None)
                    }
                    None => Err(StreamError::Abandoned),
                }
            }
        }
    }
}

/// Waits for a peer for as long as it makes progress.
///
/// Only time spent waiting counts, so a slow reader here never makes the peer look slow, and a peer that sends one
/// byte now and then, so as to hold a stream for ever, is as good as one that sends nothing.
struct Patience {
    window: Duration,
    least: u64,
    waited: Duration,
    moved: u64,
}

impl Patience {
    fn new(limits: &Limits) -> Self {
        Self { window: limits.stall, least: limits.stall_bytes, waited: Duration::ZERO, moved: 0 }
    }

    async fn wait<T>(
        &mut self,
        action: impl Future<Output = Result<T, StreamError>>,
        moved: impl Fn(&T) -> u64,
    ) -> Result<T, StreamError> {
        let began = Instant::now();
        let left = self.window.saturating_sub(self.waited);
        let outcome = timeout(left, action).await.map_err(|_| StreamError::Stalled)??;
        self.waited += began.elapsed();
        self.moved += moved(&outcome);
        if self.moved >= self.least {
            self.restart();
        }
        Ok(outcome)
    }

    fn restart(&mut self) {
        self.waited = Duration::ZERO;
        self.moved = 0;
    }
}

/// Why a stream gives or takes no more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StreamError {
    /// The connection under it is gone.
    #[error("the connection was lost")]
    Lost,
    /// The peer gave the stream up before its end.
    #[error("the peer broke off")]
    Abandoned,
    /// The peer wants no more of what is being sent.
    #[error("the peer wants no more of it")]
    Stopped,
    /// The peer neither sends nor takes anything.
    #[error("the peer makes no progress")]
    Stalled,
    /// The peer announced more than this device takes.
    #[error("the peer sends more than {limit} bytes")]
    TooLong {
        /// Greatest length in bytes.
        limit: usize,
    },
}

impl From<quinn::WriteError> for StreamError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(_) | quinn::WriteError::ClosedStream => Self::Stopped,
            quinn::WriteError::ConnectionLost(_) | quinn::WriteError::ZeroRttRejected => Self::Lost,
        }
    }
}

impl From<quinn::ReadError> for StreamError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(_) | quinn::ReadError::ClosedStream => Self::Abandoned,
            quinn::ReadError::ConnectionLost(_)
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => Self::Lost,
        }
    }
}

/// Bytes moved in one step.
pub(crate) const GREATEST_PIECE: usize = 64 << 10;

/// Steps that a stream in memory holds before its writer waits.
const PIECES: usize = 16;

/// The stream was given up.
const ABANDONED: VarInt = VarInt::from_u32(1);
