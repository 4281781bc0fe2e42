//! What a POP3 server answers, read from its lines.

/// The first line of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// `+OK`, with what follows.
    Ok(String),
    /// `-ERR`, with what follows.
    Refused(String),
    /// `+` and a challenge of SASL.
    Challenge,
}

impl Reply {
    /// Reads a line; nothing for what is no answer.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(line);
        let told = |rest: &str| rest.trim().chars().filter(|character| !character.is_control()).take(300).collect();
        let word = text.split(' ').next().unwrap_or_default();
        match word {
            "+OK" => Some(Self::Ok(told(&text[word.len()..]))),
            "-ERR" => Some(Self::Refused(told(&text[word.len()..]))),
            "+" => Some(Self::Challenge),
            _ => None,
        }
    }
}

/// A line of UIDL: the message's number in this session, and its unique id.
pub(super) fn parse_uidl(line: &[u8]) -> Option<(u32, &str)> {
    let (number, uidl) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let uidl = uidl.trim();
    let sound = (1..=70).contains(&uidl.len()) && uidl.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    sound.then_some((parse_number(number)?, uidl))
}

/// A line of LIST: the message's number in this session, and its size as the server counts.
pub(super) fn parse_listed(line: &[u8]) -> Option<(u32, u64)> {
    let mut parts = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let number = parse_number(parts.next()?)?;
    let size = parts.next()?;
    size.bytes().all(|byte| byte.is_ascii_digit()).then(|| Some((number, size.parse().ok()?)))?
}

fn parse_number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_read_as_the_standard_shows() {
        assert_eq!(Reply::parse(b"+OK 2 320"), Some(Reply::Ok("2 320".to_owned())));
        assert_eq!(Reply::parse(b"+OK"), Some(Reply::Ok(String::new())));
        assert_eq!(Reply::parse(b"-ERR [AUTH] no"), Some(Reply::Refused("[AUTH] no".to_owned())));
        assert_eq!(Reply::parse(b"+ "), Some(Reply::Challenge));
        assert_eq!(Reply::parse(b"+"), Some(Reply::Challenge));
        assert_eq!(Reply::parse(b"+OKAY"), None);
        assert_eq!(Reply::parse(b"* OK IMAP4rev1"), None);
        assert_eq!(parse_uidl(b"1 whqtswO00WBw418f9t5JxYwZ"), Some((1, "whqtswO00WBw418f9t5JxYwZ")));
        assert_eq!(parse_listed(b"2 200"), Some((2, 200)));
    }

    #[test]
    fn lines_that_lie_are_refused() {
        for line in [&b"0 a"[..], b"1 ", b"1", b" a", b"+1 a", b"1 a b", b"99999999999 a", b"1 \xff", b"1 a\x7f", b""] {
            assert_eq!(parse_uidl(line), None, "{line:?}");
        }
        assert_eq!(parse_uidl(format!("1 {}", "x".repeat(71)).as_bytes()), None);
        for line in [&b"1 -2"[..], b"1 99999999999999999999999", b"1", b"-1 2", b"1 +2"] {
            assert_eq!(parse_listed(line), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (Reply::parse(&line), parse_uidl(&line), parse_listed(&line));
        }

        #[test]
        fn what_a_server_lists_is_read(number in 1u32.., size in any::<u64>(), uidl in "[!-~]{1,70}") {
            prop_assert_eq!(parse_listed(format!("{number} {size}").as_bytes()), Some((number, size)));
            let line = format!("{number} {uidl}");
            prop_assert_eq!(parse_uidl(line.as_bytes()), Some((number, uidl.as_str())));
        }
    }
}
