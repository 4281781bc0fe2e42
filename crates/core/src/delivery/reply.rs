//! What a server said of a recipient, and such replies for many recipients.
//!
//! A reply is kept as it came, for people and bounces; only the first digit of its code decides anything.
//! Servers write what they like, so texts are cut and control characters replaced when a reply is made.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use super::item::Recipients;
use crate::wire::{Reader, WireError, Writer};

/// An SMTP reply that ends a matter: 2xx, 4xx or 5xx.
///
/// Where no server was reached, the driver writes what happened as a reply of its own, such as `451 4.4.1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    text: String,
}

/// What a reply means for the recipient it is about (RFC 5321 4.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The server has taken responsibility for the mail.
    Accepted,
    /// Not now; the same may succeed later.
    Later,
    /// Never; the sender must be told.
    Refused,
}

impl Reply {
    /// A reply with its text cut to [`MAX_TEXT_BYTES`] and control characters replaced by spaces.
    pub fn new(code: u16, enhanced: Option<Enhanced>, text: &str) -> Result<Self, ReplyError> {
        if !matches!(code, 200..=299 | 400..=599) {
            return Err(ReplyError::Code { code });
        }
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut end = text.len().min(MAX_TEXT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Ok(Self { code, enhanced, text: text[..end].to_owned() })
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced status code, where the server gave one.
    pub fn enhanced(&self) -> Option<Enhanced> {
        self.enhanced
    }

    /// The text after the codes, in one line.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it means for the recipient.
    pub fn verdict(&self) -> Verdict {
        match self.code / 100 {
            2 => Verdict::Accepted,
            4 => Verdict::Later,
            _ => Verdict::Refused,
        }
    }

    /// Whether it says that the mail has too many recipients for one transaction (RFC 5321 4.5.3.1.10).
    ///
    /// A server without enhanced codes says the same where it lacks storage, which one more transaction then finds out.
    fn says_too_many_recipients(&self) -> bool {
        self.code == 452
            && self.enhanced.is_none_or(|enhanced| enhanced == Enhanced { class: 4, subject: 5, detail: 3 })
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.varint(u64::from(self.code));
        match self.enhanced {
            Some(Enhanced { class, subject, detail }) => {
                out.u8(1).u8(class).varint(u64::from(subject)).varint(u64::from(detail))
            }
            None => out.u8(0),
        };
        out.bytes(self.text.as_bytes());
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let number = |value: u64| u16::try_from(value).map_err(|_| WireError::Overflow);
        let code = number(input.varint()?)?;
        let enhanced = match input.u8()? {
            0 => None,
            1 => {
                let (class, subject, detail) = (input.u8()?, number(input.varint()?)?, number(input.varint()?)?);
                let enhanced = Enhanced::new(class, subject, detail);
                Some(enhanced.ok_or(WireError::Invalid { what: "enhanced status code" })?)
            }
            _ => return Err(WireError::NotCanonical),
        };
        let text = std::str::from_utf8(input.bytes(MAX_TEXT_BYTES)?);
        let text = text.map_err(|_| WireError::Invalid { what: "reply text" })?;
        let reply = Self::new(code, enhanced, text).map_err(|_| WireError::Invalid { what: "reply code" })?;
        // What `new` would have changed is not what it writes.
        if reply.text == text { Ok(reply) } else { Err(WireError::NotCanonical) }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

/// An enhanced status code (RFC 3463), such as 5.1.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Enhanced {
    class: u8,
    subject: u16,
    detail: u16,
}

impl Enhanced {
    /// A code of class 2, 4 or 5 whose other numbers have at most three digits.
    pub fn new(class: u8, subject: u16, detail: u16) -> Option<Self> {
        (matches!(class, 2 | 4 | 5) && subject <= 999 && detail <= 999).then_some(Self { class, subject, detail })
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// Replies by recipient.
///
/// Written with equal replies together, since a server that answers ten thousand recipients says little that is new:
///
/// ```text
/// count, per distinct reply in the order of its first recipient: reply, recipients
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Replies(BTreeMap<u32, Reply>);

impl Replies {
    /// No replies.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same reply for several recipients.
    pub fn all(recipients: &Recipients, reply: &Reply) -> Self {
        Self(recipients.iter().map(|recipient| (recipient, reply.clone())).collect())
    }

    /// Sets the reply for a recipient; a later one replaces an earlier one.
    pub fn set(&mut self, recipient: u32, reply: Reply) {
        self.0.insert(recipient, reply);
    }

    /// The reply for a recipient.
    pub fn of(&self, recipient: u32) -> Option<&Reply> {
        self.0.get(&recipient)
    }

    /// Recipients and replies in the order of the recipients.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Reply)> {
        self.0.iter().map(|(recipient, reply)| (*recipient, reply))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the server has taken the mail for some and wants those that are left in a transaction of their own.
    ///
    /// Each such transaction leaves fewer, so they come to an end.
    pub fn want_another_transaction(&self) -> bool {
        let mut left = self.iter().filter(|(_, reply)| reply.verdict() == Verdict::Later).peekable();
        left.peek().is_some()
            && left.all(|(_, reply)| reply.says_too_many_recipients())
            && self.iter().any(|(_, reply)| reply.verdict() == Verdict::Accepted)
    }

    /// The recipients of whom a reply has this meaning.
    pub fn with(&self, verdict: Verdict) -> Recipients {
        self.iter().filter(|(_, reply)| reply.verdict() == verdict).map(|(recipient, _)| recipient).collect()
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        let mut place = BTreeMap::new();
        let mut groups: Vec<(&Reply, Vec<u32>)> = Vec::new();
        for (recipient, reply) in self.iter() {
            let at = *place.entry(reply).or_insert_with(|| {
                groups.push((reply, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(recipient);
        }
        out.varint(groups.len() as u64);
        for (reply, recipients) in groups {
            reply.encode(out);
            recipients.into_iter().collect::<Recipients>().encode(out);
        }
    }

    pub(super) fn decode(input: &mut Reader<'_>, limit: usize) -> Result<Self, WireError> {
        let mut replies = BTreeMap::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut first_before = None;
        for _ in 0..input.count(4)? {
            let reply = Reply::decode(input)?;
            let recipients = Recipients::decode(input, limit)?;
            let first = recipients.iter().next().ok_or(WireError::NotCanonical)?;
            if first_before.is_some_and(|before| before >= first) || !seen.insert(reply.clone()) {
                return Err(WireError::NotCanonical);
            }
            first_before = Some(first);
            for recipient in recipients.iter() {
                if replies.insert(recipient, reply.clone()).is_some() {
                    return Err(WireError::NotCanonical);
                }
            }
        }
        Ok(Self(replies))
    }
}

impl FromIterator<(u32, Reply)> for Replies {
    fn from_iter<I: IntoIterator<Item = (u32, Reply)>>(replies: I) -> Self {
        Self(replies.into_iter().collect())
    }
}

/// Why something is no reply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// The code is none that ends a matter.
    #[error("{code} is not an SMTP reply code of 2xx, 4xx or 5xx")]
    Code {
        /// The code.
        code: u16,
    },
}

/// Most bytes of a reply's text that are kept.
pub const MAX_TEXT_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16, text: &str) -> Reply {
        Reply::new(code, None, text).unwrap()
    }

    #[test]
    fn only_the_first_digit_decides() {
        assert_eq!(reply(250, "ok").verdict(), Verdict::Accepted);
        assert_eq!(reply(421, "busy").verdict(), Verdict::Later);
        assert_eq!(reply(599, "no").verdict(), Verdict::Refused);
        for code in [0, 199, 300, 354, 399, 600, u16::MAX] {
            assert_eq!(Reply::new(code, None, ""), Err(ReplyError::Code { code }));
        }
    }

    #[test]
    fn a_hostile_text_is_cut_between_characters_and_stays_one_line() {
        let long = reply(550, &format!("a{}", "é".repeat(400)));
        assert_eq!(long.text().len(), MAX_TEXT_BYTES - 1);
        assert_eq!(reply(550, "a\r\nb\0c").text(), "a  b c");
    }

    #[test]
    fn a_text_that_could_not_have_been_written_is_refused() {
        let mut out = Writer::new();
        out.varint(550).u8(0).bytes(b"a\nb");
        assert_eq!(Reply::decode(&mut Reader::new(&out.finish())), Err(WireError::NotCanonical));
        let mut out = Writer::new();
        out.varint(354).u8(0).bytes(b"go");
        assert!(Reply::decode(&mut Reader::new(&out.finish())).is_err());
    }

    #[test]
    fn equal_replies_are_written_once() {
        let mut replies = Replies::all(&(0..10_000).collect(), &reply(250, "queued"));
        replies.set(5_000, reply(550, "no such user"));
        let mut out = Writer::new();
        replies.encode(&mut out);
        let bytes = out.finish();
        assert!(bytes.len() < 64, "{} bytes", bytes.len());
        assert_eq!(Replies::decode(&mut Reader::new(&bytes), 10_000), Ok(replies));
        assert!(Replies::decode(&mut Reader::new(&bytes), 9_999).is_err());
    }

    #[test]
    fn the_same_replies_in_another_order_are_refused() {
        let group = |out: &mut Writer, code, recipient| {
            reply(code, "").encode(out);
            [recipient].into_iter().collect::<Recipients>().encode(out);
        };
        for (codes, recipients) in [([250, 550], [1, 0]), ([250, 250], [0, 1]), ([250, 550], [0, 0])] {
            let mut out = Writer::new();
            out.varint(2);
            group(&mut out, codes[0], recipients[0]);
            group(&mut out, codes[1], recipients[1]);
            assert_eq!(Replies::decode(&mut Reader::new(&out.finish()), 2), Err(WireError::NotCanonical));
        }
    }
}
