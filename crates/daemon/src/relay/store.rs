//! A vault's intermediary by way of the companion, as a [`Store`].
//!
//! Whoever carries requests there is an [`Ask`]: the link itself ([`LinkAsk`]), or a command's way to its daemon
//! ([`SocketAsk`](super::socket::SocketAsk)). An answer is believed no more than any storage's.

use std::io;
use std::sync::{Arc, Mutex};

use packetboat_core::ids::VaultId;
use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};
use packetboat_link::Session;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::answer::{self, AskError};
use super::message::{Answer, NO_VAULT, Request, Standing, What};
use super::shelf::Shelf;

/// Carries a request to a companion and its answer back; blocks.
pub trait Ask: Send + Sync {
    /// Asks.
    fn ask(&self, request: &Request, body: &[u8]) -> io::Result<Answer>;
}

/// One vault's intermediary by way of the companion.
pub struct RelayStore<A> {
    ask: A,
    vault: VaultId,
    companion: String,
    deposits: Option<Arc<Shelf>>,
}

impl<A: Ask> RelayStore<A> {
    /// The intermediary of `vault` by the companion that people call `companion`.
    pub fn new(ask: A, vault: VaultId, companion: impl Into<String>) -> Self {
        Self { ask, vault, companion: companion.into(), deposits: None }
    }

    /// Keeps here as well what the companion takes and cannot put up yet ([`Deposits`](super::deposits::Deposits)).
    pub fn keeping(self, deposits: Arc<Shelf>) -> Self {
        Self { deposits: Some(deposits), ..self }
    }

    /// Nothing counts as put before what waits on the companion is here too: it may be needed by the other way.
    fn deposited(&self, name: &ObjectName, bytes: &[u8], replaces: bool) -> Result<(), StoreError> {
        let Some(deposits) = &self.deposits else { return Ok(()) };
        let kept = deposits.deposit(self.vault, name, bytes, replaces).map(drop);
        kept.map_err(|error| StoreError::Io { action: "keep", name: name.to_string(), source: io::Error::other(error) })
    }

    fn ask(&self, action: &'static str, name: &str, what: What, body: &[u8]) -> Result<Answer, StoreError> {
        let failed = |source| StoreError::Io { action, name: name.to_owned(), source };
        let asked = self.ask.ask(&Request { vault: self.vault, what }, body).map_err(failed)?;
        match asked {
            Answer::Full => Err(StoreError::Full),
            Answer::Denied(why) => {
                let source = io::Error::new(io::ErrorKind::PermissionDenied, why);
                Err(StoreError::Denied { name: name.to_owned(), source })
            }
            Answer::Failed(why) => Err(failed(io::Error::other(why))),
            answer => Ok(answer),
        }
    }

    fn about(&self, action: &'static str, name: &ObjectName, what: What, body: &[u8]) -> Result<Answer, StoreError> {
        match self.ask(action, name.as_str(), what, body)? {
            Answer::Missing => Err(StoreError::Missing { name: name.clone() }),
            Answer::Short => Err(StoreError::Short { name: name.clone() }),
            answer => Ok(answer),
        }
    }
}

impl<A: Ask> Store for RelayStore<A> {
    fn describe(&self) -> String {
        format!("companion {}", self.companion)
    }

    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        let what = What::PutNew { name: name.clone(), size: bytes.len() as u64 };
        match self.about("write", name, what, bytes)? {
            Answer::Stored => Ok(Put::Stored),
            Answer::Deposited => {
                self.deposited(name, bytes, false)?;
                Ok(Put::Stored)
            }
            Answer::Present => Ok(Put::Present),
            _ => Err(meaningless("write", name.as_str())),
        }
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        let what = What::Put { name: name.clone(), size: bytes.len() as u64 };
        match self.about("write", name, what, bytes)? {
            Answer::Stored | Answer::Present => Ok(()),
            Answer::Deposited => self.deposited(name, bytes, true),
            _ => Err(meaningless("write", name.as_str())),
        }
    }

    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        match self.about("read", name, What::Get { name: name.clone(), limit }, &[])? {
            Answer::Bytes(bytes) if bytes.len() as u64 <= limit => Ok(bytes),
            Answer::Bytes(_) | Answer::TooLarge => Err(StoreError::TooLarge { name: name.clone(), limit }),
            _ => Err(meaningless("read", name.as_str())),
        }
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        match self.about("read", name, What::Range { name: name.clone(), offset, length: len }, &[])? {
            Answer::Bytes(bytes) if bytes.len() as u64 == len => Ok(bytes),
            Answer::Bytes(_) => Err(StoreError::Short { name: name.clone() }),
            _ => Err(meaningless("read", name.as_str())),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        match self.ask("list", folder, What::List { folder: folder.to_owned() }, &[])? {
            Answer::Listing(listing) => {
                let within = |entry: &Listed| match entry.name.as_str().rsplit_once('/') {
                    Some((of, _)) => of == folder,
                    None => folder.is_empty(),
                };
                Ok(listing.into_iter().filter(within).collect())
            }
            _ => Err(meaningless("list", folder)),
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        match self.about("delete", name, What::Delete { name: name.clone() }, &[])? {
            Answer::Done => Ok(()),
            _ => Err(meaningless("delete", name.as_str())),
        }
    }
}

/// The vaults that the companion carries.
pub fn vaults(ask: &impl Ask) -> io::Result<Vec<VaultId>> {
    match ask.ask(&Request { vault: NO_VAULT, what: What::Which }, &[])? {
        Answer::Vaults(vaults) => Ok(vaults),
        Answer::Failed(why) | Answer::Denied(why) => Err(io::Error::other(why)),
        _ => Err(io::Error::other(MEANINGLESS)),
    }
}

/// How it stands with the vaults on the companion.
pub fn standing(ask: &impl Ask) -> io::Result<Vec<Standing>> {
    match ask.ask(&Request { vault: NO_VAULT, what: What::Standing }, &[])? {
        Answer::Standing(standing) => Ok(standing),
        Answer::Failed(why) | Answer::Denied(why) => Err(io::Error::other(why)),
        _ => Err(io::Error::other(MEANINGLESS)),
    }
}

/// Has the companion's own replica of a vault brought in step; at once, where it has none.
pub fn round(ask: &impl Ask, vault: VaultId) -> io::Result<()> {
    match ask.ask(&Request { vault, what: What::Round }, &[])? {
        Answer::Done => Ok(()),
        Answer::Failed(why) | Answer::Denied(why) => Err(io::Error::other(why)),
        _ => Err(io::Error::other(MEANINGLESS)),
    }
}

/// The link, for callers that block. They must not be tasks of the runtime themselves.
pub struct LinkAsk {
    handle: Handle,
    session: Mutex<watch::Receiver<Option<Session>>>,
}

impl LinkAsk {
    /// Asks in whichever session there is at the time.
    pub fn new(handle: Handle, session: watch::Receiver<Option<Session>>) -> Self {
        Self { handle, session: Mutex::new(session) }
    }
}

impl Ask for LinkAsk {
    fn ask(&self, request: &Request, body: &[u8]) -> io::Result<Answer> {
        let receiver = self.session.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let session = receiver.borrow().clone().ok_or_else(|| io::Error::other(AskError::Down))?;
        self.handle.block_on(answer::ask(&session, request, body)).map_err(io::Error::other)
    }
}

fn meaningless(action: &'static str, name: &str) -> StoreError {
    StoreError::Io { action, name: name.to_owned(), source: io::Error::other(MEANINGLESS) }
}

pub(super) const MEANINGLESS: &str = "the companion answered something else than was asked";
