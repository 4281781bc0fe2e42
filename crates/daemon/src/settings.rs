//! What a user may set in `daemon.toml`, and what holds where the file says nothing.
//!
//! Every setting has a default, so the file may be missing or empty. A key that is not known is refused with its line,
//! because a misspelt one that is passed over would be found on the day it matters.
//! [`DOCUMENTED`] is the file as `packetboat run --print-settings` shows it: each setting with its meaning and default.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use packetboat_core::delivery::{self, UnknownPolicy};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use thiserror::Error;

use crate::files;

/// All settings of a daemon.
#[derive(Clone, PartialEq, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The port that mail programs submit to.
    pub submission: Submission,
    /// Mail out.
    pub outbox: Outbox,
    /// The connection to the other device.
    pub link: Link,
    /// Mail in.
    pub inbox: Inbox,
    /// Vaults that are carried for the host.
    pub relay: Relay,
}

/// The port that mail programs submit to.
#[derive(Clone, PartialEq, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Submission {
    /// Where it listens; nowhere, where the list is empty.
    pub listen: Vec<SocketAddr>,
    /// Whether addresses that other computers reach are allowed.
    pub beyond_loopback: bool,
    /// Whether a mail program on this computer must give the token; elsewhere it always must.
    pub require_token: bool,
    /// Whether programs on this computer are offered STARTTLS; elsewhere they always must begin it.
    pub starttls: bool,
    /// The PEM file of a certificate and those that signed it, relative to the configuration; empty for one that is made.
    pub certificate: String,
    /// The PEM file of its key.
    pub key: String,
    /// Further names by which programs know this computer, for a certificate that is made.
    pub names: Vec<String>,
    /// The largest mail, in bytes.
    pub message_limit: u64,
}

/// Mail out.
#[derive(Clone, PartialEq, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outbox {
    /// How long a connection to a server may take to stand.
    pub connect: Span,
    /// How long a server may take to answer the final dot.
    pub answer: Span,
    /// How long the companion may use a turn.
    pub lease: Span,
    /// How much longer the host waits than that.
    pub margin: Span,
    /// How long a mail is tried before it bounces.
    pub lifetime: Span,
    /// After how long the sender is told that a mail is late.
    pub delay_warning: Span,
    /// The wait after the first round of tries.
    pub backoff_first: Span,
    /// The longest wait between rounds.
    pub backoff_max: Span,
    /// What to do with a mail of which nobody can say whether it was accepted.
    pub unknown: Unknown,
    /// How long the host waits for word of the companion before that applies.
    pub peer_patience: Span,
    /// How long the companion waits for the answer to a request.
    pub request_patience: Span,
    /// How long a sent mail may take to be seen in Sent.
    pub sent_settle: Span,
    /// The wait before an unacknowledged message to the other device is sent again.
    pub resend: Span,
    /// How many connections to one account's server there may be at once.
    pub connections: usize,
    /// Whether a copy of what was delivered is filed in Sent, by IMAP.
    pub file_in_sent: bool,
    /// The accounts whose provider files in Sent what it takes, so that Sent says what went out.
    pub provider_files_sent: Vec<String>,
}

/// The connection to the other device.
#[derive(Clone, PartialEq, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// How often something is sent over an idle link.
    pub keep_alive: Span,
    /// After how long without a sign of the other device the link counts as down.
    pub idle: Span,
    /// The longest wait between tries to connect.
    pub retry: Span,
}

/// Mail in.
#[derive(Clone, PartialEq, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Inbox {
    /// The Maildir; `~/` stands for the home directory.
    pub maildir: String,
    /// How often servers that cannot notify are asked.
    pub poll: Span,
}

/// Vaults that are carried for the host.
#[derive(Clone, PartialEq, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// How much may be kept of them, in bytes: what waits to be put up, and copies as far as there is room.
    pub space: u64,
    /// How often it is tried to put up what waits.
    pub retry: Span,
    /// How often this device's own replicas are brought in step, and what is new is looked for.
    pub poll: Span,
    /// Whether what the host may lack is fetched before it asks.
    pub pull: bool,
    /// Whether the vaults of this device's own replicas are carried, and the replicas brought in step.
    pub members: bool,
}

/// What to do with a mail of which nobody can say whether it was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// Send it again with the same Message-ID.
    Retry,
    /// Hold it until the user says.
    Hold,
}

impl Default for Submission {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 2525))],
            beyond_loopback: false,
            require_token: false,
            starttls: false,
            certificate: String::new(),
            key: String::new(),
            names: Vec::new(),
            message_limit: 100 << 20,
        }
    }
}

impl Default for Outbox {
    fn default() -> Self {
        let core = delivery::Settings::default();
        Self {
            connect: Span(Duration::from_secs(15)),
            answer: Span(core.answer),
            lease: Span(core.lease),
            margin: Span(core.margin),
            lifetime: Span(core.lifetime),
            delay_warning: Span(core.delay_warning),
            backoff_first: Span(core.backoff_first),
            backoff_max: Span(core.backoff_max),
            unknown: Unknown::Retry,
            peer_patience: Span(core.peer_patience),
            request_patience: Span(core.request_patience),
            sent_settle: Span(core.sent_settle),
            resend: Span(core.resend_first),
            connections: 4,
            file_in_sent: false,
            provider_files_sent: Vec::new(),
        }
    }
}

impl Default for Link {
    fn default() -> Self {
        Self {
            keep_alive: Span(Duration::from_secs(5)),
            idle: Span(Duration::from_secs(15)),
            retry: Span(Duration::from_secs(30)),
        }
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self { maildir: "~/Mail".to_owned(), poll: Span(Duration::from_secs(300)) }
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            space: 10 << 30,
            retry: Span(Duration::from_secs(30)),
            poll: Span(Duration::from_secs(300)),
            pull: true,
            members: true,
        }
    }
}

impl Settings {
    /// Reads the file of settings; the defaults, where there is none.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let failed = |source| SettingsError::Io { path: path.to_owned(), source };
        let Some(bytes) = files::read_if_there(path).map_err(failed)? else { return Ok(Self::default()) };
        let text = String::from_utf8(bytes);
        let text = text.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        Self::parse(&text).map_err(|error| error.in_file(path))
    }

    /// Reads settings from text.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let settings: Self = toml::from_str(text)
            .map_err(|source| SettingsError::Syntax { path: PathBuf::new(), message: source.to_string() })?;
        settings.check()?;
        Ok(settings)
    }

    /// What the delivery machines go by.
    pub fn delivery(&self) -> delivery::Settings {
        let outbox = &self.outbox;
        delivery::Settings {
            answer: outbox.answer.0,
            lease: outbox.lease.0,
            margin: outbox.margin.0,
            lifetime: outbox.lifetime.0,
            delay_warning: outbox.delay_warning.0,
            backoff_first: outbox.backoff_first.0,
            backoff_max: outbox.backoff_max.0,
            peer_patience: outbox.peer_patience.0,
            request_patience: outbox.request_patience.0,
            sent_settle: outbox.sent_settle.0,
            resend_first: outbox.resend.0,
            file_in_sent: outbox.file_in_sent,
            unknown: match outbox.unknown {
                Unknown::Retry => UnknownPolicy::Retry,
                Unknown::Hold => UnknownPolicy::Hold,
            },
            ..delivery::Settings::default()
        }
    }

    /// The Maildir, for a user with this home directory.
    pub fn maildir(&self, home_directory: Option<&Path>) -> PathBuf {
        match (self.inbox.maildir.strip_prefix("~/"), home_directory) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(&self.inbox.maildir),
        }
    }

    fn check(&self) -> Result<(), SettingsError> {
        let refuse =
            |key, reason: &str| Err(SettingsError::Value { path: PathBuf::new(), key, reason: reason.to_owned() });
        let outbox = &self.outbox;
        if let Err(error) = self.delivery().check() {
            return refuse(key_of(error.setting()), &error.to_string());
        }
        for (key, span) in [
            ("outbox.connect", outbox.connect),
            ("link.keep_alive", self.link.keep_alive),
            ("link.retry", self.link.retry),
            ("inbox.poll", self.inbox.poll),
            ("relay.retry", self.relay.retry),
            ("relay.poll", self.relay.poll),
        ] {
            if span.0.is_zero() {
                return refuse(key, "it must be longer than nothing");
            }
            if span.0 > LONGEST_WAIT {
                return refuse(key, "it must be at most a year");
            }
        }
        if self.link.idle.0 < self.link.keep_alive.0.saturating_mul(2) {
            return refuse("link.idle", "it must be at least twice link.keep_alive");
        }
        if outbox.connections == 0 || outbox.connections > 64 {
            return refuse("outbox.connections", "it must be from 1 to 64");
        }
        if self.submission.certificate.is_empty() != self.submission.key.is_empty() {
            return refuse("submission.certificate", "a certificate and its key are named together, or neither");
        }
        let beyond = self.submission.listen.iter().find(|address| !address.ip().is_loopback());
        if let Some(address) = beyond.filter(|_| !self.submission.beyond_loopback) {
            let reason = format!("{address} can be reached from other computers; set submission.beyond_loopback");
            return refuse("submission.listen", &reason);
        }
        Ok(())
    }
}

/// Where a setting of the machines stands in the file; what has no key there is never wrong.
fn key_of(setting: &str) -> &'static str {
    const KEYS: [&str; 11] = [
        "outbox.answer",
        "outbox.lease",
        "outbox.margin",
        "outbox.lifetime",
        "outbox.delay_warning",
        "outbox.backoff_first",
        "outbox.backoff_max",
        "outbox.peer_patience",
        "outbox.request_patience",
        "outbox.sent_settle",
        "outbox.resend",
    ];
    KEYS.into_iter().find(|key| key.strip_prefix("outbox.") == Some(setting)).unwrap_or("outbox")
}

/// A duration as people write it: a number and `ms`, `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span(pub Duration);

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let milliseconds = match unit.trim_start() {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(milliseconds).map(|total| Self(Duration::from_millis(total)))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"90s\", \"15m\" or \"5d\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Why settings cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings in {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is no TOML, or has a key or a value that means nothing here; the message shows the line.
    #[error("the settings in {} mean nothing:\n{message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the line.
        message: String,
    },
    /// A value cannot work.
    #[error("the setting {key} in {} cannot be used: {reason}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which setting.
        key: &'static str,
        /// Why not.
        reason: String,
    },
}

impl SettingsError {
    fn in_file(mut self, file: &Path) -> Self {
        let (Self::Io { path, .. } | Self::Syntax { path, .. } | Self::Value { path, .. }) = &mut self;
        *path = file.to_owned();
        self
    }
}

/// What waits longer never acts, and clocks cannot add up just anything.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Every setting with its meaning and its default.
pub const DOCUMENTED: &str = include_str!("daemon.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_documented_is_the_default() {
        let uncommented: String = DOCUMENTED
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(setting) if setting.split(' ').nth(1) == Some("=") => setting,
                _ => line,
            })
            .fold(String::new(), |text, line| text + line + "\n");
        assert_eq!(Settings::parse(&uncommented).unwrap(), Settings::default());
        assert_eq!(Settings::parse(DOCUMENTED).unwrap(), Settings::default());
        let keys = uncommented.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
        assert_eq!(keys, 8 + 16 + 3 + 2 + 5, "each field of the settings is documented");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = Settings::parse("[outbox]\nlease = \"20m\"\nleese = \"1s\"\n").unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("leese"), "{error}");
    }

    #[test]
    fn values_that_cannot_work_are_refused() {
        for (text, word) in [
            ("[outbox]\nlease = \"9m\"", "setting outbox.lease "),
            ("[outbox]\nlease = \"630s\"", "setting outbox.lease "),
            ("[outbox]\nanswer = \"20m\"", "make it longer, or answer shorter"),
            ("[outbox]\nanswer = \"0s\"", "setting outbox.answer "),
            ("[outbox]\nmargin = \"0s\"", "setting outbox.margin "),
            ("[outbox]\nlifetime = \"0s\"", "setting outbox.lifetime "),
            ("[outbox]\nlifetime = \"30m\"", "setting outbox.backoff_max "),
            ("[outbox]\nbackoff_first = \"0ms\"", "setting outbox.backoff_first "),
            ("[outbox]\nbackoff_first = \"2h\"", "setting outbox.backoff_first "),
            ("[outbox]\nrequest_patience = \"0s\"", "setting outbox.request_patience "),
            ("[outbox]\nresend = \"0s\"", "setting outbox.resend "),
            ("[outbox]\nresend = \"6m\"", "setting outbox.resend "),
            ("[outbox]\nsent_settle = \"4000d\"", "setting outbox.sent_settle "),
            ("[outbox]\nconnect = \"4000d\"", "setting outbox.connect "),
            ("[outbox]\nconnect = \"0s\"", "setting outbox.connect "),
            ("[outbox]\nconnections = 0", "outbox.connections"),
            ("[outbox]\nlease = \"90\"", "duration"),
            ("[outbox]\nlease = \"99999999999999999999d\"", "duration"),
            ("[outbox]\nunknown = \"perhaps\"", "perhaps"),
            ("[submission]\nlisten = [\"0.0.0.0:25\"]", "submission.listen"),
            ("[submission]\ncertificate = \"a.pem\"", "submission.certificate"),
            ("[link]\nidle = \"6s\"", "link.idle"),
        ] {
            let error = Settings::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text:?}: {error}");
        }
        assert!(Settings::parse("[submission]\nlisten = [\"0.0.0.0:25\"]\nbeyond_loopback = true").is_ok());
    }

    #[test]
    fn a_missing_file_is_the_defaults() {
        assert_eq!(Settings::read(Path::new("/nowhere/daemon.toml")).unwrap(), Settings::default());
    }

    #[test]
    fn the_maildir_lies_in_the_home_directory() {
        let settings = Settings::default();
        assert_eq!(settings.maildir(Some(Path::new("/home/a"))), Path::new("/home/a/Mail"));
    }
}
