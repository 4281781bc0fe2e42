//! Waiting until something happens in the selected mailbox: by IDLE (RFC 2177), or by asking now and then without it.
//!
//! IDLE tells of the selected mailbox alone. Of others a server tells where it knows NOTIFY (RFC 5465), and then within the
//! same wait; one that stops telling because it is too much says so, and whoever waits polls anyway.
//!
//! A server may end an IDLE after half an hour, and a router forgets a silent connection sooner; so an IDLE is renewed
//! well before, and a server that does not answer the renewal is gone.

use std::time::Duration;

use async_imap::imap_proto::{MailboxDatum, Response};
use tokio::time::{Instant, timeout_at};

use super::session::{ImapError, ImapSession, accepted, quote};

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// Messages came or went, or their flags changed.
    News,
    /// Nothing happened for as long as was to be waited.
    Quiet,
}

/// Mailboxes beside the selected one that a server is to tell of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Others {
    /// All that are the user's own, also those that come to be.
    All,
    /// These, as the server names them.
    Named(Vec<String>),
}

impl ImapSession {
    /// Asks the server to tell of other mailboxes too, while [`ImapSession::wait`] waits; says whether it will.
    ///
    /// What is told of the selected mailbox stays as it is without this.
    pub async fn notify_of(&mut self, others: &Others) -> Result<bool, ImapError> {
        if !self.can("NOTIFY") || !self.can("IDLE") {
            return Ok(false);
        }
        let filter = match others {
            Others::All => "personal".to_owned(),
            Others::Named(names) => {
                let names = names.iter().map(|name| quote(name)).collect::<Result<Vec<_>, _>>()?;
                format!("mailboxes ({})", names.join(" "))
            }
        };
        let selected = "(selected (MessageNew MessageExpunge FlagChange))";
        let asked = format!("NOTIFY SET {selected} ({filter} (MessageNew MessageExpunge))");
        // A command that no server need take is not sent.
        if asked.len() > LONGEST_COMMAND {
            return Ok(false);
        }
        match self.exchange(&asked, 0, |_| ()).await {
            Ok(()) => Ok(true),
            // It may know NOTIFY and not these events; the interval finds what it does not tell.
            Err(ImapError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits for news in the selected mailbox, and in others that were asked about, for at most `renewal`; the session is ready for commands afterwards.
    ///
    /// To stop earlier, drop the session.
    pub async fn wait(&mut self, renewal: Duration) -> Result<Wake, ImapError> {
        if !self.can("IDLE") {
            tokio::time::sleep(renewal.min(POLL)).await;
            let mut wake = Wake::Quiet;
            self.exchange("NOOP", 0, |response| wake = wake_by(response).unwrap_or(wake)).await?;
            return Ok(wake);
        }
        let until = Instant::now() + renewal;
        let tag = self.send("IDLE").await?;
        let mut wake = Wake::Quiet;
        let mut room = UNASKED;
        loop {
            let answer = self.answer().await?;
            match answer.parsed() {
                Response::Continue(_) => break,
                Response::Done { tag: of, status, outcome } if *of == tag => {
                    accepted("IDLE", status, outcome.information.as_deref())?;
                    return Ok(wake);
                }
                // News may come before the continuation.
                response => wake = wake_by(response).unwrap_or(wake),
            }
            room = room.checked_sub(1).ok_or(ImapError::Endless)?;
        }
        let (silence, longest) = (self.deadlines.silence, self.deadlines.answer);
        // A silent server is what is hoped for here; the deadline is `until`.
        self.session.get_mut().allow_silence(renewal + silence);
        self.deadlines.answer = longest.max(renewal + silence);
        let waited = self.idle_until(until, wake).await;
        self.session.get_mut().allow_silence(silence);
        self.deadlines.answer = longest;
        let mut wake = waited?;
        self.session.get_mut().restart();
        self.session.run_command_untagged("DONE").await?;
        let mut room = UNASKED;
        loop {
            let answer = self.answer().await?;
            match answer.parsed() {
                Response::Done { tag: of, status, outcome } if *of == tag => {
                    accepted("IDLE", status, outcome.information.as_deref())?;
                    return Ok(wake);
                }
                // What is told while the wait ends is told once.
                response => wake = wake_by(response).unwrap_or(wake),
            }
            room = room.checked_sub(1).ok_or(ImapError::Endless)?;
        }
    }

    async fn idle_until(&mut self, until: Instant, mut wake: Wake) -> Result<Wake, ImapError> {
        let mut room = UNASKED;
        while wake == Wake::Quiet {
            let Ok(answer) = timeout_at(until, self.answer()).await else { break };
            wake = wake_by(answer?.parsed()).unwrap_or(wake);
            room = room.checked_sub(1).ok_or(ImapError::Endless)?;
        }
        Ok(wake)
    }
}

fn wake_by(response: &Response<'_>) -> Option<Wake> {
    match response {
        Response::MailboxData(MailboxDatum::Exists(_) | MailboxDatum::Status { .. })
        | Response::Expunge(_)
        | Response::Vanished { .. }
        | Response::Fetch(..) => Some(Wake::News),
        _ => None,
    }
}

/// RFC 7162 asks servers to take 8192 octets.
const LONGEST_COMMAND: usize = 8000;

/// Without IDLE, how often to ask.
const POLL: Duration = Duration::from_secs(60);

const UNASKED: u64 = 10_000;
