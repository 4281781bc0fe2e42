//! Either machine of a mail, so that store and courier need not care on which side of the pair they are.

use std::sync::Arc;

use packetboat_core::delivery::{Companion, Effect, Event, Host, Item, ItemNumber, Moment, Now, Settings};
use packetboat_core::ids::MailId;
use packetboat_core::wire::WireError;

/// The machine of a mail on this device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Machine {
    /// The mail was submitted here.
    Host(Host),
    /// The mail is a copy for the other device.
    Companion(Companion),
}

/// Which machine a mail has here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The host's: it was submitted here.
    Own,
    /// The companion's: it is a copy.
    Copy,
}

impl Machine {
    /// Reads a saved state.
    pub fn decode(side: Side, item: Arc<Item>, bytes: &[u8]) -> Result<Self, WireError> {
        match side {
            Side::Own => Host::decode(item, bytes).map(Self::Host),
            Side::Copy => Companion::decode(item, bytes).map(Self::Companion),
        }
    }

    /// Writes the state.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Host(host) => host.encode(),
            Self::Companion(companion) => companion.encode(),
        }
    }

    /// Tells the machine what happened.
    pub fn handle(&mut self, event: Event, now: &Now, settings: &Settings) -> Vec<Effect> {
        match self {
            Self::Host(host) => host.handle(event, now, settings),
            Self::Companion(companion) => companion.handle(event, now, settings),
        }
    }

    /// When it wants [`Event::Timer`].
    pub fn wake(&self, settings: &Settings) -> Option<Moment> {
        match self {
            Self::Host(host) => host.wake(),
            Self::Companion(companion) => companion.wake(settings),
        }
    }

    /// Which machine it is.
    pub fn side(&self) -> Side {
        match self {
            Self::Host(_) => Side::Own,
            Self::Companion(_) => Side::Copy,
        }
    }

    /// The mail.
    pub fn item(&self) -> &Arc<Item> {
        match self {
            Self::Host(host) => host.item(),
            Self::Companion(companion) => companion.item(),
        }
    }

    /// The mail's id.
    pub fn id(&self) -> MailId {
        self.item().id()
    }

    /// The mail's number in the pair, if it has one.
    pub fn number(&self) -> Option<ItemNumber> {
        match self {
            Self::Host(host) => host.number(),
            Self::Companion(companion) => Some(companion.number()),
        }
    }
}
