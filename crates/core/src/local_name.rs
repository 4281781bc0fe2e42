//! Names that stand in for those a file system cannot hold.
//!
//! Such a name is this disk's own: the index keeps which name it stands for, so nothing needs to be read back from it,
//! and others go on seeing the real one. [`stand_ins`] offers a few, each safer and less like the original than the one
//! before; the caller takes the first that the file system accepts.
//!
//! ```text
//! a:b.txt          a%3Ab.txt            bytes that FAT, NTFS or SMB refuse
//! NUL.txt          NU%4C.txt            names of devices, which Windows takes with any extension
//! notes.           notes%2E             a dot or space at the end
//! A.txt, a.txt     a~1f2e3d4c.txt       a name that differs in case or normal form only
//! ```

use crate::name::Name;

/// Names to try for one that the file system refuses, nearest first; none is the name itself.
pub fn stand_ins(name: &Name) -> Vec<Name> {
    let safe = escape(name.as_bytes(), is_unsafe);
    let plain = escape(name.as_bytes(), |byte| !(byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
    let (mark, longer) = (mark_of(name, 4), mark_of(name, 8));
    let mut found = Vec::new();
    for bytes in [
        safe.clone(),
        marked(&safe, &mark, ROOM),
        marked(&safe, &mark, SHORT),
        marked(&plain, &mark, SHORT),
        // Something may have the one before for its real name, as when a stand-in was copied to another folder.
        marked(&plain, &longer, SHORT),
    ] {
        if let Some(candidate) = Name::new(bytes)
            && candidate != *name
            && !found.contains(&candidate)
        {
            found.push(candidate);
        }
    }
    found
}

/// Names to try for one that the file system takes for another's, nearest first.
pub fn distinct(name: &Name) -> Vec<Name> {
    let mark = mark_of(name, 4);
    stand_ins(name).into_iter().filter(|candidate| contains(candidate.as_bytes(), mark.as_bytes())).collect()
}

fn is_unsafe(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f || b"<>:\"\\|?*".contains(&byte)
}

/// Escapes what is refused, what is not UTF-8, a dot or space at the end, and the names of devices.
fn escape(name: &[u8], refused: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            push(&mut out, byte, refused(byte));
        }
        for byte in chunk.invalid() {
            push(&mut out, *byte, true);
        }
    }
    if let Some(last @ (b'.' | b' ')) = out.last().copied() {
        out.pop();
        push(&mut out, last, true);
    }
    let stem = out.iter().position(|byte| *byte == b'.').unwrap_or(out.len());
    if is_device(&out[..stem]) {
        let escaped = format!("%{:02X}", out[stem - 1]);
        out.splice(stem - 1..stem, escaped.into_bytes());
    }
    out
}

fn push(out: &mut Vec<u8>, byte: u8, escaped: bool) {
    if escaped {
        out.extend_from_slice(format!("%{byte:02X}").as_bytes());
    } else {
        out.push(byte);
    }
}

fn is_device(stem: &[u8]) -> bool {
    let upper = stem.to_ascii_uppercase();
    match upper.as_slice() {
        b"CON" | b"PRN" | b"AUX" | b"NUL" => true,
        [a, b, c, b'1'..=b'9'] => matches!([*a, *b, *c].as_slice(), b"COM" | b"LPT"),
        _ => false,
    }
}

/// `stem~xxxxxxxx.ext`, at most `room` bytes long; the digits are a hash of the real name.
fn marked(safe: &[u8], mark: &str, room: usize) -> Vec<u8> {
    let (stem, extension) = match safe.iter().rposition(|byte| *byte == b'.') {
        Some(at) if at > 0 && safe.len() - at <= MAX_EXTENSION => safe.split_at(at),
        _ => (safe, &[][..]),
    };
    let mut cut = stem.len().min(room - mark.len() - extension.len());
    // Do not cut within a UTF-8 character.
    while cut > 0 && cut < stem.len() && stem[cut] & 0xc0 == 0x80 {
        cut -= 1;
    }
    [&stem[..cut], mark.as_bytes(), extension].concat()
}

/// A tilde and so many bytes of the hash of a name.
fn mark_of(name: &Name, bytes: usize) -> String {
    let hash = blake3::derive_key("packetboat 2026 local name", name.as_bytes());
    format!("~{}", crate::hex::encode(&hash[..bytes]))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Longest stand-in in bytes.
const ROOM: usize = Name::MAX;
/// Longest stand-in where the file system holds shorter names: eCryptfs takes 143 bytes, some others 255 UTF-16 units.
const SHORT: usize = 100;
/// Longest extension that is kept at the end, in bytes with its dot.
const MAX_EXTENSION: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bytes: &[u8]) -> Name {
        Name::new(bytes).unwrap()
    }

    #[test]
    fn what_other_systems_refuse_is_escaped() {
        for (from, to) in [
            (&b"a:b.txt"[..], "a%3Ab.txt"),
            (b"NUL.txt", "NU%4C.txt"),
            (b"com7", "com%37"),
            (b"notes.", "notes%2E"),
            (b"end ", "end%20"),
            (b"\xff", "%FF"),
            (b"tab\there", "tab%09here"),
        ] {
            assert_eq!(stand_ins(&name(from))[0], name(to.as_bytes()), "{from:?}");
        }
    }

    #[test]
    fn names_that_fold_into_one_get_different_stand_ins() {
        let (upper, lower) = (distinct(&name(b"A.txt")), distinct(&name(b"a.txt")));
        assert_ne!(upper[0].as_bytes().to_ascii_lowercase(), lower[0].as_bytes().to_ascii_lowercase());
        assert!(lower[0].as_bytes().ends_with(b".txt"));
    }

    #[test]
    fn a_long_name_has_a_short_stand_in_cut_between_characters() {
        let long = name(format!("{}.txt", "ü".repeat(125)).as_bytes());
        let short = stand_ins(&long);
        let last = short.last().unwrap().as_bytes();
        assert!(last.len() <= SHORT && std::str::from_utf8(last).is_ok());
        assert!(short.iter().all(|candidate| std::str::from_utf8(candidate.as_bytes()).is_ok()));
    }
}
