//! The commands' side of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use packetboat_mail::message::Stamp;
use packetboat_mail::submission::{Queue, Refusal, Spooled, Submission};
use serde_json::Value;
use thiserror::Error;

use super::{LINE_BYTES, Line, Request};
use crate::home::Home;
use crate::outbox::intake::Reception;

/// Asks the daemon of a home.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// What a daemon answered.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Answer {
    /// Results, one by one.
    pub items: Vec<Value>,
    /// The result.
    pub done: Value,
}

impl Client {
    /// The way to a home's daemon, whether one runs or not.
    pub fn new(home: &Home) -> Self {
        Self { socket: home.socket() }
    }

    /// Asks, and waits for the answer; a submission's body follows the question.
    pub fn ask(&self, request: &Request, body: Option<&mut dyn Read>) -> Result<Answer, AskError> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning,
            _ => AskError::Io(error),
        })?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(AskError::Io)?;
        let mut line = serde_json::to_vec(request).expect("strings and numbers are JSON");
        line.push(b'\n');
        stream.write_all(&line).map_err(AskError::Io)?;
        if let Some(body) = body {
            io::copy(body, &mut stream).map_err(AskError::Io)?;
        }
        let mut answer = Answer::default();
        let mut lines = BufReader::new(stream);
        loop {
            let mut text = Vec::new();
            let count = (&mut lines).take(LINE_BYTES).read_until(b'\n', &mut text).map_err(AskError::Io)?;
            if count == 0 {
                return Err(AskError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            match serde_json::from_slice(&text).map_err(|_| AskError::Malformed)? {
                Line::Item(item) => answer.items.push(item),
                Line::Done(done) => {
                    answer.done = done;
                    return Ok(answer);
                }
                Line::Failed { message, hint, kind } => return Err(AskError::Failed { message, hint, kind }),
            }
        }
    }
}

/// The queue of a daemon that runs in another process.
pub struct ControlQueue {
    client: Client,
    reception: Arc<Reception>,
}

impl ControlQueue {
    /// Hands mails to the daemon behind `client`.
    pub fn new(client: Client, reception: Arc<Reception>) -> Self {
        Self { client, reception }
    }
}

impl Queue for ControlQueue {
    type Id = String;

    async fn accept(&self, submission: Submission) -> Result<String, Refusal> {
        let client = self.client.clone();
        let handed = tokio::task::spawn_blocking(move || hand_over(&client, &submission)).await;
        handed.map_err(|error| Refusal::Busy { why: error.to_string() })?
    }

    fn stamp(&self) -> Stamp {
        self.reception.stamp()
    }
}

fn hand_over(client: &Client, submission: &Submission) -> Result<String, Refusal> {
    let busy = |error: io::Error| Refusal::Busy { why: error.to_string() };
    let mut body: Box<dyn Read> = match &submission.body {
        Spooled::Memory(bytes) => Box::new(bytes.as_slice()),
        Spooled::File(path) => Box::new(std::fs::File::open(path).map_err(busy)?),
    };
    let request = Request::Submit {
        sender: submission.sender.mailbox().map_or_else(String::new, ToString::to_string),
        recipients: submission.recipients.iter().map(ToString::to_string).collect(),
        size: submission.message.size,
    };
    match client.ask(&request, Some(&mut body)) {
        Ok(answer) => Ok(answer.done["id"].as_str().unwrap_or_default().to_owned()),
        Err(AskError::Failed { kind: Some(kind), .. }) if kind == "full" => Err(Refusal::Full),
        Err(AskError::Failed { kind: Some(kind), .. }) if kind == "no-account" => {
            Err(Refusal::NoAccount { sender: submission.sender.clone() })
        }
        Err(AskError::Failed { kind: Some(kind), message, .. }) if kind == "never" => {
            Err(Refusal::Never { why: message })
        }
        Err(error) => Err(Refusal::Busy { why: error.to_string() }),
    }
}

/// Why the daemon did not do what it was asked.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("the daemon does not run")]
    NotRunning,
    /// The connection failed.
    #[error("the daemon does not answer")]
    Io(#[source] io::Error),
    /// It answered something without meaning.
    #[error("the daemon speaks another language; it is of another version")]
    Malformed,
    /// It said no.
    #[error("{message}")]
    Failed {
        /// Why not.
        message: String,
        /// What to do next.
        hint: Option<String>,
        /// What a mail program is to be told.
        kind: Option<String>,
    },
}

const PATIENCE: Duration = Duration::from_secs(60);
