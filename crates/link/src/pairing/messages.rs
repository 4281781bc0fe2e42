//! What two devices say while they are being paired, byte by byte, and what they hash of it.
//!
//! ```text
//! introduction  role u8 (1 host, 2 companion) | name bytes | count varint | addresses
//! address       0x04 | IPv4 4 | port u16      or  0x06 | IPv6 16 | port u16      (ports little-endian)
//! ```
//!
//! The messages are listed in [`crate::pairing`]. Each has one encoding, so hashing the bytes binds the meaning.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use packetboat_core::keys::PublicKey;
use packetboat_core::wire::{Reader, WireError, Writer};
use thiserror::Error;

use super::PairingError;

/// Which of the two a device is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The one whose mail and files it is about.
    Host,
    /// The one that lends its network.
    Companion,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Companion => "companion",
        })
    }
}

/// What a device says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introduction {
    role: Role,
    name: String,
    addresses: Vec<SocketAddr>,
}

impl Introduction {
    /// Checks that the name is one that screens can show, and that there are not too many addresses.
    pub fn new(role: Role, name: &str, addresses: Vec<SocketAddr>) -> Result<Self, IntroductionError> {
        if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
            return Err(IntroductionError::Name);
        }
        if addresses.len() > ADDRESSES {
            return Err(IntroductionError::Addresses { limit: ADDRESSES });
        }
        Ok(Self { role, name: name.to_owned(), addresses })
    }

    /// What the device is to be.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its link is found; none where only the other one dials.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(super) fn check_role(&self, other: &Self) -> Result<(), PairingError> {
        if self.role == other.role { Err(PairingError::SameRole(self.role)) } else { Ok(()) }
    }

    fn encode(&self, writer: &mut Writer) {
        writer.u8(if self.role == Role::Host { 1 } else { 2 }).bytes(self.name.as_bytes());
        writer.varint(self.addresses.len() as u64);
        for address in &self.addresses {
            match address.ip() {
                IpAddr::V4(ip) => writer.u8(4).raw(&ip.octets()),
                IpAddr::V6(ip) => writer.u8(6).raw(&ip.octets()),
            };
            writer.raw(&address.port().to_le_bytes());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let role = match reader.u8()? {
            1 => Role::Host,
            2 => Role::Companion,
            _ => return Err(WireError::Invalid { what: "role" }),
        };
        let name = std::str::from_utf8(reader.bytes(NAME_BYTES)?).map_err(|_| WireError::Invalid { what: "name" })?;
        let count = reader.count(7)?;
        let mut addresses = Vec::new();
        for _ in 0..count {
            let ip = match reader.u8()? {
                4 => IpAddr::from(reader.array::<4>()?),
                6 => IpAddr::from(reader.array::<16>()?),
                _ => return Err(WireError::Invalid { what: "kind of address" }),
            };
            addresses.push(SocketAddr::new(ip, u16::from_le_bytes(reader.array()?)));
        }
        Self::new(role, name, addresses).map_err(|_| WireError::Invalid { what: "introduction" })
    }
}

/// Why a device cannot introduce itself like that.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IntroductionError {
    /// The name cannot be shown.
    #[error("a device's name has 1 to {NAME_BYTES} bytes and no control characters")]
    Name,
    /// There are too many addresses.
    #[error("a device has at most {limit} addresses")]
    Addresses {
        /// How many there may be.
        limit: usize,
    },
}

/// What is said.
pub(super) enum Message {
    Hello,
    Commit { commitment: [u8; 32] },
    Offer { nonce: [u8; 32], introduction: Introduction },
    Open { nonce: [u8; 32], introduction: Introduction },
    Agree { agreement: [u8; 32] },
    Refuse,
    Paired,
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::Hello => writer.u8(HELLO).u8(VERSION),
            Self::Commit { commitment } => writer.u8(COMMIT).raw(commitment),
            Self::Offer { nonce, introduction } => {
                introduction.encode(writer.u8(OFFER).raw(nonce));
                &mut writer
            }
            Self::Open { nonce, introduction } => {
                introduction.encode(writer.u8(OPEN).raw(nonce));
                &mut writer
            }
            Self::Agree { agreement } => writer.u8(AGREE).raw(agreement),
            Self::Refuse => writer.u8(REFUSE),
            Self::Paired => writer.u8(PAIRED),
        };
        writer.finish()
    }

    pub(super) fn is_refusal(frame: &[u8]) -> bool {
        frame == [REFUSE]
    }

    pub(super) fn expect_hello(frame: &[u8]) -> Result<(), PairingError> {
        match frame {
            [HELLO, VERSION] => Ok(()),
            [HELLO, ..] => Err(PairingError::OtherVersion),
            _ => Err(WireError::Invalid { what: "hello" }.into()),
        }
    }

    pub(super) fn expect_commit(frame: &[u8]) -> Result<[u8; 32], PairingError> {
        Ok(hash_after(COMMIT, frame)?)
    }

    pub(super) fn expect_offer(frame: &[u8]) -> Result<Introduction, PairingError> {
        Ok(introduction_after(OFFER, frame)?)
    }

    pub(super) fn expect_open(frame: &[u8]) -> Result<Introduction, PairingError> {
        Ok(introduction_after(OPEN, frame)?)
    }

    pub(super) fn expect_agreement(frame: &[u8]) -> Result<blake3::Hash, PairingError> {
        Ok(blake3::Hash::from_bytes(hash_after(AGREE, frame)?))
    }

    pub(super) fn expect_paired(frame: &[u8]) -> Result<(), PairingError> {
        if frame == [PAIRED] { Ok(()) } else { Err(WireError::Invalid { what: "end of pairing" }.into()) }
    }
}

/// Reads one message as whichever it says it is, and says whether it was understood; asserts that each has one encoding.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(frame: &[u8]) -> bool {
    let read = match frame.first() {
        Some(&HELLO) => Message::expect_hello(frame).ok().map(|()| Message::Hello),
        Some(&COMMIT) => Message::expect_commit(frame).ok().map(|commitment| Message::Commit { commitment }),
        Some(&OFFER) => {
            Message::expect_offer(frame).ok().map(|introduction| Message::Offer { nonce: nonce(frame), introduction })
        }
        Some(&OPEN) => {
            Message::expect_open(frame).ok().map(|introduction| Message::Open { nonce: nonce(frame), introduction })
        }
        Some(&AGREE) => {
            Message::expect_agreement(frame).ok().map(|hash| Message::Agree { agreement: *hash.as_bytes() })
        }
        Some(&PAIRED) => Message::expect_paired(frame).ok().map(|()| Message::Paired),
        _ => Message::is_refusal(frame).then_some(Message::Refuse),
    };
    if let Some(message) = &read {
        assert_eq!(message.encode(), frame, "a message has one encoding");
    }
    read.is_some()
}

#[cfg(feature = "fuzzing")]
fn nonce(frame: &[u8]) -> [u8; 32] {
    frame[1..33].try_into().expect("it was understood")
}

fn hash_after(kind: u8, frame: &[u8]) -> Result<[u8; 32], WireError> {
    let mut reader = after(kind, frame)?;
    let hash = reader.array()?;
    reader.finish()?;
    Ok(hash)
}

fn introduction_after(kind: u8, frame: &[u8]) -> Result<Introduction, WireError> {
    let mut reader = after(kind, frame)?;
    let _nonce = reader.array::<32>()?;
    let introduction = Introduction::decode(&mut reader)?;
    reader.finish()?;
    Ok(introduction)
}

fn after(kind: u8, frame: &[u8]) -> Result<Reader<'_>, WireError> {
    let mut reader = Reader::new(frame);
    if reader.u8()? == kind { Ok(reader) } else { Err(WireError::Invalid { what: "message of pairing" }) }
}

/// What the listener is bound to before it sees the dialler's part: its whole `open` message, in this connection.
pub(super) fn commitment(exporter: &[u8; 32], open: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("packetboat 2026 pairing: commitment");
    *hasher.update(exporter).update(open).finalize().as_bytes()
}

/// All that was said, in one hash that both sides have when nobody is in between.
pub(super) struct Transcript([u8; 32]);

impl Transcript {
    pub(super) fn new(
        exporter: &[u8; 32],
        dialler: &PublicKey,
        listener: &PublicKey,
        commitment: &[u8; 32],
        offer: &[u8],
        open: &[u8],
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("packetboat 2026 pairing: transcript");
        hasher.update(exporter).update(&dialler.0).update(&listener.0).update(commitment);
        // The two that have no fixed length say theirs.
        for message in [offer, open] {
            hasher.update(&(message.len() as u64).to_le_bytes()).update(message);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// Six digits; of 64 bits, so that none is likelier than another by more than can be noticed.
    pub(super) fn code(&self) -> u32 {
        let bytes = blake3::derive_key("packetboat 2026 pairing: code", &self.0);
        (u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) % 1_000_000) as u32
    }

    /// What a side says when its people confirmed; each its own, so that none can be sent back as the other's.
    pub(super) fn agreement(&self, listener: bool) -> [u8; 32] {
        let context = match listener {
            true => "packetboat 2026 pairing: listener agrees",
            false => "packetboat 2026 pairing: dialler agrees",
        };
        blake3::derive_key(context, &self.0)
    }

    pub(super) fn pair_id(&self) -> [u8; 16] {
        let bytes = blake3::derive_key("packetboat 2026 pairing: pair id", &self.0);
        bytes[..16].try_into().expect("sixteen bytes")
    }
}

const VERSION: u8 = 1;
const HELLO: u8 = 1;
const COMMIT: u8 = 2;
const OFFER: u8 = 3;
const OPEN: u8 = 4;
const AGREE: u8 = 5;
const REFUSE: u8 = 6;
const PAIRED: u8 = 7;

/// Longest name of a device, in bytes.
const NAME_BYTES: usize = 64;

/// Addresses that a device may name.
const ADDRESSES: usize = 16;

/// Longest message, in bytes.
pub(super) const GREATEST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn introduction() -> Introduction {
        let addresses = vec!["192.0.2.1:4711".parse().unwrap(), "[2001:db8::1]:9".parse().unwrap()];
        Introduction::new(Role::Companion, "phone", addresses).unwrap()
    }

    #[test]
    fn an_introduction_has_one_encoding_and_no_other_is_read() {
        let offer = Message::Offer { nonce: [3; 32], introduction: introduction() }.encode();
        assert_eq!(Message::expect_offer(&offer).unwrap(), introduction());
        assert!(Message::expect_open(&offer).is_err());
        for end in 0..offer.len() {
            assert!(Message::expect_offer(&offer[..end]).is_err(), "cut at {end}");
        }
        assert!(Message::expect_offer(&[offer.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn names_that_could_fool_a_screen_are_refused() {
        for name in ["", "two\nlines", "\u{1b}[2J", &"x".repeat(65)] {
            assert_eq!(Introduction::new(Role::Host, name, vec![]), Err(IntroductionError::Name), "{name:?}");
        }
        let addresses = vec!["192.0.2.1:1".parse().unwrap(); 17];
        assert!(Introduction::new(Role::Host, "host", addresses).is_err());
    }

    #[test]
    fn the_code_depends_on_everything_that_was_said() {
        let offer = Message::Offer { nonce: [3; 32], introduction: introduction() }.encode();
        let open = Message::Open { nonce: [4; 32], introduction: introduction() }.encode();
        let (exporter, commitment) = ([1; 32], [2; 32]);
        let (dialler, listener) = (PublicKey([5; 32]), PublicKey([6; 32]));
        let hash = |transcript: Transcript| transcript.0;
        let usual = hash(Transcript::new(&exporter, &dialler, &listener, &commitment, &offer, &open));
        for other in [
            Transcript::new(&[9; 32], &dialler, &listener, &commitment, &offer, &open),
            Transcript::new(&exporter, &listener, &listener, &commitment, &offer, &open),
            Transcript::new(&exporter, &dialler, &dialler, &commitment, &offer, &open),
            Transcript::new(&exporter, &dialler, &listener, &[9; 32], &offer, &open),
            Transcript::new(&exporter, &dialler, &listener, &commitment, &open, &open),
            Transcript::new(&exporter, &dialler, &listener, &commitment, &offer, &offer),
        ] {
            assert_ne!(hash(other), usual);
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_read_is_what_would_be_written(
            kind in 0u8..9,
            noise in proptest::collection::vec(proptest::prop_oneof![0u8..8, proptest::arbitrary::any::<u8>()], 0..120),
        ) {
            let frame = [&[kind][..], &noise].concat();
            let nonce = || noise[..32].try_into().unwrap();
            let read = [
                Message::expect_hello(&frame).ok().map(|()| Message::Hello),
                Message::expect_commit(&frame).ok().map(|commitment| Message::Commit { commitment }),
                Message::expect_offer(&frame).ok().map(|introduction| Message::Offer { nonce: nonce(), introduction }),
                Message::expect_open(&frame).ok().map(|introduction| Message::Open { nonce: nonce(), introduction }),
                Message::expect_paired(&frame).ok().map(|()| Message::Paired),
            ];
            for message in read.into_iter().flatten() {
                proptest::prop_assert_eq!(message.encode(), frame.clone());
            }
        }
    }
}
