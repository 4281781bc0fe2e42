//! Requests to a companion over the link, from both sides.
//!
//! ```text
//! get   name "store/" and the request           body: the answer
//! put   name "store/" and the request           body: the object
//!       acknowledged: stored; refused as unwanted with "present": present, with "deposited": deposited;
//!       refused as full: full;
//!       refused as unwanted with another reason: denied; refused as failed: failed
//! ```
//!
//! Each request has a stream of its own (`packetboat_link`'s bodies). Few are worked on at once, since each may hold an
//! object in memory; the others wait where they are.

use std::sync::Arc;

use packetboat_link::{BulkError, Part, PutRequest, Refusal, Request as LinkRequest, Session};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::carried::Carried;
use super::message::{Answer, MAX_OBJECT_BYTES, Request};
use crate::files::with_causes;

/// Answers whoever is at the other end of the link.
#[derive(Clone)]
pub struct Answerer {
    answer: Arc<Answering>,
    room: Arc<Semaphore>,
}

/// Says what is answered to a request and the object that came with it.
type Answering = dyn Fn(&Request, &[u8]) -> Answer + Send + Sync;

impl Answerer {
    /// Answers by what is carried.
    pub fn new(carried: Arc<Carried>) -> Self {
        Self::with(move |request, body| carried.answer(request, body))
    }

    /// Answers by a function, which may block.
    pub fn with(answer: impl Fn(&Request, &[u8]) -> Answer + Send + Sync + 'static) -> Self {
        Self { answer: Arc::new(answer), room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Whether a request of the link is one for here.
    pub fn is_for(name: &[u8]) -> bool {
        name.starts_with(NAME)
    }

    /// Answers one request, which [`is_for`](Self::is_for) said is for here.
    pub async fn serve(&self, request: LinkRequest) -> Result<(), BulkError> {
        match request {
            LinkRequest::Get(get) => {
                let _place = self.room.acquire().await;
                let answer = match read(&get.name) {
                    Ok(asked) if asked.body_size().is_none() => self.ask(asked, Vec::new()).await,
                    Ok(_) => return get.refuse(Refusal::Unwanted("an object is to be put".to_owned())).await,
                    Err(why) => return get.refuse(Refusal::Unwanted(why)).await,
                };
                let bytes = answer.encode();
                let mut outgoing = get.accept(bytes.len() as u64).await?;
                outgoing.write(bytes).await?;
                outgoing.finish().await
            }
            LinkRequest::Put(put) => self.take(put).await,
        }
    }

    async fn take(&self, put: PutRequest) -> Result<(), BulkError> {
        let _place = self.room.acquire().await;
        let asked = match read(&put.name) {
            Ok(asked) if asked.body_size() == Some(put.length) => asked,
            Ok(_) => return put.refuse(Refusal::Unwanted("another size was announced".to_owned())).await,
            Err(why) => return put.refuse(Refusal::Unwanted(why)).await,
        };
        let mut incoming = put.accept();
        let body = incoming.read_all(MAX_OBJECT_BYTES).await?;
        match self.ask(asked, body).await {
            Answer::Stored => incoming.acknowledge().await,
            Answer::Present => incoming.refuse(Refusal::Unwanted(PRESENT.to_owned())).await,
            Answer::Deposited => incoming.refuse(Refusal::Unwanted(DEPOSITED.to_owned())).await,
            Answer::Full => incoming.refuse(Refusal::Full).await,
            Answer::Denied(why) => incoming.refuse(Refusal::Unwanted(why)).await,
            Answer::Failed(why) => incoming.refuse(Refusal::Failed(why)).await,
            other => incoming.refuse(Refusal::Failed(format!("{other:?} is no answer to a put"))).await,
        }
    }

    async fn ask(&self, request: Request, body: Vec<u8>) -> Answer {
        let answer = self.answer.clone();
        let answered = tokio::task::spawn_blocking(move || answer(&request, &body)).await;
        answered.unwrap_or_else(|error| Answer::Failed(error.to_string()))
    }
}

/// Asks the other end of the link.
pub async fn ask(session: &Session, request: &Request, body: &[u8]) -> Result<Answer, AskError> {
    let name = [NAME, &request.encode()].concat();
    if request.body_size().is_none() {
        let mut incoming = session.get(&name, Part::WHOLE).await?;
        let bytes = incoming.read_all(request.answer_limit()).await?;
        return Answer::decode(&bytes).map_err(|error| AskError::Link(error.into()));
    }
    let mut outgoing = session.put(&name, body.len() as u64).await?;
    let sent = outgoing.write(body.to_vec()).await;
    let finished = match sent {
        Ok(()) => outgoing.finish().await,
        Err(error) => Err(error),
    };
    match finished {
        Ok(()) => Ok(Answer::Stored),
        Err(BulkError::Refused(Refusal::Full)) => Ok(Answer::Full),
        Err(BulkError::Refused(Refusal::Unwanted(why))) if why == PRESENT => Ok(Answer::Present),
        Err(BulkError::Refused(Refusal::Unwanted(why))) if why == DEPOSITED => Ok(Answer::Deposited),
        Err(BulkError::Refused(Refusal::Unwanted(why))) => Ok(Answer::Denied(why)),
        Err(BulkError::Refused(Refusal::Failed(why))) => Ok(Answer::Failed(why)),
        Err(error) => Err(error.into()),
    }
}

fn read(name: &[u8]) -> Result<Request, String> {
    let bytes = name.strip_prefix(NAME).unwrap_or_default();
    Request::decode(bytes).map_err(|error| with_causes(&error))
}

/// Why the companion did not answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// There is no link at the moment.
    #[error("the link to the companion is down")]
    Down,
    /// The link failed on the way, or the companion does not know what it is asked.
    #[error("the companion does not answer")]
    Link(#[from] BulkError),
}

const NAME: &[u8] = b"store/";
const PRESENT: &str = "present";
const DEPOSITED: &str = "deposited";

/// How many requests are worked on at once; each may hold an object of 64 MiB.
const AT_ONCE: usize = 4;
