//! Line ends, line lengths and NUL: the bytes that servers may understand in different ways.
//!
//! SMTP smuggling (2023) rests on two programs that see the end of a line at different places.
//! After this filter there is one kind of line end, CR LF, and no other CR or LF.

use super::MessageError;

/// The longest line without its end, in bytes (RFC 5321, 4.5.3.1.6).
pub(super) const LINE_LIMIT: usize = 998;

/// What to do with a CR or LF that stands alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineEnds {
    /// The message is refused.
    Refuse,
    /// It ends a line, as it does for Unix programs.
    Normalise,
}

/// What to do with lines of more than 998 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LongLines {
    /// The message is refused.
    Refuse,
    /// They are broken, and the next line begins with a space, so that a field goes on. Postfix does the same.
    Break,
}

/// The filter. Bytes come in pieces of any size.
#[derive(Debug)]
pub(super) struct Lines {
    ends: LineEnds,
    long: LongLines,
    /// A CR was read, and what it is depends on the next byte.
    held_cr: bool,
    /// Bytes of the present line.
    length: usize,
}

impl Lines {
    pub(super) fn new(ends: LineEnds, long: LongLines) -> Self {
        Self { ends, long, held_cr: false, length: 0 }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), MessageError> {
        while !bytes.is_empty() {
            if self.held_cr {
                self.held_cr = false;
                match (bytes[0], self.ends) {
                    (b'\n', _) => bytes = &bytes[1..],
                    (_, LineEnds::Refuse) => return Err(MessageError::BareLineEnd),
                    (_, LineEnds::Normalise) => {}
                }
                self.end_line(out);
                continue;
            }
            let run = bytes.iter().position(|b| matches!(b, b'\r' | b'\n' | 0)).unwrap_or(bytes.len());
            self.append(&bytes[..run], out)?;
            match bytes.get(run) {
                None => return Ok(()),
                Some(b'\r') => self.held_cr = true,
                Some(b'\n') if self.ends == LineEnds::Normalise => self.end_line(out),
                Some(b'\n') => return Err(MessageError::BareLineEnd),
                Some(_) => return Err(MessageError::Nul),
            }
            bytes = &bytes[run + 1..];
        }
        Ok(())
    }

    /// Ends the last line, if nothing did.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        if self.held_cr && self.ends == LineEnds::Refuse {
            return Err(MessageError::BareLineEnd);
        }
        if self.held_cr || self.length > 0 {
            self.held_cr = false;
            self.end_line(out);
        }
        Ok(())
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.length = 0;
    }

    fn append(&mut self, mut run: &[u8], out: &mut Vec<u8>) -> Result<(), MessageError> {
        while self.length + run.len() > LINE_LIMIT {
            if self.long == LongLines::Refuse {
                return Err(MessageError::LongLine);
            }
            let mut cut = LINE_LIMIT - self.length;
            // A character of UTF-8 is not torn: it has at most three bytes that go on.
            for _ in 0..3 {
                if cut > 1 && cut < run.len() && run[cut] & 0xc0 == 0x80 {
                    cut -= 1;
                }
            }
            out.extend_from_slice(&run[..cut]);
            out.extend_from_slice(b"\r\n ");
            self.length = 1;
            run = &run[cut..];
        }
        out.extend_from_slice(run);
        self.length += run.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pass(ends: LineEnds, long: LongLines, pieces: &[&[u8]]) -> Result<Vec<u8>, MessageError> {
        let mut lines = Lines::new(ends, long);
        let mut out = Vec::new();
        for piece in pieces {
            lines.push(piece, &mut out)?;
        }
        lines.finish(&mut out)?;
        Ok(out)
    }

    #[test]
    fn a_cr_or_lf_alone_is_refused_wherever_pieces_are_cut() {
        let refuse = |pieces: &[&[u8]]| pass(LineEnds::Refuse, LongLines::Refuse, pieces);
        for pieces in
            [&[&b"a\nb\r\n"[..]][..], &[b"a\rb\r\n"], &[b"a\r", b"b\r\n"], &[b"a\r", b"\r\n"], &[b"a\r"], &[b"\n"]]
        {
            assert_eq!(refuse(pieces), Err(MessageError::BareLineEnd), "{pieces:?}");
        }
        assert_eq!(refuse(&[b"a\r", b"\nb"]), Ok(b"a\r\nb\r\n".to_vec()));
        assert_eq!(refuse(&[b"a\0"]), Err(MessageError::Nul));
    }

    #[test]
    fn the_line_ends_of_unix_and_of_old_macs_become_those_of_mail() {
        let made = pass(LineEnds::Normalise, LongLines::Break, &[b"a\nb\r\nc\rd\r", b"\n\n\r\re"]).unwrap();
        assert_eq!(made, b"a\r\nb\r\nc\r\nd\r\n\r\n\r\n\r\ne\r\n");
    }

    #[test]
    fn a_line_of_998_bytes_passes_and_a_longer_one_is_refused_or_broken() {
        let fits = vec![b'x'; 998];
        let long = "é".repeat(700);
        assert!(pass(LineEnds::Refuse, LongLines::Refuse, &[&fits, b"\r\n", &fits]).is_ok());
        assert_eq!(pass(LineEnds::Refuse, LongLines::Refuse, &[&fits, b"x"]), Err(MessageError::LongLine));
        let broken = pass(LineEnds::Normalise, LongLines::Break, &[b"Subject: x", long.as_bytes()]).unwrap();
        let broken = String::from_utf8(broken).unwrap();
        assert!(broken.lines().all(|line| line.len() <= 998));
        assert_eq!(broken.replace("\r\n ", ""), format!("Subject: x{long}\r\n"));
    }

    proptest! {
        #[test]
        fn normalised_lines_have_one_kind_of_end_and_lose_nothing_else(
            pieces in proptest::collection::vec("[ab\r\n]{0,12}|[a-z]{900,1100}", 0..8)
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            let made = pass(LineEnds::Normalise, LongLines::Break, &pieces).unwrap();
            let text = String::from_utf8(made).unwrap();
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
            prop_assert!(text.split("\r\n").all(|line| line.len() <= LINE_LIMIT));
            prop_assert!(text.is_empty() || text.ends_with("\r\n"));
            let letters = |text: &str| text.chars().filter(|c| c.is_ascii_lowercase()).collect::<String>();
            prop_assert_eq!(letters(&text), letters(&String::from_utf8(pieces.concat()).unwrap()));
        }
    }
}
