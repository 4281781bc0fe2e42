//! A message's file, read as its server sent it, in pieces.
//!
//! A file has LF where the server sent CRLF, or the bytes as they came (`maildir::line_ends`); which of the two gives the
//! digest of the record tells which it is. So the file is read twice, and memory stays flat however long it is.
//! A file that gives neither was changed by someone, and is not the message any more.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::time::SystemTime;

use packetboat_mail::fetched::{Digesting, MessageDigest};

/// A message that can be read.
pub(super) struct StoredMessage {
    file: File,
    form: Form,
    /// How long it is as its server sent it.
    pub(super) size: u64,
    /// When its server had it, in seconds since 1970.
    pub(super) received: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Each LF stands for CRLF.
    Converted,
    AsReceived,
}

impl StoredMessage {
    /// Opens a file that should be this message; nothing where it is not.
    pub(super) fn open(path: &Path, digest: &MessageDigest) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let (mut converted, mut as_received) = (Digesting::default(), Digesting::default());
        let (mut converted_size, mut size) = (0, 0);
        let mut piece = vec![0; PIECE];
        loop {
            let count = file.read(&mut piece)?;
            if count == 0 {
                break;
            }
            let restored = restore(&piece[..count]);
            converted.update(&restored);
            as_received.update(&piece[..count]);
            converted_size += restored.len() as u64;
            size += count as u64;
        }
        let (form, size) = if converted.finish() == *digest {
            (Form::Converted, converted_size)
        } else if as_received.finish() == *digest {
            (Form::AsReceived, size)
        } else {
            return Ok(None);
        };
        file.rewind()?;
        let modified = file.metadata()?.modified().ok();
        let since = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        Ok(Some(Self { file, form, size, received: since.map_or(0, |since| since.as_secs()) }))
    }

    /// The next piece; nothing at the end.
    pub(super) fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut piece = vec![0; PIECE];
        let count = self.file.read(&mut piece)?;
        if count == 0 {
            return Ok(None);
        }
        piece.truncate(count);
        Ok(Some(if self.form == Form::Converted { restore(&piece) } else { piece }))
    }
}

fn restore(converted: &[u8]) -> Vec<u8> {
    let mut restored = Vec::with_capacity(converted.len() + converted.len() / 16);
    for &byte in converted {
        if byte == b'\n' {
            restored.push(b'\r');
        }
        restored.push(byte);
    }
    restored
}

const PIECE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use packetboat_mail::maildir::received_form;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_read_as_the_maildir_would_give_it_back(
            stored in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..60),
            was_converted: bool,
        ) {
            let original = if was_converted { restore(&stored) } else { stored.clone() };
            let digest = MessageDigest::of(&original);
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &stored).unwrap();
            let mut message = StoredMessage::open(file.path(), &digest).unwrap().unwrap();
            let mut read = Vec::new();
            while let Some(piece) = message.piece().unwrap() {
                read.extend(piece);
            }
            prop_assert_eq!(read.len() as u64, message.size);
            prop_assert_eq!(Some(read), received_form(&stored, &digest).map(|form| form.into_owned()));
            std::fs::write(file.path(), [&stored[..], b"changed"].concat()).unwrap();
            prop_assert!(StoredMessage::open(file.path(), &digest).unwrap().is_none());
        }
    }
}
