//! How lines end in a message's file: with LF where nothing is lost by it, else as they came.
//!
//! Servers send CRLF, and readers of a Maildir expect LF: Dovecot takes either, but mutt shows `^M` behind every header.
//! So CRLF becomes LF, as in mbsync, but only in a message of whose line ends each is CRLF: there, LF can become CRLF
//! again, and the bytes are those that came. A message with a lone LF is stored as it came, since nobody could tell
//! afterwards which of its line ends were which. A lone CR is a byte like others.
//!
//! Which of the two forms a file has is told by the digest in its record ([`received_form`]).

use std::borrow::Cow;

use crate::fetched::MessageDigest;

/// Converts a message while it comes, until it shows that it cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LineEnds {
    /// Every line so far ended with CRLF.
    Converted {
        /// The last byte was CR, and is not written yet.
        after_return: bool,
    },
    /// A lone LF came.
    AsReceived,
}

/// What is to be written as it came, behind what was converted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kept<'a> {
    /// What was converted before is to be restored first.
    pub(super) is_first: bool,
    /// These.
    pub(super) bytes: &'a [u8],
}

impl LineEnds {
    /// Appends what can be converted to `converted`, and gives what cannot.
    pub(super) fn convert<'a>(&mut self, bytes: &'a [u8], converted: &mut Vec<u8>) -> Option<Kept<'a>> {
        for (at, &byte) in bytes.iter().enumerate() {
            let Self::Converted { after_return } = self else { return Some(Kept { is_first: false, bytes }) };
            match (*after_return, byte) {
                (true, b'\n') => {
                    converted.push(b'\n');
                    *after_return = false;
                }
                (false, b'\n') => {
                    *self = Self::AsReceived;
                    return Some(Kept { is_first: true, bytes: &bytes[at..] });
                }
                (true, _) => {
                    converted.push(b'\r');
                    *after_return = byte == b'\r';
                    if byte != b'\r' {
                        converted.push(byte);
                    }
                }
                (false, b'\r') => *after_return = true,
                (false, _) => converted.push(byte),
            }
        }
        None
    }

    /// What was held back, at the end of the message.
    pub(super) fn rest(self) -> &'static [u8] {
        if self == (Self::Converted { after_return: true }) { b"\r" } else { b"" }
    }
}

impl Default for LineEnds {
    fn default() -> Self {
        Self::Converted { after_return: false }
    }
}

/// Restores what was converted.
pub(super) fn expand(converted: &[u8]) -> Vec<u8> {
    let mut expanded = Vec::with_capacity(converted.len() + converted.len() / 32);
    for line in converted.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => {
                expanded.extend_from_slice(line);
                expanded.extend_from_slice(b"\r\n");
            }
            None => expanded.extend_from_slice(line),
        }
    }
    expanded
}

/// The bytes of a message as they came, from those of its file; nothing where someone changed the file.
pub fn received_form<'a>(stored: &'a [u8], digest: &MessageDigest) -> Option<Cow<'a, [u8]>> {
    let expanded = expand(stored);
    if MessageDigest::of(&expanded) == *digest {
        return Some(Cow::Owned(expanded));
    }
    (MessageDigest::of(stored) == *digest).then_some(Cow::Borrowed(stored))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::fetched::{Flags, Folders};
    use crate::maildir::{FolderName, Maildir, UniqueName};

    /// What a Maildir has of a message that comes in pieces.
    fn stored(message: &[u8], piece: usize) -> Vec<u8> {
        let home = TempDir::new().unwrap();
        let mut maildir = Maildir::open(home.path()).unwrap();
        let (inbox, name) = (FolderName::inbox(), UniqueName::parse("1.M1.h").unwrap());
        let mut draft = maildir.begin(&inbox, &name, None).unwrap();
        message.chunks(piece).for_each(|piece| maildir.write(&mut draft, piece).unwrap());
        maildir.close(draft).unwrap();
        maildir.publish(&inbox, &name, Flags::default()).unwrap();
        fs::read(home.path().join("new/1.M1.h")).unwrap()
    }

    #[test]
    fn lines_end_as_files_do_where_that_can_be_undone() {
        for piece in [1, 2, 3, 100] {
            assert_eq!(stored(b"A: b\r\n\r\nlone \r, \0, \xff\r\r\nend", piece), b"A: b\n\nlone \r, \0, \xff\r\nend");
            assert_eq!(stored(b"A: b\r\n\r\nlone\nline\r\n", piece), b"A: b\r\n\r\nlone\nline\r\n");
            assert_eq!(stored(b"A: b\r", piece), b"A: b\r");
        }
        let long = [b"line\r\n".repeat(40_000), b"\n".to_vec(), b"line\r\n".repeat(10)].concat();
        assert!(stored(&long, 1000) == long, "the last line of many can be the one that cannot be converted");
    }

    #[test]
    fn a_file_that_someone_changed_has_no_received_form() {
        let digest = MessageDigest::of(b"A: b\r\n");
        assert_eq!(received_form(b"A: b\n", &digest).as_deref(), Some(&b"A: b\r\n"[..]));
        assert_eq!(received_form(b"A: c\n", &digest), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_message_comes_back_as_it_came(
            message in prop::collection::vec(prop::sample::select(&b"\r\na"[..]), 0..30),
            piece in 1usize..6,
        ) {
            let stored = stored(&message, piece);
            let received = received_form(&stored, &MessageDigest::of(&message)).map(Cow::into_owned);
            // But for the end of the last line, which a digest leaves open.
            let ended = |bytes: &[u8]| [bytes, if bytes.ends_with(b"\r\n") { b"" } else { &b"\r\n"[..] }].concat();
            prop_assert_eq!(received.as_deref().map(ended), Some(ended(&message)));
        }
    }
}
