//! Preparing a submitted message: what it must have before it is copied, and nothing else.
//!
//! A mail is sent by whichever device can, perhaps by both in turn, and both must send the same bytes.
//! So `Message-ID` and `Date` are put in here, before the message is stored, and never later.
//!
//! Invariants:
//! - What goes out has CR LF at the end of every line, the last included, no other CR or LF, and no NUL.
//!   Whoever writes it to a server needs dot-stuffing ([`dots`]) and no further look.
//! - Fields and body are kept byte for byte. `Bcc` and `Resent-Bcc` go, fields that are missing come first of all;
//!   for what Unix programs write, line ends are made CR LF and lines that no server need take are broken.
//! - Memory is flat: the header is held (it has a limit), the body passes through.
//!
//! Left out: `Received` (this is the sender's own computer, not a relay) and any change of encoding.

pub mod dots;
mod glance;
mod header;
mod lines;
mod stamp;

use thiserror::Error;

use crate::address::Address;
use crate::address_list::{AddressListError, parse_address_list};

pub use glance::Glance;
use header::Collector;
use lines::Lines;
pub use lines::{LineEnds, LongLines};
pub use stamp::{Moment, Stamp, format_date};

/// What is done to a message on its way in.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What to do with a CR or LF that stands alone.
    pub line_ends: LineEnds,
    /// What to do with lines longer than RFC 5321 lets a server expect.
    pub long_lines: LongLines,
    /// The longest header, in bytes.
    pub header_limit: usize,
    /// The longest message, in bytes.
    pub message_limit: u64,
    /// The domain of addresses that have none.
    pub origin: String,
    /// Collect recipients from `To`, `Cc` and `Bcc`: `sendmail -t`.
    pub recipients_from_header: bool,
    /// What stands in a `From` field that is put in where there is none, such as `Ann <ann@example.org>`.
    pub from: Option<String>,
    /// Pass over a first line `From ann ...`, and put the empty line in that ends a header, where it is missing.
    pub unix_program: bool,
}

impl Rules {
    /// For what comes over SMTP: a mail program has made it, so what is wrong with it is refused.
    pub fn port(origin: impl Into<String>, message_limit: u64) -> Self {
        Self {
            line_ends: LineEnds::Refuse,
            long_lines: LongLines::Refuse,
            header_limit: HEADER_LIMIT,
            message_limit,
            origin: origin.into(),
            recipients_from_header: false,
            from: None,
            unix_program: false,
        }
    }

    /// For what a Unix program pipes into `sendmail`: lines end in LF, and headers may be missing.
    pub fn unix_program(origin: impl Into<String>, message_limit: u64) -> Self {
        Self {
            line_ends: LineEnds::Normalise,
            long_lines: LongLines::Break,
            unix_program: true,
            ..Self::port(origin, message_limit)
        }
    }
}

/// A message on its way in: what arrives is pushed, what is to be stored is appended to a buffer.
pub struct Preparation {
    rules: Rules,
    stamp: Stamp,
    lines: Lines,
    /// The header until its end was seen.
    header: Option<Collector>,
    canonical: Vec<u8>,
    prepared: Prepared,
}

/// What is known of a message once it has passed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Prepared {
    /// Its `Message-ID`, with the angle brackets.
    pub message_id: String,
    /// The recipients that its header names, where they were asked for; each once.
    pub recipients: Vec<Address>,
    /// Its size in bytes as stored.
    pub size: u64,
    /// Whether any byte is above 127, so that the next server should know 8BITMIME.
    pub eight_bit: bool,
}

impl Preparation {
    /// Begins a message.
    pub fn new(rules: Rules, stamp: Stamp) -> Self {
        let lines = Lines::new(rules.line_ends, rules.long_lines);
        Self {
            rules,
            stamp,
            lines,
            header: Some(Collector::default()),
            canonical: Vec::new(),
            prepared: Prepared::default(),
        }
    }

    /// Takes some bytes, and appends to `out` what is to be stored of the message so far.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), MessageError> {
        self.canonical.clear();
        self.lines.push(bytes, &mut self.canonical)?;
        self.pass(out)
    }

    /// Ends the message.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Prepared, MessageError> {
        self.canonical.clear();
        self.lines.finish(&mut self.canonical)?;
        self.pass(out)?;
        if let Some(header) = self.header.take() {
            self.end_header(header, out)?;
        }
        Ok(self.prepared)
    }

    /// Passes on what stands in `canonical`.
    fn pass(&mut self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        match self.header.take() {
            None => {
                self.prepared.eight_bit |= !self.canonical.is_ascii();
                self.count(self.canonical.len())?;
                out.extend_from_slice(&self.canonical);
            }
            Some(mut header) => {
                header.push(&self.canonical, self.rules.unix_program);
                if header.has_ended() {
                    self.end_header(header, out)?;
                } else if header.len() > self.rules.header_limit {
                    return Err(MessageError::HeaderTooLong { limit: self.rules.header_limit });
                } else {
                    self.header = Some(header);
                }
            }
        }
        Ok(())
    }

    /// Writes the header as it is to be stored, and what was read beyond it.
    fn end_header(&mut self, header: Collector, out: &mut Vec<u8>) -> Result<(), MessageError> {
        let before = out.len();
        if header.header_len() > self.rules.header_limit {
            return Err(MessageError::HeaderTooLong { limit: self.rules.header_limit });
        }
        let message_id = header.value("message-id").filter(|id| !id.is_empty());
        if self.rules.recipients_from_header {
            self.prepared.recipients = self.recipients(&header)?;
        }
        let mut drop = vec!["bcc", "resent-bcc"];
        match message_id {
            Some(id) => self.prepared.message_id = id,
            None => {
                // A field that is there and empty would stand beside the new one.
                drop.push("message-id");
                self.prepared.message_id = self.stamp.message_id();
                out.extend_from_slice(format!("Message-ID: {}\r\n", self.prepared.message_id).as_bytes());
            }
        }
        if header.value("date").is_none_or(|date| date.is_empty()) {
            drop.push("date");
            out.extend_from_slice(format!("Date: {}\r\n", format_date(self.stamp.moment)).as_bytes());
        }
        if let Some(from) = &self.rules.from
            && header.value("from").is_none()
            && header.value("resent-from").is_none()
        {
            out.extend_from_slice(format!("From: {from}\r\n").as_bytes());
        }
        header.write(&drop, out);
        if !header.has_blank_line() && (self.rules.unix_program || header.is_without_fields()) {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(header.beyond());
        // Of what is sent: a field that is left out needs no server that takes eight bits.
        self.prepared.eight_bit |= !out[before..].is_ascii();
        self.count(out.len() - before)
    }

    /// The recipients of `To`, `Cc` and `Bcc`; of a mail sent on again, of their `Resent-` counterparts.
    fn recipients(&self, header: &Collector) -> Result<Vec<Address>, MessageError> {
        const FIRST: [&str; 3] = ["to", "cc", "bcc"];
        const AGAIN: [&str; 3] = ["resent-to", "resent-cc", "resent-bcc"];
        let fields = if AGAIN.iter().any(|name| header.value(name).is_some()) { AGAIN } else { FIRST };
        let mut recipients: Vec<Address> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for name in fields {
            for value in header.values(name) {
                let addresses = parse_address_list(&value, &self.rules.origin)
                    .map_err(|source| MessageError::Recipients { field: name, source })?;
                recipients.extend(addresses.into_iter().filter(|address| seen.insert(address.clone())));
            }
        }
        Ok(recipients)
    }

    fn count(&mut self, more: usize) -> Result<(), MessageError> {
        self.prepared.size += more as u64;
        if self.prepared.size > self.rules.message_limit {
            return Err(MessageError::TooLong { limit: self.rules.message_limit });
        }
        Ok(())
    }
}

/// Why a message is not taken. All of these are the message's own fault: sending it again changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum MessageError {
    /// SMTP smuggling, or a program that forgot to convert its line ends.
    #[error("the message has a CR or LF that stands alone")]
    BareLineEnd,
    /// Neither 7-bit nor 8-bit mail may hold it (RFC 6152).
    #[error("the message has a NUL byte")]
    Nul,
    /// RFC 5321, 4.5.3.1.6.
    #[error("the message has a line of more than {} bytes", lines::LINE_LIMIT)]
    LongLine,
    /// The header does not end.
    #[error("the header is longer than {limit} bytes")]
    HeaderTooLong {
        /// In bytes.
        limit: usize,
    },
    /// Larger than what is taken.
    #[error("the message is longer than {limit} bytes")]
    TooLong {
        /// In bytes.
        limit: u64,
    },
    /// A field that names recipients cannot be read.
    #[error("the field {field:?} cannot be read")]
    Recipients {
        /// Its name in small letters.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: AddressListError,
    },
}

/// Ten thousand recipients with their names need about one MiB.
const HEADER_LIMIT: usize = 4 << 20;

#[cfg(test)]
mod tests;
