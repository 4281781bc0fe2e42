//! Which of a server's mailboxes are fetched, and into which folders.
//!
//! A person writes the names as they read them, and `*` for all; a server has them in modified UTF-7, or in plain UTF-8.

use super::session::RemoteMailbox;
use crate::maildir::{FolderName, FolderNameError, modified_utf7};

/// The mailboxes that are wanted, as far as they can be had.
#[derive(PartialEq, Eq, Default, Debug)]
pub struct Chosen {
    /// As the server names them, each with its folder.
    pub found: Vec<(String, FolderName)>,
    /// Those that the server does not have, as the account names them.
    pub missing: Vec<String>,
    /// Those that have no place in a Maildir.
    pub unplaced: Vec<FolderNameError>,
}

impl Chosen {
    /// The inbox, which every server has.
    pub fn inbox() -> Self {
        Self { found: vec![("INBOX".to_owned(), FolderName::inbox())], ..Self::default() }
    }

    /// Those of `listed` that are `wanted`.
    pub fn of(listed: &[RemoteMailbox], wanted: &[String]) -> Self {
        let mut chosen = Self::default();
        let all = is_all(wanted);
        for mailbox in listed.iter().filter(|mailbox| mailbox.selectable) {
            if all || wanted.iter().any(|name| is_named(&mailbox.name, name)) {
                match FolderName::for_mailbox(&mailbox.name, mailbox.delimiter.as_deref()) {
                    Ok(folder) => chosen.found.push((mailbox.name.clone(), folder)),
                    Err(error) => chosen.unplaced.push(error),
                }
            }
        }
        let is_there = |name: &String| listed.iter().any(|there| there.selectable && is_named(&there.name, name));
        chosen.missing = wanted.iter().filter(|name| *name != ALL && !is_there(name)).cloned().collect();
        chosen
    }
}

/// Whether only the inbox is wanted, for which no server has to be asked.
pub fn is_inbox_alone(wanted: &[String]) -> bool {
    wanted.iter().all(|name| is_inbox(name))
}

/// Whether every mailbox is wanted.
pub fn is_all(wanted: &[String]) -> bool {
    wanted.iter().any(|name| name == ALL)
}

/// A mailbox's name as people read it.
pub fn readable(mailbox: &str) -> String {
    modified_utf7::decode(mailbox).unwrap_or_else(|| mailbox.to_owned())
}

fn is_named(mailbox: &str, name: &str) -> bool {
    match is_inbox(name) {
        true => is_inbox(mailbox),
        false => mailbox == name || modified_utf7::encode(name) == mailbox,
    }
}

fn is_inbox(name: &str) -> bool {
    name.eq_ignore_ascii_case("INBOX")
}

/// Stands for every mailbox.
const ALL: &str = "*";

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Vec<RemoteMailbox> {
        let mailbox = |name: &str, selectable| RemoteMailbox {
            name: name.to_owned(),
            delimiter: Some("/".to_owned()),
            special: None,
            selectable,
        };
        vec![
            mailbox("Inbox", true),
            mailbox("Entw&APw-rfe", true),
            mailbox("Lists", false),
            mailbox("Lists/rust", true),
            mailbox("a//b", true),
        ]
    }

    #[track_caller]
    fn check(wanted: &[&str], found: &[&str], missing: &[&str], unplaced: usize) {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let chosen = Chosen::of(&listed(), &wanted);
        let names: Vec<String> = chosen.found.iter().map(|(name, _)| readable(name)).collect();
        assert_eq!(
            (names, chosen.missing),
            (found.iter().map(|n| (*n).to_owned()).collect(), missing.iter().map(|n| (*n).to_owned()).collect())
        );
        assert_eq!(chosen.unplaced.len(), unplaced);
    }

    #[test]
    fn mailboxes_are_found_by_the_names_that_people_write() {
        check(&["INBOX"], &["Inbox"], &[], 0);
        check(&["Entw\u{fc}rfe", "Nowhere"], &["Entw\u{fc}rfe"], &["Nowhere"], 0);
        check(&["Entw&APw-rfe"], &["Entw\u{fc}rfe"], &[], 0);
        check(&["*"], &["Inbox", "Entw\u{fc}rfe", "Lists/rust"], &[], 1);
        // One that holds other mailboxes alone has no messages.
        check(&["Lists"], &[], &["Lists"], 0);
        // What has no folder is there all the same.
        check(&["a//b"], &[], &[], 1);
    }
}
