//! Addresses of an envelope: checked once, at the edge, and kept as they were written.
//!
//! What a program wrote between `<` and `>` goes to the next server unchanged: quotes are not taken off, because
//! `"a> SIZE=1"@example.org` without them is an address and a command.
//! An [`Address`] therefore never holds a control character, nor a space or bracket outside quotes,
//! and can be put into a command line without a further look.
//! Whether the domain exists or anybody lives there is for the server that delivers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A mailbox: a local part, quoted if it was, `@`, and a domain or address literal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    text: String,
    at: usize,
}

/// Who hears of a failure: `MAIL FROM`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum ReversePath {
    /// `<>`: the mail is itself a report, and no report is ever made of it.
    Null,
    /// A mailbox.
    Mailbox(Address),
}

impl Address {
    /// The longest address that is taken, in bytes: 64 for the local part and 255 for the domain, and the `@`.
    pub const LONGEST: usize = 320;

    /// Checks and wraps an address such as `ann@example.org`.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > Self::LONGEST {
            return Err(AddressError::TooLong);
        }
        let rest = local_part(text)?;
        let at = text.len() - rest.len();
        let Some(domain) = rest.strip_prefix('@') else {
            return Err(if rest.is_empty() { AddressError::NoDomain } else { AddressError::Forbidden });
        };
        check_domain(domain)?;
        Ok(Self { text: text.to_owned(), at })
    }

    /// As [`Address::parse`], but a name without a domain is one at `origin`, as `root` in the mail of cron is.
    pub fn qualify(text: &str, origin: &str) -> Result<Self, AddressError> {
        match Self::parse(text) {
            Err(AddressError::NoDomain) => Self::parse(&format!("{text}@{origin}")),
            other => other,
        }
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What follows the `@`.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// Whether the address needs SMTPUTF8 (RFC 6531).
    pub fn is_international(&self) -> bool {
        !self.text.is_ascii()
    }

    /// Whether two addresses reach one mailbox as far as one can tell: domains are compared without case.
    pub fn same_mailbox(&self, other: &Self) -> bool {
        self.text[..self.at] == other.text[..other.at] && self.domain().eq_ignore_ascii_case(other.domain())
    }
}

impl ReversePath {
    /// The mailbox, where there is one.
    pub fn mailbox(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Mailbox(address) => Some(address),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// With the brackets, as a command has it.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Mailbox(address) => write!(f, "<{address}>"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.text
    }
}

/// Why a text is no address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AddressError {
    /// Nothing stands before the `@`.
    #[error("the address has nothing before the @")]
    NoLocalPart,
    /// There is no `@`.
    #[error("the address has no domain")]
    NoDomain,
    /// What follows the `@` is no domain.
    #[error("the address has an impossible domain")]
    Domain,
    /// A space, a bracket, a control character or the like stands outside quotes.
    #[error("the address has a character that needs quotes")]
    Forbidden,
    /// A quote is not closed.
    #[error("the address has an open quote")]
    OpenQuote,
    /// Longer than any address that a server would take.
    #[error("the address is longer than {} bytes", Address::LONGEST)]
    TooLong,
}

/// Passes over a local part and returns what follows it.
fn local_part(text: &str) -> Result<&str, AddressError> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut characters = quoted.char_indices();
        while let Some((position, character)) = characters.next() {
            match character {
                '"' if position == 0 => return Err(AddressError::NoLocalPart),
                '"' => return Ok(&quoted[position + 1..]),
                '\\' => match characters.next() {
                    Some((_, ' '..='~')) => {}
                    _ => return Err(AddressError::Forbidden),
                },
                character if character.is_control() => return Err(AddressError::Forbidden),
                _ => {}
            }
        }
        return Err(AddressError::OpenQuote);
    }
    // Dots are allowed anywhere: addresses with two in a row exist, and are delivered.
    let end = text.find(|c: char| !is_atom(c) && c != '.').unwrap_or(text.len());
    match end {
        0 if text.is_empty() || text.starts_with('@') => Err(AddressError::NoLocalPart),
        0 => Err(AddressError::Forbidden),
        end => Ok(&text[end..]),
    }
}

fn check_domain(domain: &str) -> Result<(), AddressError> {
    let sound = if let Some(literal) = domain.strip_prefix('[') {
        literal.strip_suffix(']').is_some_and(|inner| {
            !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'-'))
        })
    } else {
        let label = |part: &str| {
            !part.is_empty()
                && part.chars().all(|c| {
                    c.is_ascii_alphanumeric()
                        || c == '-'
                        || c == '_'
                        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
                })
        };
        domain.len() <= 255 && domain.strip_suffix('.').unwrap_or(domain).split('.').all(label)
    };
    if sound { Ok(()) } else { Err(AddressError::Domain) }
}

fn is_atom(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(character)
        || (!character.is_ascii() && !character.is_control() && !character.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_kept_as_they_were_written() {
        for text in [
            "ann@example.org",
            "Ann.O'Neil+tag@Example.ORG",
            "\"a b\"@example.org",
            "\"a> SIZE=1 \\\" @\"@example.org",
            "two..dots.@docomo.example",
            "root@localhost",
            "ann@[192.0.2.1]",
            "ann@[IPv6:2001:db8::1]",
            "grün@exämple.org",
        ] {
            assert_eq!(Address::parse(text).map(|a| a.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(Address::parse("\"a@b\"@example.org").unwrap().domain(), "example.org");
    }

    #[test]
    fn what_could_end_a_command_is_refused() {
        for (text, error) in [
            ("", AddressError::NoLocalPart),
            ("@example.org", AddressError::NoLocalPart),
            ("\"\"@example.org", AddressError::NoLocalPart),
            ("ann", AddressError::NoDomain),
            ("ann@", AddressError::Domain),
            ("ann@a..b", AddressError::Domain),
            ("ann@a b", AddressError::Domain),
            ("ann@a>", AddressError::Domain),
            ("ann@[1.2.3.4]x", AddressError::Domain),
            ("a b@example.org", AddressError::Forbidden),
            ("a>b@example.org", AddressError::Forbidden),
            ("a\r\nRCPT@example.org", AddressError::Forbidden),
            ("\"a\r\nb\"@example.org", AddressError::Forbidden),
            ("\"a\\\u{7}\"@example.org", AddressError::Forbidden),
            ("\"a@example.org", AddressError::OpenQuote),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Address::parse(&format!("{}@example.org", "a".repeat(400))), Err(AddressError::TooLong));
    }

    #[test]
    fn a_bare_name_is_at_the_origin() {
        assert_eq!(Address::qualify("root", "laptop.test").unwrap().as_str(), "root@laptop.test");
        assert_eq!(Address::qualify("ann@b.test", "laptop.test").unwrap().as_str(), "ann@b.test");
        assert_eq!(Address::qualify("two words", "laptop.test"), Err(AddressError::Forbidden));
    }

    #[test]
    fn domains_compare_without_case_and_local_parts_with_it() {
        let address = |text: &str| Address::parse(text).unwrap();
        assert!(address("ann@example.org").same_mailbox(&address("ann@EXAMPLE.org")));
        assert!(!address("ann@example.org").same_mailbox(&address("Ann@example.org")));
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_safe_in_a_command(text in "\\PC{0,40}|[a-z\"\\\\@ <>\r\n\0.\\[\\]]{0,20}") {
            if let Ok(address) = Address::parse(&text) {
                prop_assert_eq!(address.as_str(), text.as_str());
                prop_assert!(!text.chars().any(char::is_control));
                let outside: String = text.split('"').step_by(2).collect();
                if !text.contains('\\') {
                    prop_assert!(!outside.contains([' ', '<', '>']), "{}", text);
                }
            }
        }
    }
}
