//! The end of a message in POP3 is a line with a dot alone; a line of the message that begins with a dot has one more.
//!
//! Bytes are passed on as they are, but for those dots; line ends are those that came. A line begins after CRLF alone:
//! a message that holds a lone LF and a dot is not cut short by it, and loses no dot.

/// Undoubles dots and finds the end, however the bytes come.
#[derive(Clone, Debug)]
pub(super) struct Unstuffing {
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// At the beginning of a line, after CRLF or at the very beginning.
    Start,
    /// After a dot at the beginning of a line.
    Dot,
    /// After a dot and CR there.
    DotReturn,
    /// Within a line.
    Within,
    /// After CR.
    Return,
    /// After the last line.
    Ended,
}

impl Unstuffing {
    pub(super) fn new() -> Self {
        Self { state: State::Start }
    }

    /// Whether the message has ended.
    pub(super) fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Takes bytes, appends what they are of the message to `message`, and says how many it took: all, but for those
    /// behind the end.
    pub(super) fn take(&mut self, bytes: &[u8], message: &mut Vec<u8>) -> usize {
        for (at, &byte) in bytes.iter().enumerate() {
            self.state = match (self.state, byte) {
                (State::Ended, _) => return at,
                (State::Start, b'.') => State::Dot,
                (State::Dot, b'\r') => State::DotReturn,
                (State::DotReturn, b'\n') => State::Ended,
                (State::DotReturn, _) => {
                    // A line that begins with a dot and holds a CR alone: no server that doubles dots sends it.
                    message.extend_from_slice(b".\r");
                    self.after(byte, message)
                }
                (State::Dot, b'.') => {
                    message.push(b'.');
                    State::Within
                }
                (State::Dot, _) => {
                    // The dot was doubled by nobody, so it is the message's.
                    message.push(b'.');
                    self.after(byte, message)
                }
                (State::Return, b'\n') => {
                    message.push(byte);
                    State::Start
                }
                _ => self.after(byte, message),
            };
        }
        bytes.len()
    }

    fn after(&self, byte: u8, message: &mut Vec<u8>) -> State {
        message.push(byte);
        if byte == b'\r' { State::Return } else { State::Within }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a server sends a message whose lines end with CRLF.
    fn stuffed(message: &str) -> String {
        let doubled = |line: &str| if line.starts_with('.') { format!(".{line}") } else { line.to_owned() };
        message.split_inclusive("\r\n").map(doubled).collect::<String>() + ".\r\n"
    }

    fn unstuff(bytes: &[u8], piece: usize) -> (Vec<u8>, usize, bool) {
        let (mut unstuffing, mut message, mut taken) = (Unstuffing::new(), Vec::new(), 0);
        for piece in bytes.chunks(piece) {
            let took = unstuffing.take(piece, &mut message);
            taken += took;
            if took < piece.len() {
                break;
            }
        }
        (message, taken, unstuffing.ended())
    }

    #[test]
    fn doubled_dots_are_undoubled_and_the_rest_stays() {
        let message = "Subject: .\r\n\r\n.\r\n..\r\n.a\r\nb.\r\n\r\n";
        assert_eq!(
            unstuff(stuffed(message).as_bytes(), 5),
            (message.as_bytes().to_vec(), stuffed(message).len(), true)
        );
        assert_eq!(unstuff(b".\r\n", 1), (Vec::new(), 3, true));
    }

    #[test]
    fn what_comes_behind_the_end_is_left() {
        let (message, taken, ended) = unstuff(b"a\r\n.\r\n+OK next\r\n", 100);
        assert_eq!((message.as_slice(), taken, ended), (&b"a\r\n"[..], 6, true));
    }

    #[test]
    fn a_lone_line_feed_and_a_dot_do_not_cut_a_message_short() {
        for message in [&b"a\n.\nb\r\n"[..], b"a\n.\r\nb\r\n", b"a\n..\r\n", b"a\r.\r\n"] {
            let (unstuffed, _, ended) = unstuff(&[message, b".\r\n"].concat(), 100);
            assert_eq!((unstuffed.as_slice(), ended), (message, true));
        }
    }

    proptest! {
        #[test]
        fn what_a_server_stuffed_comes_back(lines in prop::collection::vec("[.a\r]{0,4}", 0..8), piece in 1usize..6) {
            // A CR before CRLF or at the end of a line is no text of RFC 5322; within a line it may be.
            let lines: Vec<String> = lines.into_iter().map(|line| line.trim_end_matches('\r').to_owned()).collect();
            let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let sent = stuffed(&message);
            let (unstuffed, taken, ended) = unstuff(sent.as_bytes(), piece);
            prop_assert_eq!(String::from_utf8(unstuffed).unwrap(), message);
            prop_assert!(ended && taken == sent.len());
        }

        #[test]
        fn any_bytes_are_taken_the_same_in_any_pieces(
            bytes in prop::collection::vec(prop::sample::select(&b".\r\na"[..]), 0..40),
            piece in 1usize..6,
        ) {
            let (whole, taken, ended) = unstuff(&bytes, 100);
            prop_assert_eq!(unstuff(&bytes, piece), (whole.clone(), taken, ended));
            prop_assert!(whole.len() <= taken);
        }
    }
}
