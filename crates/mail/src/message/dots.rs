//! Dot-stuffing (RFC 5321, 4.5.2), both ways, in pieces of any size.
//!
//! The end of a message on the wire is `CR LF . CR LF` and nothing else.
//! A reader that also takes `LF . LF`, or `LF . CR LF`, can be made to see two messages where the writer meant one,
//! the second with an envelope of the attacker's choice (SMTP smuggling).
//! [`DotDecoder::strict`] sees one; what stands alone in it is refused by the [rules](super::Rules).
//! [`DotDecoder::lenient`] is for programs on the same computer that speak SMTP through a pipe and end lines with LF;
//! they can send whatever they like anyway.

/// Doubles the dot at the beginning of a line. What passes through must have CR LF at the end of its lines.
#[derive(Debug)]
pub struct DotEncoder {
    at_line_start: bool,
}

impl Default for DotEncoder {
    fn default() -> Self {
        Self { at_line_start: true }
    }
}

impl DotEncoder {
    /// Appends `bytes` to `out`, with dots doubled.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.at_line_start && bytes[0] == b'.' {
                out.push(b'.');
            }
            let line = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
            out.extend_from_slice(&bytes[..line]);
            self.at_line_start = bytes[line - 1] == b'\n';
            bytes = &bytes[line..];
        }
    }

    /// Whether what has passed ends in a whole line, so that the final dot can follow.
    pub fn is_at_line_start(&self) -> bool {
        self.at_line_start
    }
}

/// Finds the end of a message and takes away doubled dots.
#[derive(Debug)]
pub struct DotDecoder {
    lenient: bool,
    state: State,
}

/// What was read last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    LineStart,
    Dot,
    DotCr,
    Cr,
    Text,
}

impl DotDecoder {
    /// Lines end in CR LF only.
    pub fn strict() -> Self {
        Self { lenient: false, state: State::LineStart }
    }

    /// Lines end in LF, with or without CR.
    pub fn lenient() -> Self {
        Self { lenient: true, state: State::LineStart }
    }

    /// Appends what of `bytes` belongs to the message; returns how many bytes were read if the message ended in them.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let mut position = 0;
        while position < bytes.len() {
            if self.state == State::Text {
                // Most bytes are here: go to the next one that matters.
                let run = bytes[position..].iter().position(|b| matches!(b, b'\r' | b'\n'));
                let end = run.map_or(bytes.len(), |run| position + run);
                out.extend_from_slice(&bytes[position..end]);
                position = end;
                if position == bytes.len() {
                    break;
                }
            }
            let byte = bytes[position];
            position += 1;
            let ends_line = byte == b'\n' && (self.lenient || matches!(self.state, State::Cr | State::DotCr));
            match (self.state, byte) {
                (State::DotCr, b'\n') => return Some(position),
                (State::Dot, b'\n') if self.lenient => return Some(position),
                (State::Dot, b'\r') => {
                    self.state = State::DotCr;
                    continue;
                }
                (State::LineStart, b'.') => {
                    self.state = State::Dot;
                    continue;
                }
                // The CR after a dot was not the end: it belongs to the message.
                (State::DotCr, _) => out.push(b'\r'),
                _ => {}
            }
            out.push(byte);
            self.state = match byte {
                _ if ends_line => State::LineStart,
                b'\r' => State::Cr,
                _ => State::Text,
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(mut decoder: DotDecoder, pieces: &[&[u8]]) -> (Vec<u8>, Option<usize>) {
        let mut out = Vec::new();
        for piece in pieces {
            if let Some(read) = decoder.push(piece, &mut out) {
                return (out, Some(read));
            }
        }
        (out, None)
    }

    #[test]
    fn only_a_dot_between_two_whole_line_ends_ends_a_message() {
        for smuggled in [
            "a\n.\n",
            "a\n.\r\n",
            "a\r.\r\n",
            "a\r.\r",
            "a\r\n.\n",
            "a\r\n.\r",
            "a\r\n.\rb\r\n",
            "a\n.\r",
            "\r\n..\r\n",
        ] {
            let (_, end) = decode(DotDecoder::strict(), &[smuggled.as_bytes()]);
            assert_eq!(end, None, "{smuggled:?}");
        }
        assert_eq!(decode(DotDecoder::strict(), &[b".\r\nQUIT"]), (vec![], Some(3)));
        assert_eq!(
            decode(DotDecoder::strict(), &[b"a\r", b"\n", b".", b"\r", b"\nQUIT"]),
            (b"a\r\n".to_vec(), Some(1))
        );
        assert_eq!(decode(DotDecoder::strict(), &[b"..a\r\n.b\r\n.\r\n"]), (b".a\r\nb\r\n".to_vec(), Some(12)));
        assert_eq!(decode(DotDecoder::strict(), &[b".\rx\r\n.\r\n"]).0, b"\rx\r\n");
    }

    #[test]
    fn a_pipe_may_end_lines_with_lf_alone() {
        assert_eq!(decode(DotDecoder::lenient(), &[b"a\n..b\n.\nQUIT"]), (b"a\n.b\n".to_vec(), Some(8)));
        assert_eq!(decode(DotDecoder::lenient(), &[b"a\r\n.\r\n"]), (b"a\r\n".to_vec(), Some(6)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_wherever_it_is_cut(
            lines in proptest::collection::vec("[.a\r]{0,5}", 0..12),
            cuts in proptest::collection::vec(0..80_usize, 0..6),
        ) {
            let message: Vec<u8> = lines.iter().flat_map(|line| [line.replace('\r', "").into_bytes(), b"\r\n".to_vec()]).flatten().collect();
            let mut encoder = DotEncoder::default();
            let mut wire = Vec::new();
            let middle = message.len() / 2;
            encoder.push(&message[..middle], &mut wire);
            encoder.push(&message[middle..], &mut wire);
            prop_assert!(encoder.is_at_line_start());
            wire.extend_from_slice(b".\r\n");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (wire.len() + 1)).chain([0, wire.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &wire[pair[0]..pair[1]]).filter(|p| !p.is_empty()).collect();
            let (decoded, end) = decode(DotDecoder::strict(), &pieces);
            prop_assert_eq!(end, Some(pieces.last().unwrap().len()));
            prop_assert_eq!(decoded, message);
        }

        #[test]
        fn any_bytes_are_decoded_alike_whole_and_one_by_one(bytes in "[.a\r\n]{0,30}") {
            let bytes = bytes.as_bytes();
            for decoder in [DotDecoder::strict as fn() -> DotDecoder, DotDecoder::lenient] {
                let singles: Vec<&[u8]> = bytes.chunks(1).collect();
                let (whole, end) = decode(decoder(), &[bytes]);
                let (single, single_end) = decode(decoder(), &singles);
                prop_assert_eq!(whole, single);
                prop_assert_eq!(end.is_some(), single_end.is_some());
            }
        }
    }
}
