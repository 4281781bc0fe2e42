//! The names under which conflict copies are shown: `name (conflict DEVICE DATE xxxx).ext`.
//!
//! They are views, the same on every replica, and are never published.

use crate::ids::Dot;
use crate::name::Name;

/// What a conflict name is made of, besides the name it stands beside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label<'a> {
    /// The name with which the device introduced itself.
    pub device: &'a str,
    /// Seconds since 1970 UTC.
    pub time: i64,
    /// What tells it from others: the version that began the branch, or the item.
    pub distinct: [u8; 32],
}

impl Label<'_> {
    /// The bytes that tell a branch from others.
    pub fn of_branch(began: &Dot) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("packetboat 2026 conflict name");
        hasher.update(&began.device.0).update(&began.counter.to_le_bytes());
        *hasher.finalize().as_bytes()
    }

    /// The name shown beside `base`, with `digits` hexadecimal digits of what tells it from others.
    ///
    /// A base too long for this is cut in its stem.
    pub fn name(&self, base: &Name, digits: usize) -> Name {
        let device: String = self
            .device
            .chars()
            .map(|c| if c.is_control() || matches!(c, '/' | '\\' | ':' | '(' | ')') { '-' } else { c })
            .take(MAX_DEVICE_CHARS)
            .collect();
        let hex = crate::hex::encode(&self.distinct);
        let (stem, extension) = split_extension(base.as_bytes());
        let tag = format!(" (conflict {device} {} {})", date(self.time), &hex[..digits.min(hex.len())]);
        let room = Name::MAX - tag.len() - extension.len();
        let mut cut = stem.len().min(room);
        // Do not cut within a UTF-8 character.
        while cut > 0 && cut < stem.len() && stem[cut] & 0xc0 == 0x80 {
            cut -= 1;
        }
        let mut bytes = stem[..cut].to_vec();
        bytes.extend_from_slice(tag.as_bytes());
        bytes.extend_from_slice(extension);
        Name::new(bytes).expect("a conflict name has room and no forbidden byte")
    }
}

/// The name beside which a conflict name stands, if `name` has the form of one and was not cut.
pub fn base_of(name: &Name) -> Option<Name> {
    let bytes = name.as_bytes();
    let open = find_last(bytes, b" (conflict ")?;
    let close = open + bytes[open..].iter().position(|b| *b == b')')?;
    let mut base = bytes[..open].to_vec();
    base.extend_from_slice(&bytes[close + 1..]);
    Name::new(base)
}

/// The last extension, if it is short and not the whole name.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|b| *b == b'.') {
        Some(at) if at > 0 && name.len() - at <= MAX_EXTENSION => name.split_at(at),
        _ => (name, &[]),
    }
}

fn find_last(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).rposition(|window| window == needle)
}

/// `YYYY-MM-DD` of a time in seconds since 1970 UTC, for years 0 to 9999; other times are clamped.
///
/// Source: H. Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
pub fn date(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400).clamp(-719_528, 2_932_896);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Longest part of a device's name that a conflict name shows, in characters.
const MAX_DEVICE_CHARS: usize = 24;
/// Longest extension that is kept at the end, in bytes with its dot.
const MAX_EXTENSION: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn label(device: &str) -> Label<'_> {
        Label { device, time: 1_795_000_000, distinct: [0xab; 32] }
    }

    #[test]
    fn the_extension_stays_at_the_end() {
        let label = label("laptop");
        assert_eq!(label.name(&name("todo.md"), 4), name("todo (conflict laptop 2026-11-18 abab).md"));
        assert_eq!(label.name(&name(".profile"), 4), name(".profile (conflict laptop 2026-11-18 abab)"));
        assert_eq!(label.name(&name("Makefile"), 6), name("Makefile (conflict laptop 2026-11-18 ababab)"));
    }

    #[test]
    fn a_conflict_name_leads_back_to_its_base() {
        for base in ["todo.md", ".profile", "Makefile", "a (b).txt", "x.tar.gz"] {
            assert_eq!(base_of(&label("my (old) box").name(&name(base), 4)), Some(name(base)), "{base}");
        }
        assert_eq!(base_of(&name("todo.md")), None);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let long = name(&format!("{}.txt", "ü".repeat(125)));
        let shown = label("laptop").name(&long, 4);
        assert!(shown.as_bytes().len() <= Name::MAX);
        assert!(std::str::from_utf8(shown.as_bytes()).is_ok());
    }

    #[test]
    fn dates_of_known_days() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(-1), "1969-12-31");
        assert_eq!(date(i64::MAX), "9999-12-31");
        assert_eq!(date(i64::MIN), "0000-01-01");
    }
}
