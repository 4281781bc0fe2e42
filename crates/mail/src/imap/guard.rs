//! Between a server and the parser of its answers: what could make the parser use time or memory without end is refused.
//!
//! The parser keeps an answer in memory until it is whole, allocates what a literal announces, and goes into nested
//! lists by calling itself. So an answer is followed here byte by byte, as far as is needed to know its lines, quoted
//! strings, parentheses and literals:
//!
//! - a line without its literals, a literal, and an answer with all of its literals are at most so long;
//! - parentheses are nested at most so deep;
//! - a quoted string ends on its line, and only data has literals: where the grammar could be read in two ways, a server
//!   could hide a literal from this reader and show it to the other, so such a line is refused.
//!
//! As a second fence, which rests on no grammar, the bytes since the parser last had a whole answer are counted
//! ([`Guarded::answered`]).
//! Every read and write must come to something within the silence that is allowed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How much a server may send for one answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    pub(super) line: usize,
    pub(super) literal: usize,
    pub(super) answer: usize,
    pub(super) depth: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { line: 256 << 10, literal: 2 << 20, answer: 4 << 20, depth: 32 }
    }
}

/// A stream that ends with an error when its server goes beyond the bounds.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    inner: S,
    scanner: Scanner,
    since_answer: usize,
    silence: Duration,
    waking: Pin<Box<Sleep>>,
}

impl<S> Guarded<S> {
    pub(super) fn new(inner: S, bounds: Bounds, silence: Duration) -> Self {
        let waking = Box::pin(sleep(silence));
        Self { inner, scanner: Scanner::new(bounds), since_answer: 0, silence, waking }
    }

    /// The parser had a whole answer.
    pub(super) fn answered(&mut self) {
        self.since_answer = 0;
    }

    /// Allows another silence from now on.
    pub(super) fn allow_silence(&mut self, silence: Duration) {
        self.silence = silence;
        self.restart();
    }

    /// Begins to count the silence, before a wait.
    pub(super) fn restart(&mut self) {
        let until = Instant::now() + self.silence;
        self.waking.as_mut().reset(until);
    }

    fn or_silence<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.restart();
            return polled;
        }
        match self.waking.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(GuardError::Silent(self.silence).into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buffer);
        let polled = this.or_silence(cx, polled);
        if let Poll::Ready(Ok(())) = polled {
            let came = &buffer.filled()[before..];
            this.since_answer += came.len();
            let limit = this.scanner.bounds.answer;
            // What came behind the last answer is counted with the next one, hence twice.
            let beyond = (this.since_answer > limit * 2).then_some(GuardError::Answer { limit });
            if let Some(error) = beyond.or_else(|| this.scanner.scan(came).err()) {
                return Poll::Ready(Err(error.into()));
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.or_silence(cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_flush(cx);
        this.or_silence(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// Follows answers.
#[derive(Clone, Debug)]
struct Scanner {
    bounds: Bounds,
    /// The first bytes of the line, as far as they tell what it is.
    start: Vec<u8>,
    /// Of the line so far, its literals not counted.
    line: usize,
    answer: usize,
    depth: usize,
    quoted: Quoted,
    literal: Announced,
    /// Bytes of a literal that are still to come.
    within_literal: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Quoted {
    No,
    Yes,
    /// The byte after a backslash.
    Escaped,
}

/// How far the announcement of a literal was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Announced {
    No,
    /// After `{` and the digits so far.
    Digits(usize),
    /// After `{12+`.
    Plus(usize),
    /// After `{12}`.
    Closed(usize),
    /// After `{12}` and CR.
    Return(usize),
}

impl Scanner {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            start: Vec::with_capacity(START),
            line: 0,
            answer: 0,
            depth: 0,
            quoted: Quoted::No,
            literal: Announced::No,
            within_literal: 0,
        }
    }

    fn scan(&mut self, mut bytes: &[u8]) -> Result<(), GuardError> {
        while let [byte, rest @ ..] = bytes {
            if self.within_literal > 0 {
                let skipped = self.within_literal.min(bytes.len());
                self.within_literal -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.step(*byte)?;
            bytes = rest;
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<(), GuardError> {
        self.line += 1;
        self.answer += 1;
        let Bounds { line, answer, depth, .. } = self.bounds;
        if self.line > line {
            return Err(GuardError::Line { limit: line });
        }
        if self.answer > answer {
            return Err(GuardError::Answer { limit: answer });
        }
        if self.start.len() < START {
            self.start.push(byte);
        }
        if byte == b'\n' {
            return self.end_line();
        }
        match self.quoted {
            Quoted::Escaped => self.quoted = Quoted::Yes,
            Quoted::Yes if byte == b'\\' => self.quoted = Quoted::Escaped,
            Quoted::Yes if byte == b'"' => self.quoted = Quoted::No,
            Quoted::Yes => {}
            Quoted::No => {
                self.literal = self.literal.after(byte);
                match byte {
                    b'"' if self.is_data() => self.quoted = Quoted::Yes,
                    b'(' => self.depth += 1,
                    b')' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
                if self.depth > depth {
                    return Err(GuardError::Depth { limit: depth });
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), GuardError> {
        if self.quoted != Quoted::No {
            return Err(GuardError::OpenQuote);
        }
        let announced = match self.literal {
            Announced::Return(size) | Announced::Closed(size) => Some(size),
            _ => None,
        };
        self.literal = Announced::No;
        match announced {
            Some(_) if !self.is_data() => Err(GuardError::LiteralInText),
            Some(size) if size > self.bounds.literal => {
                Err(GuardError::Literal { announced: size, limit: self.bounds.literal })
            }
            Some(size) => {
                self.within_literal = size;
                self.answer += size;
                if self.answer > self.bounds.answer {
                    return Err(GuardError::Answer { limit: self.bounds.answer });
                }
                Ok(())
            }
            None => {
                self.start.clear();
                (self.line, self.answer, self.depth) = (0, 0, 0);
                Ok(())
            }
        }
    }

    /// Whether the line is data: those with a status, a continuation or a tag end in text that is for people.
    fn is_data(&self) -> bool {
        let Some(rest) = self.start.strip_prefix(b"* ") else { return false };
        let word = rest.split(|byte| !byte.is_ascii_alphanumeric()).next().unwrap_or_default();
        !TEXT.iter().any(|text| text.eq_ignore_ascii_case(word))
    }
}

impl Announced {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (_, b'{') => Self::Digits(0),
            (Self::Digits(size), b'0'..=b'9') => {
                Self::Digits(size.saturating_mul(10).saturating_add(usize::from(byte - b'0')))
            }
            (Self::Digits(size), b'+') => Self::Plus(size),
            (Self::Digits(size) | Self::Plus(size), b'}') => Self::Closed(size),
            (Self::Closed(size), b'\r') => Self::Return(size),
            _ => Self::No,
        }
    }
}

/// How a server went beyond the bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GuardError {
    /// No byte came, or none was taken.
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
    /// A line does not end.
    #[error("the server sent a line of more than {limit} bytes")]
    Line {
        /// What a line may have.
        limit: usize,
    },
    /// More is announced than was asked for.
    #[error("the server announced {announced} bytes where at most {limit} were asked for")]
    Literal {
        /// What it announced.
        announced: usize,
        /// What a literal may have.
        limit: usize,
    },
    /// An answer does not end.
    #[error("the server sent an answer of more than {limit} bytes")]
    Answer {
        /// What an answer may have.
        limit: usize,
    },
    /// Lists within lists.
    #[error("the server nested lists more than {limit} deep")]
    Depth {
        /// How deep they may be.
        limit: usize,
    },
    /// A quoted string goes over the end of its line.
    #[error("the server left a quoted string open")]
    OpenQuote,
    /// A text for people ends as if a literal followed.
    #[error("the server announced bytes in a text")]
    LiteralInText,
}

impl From<GuardError> for io::Error {
    fn from(error: GuardError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// `* PREAUTH ` is the longest beginning that tells.
const START: usize = 12;

const TEXT: [&[u8]; 5] = [b"OK", b"NO", b"BAD", b"BYE", b"PREAUTH"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: Bounds = Bounds { line: 100, literal: 50, answer: 200, depth: 3 };

    fn scan(bytes: &[u8]) -> Result<(), GuardError> {
        Scanner::new(SMALL).scan(bytes)
    }

    #[test]
    fn ordinary_answers_pass() {
        for bytes in [
            &b"* OK [CAPABILITY IMAP4rev1] \"he\" said (hi\r\n"[..],
            b"* 1 FETCH (UID 1 BODY[] {12}\r\n))))))((\"{99}\r\n)\r\na1 OK done\r\n",
            b"* LIST (\\HasNoChildren) \"/\" \"quo\\\"ted {9}\"\r\n",
            b"* LIST () NIL {3}\r\na\"b\r\n+ idling\r\n",
            b"* 1 FETCH (BODY[] {0}\r\n FLAGS ())\r\n",
        ] {
            assert_eq!(scan(bytes), Ok(()), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_goes_beyond_is_refused() {
        let long = [b"* FLAGS ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(scan(&long), Err(GuardError::Line { limit: 100 }));
        let lie = b"* 1 FETCH (BODY[] {4294967295}\r\n";
        assert_eq!(scan(lie), Err(GuardError::Literal { announced: 4_294_967_295, limit: 50 }));
        let huge = b"* 1 FETCH (BODY[] {99999999999999999999999999}\r\n";
        assert_eq!(scan(huge), Err(GuardError::Literal { announced: usize::MAX, limit: 50 }));
        let many = b"* 1 FETCH (BODY[] {50}\r\n".to_vec();
        let many = [many, vec![b'x'; 50]].concat().repeat(5);
        assert_eq!(scan(&many), Err(GuardError::Answer { limit: 200 }));
        assert_eq!(scan(b"* 1 FETCH (BODYSTRUCTURE ((((("), Err(GuardError::Depth { limit: 3 }));
    }

    #[test]
    fn a_line_that_two_readers_could_read_in_two_ways_is_refused() {
        assert_eq!(scan(b"* OK ready {40}\r\n"), Err(GuardError::LiteralInText));
        assert_eq!(scan(b"a1 NO {4}\r\n"), Err(GuardError::LiteralInText));
        assert_eq!(scan(b"+ {4}\r\n"), Err(GuardError::LiteralInText));
        assert_eq!(scan(b"* LIST () \"/\" \"open {40}\r\n"), Err(GuardError::OpenQuote));
    }

    proptest! {
        #[test]
        fn it_is_the_same_however_the_bytes_come(
            bytes in prop::collection::vec(prop::sample::select(&b"* OKF1{}()\"\\\r\n+a"[..]), 0..80),
            piece in 1usize..9,
        ) {
            let mut scanner = Scanner::new(SMALL);
            let in_pieces = bytes.chunks(piece).try_for_each(|piece| scanner.scan(piece));
            prop_assert_eq!(in_pieces, scan(&bytes));
        }

        /// Whatever passes, the parser never waits for more bytes than an answer may have.
        #[test]
        fn the_parser_is_never_ahead_of_the_guard(
            parts in prop::collection::vec(prop::sample::select(&[
                "* OK ", "* 1 FETCH (", "* LIST () ", "BODY[] ", "{40}\r\n", "{3}\r\n", "\"", "\\", "abc", ")", "\r\n", "x ",
                "{60}\r\n", "{900}\r\n", "[ALERT] ", "(",
            ][..]), 0..40),
        ) {
            let bytes = parts.concat().into_bytes();
            let mut scanner = Scanner::new(SMALL);
            let (mut buffer, mut passed) = (Vec::new(), true);
            for byte in bytes {
                passed = passed && scanner.scan(&[byte]).is_ok();
                if !passed {
                    break;
                }
                buffer.push(byte);
                match async_imap::imap_proto::Response::parse(&buffer) {
                    Ok((rest, _)) => buffer = rest.to_vec(),
                    Err(nom::Err::Incomplete(nom::Needed::Size(needed))) => {
                        prop_assert!(needed.get() <= SMALL.literal, "{needed}");
                    }
                    Err(nom::Err::Incomplete(_)) => {}
                    Err(_) => break,
                }
                prop_assert!(buffer.len() <= SMALL.answer);
            }
        }
    }
}
