//! What is remembered of the other device of the pair: `pair.json`.
//!
//! A pair is made once and holds until one side ends it. Its `serial` counts the pairs of this device, so that the
//! numbers that mails had in an earlier pair are not taken for those of the present one.

use std::net::SocketAddr;
use std::path::Path;

use packetboat_core::keys::PublicKey;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// The other device, and how the two find each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// Counts this device's pairs, from 1.
    pub serial: u64,
    /// What this device is in the pair.
    pub role: Role,
    /// The other device's key, as it was confirmed.
    pub peer: PublicKey,
    /// What the other device calls itself.
    pub peer_name: String,
    /// Where the other device may be found, the likeliest first.
    pub peer_addresses: Vec<SocketAddr>,
    /// This device's own addresses on the link, each with the interface that nothing may leave but by it.
    pub locals: Vec<LocalAddress>,
}

/// What a device is in its pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It owns the mails and the turn.
    Host,
    /// It keeps copies, and sends when it is granted the turn.
    Companion,
}

/// One of this device's addresses on the link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalAddress {
    /// Address and port.
    pub address: SocketAddr,
    /// The network interface to which the link is bound.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interface: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: u32,
    serial: u64,
    role: Role,
    peer_key: String,
    peer_name: String,
    peer_addresses: Vec<SocketAddr>,
    locals: Vec<LocalAddress>,
    /// Whether it is over, and remembered for its serial alone.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    ended: bool,
}

impl Pair {
    /// Reads the pair, if this device is in one.
    pub fn read(path: &Path) -> Result<Option<Self>, FileError> {
        let Some(file) = files::read_json::<File>(path)?.filter(|file| !file.ended) else { return Ok(None) };
        let key = packetboat_core::hex::decode_exactly(&file.peer_key).map(PublicKey).filter(|_| file.schema == SCHEMA);
        let key = key.ok_or_else(|| FileError::damaged(path))?;
        Ok(Some(Self {
            serial: file.serial,
            role: file.role,
            peer: key,
            peer_name: file.peer_name,
            peer_addresses: file.peer_addresses,
            locals: file.locals,
        }))
    }

    /// The serial of the last pair that this device was in; nought, where it was in none.
    pub fn last_serial(path: &Path) -> Result<u64, FileError> {
        Ok(files::read_json::<File>(path)?.map_or(0, |file| file.serial))
    }

    /// Ends the pair, durably; nothing happens where there is none.
    pub fn end(path: &Path) -> Result<(), FileError> {
        match files::read_json::<File>(path)? {
            Some(file) if !file.ended => files::write_json(path, &File { ended: true, ..file }),
            _ => Ok(()),
        }
    }

    /// Remembers the pair, durably.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let file = File {
            schema: SCHEMA,
            serial: self.serial,
            role: self.role,
            peer_key: packetboat_core::hex::encode(&self.peer.0),
            peer_name: self.peer_name.clone(),
            peer_addresses: self.peer_addresses.clone(),
            locals: self.locals.clone(),
            ended: false,
        };
        files::write_json(path, &file)
    }
}

const SCHEMA: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_remembered_and_damage_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pair.json");
        assert_eq!(Pair::read(&path).unwrap(), None);
        let pair = Pair {
            serial: 2,
            role: Role::Companion,
            peer: PublicKey([0xa5; 32]),
            peer_name: "laptop".to_owned(),
            peer_addresses: vec!["10.66.0.1:2526".parse().unwrap()],
            locals: vec![LocalAddress { address: "0.0.0.0:2526".parse().unwrap(), interface: Some("usb0".to_owned()) }],
        };
        pair.write(&path).unwrap();
        assert_eq!(Pair::read(&path).unwrap(), Some(pair));
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in [text.replace("a5a5", "zz"), text.replace("\"schema\": 1", "\"schema\": 2"), "{}".to_owned()] {
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(Pair::read(&path), Err(FileError::Damaged { .. })));
        }
    }
}
