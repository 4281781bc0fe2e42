//! What two devices say first on a new connection, before one of them decides whether it is kept.
//!
//! Whoever dialled opens the first stream and greets; the other greets back.
//! Then the arbiter, which is the device with the smaller key, either accepts the connection, with a number that grows
//! with each it accepts, or closes it; the other follows. How it decides is in [`crate::arbiter`].
//!
//! ```text
//! greeting   frame  0x01 | version u8 | incarnation 16 | arbiter's incarnation 16 | accepted varint
//! accept     frame  0x02 | number varint
//! ```
//!
//! `accepted` is the number of the last connection that the sender saw accepted by the arbiter of that incarnation;
//! the arbiter itself, and whoever has seen none, says zero for both.

use std::time::Duration;

use packetboat_core::wire::{Reader, WireError, Writer};
use thiserror::Error;
use tokio::time::timeout;

use crate::settings::Limits;
use crate::stream::{Stream, StreamError};

/// One run of a daemon; another one after each start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Incarnation(pub(crate) [u8; 16]);

/// What a device says of itself on a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Greeting {
    pub(crate) incarnation: Incarnation,
    /// The arbiter's run, and the number of the last connection that was seen accepted by it.
    pub(crate) accepted: (Incarnation, u64),
}

impl Greeting {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(GREETING).u8(VERSION).raw(&self.incarnation.0).raw(&self.accepted.0.0).varint(self.accepted.1);
        writer.finish()
    }

    pub(crate) fn decode(frame: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(frame);
        if reader.u8()? != GREETING {
            return Err(WireError::Invalid { what: "greeting" });
        }
        if reader.u8()? != VERSION {
            return Err(WireError::Invalid { what: "version of the link" });
        }
        let incarnation = Incarnation(reader.array()?);
        let accepted = (Incarnation(reader.array()?), reader.varint()?);
        reader.finish()?;
        Ok(Self { incarnation, accepted })
    }
}

/// Greets the peer on a new connection, and hears its greeting.
pub(crate) async fn exchange(
    connection: &quinn::Connection,
    dialled: bool,
    own: Greeting,
    limits: &Limits,
    deadline: Duration,
) -> Result<(Stream, Greeting), GreetingError> {
    let exchanging = async {
        let (mut stream, peer) = if dialled {
            let mut stream = Stream::quic(connection.open_bi().await.map_err(|_| StreamError::Lost)?, limits);
            stream.writer.write_frame(&own.encode()).await?;
            let peer = stream.reader.frame(FRAME_BYTES).await?;
            (stream, peer)
        } else {
            let mut stream = Stream::quic(connection.accept_bi().await.map_err(|_| StreamError::Lost)?, limits);
            let peer = stream.reader.frame(FRAME_BYTES).await?;
            (stream, peer)
        };
        let peer = Greeting::decode(&peer.ok_or(StreamError::Abandoned)?)?;
        if !dialled {
            stream.writer.write_frame(&own.encode()).await?;
        }
        Ok((stream, peer))
    };
    timeout(deadline, exchanging).await.map_err(|_| StreamError::Stalled)?
}

/// Tells the peer that its connection is kept.
pub(crate) async fn accept(stream: &mut Stream, number: u64) -> Result<(), GreetingError> {
    let mut writer = Writer::new();
    writer.u8(ACCEPT).varint(number);
    Ok(stream.writer.write_frame(&writer.finish()).await?)
}

/// Waits for the arbiter to keep the connection.
pub(crate) async fn accepted(stream: &mut Stream, deadline: Duration) -> Result<u64, GreetingError> {
    let frame = timeout(deadline, stream.reader.frame(FRAME_BYTES)).await.map_err(|_| StreamError::Stalled)?;
    let frame = frame?.ok_or(StreamError::Abandoned)?;
    let mut reader = Reader::new(&frame);
    if reader.u8()? != ACCEPT {
        return Err(WireError::Invalid { what: "acceptance" }.into());
    }
    let number = reader.varint()?;
    reader.finish()?;
    Ok(number)
}

/// Why a connection did not come to a session.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum GreetingError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the peer sent something without meaning")]
    Malformed(#[from] WireError),
}

const VERSION: u8 = 1;
const GREETING: u8 = 1;
const ACCEPT: u8 = 2;
const FRAME_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_has_one_encoding_and_no_other_is_read() {
        let greeting = Greeting { incarnation: Incarnation([1; 16]), accepted: (Incarnation([2; 16]), 300) };
        let encoded = greeting.encode();
        assert_eq!(Greeting::decode(&encoded), Ok(greeting));
        for end in 0..encoded.len() {
            assert!(Greeting::decode(&encoded[..end]).is_err());
        }
        assert!(Greeting::decode(&[encoded.as_slice(), &[0]].concat()).is_err());
    }
}
