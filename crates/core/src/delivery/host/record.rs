//! The bytes of a host's state, as a driver saves them.
//!
//! ```text
//! version u8         1
//! number varint      0 where there is no companion
//! submitted varint   milliseconds since 1970
//! statuses           runs of equal ones (status.rs)
//! copy u8 | wish u8
//! flags u8           1 warned, 2 last call, 4 owes a copy in Sent, 8 some tries went on with a further transaction
//! attempts varint | last turn varint
//! continued varint   with flag 8 only: how many did
//! state u8           then its fields: 0 turn, 1 sending, 2 dot, 3 granted, 4 unknown, 5 settling, 6 closing, 7 closed
//! ```
//!
//! The mail itself is saved once, beside it: it never changes, and may be large.

use std::sync::Arc;

use super::*;
use crate::delivery::message::decode_count;
use crate::delivery::status::{decode_statuses, encode_statuses};
use crate::wire::{Reader, WireError, Writer};

impl Host {
    /// Writes the state in its one form.
    pub fn encode(&self) -> Vec<u8> {
        let kept = &self.kept;
        let mut out = Writer::new();
        out.u8(VERSION).varint(kept.number.unwrap_or_default()).varint(kept.submitted_ms);
        encode_statuses(&kept.statuses, &mut out);
        let flags = u8::from(kept.warned)
            | u8::from(kept.last_call) << 1
            | u8::from(kept.owes_sent_copy) << 2
            | u8::from(kept.continued > 0) << 3;
        out.u8(kept.copy as u8).u8(kept.wish as u8).u8(flags);
        out.varint(u64::from(kept.attempts)).varint(kept.last_turn);
        if kept.continued > 0 {
            out.varint(u64::from(kept.continued));
        }
        kept.state.encode(&mut out);
        out.finish()
    }

    /// Reads the state of a mail; [`Event::Restarted`] is to follow.
    pub fn decode(item: Arc<Item>, bytes: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader::new(bytes);
        if input.u8()? != VERSION {
            return Err(WireError::Invalid { what: "version of a mail's state" });
        }
        let number = Some(decode_count(&mut input)?).filter(|number| *number != 0);
        let submitted_ms = input.varint()?;
        let recipients = item.recipients().len();
        let statuses = decode_statuses(&mut input, recipients)?;
        let copy = match (input.u8()?, number) {
            (0, _) => CopyState::NoCompanion,
            (1, Some(_)) => CopyState::Unsent,
            (2, Some(_)) => CopyState::Sent,
            (3, Some(_)) => CopyState::Held,
            (4, Some(_)) => CopyState::Released,
            _ => return Err(WireError::Invalid { what: "state of a copy" }),
        };
        let wish = match input.u8()? {
            0 => Wish::Send,
            1 => Wish::Hold,
            2 => Wish::Cancel,
            _ => return Err(WireError::Invalid { what: "wish" }),
        };
        let flags = input.u8()?;
        if flags >= 16 {
            return Err(WireError::NotCanonical);
        }
        let (attempts, last_turn) = (input.varint32()?, decode_count(&mut input)?);
        let continued = if flags & 8 != 0 { decode_continued(&mut input, attempts)? } else { 0 };
        let state = HostState::decode(&mut input, recipients)?;
        input.finish()?;
        let kept = Kept {
            number,
            submitted_ms,
            statuses,
            copy,
            wish,
            warned: flags & 1 != 0,
            last_call: flags & 2 != 0,
            owes_sent_copy: flags & 4 != 0,
            attempts,
            continued,
            last_turn,
            state,
        };
        Ok(Self { item, kept, line: Line::default(), handing_over: false })
    }
}

impl HostState {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Turn { failed, next_try } => next_try.encode(out.u8(0).u8(u8::from(*failed))),
            Self::Sending { attempt } => {
                out.u8(1).varint(u64::from(*attempt));
            }
            Self::Dot { attempt, recipients } => recipients.encode(out.u8(2).varint(u64::from(*attempt))),
            Self::Granted { turn, end } => {
                out.u8(3).varint(*turn);
                match end {
                    GrantEnd::At { moment, length_ms } => moment.encode(out.u8(0).varint(*length_ms)),
                    GrantEnd::Never { taken, recalled } => {
                        out.u8(1).u8(u8::from(*taken)).u8(u8::from(*recalled));
                    }
                }
            }
            Self::Unknown { recipients, turn, patience, stage } => {
                recipients.encode(out.u8(4));
                out.varint(turn.unwrap_or_default());
                patience.encode(out);
                stage.encode(out);
            }
            Self::Settling => {
                out.u8(5);
            }
            Self::Closing => {
                out.u8(6);
            }
            Self::Closed => {
                out.u8(7);
            }
        }
    }

    fn decode(input: &mut Reader<'_>, recipients: usize) -> Result<Self, WireError> {
        Ok(match input.u8()? {
            0 => Self::Turn { failed: decode_flag(input)?, next_try: Moment::decode(input)? },
            1 => Self::Sending { attempt: input.varint32()? },
            2 => Self::Dot { attempt: input.varint32()?, recipients: Recipients::decode(input, recipients)? },
            3 => {
                let turn = decode_count(input)?;
                let end = if decode_flag(input)? {
                    GrantEnd::Never { taken: decode_flag(input)?, recalled: decode_flag(input)? }
                } else {
                    let length_ms = input.varint()?;
                    GrantEnd::At { length_ms, moment: Moment::decode(input)? }
                };
                Self::Granted { turn, end }
            }
            4 => Self::Unknown {
                recipients: Recipients::decode(input, recipients)?,
                turn: Some(decode_count(input)?).filter(|turn| *turn != 0),
                patience: Moment::decode(input)?,
                stage: Stage::decode(input)?,
            },
            5 => Self::Settling,
            6 => Self::Closing,
            7 => Self::Closed,
            _ => return Err(WireError::Invalid { what: "state of a mail" }),
        })
    }
}

impl Stage {
    pub(in crate::delivery) fn encode(&self, out: &mut Writer) {
        match self {
            Self::LookUpAt(moment) => moment.encode(out.u8(0)),
            Self::LookingUp => {
                out.u8(1);
            }
            Self::NoEvidence => {
                out.u8(2);
            }
            Self::Held => {
                out.u8(3);
            }
        }
    }

    pub(in crate::delivery) fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match input.u8()? {
            0 => Self::LookUpAt(Moment::decode(input)?),
            1 => Self::LookingUp,
            2 => Self::NoEvidence,
            3 => Self::Held,
            _ => return Err(WireError::Invalid { what: "stage of a doubt" }),
        })
    }
}

pub(in crate::delivery) fn decode_flag(input: &mut Reader<'_>) -> Result<bool, WireError> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::NotCanonical),
    }
}

/// How many of so many tries only went on with a further transaction; it is written where there was one.
pub(in crate::delivery) fn decode_continued(input: &mut Reader<'_>, attempts: Attempt) -> Result<Attempt, WireError> {
    match input.varint32()? {
        0 => Err(WireError::NotCanonical),
        continued if continued > attempts => Err(WireError::Invalid { what: "count of tries" }),
        continued => Ok(continued),
    }
}

const VERSION: u8 = 1;
