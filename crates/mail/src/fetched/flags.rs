//! The flags of a message that IMAP and Maildir both have.

use std::fmt;
use std::ops::BitOr;

/// A set of flags.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u8);

impl Flags {
    /// Someone works on it.
    pub const DRAFT: Self = Self(1);
    /// Someone marked it.
    pub const FLAGGED: Self = Self(2);
    /// It was answered.
    pub const ANSWERED: Self = Self(4);
    /// It was read.
    pub const SEEN: Self = Self(8);
    /// It is to be deleted.
    pub const DELETED: Self = Self(16);

    /// Reads what [`Flags::bits`] gave; nothing for other bits.
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits < 32).then_some(Self(bits))
    }

    /// As a number, for a record.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The flag of an IMAP name; none for a keyword and for what Maildir has no letter for.
    pub fn from_imap(name: &str) -> Self {
        let known = TABLE.iter().find(|(_, _, known)| known.eq_ignore_ascii_case(name));
        known.map_or(Self::default(), |(flag, _, _)| *flag)
    }

    /// The letters of a Maildir name, in the order of their codes, as its specification asks.
    pub fn letters(self) -> String {
        TABLE.iter().filter(|(flag, _, _)| self.contains(*flag)).map(|(_, letter, _)| *letter).collect()
    }

    /// Whether all of `other` are in it.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Flags> for Flags {
    fn from_iter<I: IntoIterator<Item = Flags>>(flags: I) -> Self {
        flags.into_iter().fold(Self::default(), Self::bitor)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.letters())
    }
}

const TABLE: [(Flags, char, &str); 5] = [
    (Flags::DRAFT, 'D', "\\Draft"),
    (Flags::FLAGGED, 'F', "\\Flagged"),
    (Flags::ANSWERED, 'R', "\\Answered"),
    (Flags::SEEN, 'S', "\\Seen"),
    (Flags::DELETED, 'T', "\\Deleted"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_in_the_order_of_their_codes() {
        let flags: Flags =
            ["\\seen", "\\Deleted", "$Forwarded", "\\Recent", "\\Draft"].map(Flags::from_imap).into_iter().collect();
        assert_eq!(flags.letters(), "DST");
    }

    #[test]
    fn a_record_keeps_every_set_and_nothing_else() {
        assert!((0..32).all(|bits| Flags::from_bits(bits).is_some_and(|flags| flags.bits() == bits)));
        assert_eq!(Flags::from_bits(32), None);
    }
}
