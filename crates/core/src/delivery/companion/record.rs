//! The bytes of a companion's state, as a driver saves them.
//!
//! ```text
//! version u8       1, or 2 where some tries went on with a further transaction
//! number varint
//! remaining        recipients (item.rs)
//! replies          (reply.rs)
//! owes a bounce    recipients
//! attempts varint | last turn varint
//! continued varint with version 2 only: how many did
//! state u8         then its fields: 0 standby, 1 requested, 2 turn, 3 sending, 4 dot, 5 unknown, 6 returned, 7 done,
//!                  8 closed
//! lease            0 | moment, 1 | recalled, 2 | since varint | recalled
//! ```

use std::sync::Arc;

use super::*;
use crate::delivery::host::{decode_continued, decode_flag};
use crate::delivery::message::decode_count;
use crate::wire::{Reader, WireError, Writer};

impl Companion {
    /// Writes the state in its one form.
    pub fn encode(&self) -> Vec<u8> {
        let kept = &self.kept;
        let mut out = Writer::new();
        let version = if kept.continued > 0 { WITH_CONTINUED } else { VERSION };
        kept.remaining.encode(out.u8(version).varint(kept.number));
        kept.replies.encode(&mut out);
        kept.owes_bounce.encode(&mut out);
        out.varint(u64::from(kept.attempts)).varint(kept.last_turn);
        if kept.continued > 0 {
            out.varint(u64::from(kept.continued));
        }
        kept.state.encode(&mut out);
        out.finish()
    }

    /// Reads the state of a copy; [`Event::Restarted`] is to follow.
    pub fn decode(item: Arc<Item>, bytes: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader::new(bytes);
        let version = input.u8()?;
        if ![VERSION, WITH_CONTINUED].contains(&version) {
            return Err(WireError::Invalid { what: "version of a copy's state" });
        }
        let number = match decode_count(&mut input)? {
            0 => return Err(WireError::Invalid { what: "number of a mail" }),
            number => number,
        };
        let recipients = item.recipients().len();
        let remaining = Recipients::decode(&mut input, recipients)?;
        let replies = Replies::decode(&mut input, recipients)?;
        let owes_bounce = Recipients::decode(&mut input, recipients)?;
        let (attempts, last_turn) = (input.varint32()?, decode_count(&mut input)?);
        let continued = if version == WITH_CONTINUED { decode_continued(&mut input, attempts)? } else { 0 };
        let state = CompanionState::decode(&mut input, recipients)?;
        let kept = Kept { number, remaining, replies, owes_bounce, attempts, continued, last_turn, state };
        input.finish()?;
        Ok(Self { item, kept, line: Line::default(), path_up: true, offered: false })
    }
}

impl CompanionState {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Standby => {
                out.u8(0);
            }
            Self::Requested { asked } => asked.encode(out.u8(1)),
            Self::Turn { lease, next_try } => {
                lease.encode(out.u8(2));
                next_try.encode(out);
            }
            Self::Sending { attempt, lease, renewal, ready } => {
                lease.encode(out.u8(3).varint(u64::from(*attempt)));
                match renewal {
                    Some(asked) => asked.encode(out.u8(1)),
                    None => {
                        out.u8(0);
                    }
                }
                match ready {
                    Some(recipients) => recipients.encode(out.u8(1)),
                    None => {
                        out.u8(0);
                    }
                }
            }
            Self::Dot { attempt, lease, recipients } => {
                lease.encode(out.u8(4).varint(u64::from(*attempt)));
                recipients.encode(out);
            }
            Self::Unknown { lease, recipients, stage } => {
                lease.encode(out.u8(5));
                recipients.encode(out);
                stage.encode(out);
            }
            Self::Returned { unclear } => unclear.encode(out.u8(6)),
            Self::Done => {
                out.u8(7);
            }
            Self::Closed => {
                out.u8(8);
            }
        }
    }

    fn decode(input: &mut Reader<'_>, recipients: usize) -> Result<Self, WireError> {
        Ok(match input.u8()? {
            0 => Self::Standby,
            1 => Self::Requested { asked: Moment::decode(input)? },
            2 => Self::Turn { lease: Lease::decode(input)?, next_try: Moment::decode(input)? },
            3 => {
                let attempt = input.varint32()?;
                let lease = Lease::decode(input)?;
                let renewal = if decode_flag(input)? { Some(Moment::decode(input)?) } else { None };
                let ready = if decode_flag(input)? { Some(Recipients::decode(input, recipients)?) } else { None };
                Self::Sending { attempt, lease, renewal, ready }
            }
            4 => Self::Dot {
                attempt: input.varint32()?,
                lease: Lease::decode(input)?,
                recipients: Recipients::decode(input, recipients)?,
            },
            5 => Self::Unknown {
                lease: Lease::decode(input)?,
                recipients: Recipients::decode(input, recipients)?,
                stage: Stage::decode(input)?,
            },
            6 => Self::Returned { unclear: Recipients::decode(input, recipients)? },
            7 => Self::Done,
            8 => Self::Closed,
            _ => return Err(WireError::Invalid { what: "state of a copy" }),
        })
    }
}

impl Lease {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Until(end) => end.encode(out.u8(0)),
            Self::WithoutEnd { recalled } => {
                out.u8(1).u8(u8::from(*recalled));
            }
            Self::TakenOver { since_ms, recalled } => {
                out.u8(2).varint(*since_ms).u8(u8::from(*recalled));
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match input.u8()? {
            0 => Self::Until(Moment::decode(input)?),
            1 => Self::WithoutEnd { recalled: decode_flag(input)? },
            2 => Self::TakenOver { since_ms: input.varint()?, recalled: decode_flag(input)? },
            _ => return Err(WireError::Invalid { what: "lease" }),
        })
    }
}

const VERSION: u8 = 1;
const WITH_CONTINUED: u8 = 2;
