//! A host's own copies of what waits on its companion, so that no order of the two ways loses or breaks anything.
//!
//! What a host deposits with its companion its index counts as stored: packs are not made again. Were the host then to
//! reach the intermediary itself, it would put packets there whose packs lie on a companion that may be far away, or lost.
//! So each deposit stays here too, on a [`Shelf`] of the replica, until it is known where the packs are:
//!
//! - Before a round by the host's own way, what is here goes up first, in its order ([`Deposits::bring`]).
//! - Before a round by the companion, what the companion has put up is given up here, and what it no longer has is
//!   deposited again ([`Deposits::settle`]).
//!
//! Both ways put the same bytes under the same names, and whoever comes second finds them there; of tips the later stays.
//! What the companion was still handed without our hearing of it is fetched back into this record when the two next speak.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use packetboat_core::ids::VaultId;
use packetboat_core::store::{Store, StoreError};
use thiserror::Error;

use super::check::check;
use super::forward::{Forward, PutUpError};
use super::message::{Answer, MAX_OBJECT_BYTES, Request, What};
use super::shelf::{Held, Shelf, ShelfError};
use super::store::{Ask, MEANINGLESS};

/// What waits on the companion, of one replica of a host.
#[derive(Clone)]
pub struct Deposits {
    shelf: Arc<Shelf>,
    vault: VaultId,
}

impl Deposits {
    /// The deposits of a vault on a shelf.
    pub fn new(shelf: Arc<Shelf>, vault: VaultId) -> Self {
        Self { shelf, vault }
    }

    /// How much there is.
    pub fn held(&self) -> Result<Held, ShelfError> {
        self.shelf.held(self.vault)
    }

    /// Puts everything up by the host's own way, in its order, and keeps nothing of it; how many objects.
    pub fn bring(&self, own: Arc<dyn Store>) -> Result<u64, PutUpError> {
        let count = Forward::new(self.vault, self.shelf.clone(), own).put_up()?;
        self.shelf.give_up_copies(self.vault)?;
        Ok(count)
    }

    /// Compares with what waits on the companion; how many objects do.
    pub fn settle(&self, ask: &dyn Ask) -> Result<u64, SettleError> {
        let waiting: BTreeSet<_> = match self.ask(ask, What::Waiting, &[])? {
            Answer::Waiting(names) => names.into_iter().collect(),
            _ => return Err(meaningless()),
        };
        let here = self.shelf.waiting(self.vault)?;
        for name in here.iter().filter(|name| !waiting.contains(*name)) {
            // A tip that was overtaken by a later one of another way is there too, and is as good.
            let probe = What::Range { name: name.clone(), offset: 0, length: 1 };
            match self.ask(ask, probe, &[])? {
                Answer::Bytes(_) => self.shelf.remove(self.vault, name)?,
                Answer::Missing => {
                    let Some(bytes) = self.shelf.read(self.vault, name)? else { continue };
                    let again = What::Put { name: name.clone(), size: bytes.len() as u64 };
                    match self.ask(ask, again, &bytes)? {
                        Answer::Deposited => {}
                        Answer::Stored | Answer::Present => self.shelf.remove(self.vault, name)?,
                        _ => return Err(meaningless()),
                    }
                }
                _ => return Err(meaningless()),
            }
        }
        for name in waiting.iter().filter(|name| !here.contains(name)) {
            if let Answer::Bytes(bytes) =
                self.ask(ask, What::Get { name: name.clone(), limit: MAX_OBJECT_BYTES }, &[])?
            {
                // A companion can send anything; only what is sound may go to the intermediary by our own way.
                if check(self.vault, name, &bytes).is_ok() {
                    self.shelf.deposit(self.vault, name, &bytes, true)?;
                }
            }
        }
        Ok(self.held()?.waiting)
    }

    fn ask(&self, ask: &dyn Ask, what: What, body: &[u8]) -> Result<Answer, SettleError> {
        match ask.ask(&Request { vault: self.vault, what }, body).map_err(SettleError::Ask)? {
            Answer::Failed(why) | Answer::Denied(why) => Err(SettleError::Ask(io::Error::other(why))),
            answer => Ok(answer),
        }
    }
}

fn meaningless() -> SettleError {
    SettleError::Ask(io::Error::other(MEANINGLESS))
}

/// Why it is not known what waits.
#[derive(Debug, Error)]
pub enum SettleError {
    /// The record fails.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The record's files fail.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The companion cannot be asked, or answers with something else.
    #[error("the companion does not say what waits there")]
    Ask(#[source] io::Error),
}
