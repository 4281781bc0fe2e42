//! Ending a pair, so that neither side keeps what is the other's and no mail is lost between the two.
//!
//! ```text
//! companion, where its user began it:  1  let us part
//! host:       wants back every turn that it handed over, and waits until it has them, or for as long as is seemly
//! host:       2  we part
//! companion:  waits until it sends nothing any more, then
//! companion:  3  we have parted | count u32 big-endian: the mails of which it cannot say what became of them
//! ```
//!
//! Whoever has heard the last word, or said it, ends the pair in its own record (`Pair::end`), forgets the credentials that
//! were lent, and begins anew without a pair; the desk then tells every open mail. So a crash in between leaves a pair that
//! one side ended: the other is refused by its key, says so, and its user parts alone.
//! The host has every mail until it is finished and, of vaults, everything that waits; what the companion keeps may go.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use packetboat_core::delivery::{CompanionState, Event, HostState};
use packetboat_link::Session;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::files::FileError;
use crate::home::Home;
use crate::outbox::courier::Courier;
use crate::outbox::desk::Input;
use crate::outbox::machine::Machine;
use crate::outbox::store::{Reader, StoreError};
use crate::pair::{Pair, Role};

/// What the two say of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// The companion's user wants it.
    LetUsPart,
    /// The host's word.
    WePart,
    /// The companion's last word.
    Parted {
        /// Mails of which it cannot say what became of them.
        unclear: u32,
    },
}

impl Word {
    /// The bytes of a word.
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::LetUsPart => vec![1],
            Self::WePart => vec![2],
            Self::Parted { unclear } => [&[3], unclear.to_be_bytes().as_slice()].concat(),
        }
    }

    /// Reads a word; nothing, where it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [1] => Some(Self::LetUsPart),
            [2] => Some(Self::WePart),
            [3, unclear @ ..] => Some(Self::Parted { unclear: u32::from_be_bytes(unclear.try_into().ok()?) }),
            _ => None,
        }
    }
}

/// How a pair ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Parted {
    /// What the other device calls itself.
    pub peer: String,
    /// Whether the other device agreed; else it has to be told by its user.
    pub agreed: bool,
    /// Mails of which neither side can say whether they were sent.
    pub unclear: u32,
}

/// One side of a parting.
pub struct Parting<'a> {
    /// The pair.
    pub pair: &'a Pair,
    /// The link.
    pub session: &'a Session,
    /// What the other device says.
    pub heard: &'a mut mpsc::Receiver<Word>,
    /// Where the outbox is told.
    pub courier: &'a Courier,
    /// Where it is read.
    pub reader: &'a Arc<Mutex<Reader>>,
}

impl Parting<'_> {
    /// Begins it, because this device's user wants it.
    pub async fn begin(mut self) -> Result<Parted, PartError> {
        match self.pair.role {
            Role::Host => self.lead().await,
            Role::Companion => {
                self.say(Word::LetUsPart).await?;
                while self.hear().await? != Word::WePart {}
                self.follow().await
            }
        }
    }

    /// Goes on with what the other device began.
    pub async fn answer(mut self, word: Word) -> Result<Option<Parted>, PartError> {
        match (self.pair.role, word) {
            (Role::Host, Word::LetUsPart) => self.lead().await.map(Some),
            (Role::Companion, Word::WePart) => self.follow().await.map(Some),
            // What was said to an earlier process means nothing now.
            _ => Ok(None),
        }
    }

    async fn lead(&mut self) -> Result<Parted, PartError> {
        self.courier.tell(Input::HappenedToAll(Event::TakeBack)).await;
        self.settle(
            |machine| matches!(machine, Machine::Host(host) if matches!(host.state(), HostState::Granted { .. })),
        )
        .await?;
        self.say(Word::WePart).await?;
        loop {
            if let Word::Parted { unclear } = self.hear().await? {
                return Ok(Parted { peer: self.pair.peer_name.clone(), agreed: true, unclear });
            }
        }
    }

    async fn follow(&mut self) -> Result<Parted, PartError> {
        let unclear = self.settle(holds_turn).await?;
        self.say(Word::Parted { unclear }).await?;
        // The host ends the session when it has heard; if it did not, its user sees that and parts alone.
        let _ended = timeout_at(Instant::now() + FAREWELL, self.session.ended()).await;
        Ok(Parted { peer: self.pair.peer_name.clone(), agreed: true, unclear })
    }

    /// Waits until no mail is as `open` says, or for as long as is seemly; how many are.
    async fn settle(&self, open: fn(&Machine) -> bool) -> Result<u32, PartError> {
        let until = Instant::now() + SETTLING;
        loop {
            let reader = self.reader.clone();
            let count = tokio::task::spawn_blocking(move || count(&reader, open)).await;
            let count = count.map_err(|error| PartError::Link(error.to_string()))??;
            if count == 0 || Instant::now() >= until {
                return Ok(count);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn say(&self, word: Word) -> Result<(), PartError> {
        let message = [&[CHANNEL_PARTING], word.encode().as_slice()].concat();
        self.session.send(message).await.map_err(|error| PartError::Link(error.to_string()))
    }

    async fn hear(&mut self) -> Result<Word, PartError> {
        let silent = || PartError::Link("it does not answer".to_owned());
        let heard = timeout_at(Instant::now() + ANSWER, self.heard.recv()).await;
        heard.map_err(|_| silent())?.ok_or_else(silent)
    }
}

/// Whether a copy may be sent from here, so that dropping it could lose what became of it.
pub(crate) fn holds_turn(machine: &Machine) -> bool {
    use CompanionState::{Dot, Sending, Turn, Unknown};
    matches!(machine, Machine::Companion(companion)
        if matches!(companion.state(), Turn { .. } | Sending { .. } | Dot { .. } | Unknown { .. }))
}

/// Ends the pair in this device's record and forgets what the other device lent. May be repeated.
///
/// With `agreed`, what is kept of vaults goes too: the host has what waits.
pub fn forget(home: &Home, agreed: bool) -> Result<(), PartError> {
    Pair::end(&home.pair())?;
    let gone = |error: io::Result<()>| match error {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PartError::Io(error)),
        _ => Ok(()),
    };
    gone(std::fs::remove_file(home.sealed_accounts()))?;
    for entry in std::fs::read_dir(home.state()).map_err(PartError::Io)? {
        let entry = entry.map_err(PartError::Io)?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(LENT_CERTIFICATE)) {
            gone(std::fs::remove_file(entry.path()))?;
        }
    }
    if agreed {
        gone(std::fs::remove_dir_all(home.shelf()))?;
    }
    Ok(())
}

fn count(reader: &Mutex<Reader>, open: fn(&Machine) -> bool) -> Result<u32, StoreError> {
    let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut count, mut after) = (0, 0);
    loop {
        let page = reader.mails_after(after, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        after = *last;
        for (_, mail) in &page {
            count += u32::from(reader.machine(mail)?.is_some_and(|machine| open(&machine)));
        }
    }
}

/// Why the two did not part.
#[derive(Debug, Error)]
pub enum PartError {
    /// The other device cannot be told.
    #[error("the other device cannot be told: {0}")]
    Link(String),
    /// The outbox cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record of the pair cannot be written.
    #[error(transparent)]
    Record(#[from] FileError),
    /// What the other device lent cannot be deleted.
    #[error("what the other device lent cannot be deleted")]
    Io(#[source] io::Error),
}

/// The link's channel for it.
pub(crate) const CHANNEL_PARTING: u8 = 5;

/// How the certificates of a host are called in the state of its companion, before a number.
pub(crate) const LENT_CERTIFICATE: &str = "host-authority-";

/// How long mails may take to be where they belong: longer than a try that fails, and less than people wait.
const SETTLING: Duration = Duration::from_secs(15);
/// How long the other device may take: as long as its mails do, and a little more.
const ANSWER: Duration = Duration::from_secs(25);
const FAREWELL: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const PAGE: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_were_written() {
        for word in [Word::LetUsPart, Word::WePart, Word::Parted { unclear: 0 }, Word::Parted { unclear: 70_000 }] {
            assert_eq!(Word::decode(&word.encode()), Some(word));
        }
        for nonsense in [&[][..], &[0], &[1, 1], &[3], &[3, 0, 0, 0], &[3, 0, 0, 0, 0, 0]] {
            assert_eq!(Word::decode(nonsense), None);
        }
    }

    #[test]
    fn what_was_lent_goes_with_the_pair() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path(), directory.path());
        home.prepare().unwrap();
        let pair = Pair {
            serial: 3,
            role: Role::Companion,
            peer: packetboat_core::keys::PublicKey([7; 32]),
            peer_name: "laptop".to_owned(),
            peer_addresses: Vec::new(),
            locals: Vec::new(),
        };
        pair.write(&home.pair()).unwrap();
        let certificate = home.state().join("host-authority-0.pem");
        for file in [&home.sealed_accounts(), &certificate, &home.state().join("key")] {
            std::fs::write(file, "x").unwrap();
        }
        std::fs::create_dir_all(home.shelf().join("x")).unwrap();
        forget(&home, false).unwrap();
        assert!(!home.sealed_accounts().exists() && !certificate.exists());
        assert!(home.shelf().exists() && home.state().join("key").exists());
        assert_eq!(Pair::read(&home.pair()).unwrap(), None);
        assert_eq!(Pair::last_serial(&home.pair()).unwrap(), 3, "numbers of a later pair are others");
        forget(&home, true).unwrap();
        assert!(!home.shelf().exists());
    }
}
