//! What has become of each recipient of a mail.
//!
//! A status goes forward only: from waiting to delivered, found, refused, expired or cancelled, and from refused or
//! expired to bounced. What a server has accepted is never taken back, whatever comes later.

use super::item::Recipients;
use super::reply::{Reply, Verdict};
use crate::wire::{Reader, WireError, Writer};

/// What has become of a recipient.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// No server has taken or refused it yet.
    Waiting {
        /// What was last said of it.
        last: Option<Reply>,
    },
    /// A server took responsibility for it.
    Delivered {
        /// What the server said.
        reply: Reply,
        /// The path by which it went.
        path: Path,
    },
    /// No reply was seen, but the mail stood among those sent.
    FoundInSent,
    /// A server refused it for good; the bounce is not filed yet.
    Refused {
        /// What the server said.
        reply: Reply,
        /// The path on which it was said.
        path: Path,
    },
    /// The mail's lifetime ended first; the bounce is not filed yet.
    Expired {
        /// What was last said of it.
        last: Option<Reply>,
    },
    /// The sender has been told.
    Bounced {
        /// What was last said of it.
        reply: Option<Reply>,
    },
    /// The user cancelled it.
    Cancelled {
        /// Whether a try may have delivered it all the same.
        certainty: Certainty,
    },
}

/// By which way a mail went out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Path {
    /// The host's own.
    Host,
    /// Through the companion.
    Companion,
}

/// Whether a cancelled mail is known not to have gone out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Certainty {
    /// No try had written its dot.
    NotSent,
    /// A try ended without an answer.
    PerhapsSent,
}

impl Status {
    /// Whether a server may yet be asked.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting { .. })
    }

    /// Whether the sender must still be told.
    pub fn owes_bounce(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Expired { .. })
    }

    /// What follows from a reply on a path; returns whether it was a permanent refusal that was not known.
    pub(super) fn learn(&mut self, reply: &Reply, path: Path) -> bool {
        match (&self, reply.verdict()) {
            // An acceptance is a fact even where the user had given up on it.
            (Self::Waiting { .. } | Self::Cancelled { .. }, Verdict::Accepted) => {
                *self = Self::Delivered { reply: reply.clone(), path };
            }
            (Self::Waiting { .. }, Verdict::Later) => *self = Self::Waiting { last: Some(reply.clone()) },
            (Self::Waiting { .. }, Verdict::Refused) => {
                *self = Self::Refused { reply: reply.clone(), path };
                return true;
            }
            _ => {}
        }
        false
    }

    fn encode(&self, out: &mut Writer) {
        let optional = |out: &mut Writer, reply: &Option<Reply>| match reply {
            Some(reply) => {
                out.u8(1);
                reply.encode(out);
            }
            None => {
                out.u8(0);
            }
        };
        match self {
            Self::Waiting { last } => optional(out.u8(0), last),
            Self::Delivered { reply, path } => reply.encode(out.u8(1).u8(*path as u8)),
            Self::FoundInSent => {
                out.u8(2);
            }
            Self::Refused { reply, path } => reply.encode(out.u8(3).u8(*path as u8)),
            Self::Expired { last } => optional(out.u8(4), last),
            Self::Bounced { reply } => optional(out.u8(5), reply),
            Self::Cancelled { certainty } => {
                out.u8(6).u8(*certainty as u8);
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let optional = |input: &mut Reader<'_>| match input.u8()? {
            0 => Ok(None),
            1 => Reply::decode(input).map(Some),
            _ => Err(WireError::NotCanonical),
        };
        let path = |input: &mut Reader<'_>| match input.u8()? {
            0 => Ok(Path::Host),
            1 => Ok(Path::Companion),
            _ => Err(WireError::Invalid { what: "path" }),
        };
        Ok(match input.u8()? {
            0 => Self::Waiting { last: optional(input)? },
            1 => {
                let path = path(input)?;
                Self::Delivered { path, reply: Reply::decode(input)? }
            }
            2 => Self::FoundInSent,
            3 => {
                let path = path(input)?;
                Self::Refused { path, reply: Reply::decode(input)? }
            }
            4 => Self::Expired { last: optional(input)? },
            5 => Self::Bounced { reply: optional(input)? },
            6 => Self::Cancelled {
                certainty: match input.u8()? {
                    0 => Certainty::NotSent,
                    1 => Certainty::PerhapsSent,
                    _ => return Err(WireError::Invalid { what: "certainty" }),
                },
            },
            _ => return Err(WireError::Invalid { what: "status" }),
        })
    }
}

/// The recipients to whom a status applies.
pub(super) fn those(statuses: &[Status], applies: impl Fn(&Status) -> bool) -> Recipients {
    (0u32..).zip(statuses).filter(|(_, status)| applies(status)).map(|(recipient, _)| recipient).collect()
}

/// Writes statuses as runs of equal ones: `count, per run: length varint, status`.
pub(super) fn encode_statuses(statuses: &[Status], out: &mut Writer) {
    let runs: Vec<&[Status]> = statuses.chunk_by(|before, after| before == after).collect();
    out.varint(runs.len() as u64);
    for run in runs {
        run[0].encode(out.varint(run.len() as u64));
    }
}

/// Reads the statuses of exactly `recipients` recipients.
pub(super) fn decode_statuses(input: &mut Reader<'_>, recipients: usize) -> Result<Vec<Status>, WireError> {
    let mut statuses: Vec<Status> = Vec::new();
    for _ in 0..input.count(2)? {
        let length = input.varint()?;
        if length == 0 || length > (recipients - statuses.len()) as u64 {
            return Err(WireError::Invalid { what: "number of recipients" });
        }
        let status = Status::decode(input)?;
        if statuses.last() == Some(&status) {
            return Err(WireError::NotCanonical);
        }
        statuses.resize(statuses.len() + length as usize, status);
    }
    if statuses.len() == recipients { Ok(statuses) } else { Err(WireError::Invalid { what: "number of recipients" }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16) -> Reply {
        Reply::new(code, None, "said").unwrap()
    }

    fn statuses() -> Vec<Status> {
        vec![
            Status::Waiting { last: None },
            Status::Waiting { last: Some(reply(451)) },
            Status::Delivered { reply: reply(250), path: Path::Companion },
            Status::FoundInSent,
            Status::Refused { reply: reply(550), path: Path::Host },
            Status::Expired { last: None },
            Status::Bounced { reply: Some(reply(550)) },
            Status::Cancelled { certainty: Certainty::PerhapsSent },
            Status::Cancelled { certainty: Certainty::PerhapsSent },
        ]
    }

    #[test]
    fn statuses_round_trip_and_equal_neighbours_are_one_run() {
        let mut out = Writer::new();
        encode_statuses(&statuses(), &mut out);
        let bytes = out.finish();
        assert_eq!(decode_statuses(&mut Reader::new(&bytes), 9), Ok(statuses()));
        assert!(decode_statuses(&mut Reader::new(&bytes), 8).is_err());
        assert!(decode_statuses(&mut Reader::new(&bytes), 10).is_err());
        let mut out = Writer::new();
        out.varint(2).varint(1).u8(2).varint(1).u8(2);
        assert_eq!(decode_statuses(&mut Reader::new(&out.finish()), 2), Err(WireError::NotCanonical));
    }

    #[test]
    fn an_acceptance_is_never_taken_back() {
        let mut status = Status::Waiting { last: None };
        assert!(!status.learn(&reply(250), Path::Host));
        let delivered = status.clone();
        for code in [250, 451, 550] {
            assert!(!status.learn(&reply(code), Path::Companion));
            assert_eq!(status, delivered);
        }
    }

    #[test]
    fn a_refusal_is_told_once() {
        let mut status = Status::Waiting { last: None };
        assert!(!status.learn(&reply(451), Path::Host));
        assert!(status.learn(&reply(550), Path::Host));
        assert!(!status.learn(&reply(550), Path::Companion));
        assert!(status.owes_bounce());
    }
}
