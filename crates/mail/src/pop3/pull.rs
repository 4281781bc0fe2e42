//! A maildrop, from its server into a folder: what is new is delivered, and deleted at the server only when told to.
//!
//! Deleting is apart from fetching, by unique ids: whoever asks for it knows that both sides hold the messages.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::session::{Listed, Pop3Error, Pop3Session};
use crate::fetched::{
    Arrival, Arrivals, Deliverer, Delivery, FetchError, FetchedStore, Flags, Folders, Origin, Path, Summary,
    deliver_in_background, delivered, with_store,
};
use crate::maildir::FolderName;

/// What a round did with one maildrop.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Pop3PullReport {
    /// What was delivered.
    pub summary: Summary,
    /// Every unique id that the server has, new or not.
    pub present: Vec<Arc<str>>,
    /// New messages that the server refused; they are asked for again.
    pub missing: u64,
}

impl Pop3Session {
    /// Deletes messages by their unique ids, which both sides are to hold by then, and ends the session.
    pub async fn delete_and_quit(mut self, uidls: &BTreeSet<Arc<str>>) -> Result<u64, Pop3Error> {
        let mut deleted = 0;
        for listed in self.list().await? {
            if uidls.contains(&listed.uidl) {
                self.delete(listed.number).await?;
                deleted += 1;
            }
        }
        self.quit().await?;
        Ok(deleted)
    }
}

/// Fetches what is new in the maildrop of `account`.
///
/// The deliverer comes back in every case, but for a panic of its thread.
pub async fn pull_maildrop<S, F>(
    session: &mut Pop3Session,
    account: &str,
    folder: &FolderName,
    deliverer: Deliverer<S, F>,
) -> (Option<Deliverer<S, F>>, Result<Pop3PullReport, Pop3PullError>)
where
    S: FetchedStore + Send + 'static,
    F: Folders + Send + 'static,
    F::Draft: Send,
{
    let listed = match session.list().await {
        Ok(listed) => listed,
        Err(error) => return (Some(deliverer), Err(Pop3PullError::Session(error))),
    };
    let account: Arc<str> = account.into();
    let present: Vec<Arc<str>> = listed.iter().map(|message| Arc::clone(&message.uidl)).collect();
    let of_account = Arc::clone(&account);
    let only_new = move |store: &mut S, listed: Vec<Listed>| {
        let mut new = VecDeque::new();
        for message in listed {
            let origin = Origin::Pop3 { account: Arc::clone(&of_account), uidl: Arc::clone(&message.uidl) };
            if !store.is_known(&origin)? {
                new.push_back((message.number, origin));
            }
        }
        Ok(new)
    };
    let (deliverer, new) = with_store(deliverer, listed, only_new).await;
    let Some(deliverer) = deliverer else { return (None, Err(Pop3PullError::Panicked)) };
    let new = match new {
        Ok(Some(new)) => new,
        Ok(None) => return (Some(deliverer), Err(Pop3PullError::Panicked)),
        Err(error) => return (Some(deliverer), Err(error.into())),
    };
    let (arrivals, delivering) = deliver_in_background(deliverer);
    let fetched = fetch(session, folder, new, &arrivals).await;
    drop(arrivals);
    let (deliverer, delivered) = delivered(delivering, fetched).await;
    (deliverer, delivered.map(|(summary, missing)| Pop3PullReport { summary, present, missing }))
}

/// Fetches messages in their order, several asked for ahead; says how many the server refused.
async fn fetch(
    session: &mut Pop3Session,
    folder: &FolderName,
    mut new: VecDeque<(u32, Origin)>,
    arrivals: &Arrivals,
) -> Result<u64, FetchError<Pop3Error>> {
    let stopped = |_| FetchError::Stopped;
    let mut asked: VecDeque<Origin> = VecDeque::new();
    let mut missing = 0;
    loop {
        while asked.len() < session.ahead()
            && let Some((number, origin)) = new.pop_front()
        {
            session.ask(number).await?;
            asked.push_back(origin);
        }
        let Some(origin) = asked.pop_front() else { return Ok(missing) };
        let (flags, path) = (Flags::default(), Path::Own);
        let arrival = Arrival { origin, folder: folder.clone(), flags, received: None, path };
        arrivals.send(Delivery::Begin(arrival)).await.map_err(stopped)?;
        let last = match session.receive(MAXIMUM_MESSAGE).await? {
            Some(mut receiving) => {
                while let Some(piece) = session.piece(&mut receiving).await? {
                    arrivals.send(Delivery::Piece(piece)).await.map_err(stopped)?;
                }
                Delivery::End
            }
            None => {
                missing += 1;
                Delivery::Drop
            }
        };
        arrivals.send(last).await.map_err(stopped)?;
    }
}

/// Why a maildrop was not brought up to date.
pub type Pop3PullError = crate::fetched::PullError<Pop3Error>;

/// A message without end would fill the disk.
const MAXIMUM_MESSAGE: u64 = 1 << 30;
