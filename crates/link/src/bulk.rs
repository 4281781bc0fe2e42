//! Bodies on streams of their own: one side asks for bytes by a name, or offers some, and the other answers.
//!
//! A name is bytes that the caller gives meaning to: a mail body, a packet, a pack.
//! Names and bodies are not checked here; who asked knows which hash to expect.
//! What is checked is that a body has exactly the length that was announced, so that one cut short never passes for
//! whole, and one without end is given up.
//!
//! ```text
//! get      -> frame 0x01 | name bytes | offset varint | length varint (0: to the end, else length + 1)
//!          <- frame 0x00 | total varint | length varint      then `length` bytes and the end
//!          or frame refusal
//! put      -> frame 0x02 | name bytes | length varint        then `length` bytes and the end
//!          <- frame 0x00                                     once the receiver has it safe
//!          or frame refusal, at any time
//! refusal     kind u8 (1 missing, 2 unwanted, 3 full, 4 failed) | reason bytes
//! frame       length u32 little-endian | that many bytes
//! ```

use bytes::Bytes;
use packetboat_core::wire::{Reader, WireError, Writer};
use thiserror::Error;
use tokio::time::timeout;

use crate::settings::Limits;
use crate::stream::{GREATEST_PIECE, Stream, StreamError, StreamReader, StreamWriter};

/// Which part of a body is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Part {
    /// Where it begins.
    pub offset: u64,
    /// How long it is at most; to the end where nothing is said.
    pub length: Option<u64>,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { offset: 0, length: None };
}

/// What a peer asks.
#[derive(Debug)]
pub enum Request {
    /// It wants bytes.
    Get(GetRequest),
    /// It offers bytes.
    Put(PutRequest),
}

/// A peer wants bytes.
pub struct GetRequest {
    /// What it names.
    pub name: Vec<u8>,
    /// Which part it wants.
    pub part: Part,
    stream: Stream,
}

impl GetRequest {
    /// Announces the body: how long all of it is.
    ///
    /// What of it is to be written, and from where, is in the answer; it is the asked part as far as the body goes.
    pub async fn accept(mut self, total: u64) -> Result<Outgoing, BulkError> {
        let offset = self.part.offset.min(total);
        let length = self.part.length.unwrap_or(u64::MAX).min(total - offset);
        let mut header = Writer::new();
        header.u8(ACCEPTED).varint(total).varint(length);
        self.stream.writer.write_frame(&header.finish()).await?;
        Ok(Outgoing { offset, remaining: length, stream: self.stream, awaits_answer: false, limits: None })
    }

    /// Says no.
    pub async fn refuse(mut self, refusal: Refusal) -> Result<(), BulkError> {
        refuse(&mut self.stream.writer, &refusal).await
    }
}

/// A peer offers bytes.
pub struct PutRequest {
    /// What it calls them.
    pub name: Vec<u8>,
    /// How many there are.
    pub length: u64,
    stream: Stream,
}

impl PutRequest {
    /// Takes the body; its sender waits for [`Incoming::acknowledge`] at its end.
    pub fn accept(self) -> Incoming {
        Incoming { total: self.length, length: self.length, remaining: self.length, stream: self.stream }
    }

    /// Says no, and that no more of it is to be sent.
    pub async fn refuse(mut self, refusal: Refusal) -> Result<(), BulkError> {
        self.stream.reader.stop();
        refuse(&mut self.stream.writer, &refusal).await
    }
}

/// A body on its way here.
pub struct Incoming {
    total: u64,
    length: u64,
    remaining: u64,
    stream: Stream,
}

impl Incoming {
    /// How long the whole body is, of which this may be a part.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many bytes come.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next bytes; nothing once exactly the announced length has come and the sender said that this was all.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BulkError> {
        match self.stream.reader.chunk(GREATEST_PIECE).await? {
            Some(chunk) => {
                let remaining = self.remaining.checked_sub(chunk.len() as u64);
                self.remaining = remaining.ok_or(BulkError::WrongLength { announced: self.length })?;
                Ok(Some(chunk))
            }
            None if self.remaining == 0 => Ok(None),
            None => Err(BulkError::WrongLength { announced: self.length }),
        }
    }

    /// All of it at once, for bodies that fit in memory.
    pub async fn read_all(&mut self, limit: u64) -> Result<Vec<u8>, BulkError> {
        if self.remaining > limit {
            return Err(BulkError::TooLong { length: self.remaining, limit });
        }
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    /// Tells a sender who put this that it is safe here.
    pub async fn acknowledge(mut self) -> Result<(), BulkError> {
        self.stream.writer.write_frame(&[ACCEPTED]).await?;
        Ok(self.stream.writer.finish().await?)
    }

    /// Tells a sender who put this that it is not kept.
    pub async fn refuse(mut self, refusal: Refusal) -> Result<(), BulkError> {
        self.stream.reader.stop();
        refuse(&mut self.stream.writer, &refusal).await
    }
}

/// A body on its way to the peer.
pub struct Outgoing {
    offset: u64,
    remaining: u64,
    stream: Stream,
    awaits_answer: bool,
    limits: Option<Limits>,
}

impl Outgoing {
    /// Where in the body the first byte to be written lies.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes are still to be written.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Writes the next bytes; more than were announced are an error of the caller.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), BulkError> {
        let bytes = bytes.into();
        let remaining = self.remaining.checked_sub(bytes.len() as u64);
        self.remaining = remaining.ok_or(BulkError::WrongLength { announced: self.remaining })?;
        match self.stream.writer.write(bytes).await {
            // A peer that refuses what it is put does not read on; its answer says why.
            Err(StreamError::Stopped) if self.awaits_answer => Err(self.answer().await.err().unwrap_or(BROKEN_OFF)),
            outcome => Ok(outcome?),
        }
    }

    /// Ends the body; after a put, waits until the peer has it safe.
    pub async fn finish(mut self) -> Result<(), BulkError> {
        if self.remaining != 0 {
            return Err(BulkError::WrongLength { announced: self.remaining });
        }
        match self.stream.writer.finish().await {
            Err(StreamError::Stopped) if self.awaits_answer => {}
            outcome => outcome?,
        }
        if self.awaits_answer { self.answer().await } else { Ok(()) }
    }

    async fn answer(&mut self) -> Result<(), BulkError> {
        let limits = self.limits.as_ref().expect("whoever awaits an answer has limits");
        let header = header(&mut self.stream.reader, limits).await?;
        let mut reader = Reader::new(&header);
        accepted(&mut reader)?;
        Ok(reader.finish()?)
    }
}

/// Why a peer does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It has nothing of that name.
    #[error("the peer does not have it")]
    Missing,
    /// It does not want this: it has it, or takes nothing of this kind or size.
    #[error("the peer does not want it: {0}")]
    Unwanted(String),
    /// It has no room.
    #[error("the peer has no room")]
    Full,
    /// It tried and could not.
    #[error("the peer could not: {0}")]
    Failed(String),
}

/// Asks for a body.
pub(crate) async fn get(mut stream: Stream, name: &[u8], part: Part, limits: &Limits) -> Result<Incoming, BulkError> {
    let mut request = Writer::new();
    request.u8(GET).bytes(name).varint(part.offset);
    request.varint(part.length.map_or(0, |length| length.saturating_add(1)));
    stream.writer.write_frame(&request.finish()).await?;
    match stream.writer.finish().await {
        // A peer that has answered already does not wait for the end of the question.
        Ok(()) | Err(StreamError::Stopped) => {}
        Err(error) => return Err(error.into()),
    }
    let header = header(&mut stream.reader, limits).await?;
    let (total, length) = decode_answer(&header, part)?;
    Ok(Incoming { total, length, remaining: length, stream })
}

/// Offers a body.
pub(crate) async fn put(mut stream: Stream, name: &[u8], length: u64, limits: &Limits) -> Result<Outgoing, BulkError> {
    let mut request = Writer::new();
    request.u8(PUT).bytes(name).varint(length);
    stream.writer.write_frame(&request.finish()).await?;
    Ok(Outgoing { offset: 0, remaining: length, stream, awaits_answer: true, limits: Some(limits.clone()) })
}

/// Reads what a stream that the peer opened is for.
pub(crate) async fn read_request(mut stream: Stream, limits: &Limits) -> Result<Request, BulkError> {
    let read = timeout(limits.request, stream.reader.frame(limits.name_bytes + HEADER_BYTES)).await;
    let header = read.map_err(|_| StreamError::Stalled)??.ok_or(StreamError::Abandoned)?;
    Ok(match decode_request(&header, limits.name_bytes)? {
        (name, Wanted::Get(part)) => Request::Get(GetRequest { name, part, stream }),
        (name, Wanted::Put(length)) => Request::Put(PutRequest { name, length, stream }),
    })
}

/// What the peer opened a stream for.
enum Wanted {
    Get(Part),
    Put(u64),
}

fn decode_request(header: &[u8], name_bytes: usize) -> Result<(Vec<u8>, Wanted), WireError> {
    let mut reader = Reader::new(header);
    let kind = reader.u8()?;
    let name = reader.bytes(name_bytes)?.to_vec();
    let wanted = match kind {
        GET => Wanted::Get(Part { offset: reader.varint()?, length: reader.varint()?.checked_sub(1) }),
        PUT => Wanted::Put(reader.varint()?),
        _ => return Err(WireError::Invalid { what: "kind of request" }),
    };
    reader.finish()?;
    Ok((name, wanted))
}

fn decode_answer(header: &[u8], asked: Part) -> Result<(u64, u64), BulkError> {
    let mut reader = Reader::new(header);
    accepted(&mut reader)?;
    let (total, length) = (reader.varint()?, reader.varint()?);
    reader.finish()?;
    let fits = length <= total && asked.length.is_none_or(|asked| length <= asked);
    if fits { Ok((total, length)) } else { Err(BulkError::WrongLength { announced: length }) }
}

/// Reads a request and an answer, and says whether either was understood.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_headers(header: &[u8]) -> bool {
    let request = decode_request(header, 64);
    if let Ok((name, _)) = &request {
        assert!(name.len() <= 64, "a name has its bound");
    }
    let asked = Part { offset: 3, length: Some(1000) };
    let answer = decode_answer(header, asked);
    if let Ok((total, length)) = &answer {
        assert!(length <= total && *length <= 1000, "no more comes than was asked for");
    }
    if let Err(BulkError::Refused(Refusal::Unwanted(reason) | Refusal::Failed(reason))) = &answer {
        assert!(!reason.contains(char::is_control), "a reason is printed");
    }
    request.is_ok() || matches!(answer, Ok(_) | Err(BulkError::Refused(_)))
}

async fn header(reader: &mut StreamReader, limits: &Limits) -> Result<Vec<u8>, BulkError> {
    let read = timeout(limits.answer, reader.frame(REASON_BYTES + HEADER_BYTES)).await;
    Ok(read.map_err(|_| StreamError::Stalled)??.ok_or(StreamError::Abandoned)?)
}

fn accepted(reader: &mut Reader<'_>) -> Result<(), BulkError> {
    let kind = reader.u8()?;
    if kind == ACCEPTED {
        return Ok(());
    }
    // Printed for people; a peer may have put anything there.
    let reason = String::from_utf8_lossy(reader.bytes(REASON_BYTES)?);
    let reason = reason.chars().filter(|character| !character.is_control()).collect();
    Err(BulkError::Refused(match kind {
        1 => Refusal::Missing,
        2 => Refusal::Unwanted(reason),
        3 => Refusal::Full,
        4 => Refusal::Failed(reason),
        _ => return Err(WireError::Invalid { what: "kind of answer" }.into()),
    }))
}

async fn refuse(writer: &mut StreamWriter, refusal: &Refusal) -> Result<(), BulkError> {
    let (kind, reason) = match refusal {
        Refusal::Missing => (1, ""),
        Refusal::Unwanted(reason) => (2, reason.as_str()),
        Refusal::Full => (3, ""),
        Refusal::Failed(reason) => (4, reason.as_str()),
    };
    let mut frame = Writer::new();
    frame.u8(kind).bytes(&reason.as_bytes()[..reason.len().min(REASON_BYTES)]);
    writer.write_frame(&frame.finish()).await?;
    Ok(writer.finish().await?)
}

/// Why a body did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BulkError {
    /// The peer said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The stream ended too early or not at all.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The peer does not speak the protocol.
    #[error("the peer sent something without meaning")]
    Malformed(#[from] WireError),
    /// The body is not as long as was said.
    #[error("a body has another length than the {announced} bytes that were announced")]
    WrongLength {
        /// What was announced, in bytes.
        announced: u64,
    },
    /// The body is longer than the caller can take.
    #[error("a body of {length} bytes is longer than the {limit} that fit here")]
    TooLong {
        /// Its length in bytes.
        length: u64,
        /// What would fit.
        limit: u64,
    },
    /// The name is longer than a peer takes.
    #[error("a name is longer than {limit} bytes")]
    NameTooLong {
        /// Greatest length in bytes.
        limit: usize,
    },
}

impl std::fmt::Debug for GetRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GetRequest").field("name", &self.name).field("part", &self.part).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PutRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PutRequest").field("name", &self.name).field("length", &self.length).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("length", &self.length)
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("offset", &self.offset)
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

const BROKEN_OFF: BulkError = BulkError::Stream(StreamError::Stopped);
const GET: u8 = 1;
const PUT: u8 = 2;
const ACCEPTED: u8 = 0;

/// Bytes of a header besides its name or reason.
const HEADER_BYTES: usize = 64;

/// Longest reason of a refusal, in bytes.
const REASON_BYTES: usize = 1024;
