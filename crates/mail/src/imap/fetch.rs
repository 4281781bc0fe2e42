//! The bytes of messages, in few round trips and flat memory.
//!
//! Messages are asked for in batches, and the next batch is asked for before the one under way has come, so that the
//! server is never idle. Of each message at most one piece is asked for, whatever the server says of its size, which
//! bounds what any answer can hold; most messages are whole by that.
//! What fills its piece is long: when the batches under way have come, the rest of it is fetched in further pieces, of
//! which several are under way as well. The first pieces of long messages are kept meanwhile, up to a limit, and asked
//! for again beyond it.
//!
//! Messages are looked at with `BODY.PEEK[]`, so none is marked as read by being fetched.

use std::collections::VecDeque;
use std::time::SystemTime;

use async_imap::imap_proto::{AttributeValue, RequestId, Response};

use super::changes::flags_of;
use super::session::{ImapError, ImapSession, accepted};
use crate::fetched::{Arrival, Arrivals, Delivery, Flags, UidSet};

/// What came of what was asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct FetchReport {
    /// How many messages were handed on whole.
    pub fetched: u64,
    /// Those that did not come: someone deleted them meanwhile, or the server cannot read them.
    pub missing: UidSet,
    /// What the server said, where it said no to some of it.
    pub refusal: Option<String>,
}

/// A message that fills its first piece.
struct Long {
    uid: u32,
    arrival: Arrival,
    /// The piece, unless it would have been one too many to keep.
    first: Option<Vec<u8>>,
}

/// What is under way.
struct Fetching<'a> {
    commands: VecDeque<RequestId>,
    parts: VecDeque<UidSet>,
    wanted: UidSet,
    came: UidSet,
    long: Vec<Long>,
    kept: usize,
    report: FetchReport,
    arrivals: &'a Arrivals,
}

type FetchError = crate::fetched::FetchError<ImapError>;

impl ImapSession {
    /// Fetches messages of the selected mailbox, each described by `describe` and handed to `arrivals`.
    pub(crate) async fn fetch_into(
        &mut self,
        uids: &UidSet,
        describe: impl Fn(u32, Flags, Option<SystemTime>) -> Arrival,
        arrivals: &Arrivals,
    ) -> Result<FetchReport, FetchError> {
        let mut fetching = Fetching {
            commands: VecDeque::new(),
            parts: uids.parts(BATCH, RUNS_AT_ONCE).into(),
            wanted: uids.clone(),
            came: UidSet::default(),
            long: Vec::new(),
            kept: 0,
            report: FetchReport::default(),
            arrivals,
        };
        let mut room = uids.len() * 2 + UNASKED;
        loop {
            while fetching.commands.len() < BATCHES_UNDER_WAY
                && fetching.long.len() < LONG_AT_ONCE
                && let Some(part) = fetching.parts.pop_front()
            {
                let command = format!("UID FETCH {part} (UID FLAGS INTERNALDATE BODY.PEEK[]<0.{PIECE}>)");
                fetching.commands.push_back(self.send(&command).await?);
            }
            if fetching.commands.is_empty() {
                for long in std::mem::take(&mut fetching.long) {
                    self.fetch_long(long, &mut fetching).await?;
                }
                fetching.kept = 0;
                if fetching.parts.is_empty() {
                    break;
                }
                continue;
            }
            let answer = self.answer().await?;
            room = room.checked_sub(1).ok_or(ImapError::Endless)?;
            match answer.parsed() {
                Response::Done { tag, status, outcome } if Some(tag) == fetching.commands.front() => {
                    fetching.commands.pop_front();
                    if let Err(ImapError::Refused { reply, .. }) =
                        accepted("UID FETCH", status, outcome.information.as_deref())
                    {
                        fetching.report.refusal = Some(reply);
                    }
                }
                Response::Fetch(_, attributes) => fetching.take(attributes, &describe).await?,
                _ => {}
            }
        }
        fetching.report.missing = fetching.wanted.difference(&fetching.came);
        Ok(fetching.report)
    }

    /// Fetches a message in pieces, from where its first piece ends.
    async fn fetch_long(&mut self, long: Long, fetching: &mut Fetching<'_>) -> Result<(), FetchError> {
        let Long { uid, arrival, first } = long;
        fetching.hand_on(Delivery::Begin(arrival)).await?;
        let mut written = first.as_ref().map_or(0, |piece| piece.len() as u64);
        if let Some(piece) = first {
            fetching.hand_on(Delivery::Piece(piece)).await?;
        }
        let mut asked = written;
        let mut commands: VecDeque<RequestId> = VecDeque::new();
        let (mut ended, mut whole) = (false, false);
        let mut room = UNASKED;
        while !ended || !commands.is_empty() {
            while !ended && commands.len() < PIECES_UNDER_WAY {
                let command = format!("UID FETCH {uid} (UID BODY.PEEK[]<{asked}.{PIECE}>)");
                commands.push_back(self.send(&command).await?);
                asked += PIECE as u64;
            }
            let answer = self.answer().await?;
            match answer.parsed() {
                Response::Done { tag, .. } if Some(tag) == commands.front() => {
                    commands.pop_front();
                    // Every piece moves on or is the last; an answer without one means that the message is gone.
                    ended = ended || written + (commands.len() as u64) * (PIECE as u64) < asked;
                }
                Response::Fetch(_, attributes) if !ended && uid_of(attributes) == Some(uid) => {
                    let Some((index, piece)) = piece_of(attributes) else { continue };
                    if index.map(u64::from) != Some(written) {
                        return Err(ImapError::Misplaced { uid }.into());
                    }
                    written += piece.len() as u64;
                    if !piece.is_empty() {
                        fetching.hand_on(Delivery::Piece(piece.to_vec())).await?;
                    }
                    whole = piece.len() < PIECE;
                    ended = whole || written > MAXIMUM_MESSAGE;
                    room = UNASKED;
                }
                _ => room = room.checked_sub(1).ok_or(ImapError::Endless)?,
            }
        }
        if whole {
            fetching.came.insert(uid);
            fetching.report.fetched += 1;
            fetching.hand_on(Delivery::End).await
        } else {
            if written > MAXIMUM_MESSAGE {
                fetching.report.refusal = Some(format!("message {uid} has more than {MAXIMUM_MESSAGE} bytes"));
            }
            fetching.hand_on(Delivery::Drop).await
        }
    }
}

impl Fetching<'_> {
    /// Takes an answer that may hold a message that was asked for.
    async fn take(
        &mut self,
        attributes: &[AttributeValue<'_>],
        describe: &impl Fn(u32, Flags, Option<SystemTime>) -> Arrival,
    ) -> Result<(), FetchError> {
        let (Some(uid), Some((index, piece))) = (uid_of(attributes), piece_of(attributes)) else { return Ok(()) };
        let is_long = |long: &Long| long.uid == uid;
        if !self.wanted.contains(uid) || self.came.contains(uid) || self.long.iter().any(is_long) {
            return Ok(());
        }
        let arrival = describe(uid, flags_of(attributes).unwrap_or_default(), received(attributes));
        // A server that knows no pieces sends the whole message, and no index.
        if index == Some(0) && piece.len() >= PIECE {
            let first = (self.kept < KEPT).then(|| piece.to_vec());
            self.kept += first.as_ref().map_or(0, Vec::len);
            self.long.push(Long { uid, arrival, first });
            return Ok(());
        }
        self.came.insert(uid);
        self.report.fetched += 1;
        self.hand_on(Delivery::Whole(arrival, piece.to_vec())).await
    }

    async fn hand_on(&self, delivery: Delivery) -> Result<(), FetchError> {
        self.arrivals.send(delivery).await.map_err(|_| FetchError::Stopped)
    }
}

fn uid_of(attributes: &[AttributeValue<'_>]) -> Option<u32> {
    attributes.iter().find_map(|attribute| match attribute {
        AttributeValue::Uid(uid) => Some(*uid),
        _ => None,
    })
}

fn piece_of<'a>(attributes: &'a [AttributeValue<'_>]) -> Option<(Option<u32>, &'a [u8])> {
    attributes.iter().find_map(|attribute| match attribute {
        AttributeValue::BodySection { section: None, index, data: Some(data) } => Some((*index, data.as_ref())),
        _ => None,
    })
}

fn received(attributes: &[AttributeValue<'_>]) -> Option<SystemTime> {
    attributes.iter().find_map(|attribute| match attribute {
        AttributeValue::InternalDate(date) => super::date::parse(date),
        _ => None,
    })
}

/// One piece of a message.
const PIECE: usize = 1 << 20;

/// Messages in one command.
const BATCH: u32 = 500;
const RUNS_AT_ONCE: usize = 200;
const BATCHES_UNDER_WAY: usize = 2;
const PIECES_UNDER_WAY: usize = 3;

/// Before more batches are asked for, so many long messages are fetched to their ends.
const LONG_AT_ONCE: usize = 16;

/// So many bytes of their first pieces are kept.
const KEPT: usize = 8 << 20;

/// A message without end would fill the disk.
const MAXIMUM_MESSAGE: u64 = 1 << 30;

const UNASKED: u64 = 10_000;
