//! Names for messages in a Maildir that no other delivery chooses, on this host or on another.
//!
//! ```text
//! 1763772061.M482913P4711Q18R9f3c6a51d20b7e44.host
//! seconds    micros process count random
//! ```
//!
//! Time alone does not make it unique (clocks go back), nor process and count (they begin again): the random part does,
//! and the others let a person see when and by whom.
//! A record keeps the name before the file has it, so that after a crash the file is known again by it.

use std::fmt;
use std::time::{Duration, SystemTime};

/// The part of a message's file name that never changes; mail readers append flags to it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UniqueName(String);

impl UniqueName {
    /// Reads a name as a record keeps it; nothing for what could not be the name of a message's file.
    pub fn parse(name: &str) -> Option<Self> {
        let sound = !name.is_empty()
            && name.len() <= MAXIMUM_LENGTH
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'));
        sound.then(|| Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a file in `new` or `cur` is this message, whatever was appended to its name.
    pub fn names(&self, file_name: &str) -> bool {
        file_name
            .strip_prefix(self.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ',', ';', '!']))
    }
}

impl fmt::Display for UniqueName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Makes unique names for one process.
#[derive(Debug)]
pub struct UniqueNames {
    host: String,
    process: u32,
    random: u64,
    made: u64,
}

impl UniqueNames {
    /// Names for this host and process; `random` is new for every start of it.
    pub fn new(host: &str, process: u32, random: u64) -> Self {
        // The Maildir specification asks for these two; the rest is what a file name cannot hold or a reader misreads.
        let escaped = host.chars().flat_map(|character| match character {
            '/' => "\\057".chars().collect::<Vec<_>>(),
            ':' => "\\072".chars().collect(),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => vec![character],
            _ => vec!['_'],
        });
        let host: String = escaped.take(HOST_LENGTH).collect();
        Self { host: if host.is_empty() { "localhost".to_owned() } else { host }, process, random, made: 0 }
    }

    /// The next name, for a message that arrived at `now`.
    pub fn next(&mut self, now: SystemTime) -> UniqueName {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (seconds, micros) = (since.as_secs(), since.subsec_micros());
        self.made += 1;
        let (process, made, random, host) = (self.process, self.made, self.random, &self.host);
        UniqueName(format!("{seconds}.M{micros}P{process}Q{made}{MARK}{random:016x}.{host}"))
    }
}

/// Whether a file's name was made here, by this start or an earlier one.
pub(super) fn is_ours(file_name: &str, host: &str) -> bool {
    let mut parts = file_name.splitn(3, '.');
    let seconds = parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let middle = parts.next().and_then(|part| part.strip_prefix('M')?.split_once(MARK));
    let ours = middle.is_some_and(|(counts, random)| {
        counts.contains('P')
            && counts.contains('Q')
            && random.len() == 16
            && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    seconds && ours && parts.next() == Some(host)
}

impl UniqueNames {
    /// The host as it stands in names.
    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

/// Sets the random part off from the count before it.
const MARK: char = 'R';

/// A file name has 255 bytes; mail readers append size and flags.
const MAXIMUM_LENGTH: usize = 200;

const HOST_LENGTH: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_tells_when_and_by_whom() {
        let mut names = UniqueNames::new("ship.example", 4711, 0x9f3c);
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(1_763_772_061_482_913);
        assert_eq!(names.next(now).as_str(), "1763772061.M482913P4711Q1R0000000000009f3c.ship.example");
        assert!(names.next(now).as_str().contains("Q2R"));
    }

    #[test]
    fn a_message_is_known_with_flags_and_without() {
        let name = UniqueName::parse("17.M1P1Q1R0000000000000001.h").unwrap();
        assert!(name.names("17.M1P1Q1R0000000000000001.h"));
        assert!(name.names("17.M1P1Q1R0000000000000001.h:2,S"));
        assert!(name.names("17.M1P1Q1R0000000000000001.h,S=12:2,"));
        assert!(!name.names("17.M1P1Q1R0000000000000001.h2:2,S"));
        assert!(!name.names("17.M1P1Q1R000000000000000"));
    }

    #[test]
    fn only_names_made_here_are_ours() {
        let mut names = UniqueNames::new("h", 1, 1);
        assert!(is_ours(names.next(SystemTime::UNIX_EPOCH).as_str(), "h"));
        for other in ["1763772061.M1P2.h", "1763772061.4711_1.h", "x", "", "1.M1P1Q1R0000000000000001.other"] {
            assert!(!is_ours(other, "h"), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_host_makes_names_that_can_be_read_again(host in any::<String>(), random in any::<u64>(), micros in any::<u32>()) {
            let mut names = UniqueNames::new(&host, 1, random);
            let name = names.next(SystemTime::UNIX_EPOCH + Duration::from_micros(micros.into()));
            prop_assert_eq!(UniqueName::parse(name.as_str()), Some(name.clone()));
            prop_assert!(is_ours(name.as_str(), names.host()));
        }
    }
}
