//! Recovery keys: 256 random bits that open a vault without its passphrase, and their form on paper.
//!
//! ```text
//! key 256 bits | checksum 19 bits  =  55 digits of 5 bits, in 11 groups of 5 joined by "-"
//! ```
//!
//! Digits are those of Crockford's base 32 (<https://www.crockford.com/base32.html>): no I, L, O or U.
//! Reading is as tolerant as that allows: case, spaces and dashes do not matter, O is 0, I and L are 1.
//! The checksum is the start of a BLAKE3 hash (derive-key context "packetboat 2026 recovery checksum");
//! of mistyped keys it lets one in half a million through, and the marker's sealed slot refuses that one.

use std::fmt;

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A key that opens a vault without its passphrase.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct RecoveryKey(pub [u8; 32]);

impl RecoveryKey {
    /// The key as people write it down: eleven groups of five digits.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(DIGITS + DIGITS / GROUP));
        for at in 0..DIGITS {
            if at > 0 && at % GROUP == 0 {
                text.push('-');
            }
            text.push(char::from(ALPHABET[usize::from(self.digit(at))]));
        }
        text
    }

    /// Reads a key that a person typed.
    pub fn from_text(text: &str) -> Result<Self, RecoveryTextError> {
        let mut digits = Zeroizing::new([0u8; DIGITS]);
        let mut found = 0;
        for character in text.chars().filter(|character| !is_separator(*character)) {
            let digit = digit_value(character).ok_or(RecoveryTextError::NotADigit { character })?;
            if let Some(place) = digits.get_mut(found) {
                *place = digit;
            }
            found += 1;
        }
        if found != DIGITS {
            return Err(RecoveryTextError::WrongLength { found });
        }
        let mut key = Self([0; 32]);
        for (at, digit) in digits.iter().enumerate() {
            for bit in (0..5).filter(|bit| digit >> (4 - bit) & 1 == 1) {
                let place = at * 5 + bit;
                if place < KEY_BITS {
                    key.0[place / 8] |= 0x80 >> (place % 8);
                }
            }
        }
        match (0..DIGITS).all(|at| key.digit(at) == digits[at]) {
            true => Ok(key),
            false => Err(RecoveryTextError::BadChecksum),
        }
    }

    /// The digit at a place, in 0..32.
    fn digit(&self, at: usize) -> u8 {
        let checksum = blake3::derive_key("packetboat 2026 recovery checksum", &self.0);
        (at * 5..at * 5 + 5).fold(0, |digit, place| {
            let (bytes, place) = if place < KEY_BITS { (&self.0, place) } else { (&checksum, place - KEY_BITS) };
            digit << 1 | (bytes[place / 8] >> (7 - place % 8) & 1)
        })
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey(..)")
    }
}

fn is_separator(character: char) -> bool {
    // People paste from mails and word processors, which turn dashes into these.
    character.is_whitespace() || matches!(character, '-' | '_' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

fn digit_value(character: char) -> Option<u8> {
    let digit = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let byte = u8::try_from(digit).ok()?;
    ALPHABET.iter().position(|known| *known == byte).map(|value| value as u8)
}

/// Why text is not a recovery key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecoveryTextError {
    /// A character that no recovery key holds.
    #[error("a recovery key has no character {character:?}")]
    NotADigit {
        /// The character.
        character: char,
    },
    /// Too few or too many digits.
    #[error("a recovery key has {DIGITS} characters besides dashes and spaces, and this has {found}")]
    WrongLength {
        /// How many there are.
        found: usize,
    },
    /// The digits do not fit together.
    #[error("the recovery key was not copied correctly: its checksum does not fit")]
    BadChecksum,
}

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const KEY_BITS: usize = 256;
const DIGITS: usize = 55;
const GROUP: usize = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_text_is_eleven_groups_of_five() {
        let text = RecoveryKey([0xa5; 32]).to_text();
        assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [5; 11]);
    }

    #[test]
    fn the_written_form_stays_as_it_was() {
        let key = RecoveryKey(std::array::from_fn(|at| at as u8));
        assert_eq!(*key.to_text(), FIXTURE);
    }

    #[test]
    fn what_people_confuse_is_read_as_meant() {
        let key = RecoveryKey([0; 32]);
        let typed = key.to_text().to_lowercase().replace('0', "o").replace('1', "l").replace('-', " \u{2014}\n");
        assert_eq!(RecoveryKey::from_text(&typed), Ok(key));
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        let text = RecoveryKey([7; 32]).to_text();
        assert_eq!(RecoveryKey::from_text(&text[1..]), Err(RecoveryTextError::WrongLength { found: 54 }));
        assert_eq!(RecoveryKey::from_text(""), Err(RecoveryTextError::WrongLength { found: 0 }));
        assert_eq!(
            RecoveryKey::from_text(&text.replacen('-', "u", 1)),
            Err(RecoveryTextError::NotADigit { character: 'u' })
        );
    }

    proptest! {
        #[test]
        fn keys_round_trip(bytes: [u8; 32]) {
            let key = RecoveryKey(bytes);
            prop_assert_eq!(RecoveryKey::from_text(&key.to_text()), Ok(key));
        }

        #[test]
        fn a_mistyped_digit_is_noticed(bytes: [u8; 32], at in 0..DIGITS, other in 0..32usize) {
            let text: Vec<u8> = RecoveryKey(bytes).to_text().bytes().filter(|b| *b != b'-').collect();
            prop_assume!(text[at] != ALPHABET[other]);
            let mut mistyped = text;
            mistyped[at] = ALPHABET[other];
            let read = RecoveryKey::from_text(std::str::from_utf8(&mistyped).unwrap());
            // One change in half a million has the same checksum; no fixed seed of this test may rest on that.
            prop_assert_ne!(read, Ok(RecoveryKey(bytes)));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = RecoveryKey::from_text(&text);
        }
    }

    #[test]
    fn a_swap_of_neighbours_has_a_bad_checksum() {
        let mut text: Vec<u8> = RecoveryKey(std::array::from_fn(|at| at as u8)).to_text().bytes().collect();
        text.swap(6, 7);
        assert_ne!(text[6], text[7]);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(RecoveryKey::from_text(&text), Err(RecoveryTextError::BadChecksum));
    }

    const FIXTURE: &str = "000G4-0R40M-30E20-9185G-R38E1-W8124-GK2GA-HC5RR-34D1P-70X3R-FP8BG";
}
