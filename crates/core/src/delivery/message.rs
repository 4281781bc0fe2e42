//! What the two devices of a pair say to each other about one mail; docs/formats/link-messages.md shows the same.
//!
//! ```text
//! version u8       1
//! kind u8          as below
//! number varint    the mail's number in this pair, from 1 (but for FINISHED, where it is the prefix)
//! mail id 16       not in FINISHED
//!
//! kind             from       what follows
//!  1 COPY          host       mail (item.rs)
//!  2 ACK           companion
//!  3 OFFER         host       sleeping 0|1, remaining recipients
//!  4 REQ           companion  turn varint
//!  5 GRANT         host       turn varint, length in ms varint or 0 for one without end, remaining recipients
//!  6 TAKEN         companion  turn varint
//!  7 ASK           host       turn varint
//!  8 RETURN        companion  turn varint, replies, recipients of whom nobody knows
//!  9 RETURN_ACK    host       turn varint
//! 10 DONE          companion  replies
//! 11 DONE_ACK      host
//! 12 CANCEL        host       why u8: 0 settled, 1 cancelled
//! 13 CANCEL_ACK    companion
//! 14 GONE          companion
//! 15 FINISHED      host
//! ```
//!
//! Every message may be lost, delayed, repeated and overtaken; none does harm when it comes late.
//! A *turn* is the number of a request: the companion counts up before each, durably, so an answer to an old one is
//! known by its number. The frame that carries these bytes, and who is at the other end, are the link's affair.

use std::sync::Arc;
use std::time::Duration;

use super::item::{Item, MAX_RECIPIENTS, Recipients};
use super::reply::Replies;
use super::time::millis;
use crate::ids::MailId;
use crate::wire::{Reader, WireError, Writer};

/// A mail's place among those of its pair, from 1; the host counts.
pub type ItemNumber = u64;

/// The number of a request for the turn, from 1; the companion counts for each mail.
pub type Turn = u64;

/// Something said about one mail.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    /// The mail's number in the pair.
    pub number: ItemNumber,
    /// The mail.
    pub mail: MailId,
    /// What is said of it.
    pub body: Body,
}

/// What is said of a mail.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Body {
    /// Host: keep a copy. The body travels beside it; whoever gets it answers once both are on stable storage.
    Copy(Arc<Item>),
    /// Companion: the copy is on stable storage.
    Ack,
    /// Host: my path failed; ask for the turn if yours may do better.
    Offer {
        /// Whether the host is going to sleep, so that the companion should ask in any case.
        reason: OfferReason,
        /// Who is still waited for.
        remaining: Recipients,
    },
    /// Companion: I ask for the turn.
    Request {
        /// The request's number.
        turn: Turn,
    },
    /// Host: the turn is yours.
    Grant {
        /// Which request this answers.
        turn: Turn,
        /// How long, from when the request was first sent.
        length: GrantLength,
        /// Whom to send it to.
        remaining: Recipients,
    },
    /// Companion: I have the turn without end; sleep well.
    Taken {
        /// Which turn.
        turn: Turn,
    },
    /// Host: how did this turn end? Give it back as soon as you can.
    Ask {
        /// Which turn.
        turn: Turn,
    },
    /// Companion: I hold no turn up to and including this one.
    Return {
        /// The greatest that I ever asked for.
        turn: Turn,
        /// What was said on my path since my last report.
        replies: Replies,
        /// Of whom I cannot say whether a server accepted them.
        unclear: Recipients,
    },
    /// Host: your report is on stable storage.
    ReturnAck {
        /// Which turn.
        turn: Turn,
    },
    /// Companion: nobody is left to send it to. My copy goes when you have heard this.
    Done {
        /// What was said on my path since my last report.
        replies: Replies,
    },
    /// Host: your last report is on stable storage.
    DoneAck,
    /// Host: it is over; drop your copy.
    Cancel(Why),
    /// Companion: I have no copy, and will make none.
    CancelAck,
    /// Companion: I hold no such mail, and know nothing of it.
    Gone,
}

/// Why the turn is offered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OfferReason {
    /// The host's try failed.
    Failed,
    /// The host is going to sleep.
    Sleeping,
}

/// How long a turn is granted for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GrantLength {
    /// For so long, counted by the companion from when it first sent the request.
    For(Duration),
    /// Until it is returned.
    WithoutEnd,
}

/// Why a companion's copy is to go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    /// Every recipient is delivered or bounced.
    Settled,
    /// The user cancelled it.
    Cancelled,
}

/// Anything that is said on the link about mail that goes out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Frame {
    /// About one mail.
    Mail(Message),
    /// Host: no number below this is open any more; said when the link comes up.
    Finished {
        /// The first number that may be open.
        below: ItemNumber,
    },
}

impl Frame {
    /// Writes the frame in its one form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Mail(Message { number, mail, body }) => {
                out.u8(VERSION).u8(body.kind()).varint(*number).raw(&mail.0);
                body.encode(&mut out);
            }
            Self::Finished { below } => {
                out.u8(VERSION).u8(KIND_FINISHED).varint(*below);
            }
        }
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) writes; refuses more than [`MAX_MESSAGE_BYTES`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(WireError::TooLong { limit: MAX_MESSAGE_BYTES });
        }
        let mut input = Reader::new(bytes);
        if input.u8()? != VERSION {
            return Err(WireError::Invalid { what: "version of a link message" });
        }
        let kind = input.u8()?;
        let number = match decode_count(&mut input)? {
            0 => return Err(WireError::Invalid { what: "number of a mail" }),
            number => number,
        };
        if kind == KIND_FINISHED {
            input.finish()?;
            return Ok(Self::Finished { below: number });
        }
        let mail = MailId(input.array()?);
        let body = Body::decode(kind, &mut input)?;
        input.finish()?;
        if let Body::Copy(item) = &body
            && item.id() != mail
        {
            return Err(WireError::Invalid { what: "copy of another mail" });
        }
        Ok(Self::Mail(Message { number, mail, body }))
    }
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Self::Copy(_) => 1,
            Self::Ack => 2,
            Self::Offer { .. } => 3,
            Self::Request { .. } => 4,
            Self::Grant { .. } => 5,
            Self::Taken { .. } => 6,
            Self::Ask { .. } => 7,
            Self::Return { .. } => 8,
            Self::ReturnAck { .. } => 9,
            Self::Done { .. } => 10,
            Self::DoneAck => 11,
            Self::Cancel(_) => 12,
            Self::CancelAck => 13,
            Self::Gone => 14,
        }
    }

    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Copy(item) => item.encode(out),
            Self::Offer { reason, remaining } => remaining.encode(out.u8(*reason as u8)),
            Self::Grant { turn, length, remaining } => {
                let length_ms = match length {
                    // Nothing stands for a grant without end.
                    GrantLength::For(length) => millis(*length).max(1),
                    GrantLength::WithoutEnd => 0,
                };
                remaining.encode(out.varint(*turn).varint(length_ms));
            }
            Self::Return { turn, replies, unclear } => {
                replies.encode(out.varint(*turn));
                unclear.encode(out);
            }
            Self::Done { replies } => replies.encode(out),
            Self::Cancel(why) => {
                out.u8(*why as u8);
            }
            Self::Request { turn } | Self::Taken { turn } | Self::Ask { turn } | Self::ReturnAck { turn } => {
                out.varint(*turn);
            }
            Self::Ack | Self::DoneAck | Self::CancelAck | Self::Gone => {}
        }
    }

    fn decode(kind: u8, input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match kind {
            1 => Self::Copy(Arc::new(Item::decode(input)?)),
            2 => Self::Ack,
            3 => {
                let reason = match input.u8()? {
                    0 => OfferReason::Failed,
                    1 => OfferReason::Sleeping,
                    _ => return Err(WireError::Invalid { what: "reason of an offer" }),
                };
                Self::Offer { reason, remaining: Recipients::decode(input, MAX_RECIPIENTS)? }
            }
            4 => Self::Request { turn: decode_count(input)? },
            5 => {
                let turn = decode_count(input)?;
                let length = match input.varint()? {
                    0 => GrantLength::WithoutEnd,
                    length_ms => GrantLength::For(Duration::from_millis(length_ms)),
                };
                Self::Grant { turn, length, remaining: Recipients::decode(input, MAX_RECIPIENTS)? }
            }
            6 => Self::Taken { turn: decode_count(input)? },
            7 => Self::Ask { turn: decode_count(input)? },
            8 => {
                let turn = decode_count(input)?;
                let replies = Replies::decode(input, MAX_RECIPIENTS)?;
                Self::Return { turn, replies, unclear: Recipients::decode(input, MAX_RECIPIENTS)? }
            }
            9 => Self::ReturnAck { turn: decode_count(input)? },
            10 => Self::Done { replies: Replies::decode(input, MAX_RECIPIENTS)? },
            11 => Self::DoneAck,
            12 => Self::Cancel(match input.u8()? {
                0 => Why::Settled,
                1 => Why::Cancelled,
                _ => return Err(WireError::Invalid { what: "reason of a cancel" }),
            }),
            13 => Self::CancelAck,
            14 => Self::Gone,
            _ => return Err(WireError::Invalid { what: "kind of a link message" }),
        })
    }
}

/// Reads a number or a turn: so small that no machine that counts on from it comes to the end of its kind.
///
/// A machine takes over what the other device says of them, so whoever says the greatest there is would stop it.
pub(super) fn decode_count(input: &mut Reader<'_>) -> Result<u64, WireError> {
    check_count(input.varint()?)
}

pub(super) fn check_count(count: u64) -> Result<u64, WireError> {
    if count > GREATEST_COUNT { Err(WireError::Overflow) } else { Ok(count) }
}

const GREATEST_COUNT: u64 = 1 << 62;

const VERSION: u8 = 1;
const KIND_FINISHED: u8 = 15;

/// Greatest size of a message in bytes: a copy for the most recipients with the longest addresses, and room.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
