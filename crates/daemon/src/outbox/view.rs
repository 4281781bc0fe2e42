//! A mail as people see it: where it is, whose turn it is, and how the tries on each path went.
//!
//! The words here are the ones that scripts read, so a word that is there keeps its meaning.

use packetboat_core::delivery::{
    Certainty, CompanionState, GrantEnd, Host, HostState, Lease, Now, Path, Reply, Stage, Status, Wish,
};
use serde::{Deserialize, Serialize};

use super::machine::{Machine, Side};

/// A mail as people see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MailView {
    /// Its id, 32 hexadecimal digits.
    pub id: String,
    /// Its number in the pair.
    pub number: Option<u64>,
    /// Whether it was submitted here or is a copy.
    pub side: Side,
    /// The envelope's sender.
    pub sender: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it was submitted, in milliseconds since 1970; not known of a copy.
    pub submitted_ms: Option<u64>,
    /// One word: where it stands.
    pub state: String,
    /// Whose turn it is: `host`, `companion`, or nothing where that is over or not known.
    pub turn: Option<String>,
    /// Whether the user holds it.
    pub held: bool,
    /// When something is done next without anybody doing anything, in milliseconds since 1970.
    pub next_ms: Option<u64>,
    /// Whether the companion has a copy.
    pub copied: bool,
    /// How often it was tried on this device.
    pub attempts: u32,
    /// What has become of each recipient.
    pub recipients: Vec<RecipientView>,
    /// What is known of each path.
    pub paths: Vec<PathView>,
    /// When it was finished, in milliseconds since 1970.
    pub finished_ms: Option<u64>,
    /// What a person can do about it, filled in where it is shown ([`advice`](super::advice)).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// What has become of a recipient.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecipientView {
    /// Who.
    pub address: String,
    /// One word: `waiting`, `sent`, `found-in-sent`, `refused`, `expired`, `bounced`, `cancelled`, `perhaps-sent`.
    pub status: String,
    /// What the server said.
    pub reply: Option<String>,
    /// By which path: `host` or `companion`.
    pub path: Option<String>,
}

/// How the tries on a path went.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PathView {
    /// `host` or `companion`.
    pub path: String,
    /// How many tries failed.
    pub failures: u32,
    /// Why the last one did.
    pub last_failure: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

impl MailView {
    /// A mail as its machine has it.
    pub fn of(machine: &Machine, paths: Vec<PathView>, wake_ms: Option<u64>) -> Self {
        let item = machine.item();
        let mut view = Self {
            id: item.id().to_string(),
            number: machine.number(),
            side: machine.side(),
            sender: item.sender().as_str().to_owned(),
            size_bytes: item.size_bytes(),
            submitted_ms: None,
            state: String::new(),
            turn: None,
            held: false,
            next_ms: wake_ms,
            copied: false,
            attempts: 0,
            recipients: Vec::new(),
            paths,
            finished_ms: None,
            hints: Vec::new(),
        };
        match machine {
            Machine::Host(host) => view.fill_from_host(host),
            Machine::Companion(companion) => {
                let (state, turn) = companion_words(companion.state());
                view.state = state.to_owned();
                view.turn = turn.map(str::to_owned);
                view.copied = true;
                view.attempts = companion.attempts();
                for (place, address) in (0..).zip(item.recipients()) {
                    let reply = companion.replies().of(place);
                    view.recipients.push(RecipientView {
                        address: address.as_str().to_owned(),
                        status: if companion.remaining().contains(place) { "waiting" } else { "settled" }.to_owned(),
                        reply: reply.map(Reply::to_string),
                        path: reply.map(|_| "companion".to_owned()),
                    });
                }
            }
        }
        view
    }

    /// The same while no daemon runs: a try that its last state speaks of is over, and what it came to is found out when
    /// one runs again.
    pub fn at_rest(mut self) -> Self {
        match self.state.as_str() {
            "sending" => self.state = "waiting".to_owned(),
            "ending" => (self.state, self.turn) = ("unknown".to_owned(), None),
            _ => {}
        }
        self
    }

    fn fill_from_host(&mut self, host: &Host) {
        let (state, turn) = host_words(host.state());
        self.state = state.to_owned();
        self.turn = turn.map(str::to_owned);
        self.submitted_ms = Some(host.submitted_ms());
        self.held = host.wish() == Wish::Hold || matches!(host.state(), HostState::Unknown { stage: Stage::Held, .. });
        self.copied = host.copy() == packetboat_core::delivery::CopyState::Held;
        self.attempts = host.attempts();
        let statuses = host.item().recipients().iter().zip(host.statuses());
        self.recipients = statuses.map(|(address, status)| recipient(address.as_str(), status)).collect();
    }
}

fn recipient(address: &str, status: &Status) -> RecipientView {
    let (word, reply, path) = match status {
        Status::Waiting { last } => ("waiting", last.as_ref(), None),
        Status::Delivered { reply, path } => ("sent", Some(reply), Some(*path)),
        Status::FoundInSent => ("found-in-sent", None, None),
        Status::Refused { reply, path } => ("refused", Some(reply), Some(*path)),
        Status::Expired { last } => ("expired", last.as_ref(), None),
        Status::Bounced { reply } => ("bounced", reply.as_ref(), None),
        Status::Cancelled { certainty: Certainty::NotSent } => ("cancelled", None, None),
        Status::Cancelled { certainty: Certainty::PerhapsSent } => ("perhaps-sent", None, None),
    };
    RecipientView {
        address: address.to_owned(),
        status: word.to_owned(),
        reply: reply.map(Reply::to_string),
        path: path.map(|path| path_word(path).to_owned()),
    }
}

/// The word for a path.
pub fn path_word(path: Path) -> &'static str {
    match path {
        Path::Host => "host",
        Path::Companion => "companion",
    }
}

fn host_words(state: &HostState) -> (&'static str, Option<&'static str>) {
    match state {
        HostState::Turn { .. } => ("waiting", Some("host")),
        HostState::Sending { .. } => ("sending", Some("host")),
        HostState::Dot { .. } => ("ending", Some("host")),
        HostState::Granted { end: GrantEnd::Never { .. }, .. } => ("handed-over", Some("companion")),
        HostState::Granted { .. } => ("granted", Some("companion")),
        HostState::Unknown { stage: Stage::Held, .. } => ("asks-you", None),
        HostState::Unknown { .. } => ("unknown", None),
        HostState::Settling => ("settling", None),
        HostState::Closing => ("closing", None),
        HostState::Closed => ("finished", None),
    }
}

fn companion_words(state: &CompanionState) -> (&'static str, Option<&'static str>) {
    match state {
        CompanionState::Standby => ("kept", Some("host")),
        CompanionState::Requested { .. } => ("asking", Some("host")),
        CompanionState::Turn { lease, .. } => match lease {
            Lease::TakenOver { .. } => ("taken-over", Some("companion")),
            _ => ("waiting", Some("companion")),
        },
        CompanionState::Sending { .. } => ("sending", Some("companion")),
        CompanionState::Dot { .. } => ("ending", Some("companion")),
        CompanionState::Unknown { stage: Stage::Held, .. } => ("asks-you", None),
        CompanionState::Unknown { .. } => ("unknown", None),
        CompanionState::Returned { .. } => ("returned", Some("host")),
        CompanionState::Done => ("done", None),
        CompanionState::Closed => ("finished", None),
    }
}

/// The wall clock's time of a moment of this boot.
pub fn wall_ms(moment: packetboat_core::delivery::Moment, now: &Now) -> u64 {
    now.wall_ms.saturating_add(moment.since_boot_ms.saturating_sub(now.since_boot_ms))
}
