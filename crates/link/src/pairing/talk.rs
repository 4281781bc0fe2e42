//! The connection of one pairing: one message after the other, each in time, and refusals heard wherever they come.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::messages::{self, Message};
use super::{PairingError, REFUSED, TAMPERED};
use crate::session::CLOSED;
use crate::settings::Settings;
use crate::stream::{Stream, StreamError};

/// One pairing's connection.
pub(super) struct Talk {
    pub(super) connection: quinn::Connection,
    pub(super) stream: Stream,
    /// How long one message may take that no people decide about.
    pub(super) step: Duration,
}

impl Talk {
    pub(super) fn new(connection: quinn::Connection, stream: Stream, settings: &Settings) -> Self {
        Self { connection, stream, step: settings.greeting }
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), PairingError> {
        self.stream.writer.write_frame(message).await.map_err(|error| self.failure(error))
    }

    pub(super) async fn receive(&mut self) -> Result<Vec<u8>, PairingError> {
        self.receive_until(Instant::now() + self.step).await
    }

    pub(super) async fn receive_until(&mut self, deadline: Instant) -> Result<Vec<u8>, PairingError> {
        let frame = timeout_at(deadline, self.stream.reader.frame(messages::GREATEST)).await;
        let frame = match frame.map_err(|_| PairingError::NoAnswer)? {
            Ok(frame) => frame.ok_or(PairingError::Connection)?,
            Err(error) => return Err(self.failure(error)),
        };
        if Message::is_refusal(&frame) {
            self.connection.close(CLOSED, b"");
            return Err(PairingError::Refused);
        }
        Ok(frame)
    }

    fn failure(&self, error: StreamError) -> PairingError {
        match self.connection.close_reason() {
            Some(quinn::ConnectionError::ApplicationClosed(close)) if close.error_code == REFUSED => {
                PairingError::Refused
            }
            Some(quinn::ConnectionError::ApplicationClosed(close)) if close.error_code == TAMPERED => {
                PairingError::Tampered
            }
            _ => error.into(),
        }
    }
}
