//! What two devices say to each other about mail in, as bytes.
//!
//! ```text
//! said        kind u8, then what belongs to it
//!             1  news: something came here, compare with me
//!             2  ask: first u8 (1: a comparison begins, 0: it goes on) | a frame of the comparison of items
//!             3  answer: a frame
//!             4  declined: the frame could not be answered
//! asked for   name                                    body
//!             `inbox/uids`                            the catalogue of all UIDs held
//!             `inbox/of-uids/` catalogue              descriptions
//!             `inbox/of-items/` digests, 32 each      descriptions
//!             `inbox/message/` folder bytes | digest  when the server had it, in seconds since 1970 (0: unknown), 8 bytes
//!                                                     big-endian, then the message as its server sent it
//! descriptions  count | per message: origin | folder bytes | digest 32 | size varint | flags u8
//! origin      1 | account bytes | mailbox bytes | uidvalidity varint | uid varint   by IMAP
//!             2 | account bytes | uidl bytes                                        by POP3
//! ```

use packetboat_core::compare::uids::UidCatalogue;
use packetboat_core::wire::{Reader, WireError, Writer};
use packetboat_mail::fetched::{Flags, MailboxKey, MessageDigest, Origin};
use packetboat_mail::maildir::FolderName;

use crate::inbox_store::Held;

/// What one device says to the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Said {
    News,
    Ask { first: bool, frame: Vec<u8> },
    Answer(Vec<u8>),
    Declined,
}

impl Said {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::News => vec![1],
            Self::Ask { first, frame } => [&[2, u8::from(*first)], frame.as_slice()].concat(),
            Self::Answer(frame) => [&[3], frame.as_slice()].concat(),
            Self::Declined => vec![4],
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [1] => Some(Self::News),
            [2, first @ (0 | 1), frame @ ..] => Some(Self::Ask { first: *first == 1, frame: frame.to_vec() }),
            [3, frame @ ..] => Some(Self::Answer(frame.to_vec())),
            [4] => Some(Self::Declined),
            _ => None,
        }
    }
}

/// What one device asks the other for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Uids,
    OfUids(UidCatalogue),
    OfItems(Vec<MessageDigest>),
    Message { folder: FolderName, digest: MessageDigest },
}

impl Wanted {
    /// As the name of a body; nothing where it does not fit one.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        Some(match self {
            Self::Uids => b"inbox/uids".to_vec(),
            Self::OfUids(uids) => [OF_UIDS, &uids.encode(NAME_BYTES).ok()?].concat(),
            Self::OfItems(digests) => {
                let digests: Vec<[u8; 32]> = digests.iter().map(|digest| digest.0).collect();
                [OF_ITEMS, digests.as_flattened()].concat()
            }
            Self::Message { folder, digest } => {
                let mut writer = Writer::new();
                writer.raw(MESSAGE).bytes(folder.directory().as_bytes()).raw(&digest.0);
                writer.finish()
            }
        })
    }

    pub(super) fn decode(name: &[u8]) -> Option<Self> {
        if name == b"inbox/uids" {
            return Some(Self::Uids);
        }
        if let Some(uids) = name.strip_prefix(OF_UIDS) {
            return UidCatalogue::decode(uids, NAME_BYTES).ok().map(Self::OfUids);
        }
        if let Some(digests) = name.strip_prefix(OF_ITEMS) {
            let (digests, rest) = digests.as_chunks::<32>();
            let sound = rest.is_empty() && !digests.is_empty() && digests.len() <= ITEMS_AT_ONCE;
            return sound.then(|| Self::OfItems(digests.iter().copied().map(MessageDigest).collect()));
        }
        let mut reader = Reader::new(name.strip_prefix(MESSAGE)?);
        let folder = folder(&mut reader).ok()?;
        let digest = MessageDigest(reader.array().ok()?);
        reader.finish().ok()?;
        Some(Self::Message { folder, digest })
    }
}

/// Whether a body's name is one of these.
pub(crate) fn is_ours(name: &[u8]) -> bool {
    name.starts_with(b"inbox/")
}

pub(super) fn encode_descriptions(held: &[Held]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.varint(held.len() as u64);
    for Held { origin, folder, digest, size, flags } in held {
        match origin {
            Origin::Imap { mailbox: MailboxKey { account, mailbox, validity }, uid } => {
                writer.u8(1).bytes(account.as_bytes()).bytes(mailbox.as_bytes());
                writer.varint(u64::from(*validity)).varint(u64::from(*uid));
            }
            Origin::Pop3 { account, uidl } => {
                writer.u8(2).bytes(account.as_bytes()).bytes(uidl.as_bytes());
            }
        }
        writer.bytes(folder.directory().as_bytes()).raw(&digest.0).varint(*size).u8(flags.bits());
    }
    writer.finish()
}

pub(super) fn decode_descriptions(bytes: &[u8]) -> Result<Vec<Held>, WireError> {
    let mut reader = Reader::new(bytes);
    let mut held = Vec::new();
    for _ in 0..reader.count(LEAST_DESCRIPTION)? {
        let origin = match reader.u8()? {
            1 => {
                let (account, mailbox) = (text(&mut reader, NAME_LIMIT)?.into(), text(&mut reader, NAME_LIMIT)?.into());
                let mailbox = MailboxKey { account, mailbox, validity: reader.varint32()? };
                Origin::Imap { mailbox, uid: reader.varint32()? }
            }
            2 => {
                let account = text(&mut reader, NAME_LIMIT)?.into();
                Origin::Pop3 { account, uidl: text(&mut reader, UIDL_LIMIT)?.into() }
            }
            _ => return Err(WireError::Invalid { what: "kind of origin" }),
        };
        let folder = folder(&mut reader)?;
        let digest = MessageDigest(reader.array()?);
        let size = reader.varint()?;
        let flags = Flags::from_bits(reader.u8()?).ok_or(WireError::Invalid { what: "flags" })?;
        held.push(Held { origin, folder, digest, size, flags });
    }
    reader.finish()?;
    Ok(held)
}

fn text<'a>(reader: &mut Reader<'a>, limit: usize) -> Result<&'a str, WireError> {
    std::str::from_utf8(reader.bytes(limit)?).map_err(|_| WireError::Invalid { what: "name" })
}

/// Reads a word, a wish or descriptions, by the first byte, and says whether they were understood; asserts that each
/// has one encoding.
#[cfg(feature = "fuzzing")]
pub fn fuzz(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    let again = match kind % 3 {
        0 => Said::decode(bytes).map(|said| said.encode()),
        1 => Wanted::decode(bytes).map(|wanted| wanted.encode().expect("what fitted a name fits one")),
        _ => decode_descriptions(bytes).ok().map(|held| encode_descriptions(&held)),
    };
    if let Some(again) = &again {
        assert_eq!(again, bytes, "what is said has one encoding");
    }
    again.is_some()
}

/// A folder of a peer is one that this device could have made itself, so none leaves the Maildir.
fn folder(reader: &mut Reader<'_>) -> Result<FolderName, WireError> {
    FolderName::from_directory(text(reader, NAME_LIMIT)?).ok_or(WireError::Invalid { what: "folder" })
}

/// How many items one request asks about.
pub(super) const ITEMS_AT_ONCE: usize = 100;

const OF_UIDS: &[u8] = b"inbox/of-uids/";
const OF_ITEMS: &[u8] = b"inbox/of-items/";
const MESSAGE: &[u8] = b"inbox/message/";

/// A name in a request has 4096 bytes with its prefix.
const NAME_BYTES: usize = 4000;
const NAME_LIMIT: usize = 1024;
const UIDL_LIMIT: usize = 70;

/// Kind, two empty names, folder, digest, size and flags.
const LEAST_DESCRIPTION: usize = 3 + 1 + 32 + 1 + 1;

#[cfg(test)]
mod tests {
    use packetboat_core::compare::uids::{MailboxKey as UidKey, UidSet};
    use proptest::prelude::*;

    use super::*;

    fn wanted() -> Vec<Wanted> {
        let key = UidKey { account: "a@b".to_owned(), mailbox: b"INBOX".to_vec(), uid_validity: 7 };
        let uids: UidSet = [1, 2, 9].into_iter().collect();
        vec![
            Wanted::Uids,
            Wanted::OfUids(UidCatalogue::new([(key, uids)])),
            Wanted::OfItems(vec![MessageDigest([1; 32]), MessageDigest([2; 32])]),
            Wanted::Message {
                folder: FolderName::for_mailbox("Lists/rust", Some("/")).unwrap(),
                digest: MessageDigest([3; 32]),
            },
        ]
    }

    #[test]
    fn what_is_asked_is_understood() {
        for wanted in wanted() {
            let name = wanted.encode().unwrap();
            assert!(is_ours(&name));
            assert_eq!(Wanted::decode(&name), Some(wanted));
        }
        for said in [Said::News, Said::Ask { first: true, frame: vec![1, 2] }, Said::Answer(vec![]), Said::Declined] {
            assert_eq!(Said::decode(&said.encode()), Some(said));
        }
    }

    #[test]
    fn a_folder_outside_the_maildir_is_no_folder() {
        for folder in ["../../etc", ".a/../../b", "new", ".~root"] {
            let mut writer = Writer::new();
            writer.raw(MESSAGE).bytes(folder.as_bytes()).raw(&[0; 32]);
            assert_eq!(Wanted::decode(&writer.finish()), None, "{folder}");
        }
    }

    proptest! {
        #[test]
        fn descriptions_are_read_as_they_were_written_or_refused(
            uid in 1u32.., size in any::<u64>(), bits in 0u8..32, uidl in "[!-~]{1,70}",
        ) {
            let flags = Flags::from_bits(bits).unwrap();
            let mailbox = MailboxKey { account: "a".into(), mailbox: "INBOX".into(), validity: 9 };
            let (folder, digest) = (FolderName::inbox(), MessageDigest([4; 32]));
            let by_imap = Held { origin: Origin::Imap { mailbox, uid }, folder: folder.clone(), digest, size, flags };
            let origin = Origin::Pop3 { account: "a".into(), uidl: uidl.as_str().into() };
            let held = vec![by_imap, Held { origin, folder, digest, size, flags }];
            let bytes = encode_descriptions(&held);
            prop_assert_eq!(decode_descriptions(&bytes).unwrap(), held);
            prop_assert!(decode_descriptions(&bytes[..bytes.len() - 1]).is_err());
        }

        #[test]
        fn whatever_a_peer_sends_harms_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_descriptions(&bytes);
            let _ = Said::decode(&bytes);
            for prefix in [OF_UIDS, OF_ITEMS, MESSAGE] {
                if let Some(wanted) = Wanted::decode(&[prefix, &bytes].concat()) {
                    prop_assert_eq!(wanted.encode().unwrap(), [prefix, &bytes].concat());
                }
            }
        }
    }
}
