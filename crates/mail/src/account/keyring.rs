//! Passwords in the desktop's keyring, by the Secret Service interface: GNOME's, KDE's and KeePassXC's speak it.
//!
//! An entry is found by its attributes: that it is Packetboat's, the server and the user. Whoever else has the user's session bus
//! can read it, as with every program of the desktop; what the keyring gives is that the password lies encrypted on disk.
//! Secrets cross the bus as they are ("plain"): the bus is a socket that only this user reaches, and the other algorithm of
//! the interface, an exchange of keys of 1024 bits that authenticates nobody, would protect from no one who reads it.
//!
//! A locked keyring asks its user by itself; how long that may take is bounded. Where there is no session bus or no
//! keyring on it, that is an error here, and whoever sets an account up keeps the password elsewhere.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use thiserror::Error;
use tokio::time::timeout;
use zbus::wire::{ObjectPath, OwnedObjectPath, OwnedVariant, Variant};
use zbus::{Connection, proxy};
use zeroize::Zeroizing;

/// What a password opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The server.
    pub server: String,
    /// The name to log in with.
    pub user: String,
}

/// The keyring of the user's session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keyring {
    bus: Bus,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Bus {
    /// The one that the environment names.
    Session,
    /// The one at this address; for tests.
    #[cfg(test)]
    At(String),
}

impl Keyring {
    /// The keyring of this user, whether there is one or not.
    pub fn of_user() -> Self {
        Self { bus: Bus::Session }
    }

    /// The keyring on another bus.
    #[cfg(test)]
    pub(crate) fn at(address: &str) -> Self {
        Self { bus: Bus::At(address.to_owned()) }
    }

    /// Whether there is one that can be asked; nobody is asked for anything.
    pub async fn is_there(&self) -> bool {
        timeout(ANSWER, self.open()).await.is_ok_and(|opened| opened.is_ok())
    }

    /// Keeps a password, in the place of the former one.
    pub async fn keep(&self, entry: &Entry, password: &str) -> Result<(), KeyringError> {
        within_reason(async {
            let Opened { bus, service, session } = self.open().await?;
            let collection = service.read_alias("default").await?;
            if collection.as_str() == NOTHING {
                return Err(KeyringError::NoCollection);
            }
            unlock(&bus, &service, &collection).await?;
            let label = format!("Packetboat: {} at {}", entry.user, entry.server);
            let properties = HashMap::from([
                ("org.freedesktop.Secret.Item.Label", Variant::from(label)),
                ("org.freedesktop.Secret.Item.Attributes", Variant::from(attributes(entry))),
            ]);
            let secret = (session.as_ref(), Vec::new(), password.as_bytes().to_vec(), "text/plain");
            let proxy = CollectionProxy::new(&bus, collection).await?;
            let (_, prompt) = proxy.create_item(properties, &secret, true).await?;
            answered(&bus, &prompt).await
        })
        .await
    }

    /// The password that is kept; nothing, where none is.
    pub async fn find(&self, entry: &Entry) -> Result<Option<Zeroizing<String>>, KeyringError> {
        within_reason(async {
            let Opened { bus, service, session } = self.open().await?;
            let Some(item) = find(&bus, &service, entry).await? else { return Ok(None) };
            let (_, _, value, _) = ItemProxy::new(&bus, item).await?.get_secret(&session).await?;
            let value = Zeroizing::new(value);
            let text = std::str::from_utf8(&value).map_err(|_| KeyringError::NotText)?;
            Ok(Some(Zeroizing::new(text.to_owned())))
        })
        .await
    }

    /// Forgets the password, if one is kept.
    pub async fn forget(&self, entry: &Entry) -> Result<(), KeyringError> {
        within_reason(async {
            let Opened { bus, service, .. } = self.open().await?;
            let Some(item) = find(&bus, &service, entry).await? else { return Ok(()) };
            let prompt = ItemProxy::new(&bus, item).await?.delete().await?;
            answered(&bus, &prompt).await
        })
        .await
    }

    async fn open(&self) -> Result<Opened, KeyringError> {
        let bus = match &self.bus {
            Bus::Session => Connection::session().await,
            #[cfg(test)]
            Bus::At(address) => zbus::connection::Builder::address(address.as_str()).build().await,
        };
        let bus = bus.map_err(KeyringError::NoBus)?;
        let service = ServiceProxy::new(&bus).await?;
        let (_, session) = service.open_session("plain", &Variant::from("")).await?;
        Ok(Opened { bus, service, session })
    }
}

/// A keyring that answers.
struct Opened {
    bus: Connection,
    service: ServiceProxy<'static>,
    session: OwnedObjectPath,
}

async fn find(
    bus: &Connection,
    service: &ServiceProxy<'_>,
    entry: &Entry,
) -> Result<Option<OwnedObjectPath>, KeyringError> {
    let (open, locked) = service.search_items(attributes(entry)).await?;
    let Some(item) = open.into_iter().chain(locked).next() else { return Ok(None) };
    unlock(bus, service, &item).await?;
    Ok(Some(item))
}

async fn unlock(bus: &Connection, service: &ServiceProxy<'_>, object: &OwnedObjectPath) -> Result<(), KeyringError> {
    let (_, prompt) = service.unlock(&[object.as_ref()]).await?;
    answered(bus, &prompt).await
}

/// Has the keyring ask its user, where it wants to.
async fn answered(bus: &Connection, prompt: &OwnedObjectPath) -> Result<(), KeyringError> {
    if prompt.as_str() == NOTHING {
        return Ok(());
    }
    let prompt = PromptProxy::new(bus, prompt).await?;
    let mut completed = prompt.receive_completed().await?;
    prompt.prompt("").await?;
    let answer = completed.next().await.ok_or(KeyringError::Dismissed)?;
    if answer.args()?.dismissed { Err(KeyringError::Dismissed) } else { Ok(()) }
}

fn attributes(entry: &Entry) -> HashMap<String, String> {
    let of = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    [("application", "packetboat"), ("server", &entry.server), ("user", &entry.user)].into_iter().map(of).collect()
}

async fn within_reason<T>(work: impl Future<Output = Result<T, KeyringError>>) -> Result<T, KeyringError> {
    timeout(DEADLINE, work).await.map_err(|_| KeyringError::Deadline)?
}

#[proxy(
    interface = "org.freedesktop.Secret.Service",
    default_service = "org.freedesktop.secrets",
    default_path = "/org/freedesktop/secrets"
)]
trait Service {
    fn open_session(&self, algorithm: &str, input: &Variant<'_>) -> zbus::Result<(OwnedVariant, OwnedObjectPath)>;
    fn search_items(
        &self,
        attributes: HashMap<String, String>,
    ) -> zbus::Result<(Vec<OwnedObjectPath>, Vec<OwnedObjectPath>)>;
    fn unlock(&self, objects: &[ObjectPath<'_>]) -> zbus::Result<(Vec<OwnedObjectPath>, OwnedObjectPath)>;
    fn read_alias(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
}

#[proxy(interface = "org.freedesktop.Secret.Collection", default_service = "org.freedesktop.secrets")]
trait Collection {
    fn create_item(
        &self,
        properties: HashMap<&str, Variant<'_>>,
        secret: &(ObjectPath<'_>, Vec<u8>, Vec<u8>, &str),
        replace: bool,
    ) -> zbus::Result<(OwnedObjectPath, OwnedObjectPath)>;
}

#[proxy(interface = "org.freedesktop.Secret.Item", default_service = "org.freedesktop.secrets")]
trait Item {
    fn get_secret(&self, session: &ObjectPath<'_>) -> zbus::Result<(OwnedObjectPath, Vec<u8>, Vec<u8>, String)>;
    fn delete(&self) -> zbus::Result<OwnedObjectPath>;
}

#[proxy(interface = "org.freedesktop.Secret.Prompt", default_service = "org.freedesktop.secrets")]
trait Prompt {
    fn prompt(&self, window_id: &str) -> zbus::Result<()>;
    #[zbus(signal)]
    fn completed(&self, dismissed: bool, result: OwnedVariant) -> zbus::Result<()>;
}

/// Why the keyring cannot be used.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// There is no session bus.
    #[error("there is no desktop session whose keyring could be asked")]
    NoBus(#[source] zbus::Error),
    /// There is no keyring on it, or it does not do what it is asked.
    #[error("the desktop's keyring does not answer")]
    Call(#[from] zbus::Error),
    /// There is nowhere to keep a password in.
    #[error("the desktop has a keyring service, but no keyring was ever made in it")]
    NoCollection,
    /// The user did not unlock it.
    #[error("the desktop's keyring was not unlocked")]
    Dismissed,
    /// Nobody unlocked it.
    #[error("the desktop's keyring was not unlocked within {} s", DEADLINE.as_secs())]
    Deadline,
    /// What is kept is no text.
    #[error("what the desktop's keyring holds is no text")]
    NotText,
}

/// How the interface says that there is no such object.
const NOTHING: &str = "/";
const ANSWER: Duration = Duration::from_secs(5);
/// Long enough for a person to unlock it.
const DEADLINE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
