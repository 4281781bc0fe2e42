//! What is fuzzed: one function for each parser, and for what is decided from what was parsed.
//!
//! A target takes any bytes and asserts what must hold of them: that nothing panics, that what was read is written again
//! byte for byte (a format has one encoding), that sizes are bounded, that one mail stays one mail.
//! It returns whether the bytes were understood, so that a run can tell a target which refuses everything from one that
//! gets somewhere.
//!
//! The same functions run twice: in `fuzz/`, where cargo-fuzz looks for new inputs for as long as one has patience, and
//! in `tests/corpus.rs`, where every build runs them over the kept inputs and some thousand mutations of them.
//! Targets are pure: the clock is the runtime's own and paused, keys are fixed, nothing touches disk or network.
//!
//! Left out: parsers that others keep (TLS, QUIC, SQLite, JSON, TOML).

pub mod delivery;
pub mod devices;
pub mod disk;
pub mod mail_in;
pub mod mail_out;
pub mod objects;
pub mod submission;
pub mod texts;
pub mod vault;

/// Whether a target could make something of its input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was read to its end.
    Understood,
    /// It was refused, as most bytes must be.
    Refused,
}

impl From<bool> for Outcome {
    fn from(understood: bool) -> Self {
        if understood { Self::Understood } else { Self::Refused }
    }
}

/// One thing that is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name of its file in `fuzz/fuzz_targets` and of its directory in `fuzz/corpus`.
    pub name: &'static str,
    /// Takes any bytes; panics where something does not hold.
    pub run: fn(&[u8]) -> Outcome,
    /// Inputs that are understood, made by the code that writes the format: they follow it when it changes.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), run: $module::$name, seeds: $module::seeds::$name }),*
        ];
    };
}

targets![
    objects::packet,
    objects::packet_body,
    objects::tip,
    objects::checkpoint,
    objects::segment,
    objects::marker,
    objects::members,
    objects::pack,
    objects::chunk,
    objects::chunk_list,
    objects::names,
    disk::index_rows,
    vault::fold_and_plan,
    delivery::delivery_frame,
    delivery::delivery_record,
    delivery::delivery_machines,
    devices::link_messages,
    devices::bulk_headers,
    devices::uid_catalogue,
    devices::comparison,
    devices::inbox_words,
    devices::relay_request,
    devices::relay_answer,
    devices::parting_words,
    devices::pairing_codes,
    devices::lent_accounts,
    devices::control_line,
    submission::submission,
    mail_out::smtp_session,
    mail_out::transmission,
    mail_out::bounce,
    mail_in::imap_session,
    mail_in::pop3_session,
    mail_in::mailbox_names,
    texts::sendmail_arguments,
    texts::sendmail_message,
    texts::addresses,
    texts::ignore_rules,
    texts::account_settings,
    texts::daemon_settings,
];

/// Splits an input at its first bytes that are `separator`.
fn split<'a>(input: &'a [u8], separator: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut rest = input;
    while let Some(at) = rest.windows(separator.len()).position(|window| window == separator) {
        parts.push(&rest[..at]);
        rest = &rest[at + separator.len()..];
    }
    parts.push(rest);
    parts
}

/// Runs a conversation whose deadlines pass as soon as nothing else happens.
fn in_no_time<T>(conversation: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without threads needs nothing")
        .block_on(conversation)
}
