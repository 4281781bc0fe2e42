//! The daemon's side of the control socket.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use packetboat_core::delivery::Event;
use packetboat_core::ids::MailId;
use packetboat_link::Session;
use packetboat_mail::submission::Refusal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::{Change, LINE_BYTES, Line, Request};
use crate::files::with_causes;
use crate::outbox::body::BodyDraft;
use crate::outbox::courier::Courier;
use crate::outbox::desk::Input;
use crate::outbox::intake::Intake;
use crate::outbox::store::{Reader, StoreError};
use crate::outbox::view::MailView;
use crate::parting::Parted;
use crate::relay::carried::Carried;
use crate::relay::seen::Seen;
use crate::relay::socket;

/// What commands may ask about.
pub struct Control {
    /// Takes what is submitted.
    pub intake: Arc<Intake>,
    /// Takes what users want.
    pub courier: Courier,
    /// Where the outbox is read.
    pub reader: Mutex<Reader>,
    /// When mails are to be woken, by the wall clock.
    pub wakes: Arc<WakeOf>,
    /// How paths and link stand.
    pub paths: Arc<dyn Fn() -> Value + Send + Sync>,
    /// The link to the other device, while it is up.
    pub session: watch::Receiver<Option<Session>>,
    /// Ends the pair.
    pub part: mpsc::Sender<PartRequest>,
    /// On a companion: what it carries.
    pub carried: Option<Arc<Carried>>,
    /// On a host: what waits on its companion.
    pub seen: Option<Arc<Seen>>,
    /// Where bodies of submissions go.
    pub bodies: PathBuf,
    /// The largest mail, in bytes.
    pub message_limit: u64,
}

/// A command's wish that the pair end.
pub struct PartRequest {
    /// Though the other device cannot be told.
    pub alone: bool,
    /// How it ended, or why it did not.
    pub answer: oneshot::Sender<Result<Parted, String>>,
}

/// Says when a mail is to be woken, by the wall clock.
pub type WakeOf = dyn Fn(&MailId) -> Option<u64> + Send + Sync;

type Halves = (BufReader<OwnedReadHalf>, OwnedWriteHalf);

/// Makes the socket; a stale one is taken away, since whoever calls has the home's claim.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the task is dropped.
pub async fn serve(listener: UnixListener, control: Arc<Control>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let own = rustix::process::getuid().as_raw();
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a command cannot be listened to");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // The socket's permissions say the same; a file system that ignores them does not.
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
            continue;
        }
        let control = control.clone();
        tokio::spawn(async move {
            let _place = place;
            let outcome = match timeout(PATIENCE, control.answer(stream)).await {
                Ok(Ok(Some((read, write)))) => socket::serve(read, write, control.session.clone()).await,
                Ok(outcome) => outcome.map(drop),
                Err(_) => return,
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "a command went away");
            }
        });
    }
}

impl Control {
    /// Answers a command; gives the connection back where it goes on to the companion.
    async fn answer(&self, stream: UnixStream) -> io::Result<Option<Halves>> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        let mut line = Vec::new();
        (&mut read).take(LINE_BYTES).read_until(b'\n', &mut line).await?;
        let lines = match serde_json::from_slice(&line) {
            Ok(Request::Submit { sender, recipients, size }) => {
                vec![self.submit(sender, recipients, size, &mut read).await]
            }
            Ok(Request::Relay) => return Ok(Some((read, write))),
            Ok(request) => match self.carry_out(request).await {
                Ok(lines) => lines,
                Err(refused) => vec![refused],
            },
            Err(error) => vec![failed(format!("this is no request: {error}"), None)],
        };
        for line in lines {
            let mut text = serde_json::to_vec(&line).expect("strings and numbers are JSON");
            text.push(b'\n');
            write.write_all(&text).await?;
        }
        write.shutdown().await?;
        Ok(None)
    }

    async fn submit(
        &self,
        sender: String,
        recipients: Vec<String>,
        size: u64,
        body: &mut (impl AsyncReadExt + Unpin),
    ) -> Line {
        let refused = |refusal: Refusal| {
            let kind = match &refusal {
                Refusal::Full => "full",
                Refusal::NoAccount { .. } => "no-account",
                Refusal::Busy { .. } => "busy",
                Refusal::TooBig { .. } | Refusal::Never { .. } => "never",
            };
            Line::Failed { message: refusal.to_string(), hint: None, kind: Some(kind.to_owned()) }
        };
        if size > self.message_limit {
            return refused(Refusal::TooBig { limit: self.message_limit });
        }
        let mail = self.intake.fresh_id();
        let mut draft = BodyDraft::new(&self.bodies, mail);
        let mut left = size;
        let mut piece = vec![0; 64 << 10];
        while left > 0 {
            let wanted = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match body.read(&mut piece[..wanted]).await {
                Ok(0) | Err(_) => return failed("the body ended too early".to_owned(), None),
                Ok(count) => {
                    left -= count as u64;
                    if let Err(error) = draft.write(&piece[..count]) {
                        return refused(Refusal::from(StoreError::of_body(error)));
                    }
                }
            }
        }
        match self.intake.accept_draft(draft, &sender, &recipients).await {
            Ok(id) => Line::Done(json!({ "id": id.to_string() })),
            Err(refusal) => refused(refusal),
        }
    }

    async fn carry_out(&self, request: Request) -> Result<Vec<Line>, Line> {
        match request {
            Request::Submit { .. } => Err(failed("a submission has a body".to_owned(), None)),
            Request::Outbox { finished } => self.outbox(finished).map_err(|error| failed(with_causes(&error), None)),
            Request::Show { mail } => {
                let mail = self.find(&mail)?;
                let view = self.view(&mail).map_err(|error| failed(with_causes(&error), None))?;
                Ok(vec![Line::Done(serde_json::to_value(view).unwrap_or_default())])
            }
            Request::Change { mail, change } => {
                let event = event_of(change);
                let input = match mail {
                    Some(mail) => Input::Happened { mail: self.find(&mail)?, event },
                    None => Input::HappenedToAll(event),
                };
                let asked = self.courier.ask(input).await;
                asked.map_err(|error| failed(error.to_string(), None))?;
                Ok(vec![Line::Done(Value::Null)])
            }
            Request::Relay => Err(failed("the companion is asked on a connection of its own".to_owned(), None)),
            Request::Paths => {
                let paths = self.paths.clone();
                // It looks at disks, which may take their time.
                let stands = tokio::task::spawn_blocking(move || paths()).await;
                let mut stands = stands.map_err(|error| failed(error.to_string(), None))?;
                stands["relayed"] = match &self.seen {
                    Some(seen) => seen.view().await,
                    None => Value::Null,
                };
                Ok(vec![Line::Done(stands)])
            }
            Request::Unpair { alone } => {
                let (answer, answered) = oneshot::channel();
                let stopping = || failed("the daemon is stopping".to_owned(), None);
                self.part.send(PartRequest { alone, answer }).await.map_err(|_| stopping())?;
                let parted =
                    answered.await.map_err(|_| stopping())?.map_err(|error| failed(error, Some(PART_ALONE)))?;
                Ok(vec![Line::Done(serde_json::to_value(parted).unwrap_or_default())])
            }
            Request::PutUp => {
                let Some(carried) = self.carried.clone() else { return Ok(vec![Line::Done(json!({ "objects": 0 }))]) };
                let up = tokio::task::spawn_blocking(move || carried.put_up()).await;
                let up = up.map_err(|error| failed(error.to_string(), None))?;
                let objects = up.map_err(|error| failed(with_causes(&error), None))?;
                Ok(vec![Line::Done(json!({ "objects": objects }))])
            }
            Request::Who => Ok(vec![Line::Done(json!({ "pid": std::process::id() }))]),
        }
    }

    fn outbox(&self, finished: usize) -> Result<Vec<Line>, StoreError> {
        let reader = self.reader.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut lines = Vec::new();
        let mut after = 0;
        loop {
            let page = reader.mails_after(after, PAGE)?;
            for (sequence, mail) in &page {
                after = *sequence;
                if let Some(machine) = reader.machine(mail)? {
                    let view = MailView::of(&machine, reader.paths(mail)?, (self.wakes)(mail));
                    lines.push(Line::Item(serde_json::to_value(view).unwrap_or_default()));
                }
            }
            if page.len() < PAGE {
                break;
            }
        }
        for view in reader.finished(finished)? {
            lines.push(Line::Item(serde_json::to_value(view).unwrap_or_default()));
        }
        lines.push(Line::Done(Value::Null));
        Ok(lines)
    }

    fn find(&self, prefix: &str) -> Result<MailId, Line> {
        let sound = !prefix.is_empty() && prefix.len() <= 32 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !sound {
            return Err(failed(format!("{prefix:?} is no mail's id"), Some("`packetboat outbox` lists them")));
        }
        let reader = self.reader.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let found =
            reader.by_prefix(&prefix.to_ascii_lowercase()).map_err(|error| failed(with_causes(&error), None))?;
        match found.as_slice() {
            [mail] => Ok(*mail),
            [] => Err(failed(
                format!("no mail has an id that begins with {prefix}"),
                Some("`packetboat outbox` lists them"),
            )),
            _ => Err(failed(format!("several mails have ids that begin with {prefix}"), Some("give more of the id"))),
        }
    }

    fn view(&self, mail: &MailId) -> Result<Option<MailView>, StoreError> {
        let reader = self.reader.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match reader.machine(mail)? {
            Some(machine) => Ok(Some(MailView::of(&machine, reader.paths(mail)?, (self.wakes)(mail)))),
            None => reader.finished_mail(mail),
        }
    }
}

fn event_of(change: Change) -> Event {
    match change {
        Change::Hold => Event::Hold,
        Change::Release => Event::Release,
        Change::Retry => Event::RetryNow,
        Change::Cancel => Event::Cancel,
        Change::HandOver => Event::HandOver,
        Change::TakeBack => Event::TakeBack,
        Change::TakeOver => Event::TakeOver,
    }
}

fn failed(message: String, hint: Option<&str>) -> Line {
    Line::Failed { message, hint: hint.map(str::to_owned), kind: None }
}

const PART_ALONE: &str = "see that the link is up (`packetboat paths`); `packetboat unpair --alone` ends the pair on this device, and \
                          must then be run on the other one too";
const CONNECTIONS: usize = 64;
const PAGE: usize = 500;
const PATIENCE: Duration = Duration::from_secs(300);
