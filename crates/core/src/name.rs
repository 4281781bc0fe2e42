//! Names and paths as bytes: what one directory entry is called, and the way to it from the root.

use std::fmt;

/// The name of one entry in a directory: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
///
/// Names are bytes, as file systems have them; nothing folds their case or normal form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Greatest length in bytes.
    pub const MAX: usize = 255;

    /// Checks and wraps a name.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        let sound = !bytes.is_empty()
            && bytes.len() <= Self::MAX
            && !bytes.contains(&b'/')
            && !bytes.contains(&0)
            && bytes != b"."
            && bytes != b"..";
        sound.then(|| Self(bytes.into_boxed_slice()))
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A path from a vault's root: names joined by `/`; the empty path is the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Vec<u8>);

impl RelPath {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Checks and wraps a path; refuses empty, `.` and `..` parts and a leading or trailing `/`.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if !bytes.is_empty() && !bytes.split(|b| *b == b'/').all(|part| Name::new(part).is_some()) {
            return None;
        }
        Some(Self(bytes.to_vec()))
    }

    /// The path of an entry within this directory.
    pub fn join(&self, name: &Name) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.0.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(&name.0);
        Self(bytes)
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory it lies in, and its name there; `None` for the root.
    pub fn split(&self) -> Option<(RelPath, Name)> {
        let cut = self.0.iter().rposition(|b| *b == b'/');
        let (parent, name) = match cut {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&self.0[..0], &self.0[..]),
        };
        Some((Self(parent.to_vec()), Name::new(name)?))
    }

    /// The names from the root down.
    pub fn names(&self) -> impl Iterator<Item = Name> + '_ {
        self.0.split(|b| *b == b'/').filter_map(Name::new)
    }

    /// The path's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str(".") } else { show(&self.0, f) }
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Shows bytes as text a terminal can take: what is not printable UTF-8 is escaped as `\xNN`.
fn show(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert!(Name::new(bad).is_none(), "{bad:?}");
        }
        assert!(Name::new(vec![b'a'; 256]).is_none());
        assert!(Name::new(b"\xff\xfe".to_vec()).is_some());
    }

    #[test]
    fn a_path_splits_into_what_it_was_joined_from() {
        let name = Name::new(*b"c").unwrap();
        let path = RelPath::new(b"a/b").unwrap().join(&name);
        assert_eq!(path.as_bytes(), b"a/b/c");
        assert_eq!(path.split(), Some((RelPath::new(b"a/b").unwrap(), name)));
        assert_eq!(RelPath::root().split(), None);
        assert!(RelPath::new(b"a//b").is_none());
        assert!(RelPath::new(b"../b").is_none());
    }

    #[test]
    fn names_are_shown_without_control_characters() {
        assert_eq!(Name::new(b"a\x1b[2J\xff\n".to_vec()).unwrap().to_string(), "a\\u{1b}[2J\\xff\\n");
    }
}
