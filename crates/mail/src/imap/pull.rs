//! One mailbox, from its server into its folder: what is new is delivered, what changed or went is noted.
//!
//! The order makes it safe to stop anywhere: what was delivered is recorded with its batch, and up to which mod-sequence
//! the record holds is noted last, and only if everything new came; otherwise the next round looks again.

use super::fetch::FetchReport;
use super::session::{Access, ImapError, ImapSession};
use crate::fetched::{
    Arrival, Deliverer, FetchedStore, Flags, Folders, MailboxKey, Origin, Path, Summary, UidSet, deliver_in_background,
    delivered, with_store,
};
use crate::maildir::FolderName;

/// What a round did with one mailbox.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PullReport {
    /// What the mailbox's UIDs mean.
    pub validity: u32,
    /// What was delivered.
    pub summary: Summary,
    /// Known messages whose flags the server told.
    pub flags: usize,
    /// Known messages that went from the server.
    pub gone: UidSet,
    /// New messages that did not come; they are asked for again.
    pub missing: UidSet,
    /// What the server said, where it said no to some of it.
    pub refusal: Option<String>,
}

/// Fetches what is new in one mailbox of `account`, and notes what changed.
///
/// The deliverer comes back in every case, but for a panic of its thread.
pub async fn pull_mailbox<S, F>(
    session: &mut ImapSession,
    account: &str,
    mailbox: &str,
    folder: &FolderName,
    deliverer: Deliverer<S, F>,
) -> (Option<Deliverer<S, F>>, Result<PullReport, PullError>)
where
    S: FetchedStore + Send + 'static,
    F: Folders + Send + 'static,
    F::Draft: Send,
{
    let selected = match session.select(mailbox, Access::Read).await {
        Ok(selected) => selected,
        Err(error) => return (Some(deliverer), Err(PullError::Session(error))),
    };
    let key = MailboxKey { account: account.into(), mailbox: mailbox.into(), validity: selected.validity };
    let (deliverer, record) = with_store(deliverer, key.clone(), |store, key| store.mailbox(&key)).await;
    let Some(deliverer) = deliverer else { return (None, Err(PullError::Panicked)) };
    let record = match record {
        Ok(record) => record.unwrap_or_default(),
        Err(error) => return (Some(deliverer), Err(error.into())),
    };
    let changes = match session.changes(&selected, &record).await {
        Ok(changes) => changes,
        Err(error) => return (Some(deliverer), Err(PullError::Session(error))),
    };
    let mut report = PullReport { validity: key.validity, flags: changes.flags.len(), ..PullReport::default() };
    let mut deliverer = deliverer;
    if !changes.new.is_empty() {
        let (back, fetched) = deliver_new(session, &key, folder, deliverer, &changes.new).await;
        let Some(back) = back else { return (None, Err(PullError::Panicked)) };
        deliverer = back;
        let (summary, fetched) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => return (Some(deliverer), Err(error)),
        };
        report.summary = summary;
        report.missing = fetched.missing;
        report.refusal = fetched.refusal;
    }
    report.gone = changes.gone.clone();
    let modseq = if report.missing.is_empty() { changes.modseq } else { record.modseq };
    let untold = changes.flags.is_empty() && changes.gone.is_empty() && modseq == record.modseq;
    if untold {
        return (Some(deliverer), Ok(report));
    }
    let noting = (key, changes.flags, changes.gone, modseq);
    let note = |store: &mut S, (key, flags, gone, modseq): (MailboxKey, Vec<(u32, Flags)>, UidSet, u64)| {
        store.note(&key, &flags, &gone, modseq)
    };
    let (deliverer, noted) = with_store(deliverer, noting, note).await;
    (deliverer, noted.map(|_| report).map_err(PullError::Record))
}

/// Delivers messages while they are fetched, in a thread of its own.
async fn deliver_new<S, F>(
    session: &mut ImapSession,
    key: &MailboxKey,
    folder: &FolderName,
    deliverer: Deliverer<S, F>,
    new: &UidSet,
) -> (Option<Deliverer<S, F>>, Result<(Summary, FetchReport), PullError>)
where
    S: FetchedStore + Send + 'static,
    F: Folders + Send + 'static,
    F::Draft: Send,
{
    let (arrivals, delivering) = deliver_in_background(deliverer);
    let describe = |uid, flags, received| Arrival {
        origin: Origin::Imap { mailbox: key.clone(), uid },
        folder: folder.clone(),
        flags,
        received,
        path: Path::Own,
    };
    let fetched = session.fetch_into(new, describe, &arrivals).await;
    drop(arrivals);
    delivered(delivering, fetched).await
}

/// Why a mailbox was not brought up to date.
pub type PullError = crate::fetched::PullError<ImapError>;
