//! Waiting until something happens in the selected mailbox: by IDLE (RFC 2177), or by asking now and then without it.
//!
//! A server may end an IDLE after half an hour, and a router forgets a silent connection sooner; so an IDLE is renewed
//! well before, and a server that does not answer the renewal is gone.

use std::time::Duration;

use async_imap::imap_proto::{MailboxDatum, Response};
use tokio::time::{Instant, timeout_at};

use super::session::{ImapError, ImapSession, accepted};

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// Messages came or went, or their flags changed.
    News,
    /// Nothing happened for as long as was to be waited.
    Quiet,
}

impl ImapSession {
    /// Waits for news in the selected mailbox, for at most `renewal`; the session is ready for commands afterwards.
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
        let wake = waited?;
        self.session.get_mut().restart();
        self.session.run_command_untagged("DONE").await?;
        let mut room = UNASKED;
        loop {
            let answer = self.answer().await?;
            if let Response::Done { tag: of, status, outcome } = answer.parsed()
                && *of == tag
            {
                accepted("IDLE", status, outcome.information.as_deref())?;
                return Ok(wake);
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
        Response::MailboxData(MailboxDatum::Exists(_))
        | Response::Expunge(_)
        | Response::Vanished { .. }
        | Response::Fetch(..) => Some(Wake::News),
        _ => None,
    }
}

/// Without IDLE, how often to ask.
const POLL: Duration = Duration::from_secs(60);

const UNASKED: u64 = 10_000;
