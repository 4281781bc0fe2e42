//! What is asked of a companion about a vault's intermediary, and what it answers.
//!
//! ```text
//! request   vault 16 | kind u8, then
//!           1 get        name bytes | limit varint
//!           2 range      name bytes | offset varint | length varint
//!           3 list       folder bytes
//!           4 put new    name bytes | size varint      the object travels beside the request
//!           5 put        name bytes | size varint      likewise
//!           6 delete     name bytes
//!           7 which      nothing; the vault is zeros
//!           8 waiting    nothing
//!           9 standing   nothing; the vault is zeros
//!          10 round      nothing
//! answer    kind u8, then
//!           0 bytes      all that follows
//!           1 listing    count varint, of each: name bytes | size varint | etag bytes
//!           2 stored     3 present     4 done
//!           5 missing    6 too large   7 short     8 full
//!           9 denied     reason bytes
//!          10 failed     reason bytes
//!          11 vaults     count varint, of each: vault 16
//!          12 deposited
//!          13 waiting    count varint, of each: name bytes        in the order in which they go up
//!          14 standing   count varint, of each: vault 16 | flags u8 (1 a member's, 2 reached)
//!                        | waiting varint | their bytes varint | since varint, ms since 1970, nought for nothing
//! ```
//!
//! Names are as docs/formats/intermediary-layout.md has them, and each value has one encoding (core's wire.rs).
//! A request carries no number: each has a stream of its own, so an answer cannot be taken for another's.
//! All of them may be repeated: what was put twice is there once.

use packetboat_core::ids::VaultId;
use packetboat_core::store::{Listed, ObjectName};
use packetboat_core::wire::{Reader, WireError, Writer};

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Of which vault.
    pub vault: VaultId,
    /// What.
    pub what: What,
}

/// What is asked of an intermediary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// A whole object of at most `limit` bytes.
    Get {
        /// Which.
        name: ObjectName,
        /// Greatest size in bytes.
        limit: u64,
    },
    /// Exactly these bytes of an object.
    Range {
        /// Which.
        name: ObjectName,
        /// Where they begin.
        offset: u64,
        /// How many there are.
        length: u64,
    },
    /// The objects within a folder.
    List {
        /// Its name, without a trailing slash; empty for the topmost.
        folder: String,
    },
    /// To put an object unless its name is taken.
    PutNew {
        /// Which.
        name: ObjectName,
        /// Its size in bytes.
        size: u64,
    },
    /// To put an object in any case.
    Put {
        /// Which.
        name: ObjectName,
        /// Its size in bytes.
        size: u64,
    },
    /// To remove an object.
    Delete {
        /// Which.
        name: ObjectName,
    },
    /// Which vaults are carried.
    Which,
    /// What waits of a vault.
    Waiting,
    /// How it stands with all vaults.
    Standing,
    /// That the companion's own replica of a vault, if it has one, be brought in step.
    Round,
}

impl Request {
    /// The bytes of the request.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.raw(self.vault.as_bytes());
        match &self.what {
            What::Get { name, limit } => out.u8(1).bytes(name.as_str().as_bytes()).varint(*limit),
            What::Range { name, offset, length } => {
                out.u8(2).bytes(name.as_str().as_bytes()).varint(*offset).varint(*length)
            }
            What::List { folder } => out.u8(3).bytes(folder.as_bytes()),
            What::PutNew { name, size } => out.u8(4).bytes(name.as_str().as_bytes()).varint(*size),
            What::Put { name, size } => out.u8(5).bytes(name.as_str().as_bytes()).varint(*size),
            What::Delete { name } => out.u8(6).bytes(name.as_str().as_bytes()),
            What::Which => out.u8(7),
            What::Waiting => out.u8(8),
            What::Standing => out.u8(9),
            What::Round => out.u8(10),
        };
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) wrote; refuses all that it would not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader::new(bytes);
        let vault = VaultId(input.array()?);
        let what = match input.u8()? {
            1 => What::Get { name: name(&mut input)?, limit: input.varint()? },
            2 => What::Range { name: name(&mut input)?, offset: input.varint()?, length: input.varint()? },
            3 => What::List { folder: folder(&mut input)? },
            4 => What::PutNew { name: name(&mut input)?, size: size(&mut input)? },
            5 => What::Put { name: name(&mut input)?, size: size(&mut input)? },
            6 => What::Delete { name: name(&mut input)? },
            7 if vault == NO_VAULT => What::Which,
            8 => What::Waiting,
            9 if vault == NO_VAULT => What::Standing,
            10 => What::Round,
            _ => return Err(WireError::Invalid { what: "kind of request" }),
        };
        input.finish()?;
        Ok(Self { vault, what })
    }

    /// How many bytes of an object travel beside the request; nothing, where none does.
    pub fn body_size(&self) -> Option<u64> {
        match self.what {
            What::PutNew { size, .. } | What::Put { size, .. } => Some(size),
            _ => None,
        }
    }

    /// The most bytes that the answer can have.
    pub fn answer_limit(&self) -> u64 {
        let body = match self.what {
            What::Get { limit, .. } => limit.min(MAX_OBJECT_BYTES),
            What::Range { length, .. } => length.min(MAX_OBJECT_BYTES),
            What::List { .. } | What::Which | What::Waiting | What::Standing => MAX_OBJECT_BYTES,
            What::PutNew { .. } | What::Put { .. } | What::Delete { .. } | What::Round => 0,
        };
        body + REASON_BYTES as u64 + 16
    }
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The bytes that were asked for.
    Bytes(Vec<u8>),
    /// What a folder holds, by name.
    Listing(Vec<Listed>),
    /// It is at the intermediary now.
    Stored,
    /// Something of that name was there before.
    Present,
    /// It is done.
    Done,
    /// There is no such object.
    Missing,
    /// It is larger than what was asked for.
    TooLarge,
    /// It ends before the range that was asked for.
    Short,
    /// The intermediary is full.
    Full,
    /// The intermediary, or the companion, does not allow it.
    Denied(String),
    /// It did not work, and may later.
    Failed(String),
    /// The vaults that are carried.
    Vaults(Vec<VaultId>),
    /// It is durably on the companion, which puts it up when it can.
    Deposited,
    /// What waits of a vault, in its order.
    Waiting(Vec<ObjectName>),
    /// How it stands with each vault.
    Standing(Vec<Standing>),
}

/// How it stands with a vault on the companion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Which.
    pub vault: VaultId,
    /// Whether the companion is a member: it has a replica of its own.
    pub member: bool,
    /// Whether the intermediary was reached just now.
    pub reached: bool,
    /// How many objects wait to be put up.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Since when the oldest of them does, in milliseconds since 1970 by the companion's clock.
    pub since_ms: Option<u64>,
}

impl Answer {
    /// The bytes of the answer.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match self {
            Self::Bytes(bytes) => out.u8(0).raw(bytes),
            Self::Listing(listing) => {
                out.u8(1).varint(listing.len() as u64);
                for Listed { name, size, etag } in listing {
                    out.bytes(name.as_str().as_bytes()).varint(*size).bytes(etag.as_bytes());
                }
                &mut out
            }
            Self::Stored => out.u8(2),
            Self::Present => out.u8(3),
            Self::Done => out.u8(4),
            Self::Missing => out.u8(5),
            Self::TooLarge => out.u8(6),
            Self::Short => out.u8(7),
            Self::Full => out.u8(8),
            Self::Denied(reason) => out.u8(9).bytes(cut(reason).as_bytes()),
            Self::Failed(reason) => out.u8(10).bytes(cut(reason).as_bytes()),
            Self::Vaults(vaults) => {
                out.u8(11).varint(vaults.len() as u64);
                for vault in vaults {
                    out.raw(vault.as_bytes());
                }
                &mut out
            }
            Self::Deposited => out.u8(12),
            Self::Waiting(names) => {
                out.u8(13).varint(names.len() as u64);
                for name in names {
                    out.bytes(name.as_str().as_bytes());
                }
                &mut out
            }
            Self::Standing(all) => {
                out.u8(14).varint(all.len() as u64);
                for standing in all {
                    let flags = u8::from(standing.member) | u8::from(standing.reached) << 1;
                    out.raw(standing.vault.as_bytes()).u8(flags).varint(standing.waiting);
                    out.varint(standing.waiting_bytes).varint(standing.since_ms.unwrap_or(0));
                }
                &mut out
            }
        };
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader::new(bytes);
        let answer = match input.u8()? {
            0 => return Ok(Self::Bytes(input.raw(input.remaining())?.to_vec())),
            1 => {
                let count = input.count(LISTED_BYTES)?;
                let mut listing: Vec<Listed> = Vec::with_capacity(count);
                for _ in 0..count {
                    let (name, size) = (name(&mut input)?, input.varint()?);
                    let etag = text(&mut input, ETAG_BYTES)?;
                    // By name, and each once, or the list would have more than one encoding.
                    if listing.last().is_some_and(|last| last.name >= name) {
                        return Err(WireError::NotCanonical);
                    }
                    listing.push(Listed { name, size, etag });
                }
                Self::Listing(listing)
            }
            2 => Self::Stored,
            3 => Self::Present,
            4 => Self::Done,
            5 => Self::Missing,
            6 => Self::TooLarge,
            7 => Self::Short,
            8 => Self::Full,
            9 => Self::Denied(text(&mut input, REASON_BYTES)?),
            10 => Self::Failed(text(&mut input, REASON_BYTES)?),
            11 => {
                let count = input.count(VaultId::LEN)?;
                Self::Vaults((0..count).map(|_| Ok(VaultId(input.array()?))).collect::<Result<_, WireError>>()?)
            }
            12 => Self::Deposited,
            13 => {
                let count = input.count(LISTED_BYTES)?;
                Self::Waiting((0..count).map(|_| name(&mut input)).collect::<Result<_, _>>()?)
            }
            14 => {
                let count = input.count(STANDING_BYTES)?;
                Self::Standing((0..count).map(|_| standing(&mut input)).collect::<Result<_, _>>()?)
            }
            _ => return Err(WireError::Invalid { what: "kind of answer" }),
        };
        input.finish()?;
        Ok(answer)
    }
}

fn standing(input: &mut Reader<'_>) -> Result<Standing, WireError> {
    let (vault, flags) = (VaultId(input.array()?), input.u8()?);
    if flags > 3 {
        return Err(WireError::Invalid { what: "flags of a vault's standing" });
    }
    let (waiting, waiting_bytes, since) = (input.varint()?, input.varint()?, input.varint()?);
    let since_ms = (since != 0).then_some(since);
    Ok(Standing { vault, member: flags & 1 != 0, reached: flags & 2 != 0, waiting, waiting_bytes, since_ms })
}

fn name(input: &mut Reader<'_>) -> Result<ObjectName, WireError> {
    ObjectName::new(text(input, NAME_BYTES)?).ok_or(WireError::Invalid { what: "name of an object" })
}

/// A folder's name is not checked further: a store says itself what it does not list.
fn folder(input: &mut Reader<'_>) -> Result<String, WireError> {
    text(input, NAME_BYTES)
}

fn size(input: &mut Reader<'_>) -> Result<u64, WireError> {
    let size = input.varint()?;
    // Refused by the announcement, before anything is kept of it.
    if size > MAX_OBJECT_BYTES { Err(WireError::Overflow) } else { Ok(size) }
}

fn text(input: &mut Reader<'_>, limit: usize) -> Result<String, WireError> {
    let bytes = input.bytes(limit)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| WireError::Invalid { what: "text" })
}

/// The beginning of a reason, as far as an answer has room.
fn cut(reason: &str) -> &str {
    let fits = |(at, character): &(usize, char)| at + character.len_utf8() <= REASON_BYTES;
    let end = reason.char_indices().take_while(fits).last().map_or(0, |(at, character)| at + character.len_utf8());
    &reason[..end]
}

/// What stands for no vault in particular.
pub const NO_VAULT: VaultId = VaultId([0; 16]);

/// The largest object that is carried, in bytes: no sound object of a vault is larger.
pub const MAX_OBJECT_BYTES: u64 = 64 << 20;

const NAME_BYTES: usize = 200;
const ETAG_BYTES: usize = 256;
const REASON_BYTES: usize = 800;
const LISTED_BYTES: usize = 2;
const STANDING_BYTES: usize = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_name() -> impl Strategy<Value = ObjectName> {
        "[a-z0-9]{1,8}(/[a-z0-9._-]{1,8}){0,2}".prop_filter_map("sound", ObjectName::new)
    }

    fn any_request() -> impl Strategy<Value = Request> {
        let what = prop_oneof![
            (any_name(), any::<u64>()).prop_map(|(name, limit)| What::Get { name, limit }),
            (any_name(), any::<u64>(), any::<u64>()).prop_map(|(name, offset, length)| What::Range {
                name,
                offset,
                length
            }),
            "[a-z./]{0,12}".prop_map(|folder| What::List { folder }),
            (any_name(), 0..=MAX_OBJECT_BYTES).prop_map(|(name, size)| What::PutNew { name, size }),
            (any_name(), 0..=MAX_OBJECT_BYTES).prop_map(|(name, size)| What::Put { name, size }),
            any_name().prop_map(|name| What::Delete { name }),
            Just(What::Waiting),
            Just(What::Round),
        ];
        (any::<[u8; 16]>(), what).prop_map(|(vault, what)| Request { vault: VaultId(vault), what })
    }

    fn any_answer() -> impl Strategy<Value = Answer> {
        let listing = prop::collection::btree_map(any_name(), (any::<u64>(), "[ -~]{0,20}"), 0..5);
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Answer::Bytes),
            listing.prop_map(|listing| Answer::Listing(
                listing.into_iter().map(|(name, (size, etag))| Listed { name, size, etag }).collect()
            )),
            Just(Answer::Stored),
            Just(Answer::Present),
            Just(Answer::Done),
            Just(Answer::Missing),
            Just(Answer::TooLarge),
            Just(Answer::Short),
            Just(Answer::Full),
            ".{0,20}".prop_map(Answer::Denied),
            ".{0,20}".prop_map(Answer::Failed),
            prop::collection::vec(any::<[u8; 16]>().prop_map(VaultId), 0..4).prop_map(Answer::Vaults),
            Just(Answer::Deposited),
            prop::collection::vec(any_name(), 0..4).prop_map(Answer::Waiting),
            prop::collection::vec(any_standing(), 0..4).prop_map(Answer::Standing),
        ]
    }

    fn any_standing() -> impl Strategy<Value = Standing> {
        let parts = (any::<[u8; 16]>(), any::<bool>(), any::<bool>(), any::<[u64; 2]>(), any::<Option<u64>>());
        parts.prop_map(|(vault, member, reached, [waiting, waiting_bytes], since_ms)| Standing {
            vault: VaultId(vault),
            member,
            reached,
            waiting,
            waiting_bytes,
            since_ms: since_ms.filter(|since| *since != 0),
        })
    }

    proptest! {
        #[test]
        fn requests_are_read_as_they_were_written(request in any_request()) {
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }

        #[test]
        fn answers_are_read_as_they_were_written(answer in any_answer()) {
            prop_assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }

        #[test]
        fn what_is_read_has_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..60), kind in 0u8..17) {
            let request = [[7; 16].as_slice(), &[kind], &bytes].concat();
            if let Ok(read) = Request::decode(&request) {
                prop_assert_eq!(read.encode(), request);
            }
            let answer = [&[kind], bytes.as_slice()].concat();
            if let Ok(read) = Answer::decode(&answer) {
                prop_assert_eq!(read.encode(), answer);
            }
        }
    }

    #[test]
    fn the_bytes_are_as_they_always_were() {
        let name = ObjectName::new("tips/a").unwrap();
        let request = Request { vault: VaultId([1; 16]), what: What::PutNew { name: name.clone(), size: 300 } };
        assert_eq!(request.encode(), [&[1; 16], &[4, 6][..], b"tips/a", &[0xac, 2]].concat());
        let answer = Answer::Listing(vec![Listed { name, size: 3, etag: "e".to_owned() }]);
        assert_eq!(answer.encode(), [&[1, 1, 6][..], b"tips/a", &[3, 1], b"e"].concat());
    }

    #[test]
    fn what_is_too_large_or_unsound_is_refused_by_its_announcement() {
        let head = [7; 16];
        let put = |size: u64| {
            let mut out = Writer::new();
            out.raw(&head).u8(4).bytes(b"tips/a").varint(size);
            Request::decode(&out.finish())
        };
        assert!(put(MAX_OBJECT_BYTES).is_ok());
        assert_eq!(put(MAX_OBJECT_BYTES + 1), Err(WireError::Overflow));
        let escaping = [&head[..], &[6, 4], b"../a"].concat();
        assert!(matches!(Request::decode(&escaping), Err(WireError::Invalid { .. })));
        let long = Answer::Failed("é".repeat(REASON_BYTES));
        assert!(Answer::decode(&long.encode()).is_ok(), "a reason is cut between characters");
    }
}
