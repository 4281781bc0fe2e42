//! What is new in a mailbox, what changed and what is gone since it was last recorded.
//!
//! With CONDSTORE, a server says what changed since a mod-sequence, and where nothing did, nothing is asked.
//! It does not say what is gone: that is asked only where the count of messages shows that something is, of known UIDs,
//! in commands of bounded length, since one search over everything has an answer of unbounded length.

use async_imap::imap_proto::{AttributeValue, MailboxDatum, Response};

use super::session::{ImapError, ImapSession, Selected};
use crate::fetched::{Flags, MailboxRecord, UidSet};

/// What a mailbox has that its record does not.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    /// Messages that were never fetched.
    pub new: UidSet,
    /// Flags of known messages, as they are now; among them may be some that are as recorded.
    pub flags: Vec<(u32, Flags)>,
    /// Known messages that are there no more.
    pub gone: UidSet,
    /// What was looked at is up to this mod-sequence; 0 where the server keeps none.
    pub modseq: u64,
}

impl ImapSession {
    /// Compares the selected mailbox with what is recorded of it.
    pub async fn changes(&mut self, selected: &Selected, record: &MailboxRecord) -> Result<Changes, ImapError> {
        let mut changes = Changes { modseq: selected.modseq.unwrap_or(0), ..Changes::default() };
        let live = record.known.difference(&record.gone);
        let command = match selected.modseq {
            Some(modseq) if record.modseq > 0 && modseq == record.modseq => None,
            Some(_) if record.modseq > 0 => Some(format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {})", record.modseq)),
            _ => Some("UID FETCH 1:* (FLAGS)".to_owned()),
        };
        let mut listed = UidSet::default();
        if let Some(command) = command.filter(|_| selected.exists > 0) {
            self.exchange(&command, u64::from(selected.exists) * 2, |response| {
                if let Some((uid, flags)) = uid_and_flags(response)
                    && listed.insert(uid)
                {
                    if record.known.contains(uid) {
                        changes.flags.push((uid, flags));
                    } else {
                        changes.new.insert(uid);
                    }
                }
            })
            .await?;
        }
        // Each message is live or new, so only where something is gone are there fewer. More of them is a server that
        // came to a new message while it answered, and the next round has it.
        let expected = live.len() + changes.new.len();
        if expected > u64::from(selected.exists) {
            let to_ask = live.difference(&listed);
            changes.gone = to_ask.difference(&self.still_there(&to_ask).await?);
        }
        Ok(changes)
    }

    /// Which of these are in the selected mailbox.
    async fn still_there(&mut self, uids: &UidSet) -> Result<UidSet, ImapError> {
        let mut there = UidSet::default();
        for part in uids.parts(SEARCHED_AT_ONCE, RUNS_AT_ONCE) {
            self.exchange(&format!("UID SEARCH UID {part}"), 1, |response| {
                if let Response::MailboxData(MailboxDatum::Search(found)) = response {
                    found.iter().filter(|uid| part.contains(**uid)).for_each(|uid| {
                        there.insert(*uid);
                    });
                }
            })
            .await?;
        }
        Ok(there)
    }
}

fn uid_and_flags(response: &Response<'_>) -> Option<(u32, Flags)> {
    let Response::Fetch(_, attributes) = response else { return None };
    let uid = attributes.iter().find_map(|attribute| match attribute {
        AttributeValue::Uid(uid) if *uid > 0 => Some(*uid),
        _ => None,
    })?;
    Some((uid, flags_of(attributes)?))
}

pub(super) fn flags_of(attributes: &[AttributeValue<'_>]) -> Option<Flags> {
    attributes.iter().find_map(|attribute| match attribute {
        AttributeValue::Flags(flags) => Some(flags.iter().map(|flag| Flags::from_imap(flag)).collect()),
        _ => None,
    })
}

/// An answer has at most so many numbers of ten digits, well within the longest line that is read.
const SEARCHED_AT_ONCE: u32 = 10_000;

/// A command has at most so many runs, which is less than the 8000 bytes that a server is sure to take (RFC 7162, 4).
const RUNS_AT_ONCE: usize = 300;
