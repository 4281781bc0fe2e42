//! A record in memory: the model that stores are held against, and the record of tools that need none afterwards.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    FetchedError, FetchedStore, Flags, Intent, MailboxKey, MailboxRecord, MessageDigest, MessageState, Origin,
    Sighting, UidSet,
};
use crate::maildir::{FolderName, UniqueName};

/// A record that ends with its process.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MemoryFetched {
    mailboxes: BTreeMap<MailboxKey, (MailboxRecord, BTreeMap<u32, u8>)>,
    uidls: BTreeSet<Origin>,
    messages: BTreeMap<(FolderName, MessageDigest), bool>,
    pending: Vec<Intent>,
}

impl MemoryFetched {
    fn know(&mut self, origin: &Origin, flags: Flags) {
        match origin {
            Origin::Imap { mailbox, uid } => {
                let (record, noted) = self.mailboxes.entry(mailbox.clone()).or_default();
                if record.known.insert(*uid) {
                    noted.insert(*uid, flags.bits());
                }
            }
            Origin::Pop3 { .. } => {
                self.uidls.insert(origin.clone());
            }
        }
    }
}

impl FetchedStore for MemoryFetched {
    fn mailbox(&mut self, mailbox: &MailboxKey) -> Result<MailboxRecord, FetchedError> {
        Ok(self.mailboxes.get(mailbox).map(|(record, _)| record.clone()).unwrap_or_default())
    }

    fn flags(&mut self, mailbox: &MailboxKey) -> Result<Vec<(u32, Flags)>, FetchedError> {
        let Some((record, noted)) = self.mailboxes.get(mailbox) else { return Ok(Vec::new()) };
        let there = noted.iter().filter(|(uid, _)| !record.gone.contains(**uid));
        Ok(there.filter_map(|(uid, bits)| Some((*uid, Flags::from_bits(*bits)?))).collect())
    }

    fn is_known(&mut self, origin: &Origin) -> Result<bool, FetchedError> {
        Ok(match origin {
            Origin::Imap { mailbox, uid } => {
                self.mailboxes.get(mailbox).is_some_and(|(record, _)| record.known.contains(*uid))
            }
            Origin::Pop3 { .. } => self.uidls.contains(origin),
        })
    }

    fn message(&mut self, folder: &FolderName, digest: &MessageDigest) -> Result<Option<MessageState>, FetchedError> {
        let deleted = self.messages.get(&(folder.clone(), *digest));
        Ok(deleted.map(|deleted| if *deleted { MessageState::Deleted } else { MessageState::Delivered }))
    }

    fn intend(&mut self, intents: &[Intent]) -> Result<(), FetchedError> {
        self.pending.extend_from_slice(intents);
        Ok(())
    }

    fn pending(&mut self) -> Result<Vec<Intent>, FetchedError> {
        Ok(self.pending.clone())
    }

    fn finish(&mut self, finished: &[UniqueName], sightings: &[Sighting]) -> Result<(), FetchedError> {
        let finished: BTreeSet<&UniqueName> = finished.iter().collect();
        let (done, left) = self.pending.drain(..).partition(|intent| finished.contains(&intent.name));
        self.pending = left;
        let done: Vec<Intent> = done;
        for intent in done {
            self.messages.entry((intent.folder, intent.digest)).or_insert(false);
            self.know(&intent.origin, intent.flags);
        }
        for sighting in sightings {
            self.know(&sighting.origin, sighting.flags);
        }
        Ok(())
    }

    fn abandon(&mut self, name: &UniqueName) -> Result<(), FetchedError> {
        self.pending.retain(|intent| intent.name != *name);
        Ok(())
    }

    fn note(
        &mut self,
        mailbox: &MailboxKey,
        flags: &[(u32, Flags)],
        gone: &UidSet,
        modseq: u64,
    ) -> Result<(), FetchedError> {
        let (record, noted) = self.mailboxes.entry(mailbox.clone()).or_default();
        for (uid, flags) in flags {
            noted.entry(*uid).and_modify(|bits| *bits = flags.bits());
        }
        let of_known = |uid: &u32| record.known.contains(*uid);
        let gone: UidSet = gone.iter().filter(of_known).collect();
        record.gone = record.gone.union(&gone);
        record.modseq = record.modseq.max(modseq);
        Ok(())
    }

    fn delete(&mut self, folder: &FolderName, digest: &MessageDigest) -> Result<(), FetchedError> {
        self.messages.insert((folder.clone(), *digest), true);
        Ok(())
    }
}
