//! Where in a Maildir a mailbox of a server lies: the directory itself for the inbox, else a Maildir++ sub folder.
//!
//! Maildir++ keeps the hierarchy in the name of one directory beside `cur`: `Archive/2024` is `.Archive.2024`.
//! A part of a name stays in the modified UTF-7 of IMAP, as Dovecot and Courier have it on disk.
//! What has a meaning in the name of a directory is written `\2e` (a dot within a part), `\2f`, `\5c` and so on,
//! as Dovecot's `listescape` does, so that two mailboxes never share a folder and none leaves the Maildir.

use std::fmt;

/// A folder of a Maildir.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FolderName {
    /// Nothing for the inbox, else the name of the directory with its leading dot.
    directory: String,
}

impl FolderName {
    /// The Maildir itself.
    pub fn inbox() -> Self {
        Self { directory: String::new() }
    }

    /// The folder for a mailbox by the name that the server gives it, in modified UTF-7, and its hierarchy delimiter.
    ///
    /// A name that is not valid modified UTF-7 is taken as it is: some servers send plain UTF-8.
    pub fn for_mailbox(mailbox: &str, delimiter: Option<&str>) -> Result<Self, FolderNameError> {
        if mailbox.eq_ignore_ascii_case("INBOX") {
            return Ok(Self::inbox());
        }
        let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty());
        let parts = match delimiter {
            Some(delimiter) => mailbox.split(delimiter).collect(),
            None => vec![mailbox],
        };
        let mut directory = String::new();
        for part in parts {
            if part.is_empty() {
                return Err(FolderNameError::EmptyPart { mailbox: mailbox.to_owned() });
            }
            directory.push('.');
            escape(part, &mut directory);
        }
        if directory.len() > MAXIMUM_LENGTH {
            return Err(FolderNameError::TooLong { mailbox: mailbox.to_owned() });
        }
        Ok(Self { directory })
    }

    /// Reads what [`FolderName::directory`] wrote, as a record keeps it; nothing for what it would not write.
    pub fn from_directory(directory: &str) -> Option<Self> {
        if directory.is_empty() {
            return Some(Self::inbox());
        }
        let parts = directory.strip_prefix('.')?.split('.');
        let sound = |part: &str| !part.is_empty() && !part.contains(['/', '\0']) && !part.starts_with('~');
        (directory.len() <= MAXIMUM_LENGTH && parts.clone().all(sound))
            .then(|| Self { directory: directory.to_owned() })
    }

    /// The name of its directory beneath the Maildir; empty for the inbox.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// Whether it is the Maildir itself.
    pub fn is_inbox(&self) -> bool {
        self.directory.is_empty()
    }
}

impl fmt::Display for FolderName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_inbox() { "INBOX" } else { &self.directory[1..] })
    }
}

/// Why a mailbox has no folder.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
pub enum FolderNameError {
    /// It begins or ends with the delimiter, or has two together.
    #[error("the mailbox name {mailbox:?} has an empty part")]
    EmptyPart {
        /// As the server has it.
        mailbox: String,
    },
    /// No file system takes its name.
    #[error("the mailbox name {mailbox:?} is too long for a directory")]
    TooLong {
        /// As the server has it.
        mailbox: String,
    },
}

/// Writes a part without what has a meaning in the name of a directory.
fn escape(part: &str, directory: &mut String) {
    for (at, character) in part.char_indices() {
        let has_meaning =
            matches!(character, '.' | '/' | '\\' | '\0'..='\x1f' | '\x7f') || (at == 0 && character == '~');
        if has_meaning {
            directory.push_str(&format!("\\{:02x}", u32::from(character)));
        } else {
            directory.push(character);
        }
    }
}

/// What Linux, macOS and the BSDs allow for one name, less what a mail reader may append to it.
const MAXIMUM_LENGTH: usize = 240;

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    fn directory(mailbox: &str, delimiter: &str) -> String {
        FolderName::for_mailbox(mailbox, Some(delimiter)).unwrap().directory().to_owned()
    }

    #[test]
    fn a_mailbox_has_the_folder_that_dovecot_would_give_it() {
        assert_eq!(directory("inbox", "/"), "");
        assert_eq!(directory("Archive/2024", "/"), ".Archive.2024");
        assert_eq!(directory("INBOX.Sent", "."), ".INBOX.Sent");
        assert_eq!(directory("Entw&APw-rfe", "/"), ".Entw&APw-rfe");
        assert_eq!(directory("v1.2/a", "/"), ".v1\\2e2.a");
        assert_eq!(directory("../../etc", "\\"), ".\\2e\\2e\\2f\\2e\\2e\\2fetc");
        assert_eq!(directory("~root", "/"), ".\\7eroot");
    }

    #[test]
    fn a_name_without_a_folder_says_why() {
        for mailbox in ["", "/a", "a/", "a//b"] {
            let refused = FolderName::for_mailbox(mailbox, Some("/")).unwrap_err();
            assert_eq!(refused, FolderNameError::EmptyPart { mailbox: mailbox.to_owned() });
        }
        let refused = FolderName::for_mailbox(&"x".repeat(300), None).unwrap_err();
        assert!(matches!(refused, FolderNameError::TooLong { .. }));
    }

    proptest! {
        #[test]
        fn no_mailbox_leaves_the_maildir(mailbox in any::<String>(), delimiter in "[./\\\\]") {
            if let Ok(folder) = FolderName::for_mailbox(&mailbox, Some(&delimiter)) {
                prop_assert_eq!(FolderName::from_directory(folder.directory()), Some(folder.clone()));
                let components: Vec<_> = Path::new(folder.directory()).components().collect();
                prop_assert!(folder.is_inbox() || matches!(components[..], [Component::Normal(_)]));
            }
        }

        #[test]
        fn two_mailboxes_never_share_a_folder(one in "[a.~\\\\2e/]{1,6}", other in "[a.~\\\\2e/]{1,6}") {
            let folders = (FolderName::for_mailbox(&one, Some("/")), FolderName::for_mailbox(&other, Some("/")));
            if let (Ok(first), Ok(second)) = folders {
                prop_assert_eq!(first == second, one == other);
            }
        }
    }
}
