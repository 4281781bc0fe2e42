//! Words of commands that messages tell people to run, as a POSIX shell reads them.

use std::fmt::Write;

/// A word that a shell takes for exactly these bytes: as it is where nothing in it means anything to a shell, else quoted.
///
/// What does not print is written by numbers (`$'\012'`), so that a name from elsewhere does nothing to a terminal either.
pub fn word(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./:@%+,=-".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => by_numbers(bytes),
    }
}

fn by_numbers(bytes: &[u8]) -> String {
    let mut text = "$'".to_owned();
    let number = |text: &mut String, byte: &u8| {
        let _ = write!(text, "\\{byte:03o}");
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => text.extend(['\\', c]),
                c if c.is_control() => c.encode_utf8(&mut [0; 4]).as_bytes().iter().for_each(|b| number(&mut text, b)),
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| number(&mut text, byte));
    }
    text + "'"
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_word_is_quoted_only_where_a_shell_needs_it() {
        let cases: [(&[u8], &str); 9] = [
            (b"notes/todo.md", "notes/todo.md"),
            (b"my file.txt", "'my file.txt'"),
            (b"", "''"),
            (b"it's", r"'it'\''s'"),
            (b"a (conflict laptop 2026-11-23 1f2e).txt", "'a (conflict laptop 2026-11-23 1f2e).txt'"),
            (b"~", "'~'"),
            (b"$HOME`ls`\\", "'$HOME`ls`\\'"),
            ("für".as_bytes(), "'für'"),
            (b"a\nit's\\ \xff7\x1b[2J", r"$'a\012it\'s\\ \3777\033[2J'"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(word(bytes), expected);
        }
    }

    #[test]
    fn a_shell_reads_every_byte_back() {
        let all: Vec<u8> = (1..=255).collect();
        for bytes in [&all[..], "'\u{85}ü \\'".as_bytes(), b"\x01" as &[u8], b"it's \\n"] {
            let read = Command::new("bash").args(["-c", &format!("printf %s {}", word(bytes))]).output();
            // Not every POSIX shell knows `$'…'` yet; where there is none that does, the cases above have to do.
            let Ok(read) = read else { return };
            assert_eq!(read.stdout, bytes);
        }
    }
}
