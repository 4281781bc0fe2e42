//! The history that is cut at every step: two rounds of messages, some of them twice, into two folders.

use std::sync::Arc;
use std::time::SystemTime;

use packetboat_mail::fetched::{
    Arrival, DeliverError, Deliverer, FetchedStore, Flags, Folders, MailboxKey, Origin, Path,
};
use packetboat_mail::maildir::{FolderName, UniqueNames};

use super::faulty::{FaultyFetched, FaultyFolders, Steps};

/// Messages as servers have them; those of one number are the same bytes.
pub(crate) fn arrivals() -> Vec<(Arrival, Vec<u8>)> {
    let inbox = FolderName::inbox();
    let archive = FolderName::for_mailbox("Archive", Some("/")).expect("a name");
    let mailbox = |name: &str| MailboxKey { account: "home".into(), mailbox: name.into(), validity: 7 };
    let imap = |name: &str, uid| Origin::Imap { mailbox: mailbox(name), uid };
    let pop = |uidl: &str| Origin::Pop3 { account: "home".into(), uidl: uidl.into() };
    let table: [(Origin, &FolderName, u8); 7] = [
        (imap("INBOX", 1), &inbox, 1),
        (imap("INBOX", 2), &inbox, 2),
        (imap("Archive", 1), &archive, 1),
        (pop("first"), &inbox, 1),
        (imap("INBOX", 2), &inbox, 2),
        (imap("INBOX", 3), &inbox, 3),
        (pop("fourth"), &inbox, 4),
    ];
    let arrival = |(origin, folder, number): (Origin, &FolderName, u8)| {
        let flags = if number == 2 { Flags::SEEN } else { Flags::default() };
        let arrival = Arrival { origin, folder: folder.clone(), flags, received: None, path: Path::Own };
        (arrival, format!("Subject: {number}\r\n\r\nbody\r\n").into_bytes())
    };
    table.into_iter().map(arrival).collect()
}

/// What is to be in the folders at the end, each once.
pub(crate) fn expected() -> Vec<(FolderName, Vec<u8>)> {
    let mut expected: Vec<_> = arrivals().into_iter().map(|(arrival, bytes)| (arrival.folder, bytes)).collect();
    expected.sort();
    expected.dedup();
    expected
}

/// One process: it puts in order what the one before left, and fetches what is not known, in batches of three.
pub(crate) fn run<S: FetchedStore, F: Folders>(
    store: &mut S,
    folders: F,
    start: u64,
    steps: &Steps,
) -> Result<(), DeliverError> {
    let store = FaultyFetched { inner: store, steps: steps.clone() };
    let folders = FaultyFolders { inner: folders, steps: steps.clone() };
    let names = UniqueNames::new("host", 1, start);
    let clock = Arc::new(|| SystemTime::UNIX_EPOCH);
    let mut deliverer = Deliverer::open(store, folders, names, clock)?;
    for batch in arrivals().chunks(3) {
        for (arrival, bytes) in batch {
            if !deliverer.store().is_known(&arrival.origin)? {
                deliverer.begin(arrival.clone())?;
                deliverer.write(bytes)?;
                deliverer.end()?;
            }
        }
        deliverer.flush()?;
    }
    Ok(())
}
