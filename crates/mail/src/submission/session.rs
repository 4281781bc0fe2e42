//! One program's conversation with the submission server.
//!
//! Commands may come in groups; each is answered in its place, and the answers go out when no whole command is left.
//! A message that cannot be taken is still read to its end, so that what follows it is not taken for commands.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::address::{Address, ReversePath};
use crate::message::dots::DotDecoder;
use crate::message::{MessageError, Preparation, Prepared, Rules};

use super::command::{self, Command, Mechanism};
use super::lines::{NoLine, Wire};
use super::{Queue, Refusal, Settings, Spool, Spooled, Submission};

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A program on this computer, through the loopback address.
    Local,
    /// A program elsewhere: it must begin TLS before it logs in.
    Remote,
    /// A program that has started us and speaks through a pipe, `sendmail -bs`. It needs no token, and may end lines in LF.
    Pipe,
}

/// What a session runs over; boxed, because TLS may come between.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Speaks with one program until it leaves.
pub async fn converse<Q: Queue>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    settings: &Settings,
    queue: &Q,
    stop: watch::Receiver<bool>,
) {
    let wire = Wire::new(Box::new(stream) as Box<dyn Stream>, settings.limits.piece);
    let session = Session {
        wire,
        peer,
        settings,
        queue,
        stop,
        greeted: false,
        protected: false,
        logged_in: settings.token.is_none() || peer == Peer::Pipe,
        errors: 0,
        transaction: None,
    };
    session.run().await;
}

struct Session<'a, Q> {
    wire: Wire<Box<dyn Stream>>,
    peer: Peer,
    settings: &'a Settings,
    queue: &'a Q,
    stop: watch::Receiver<bool>,
    greeted: bool,
    protected: bool,
    logged_in: bool,
    errors: usize,
    transaction: Option<Transaction>,
}

/// A mail whose message has not come yet.
struct Transaction {
    sender: ReversePath,
    recipients: Vec<Address>,
    known: std::collections::HashSet<Address>,
}

/// Whether the conversation goes on.
enum Next {
    Listen,
    BeginTls,
    Leave,
}

impl<Q: Queue> Session<'_, Q> {
    async fn run(mut self) {
        let greeting = format!("220 {} ESMTP Packetboat", self.settings.host);
        self.wire.queue_reply(&greeting);
        loop {
            let next = match self.listen().await {
                Ok(line) => self.obey(&line).await,
                Err(no_line) => self.give_up(no_line),
            };
            match next {
                Next::Listen => {}
                Next::Leave => break,
                Next::BeginTls => match self.begin_tls().await {
                    Some(session) => self = session,
                    None => return,
                },
            }
        }
        let _ = self.wire.flush().await;
        // Within TLS an end that is not announced looks as if somebody had cut the connection.
        self.wire.close().await;
    }

    async fn listen(&mut self) -> Result<Vec<u8>, NoLine> {
        let limits = &self.settings.limits;
        let lenient = self.peer == Peer::Pipe;
        tokio::select! {
            // A command that is there is obeyed, even while all else comes to its end.
            biased;
            line = self.wire.line(limits.line, lenient, limits.idle) => line,
            _ = self.stop.wait_for(|stop| *stop) => {
                self.wire.queue_reply("421 4.3.2 shutting down, come back later");
                Err(NoLine::Closed)
            }
        }
    }

    fn give_up(&mut self, no_line: NoLine) -> Next {
        match no_line {
            NoLine::Closed => {}
            NoLine::Deadline => self.wire.queue_reply("421 4.4.2 nothing came for too long"),
            NoLine::TooLong => self.wire.queue_reply("500 5.5.2 this line is too long"),
            NoLine::BareLineEnd => self.wire.queue_reply("500 5.5.2 a line ends in CR and LF"),
        }
        Next::Leave
    }

    async fn obey(&mut self, line: &[u8]) -> Next {
        let command = match command::parse(line, &self.settings.origin) {
            Ok(command) => command,
            Err(fault) => return self.complain(fault),
        };
        match command {
            Command::Hello { extended } => self.hello(extended),
            Command::Login { mechanism, initial } => return self.log_in(mechanism, initial).await,
            Command::Mail { sender, size } => return self.mail(sender, size),
            Command::Recipient { recipient } => return self.recipient(recipient),
            Command::Data => return self.data().await,
            Command::Starttls if self.settings.tls.is_none() => {
                return self.complain("502 5.5.1 STARTTLS is not offered");
            }
            Command::Starttls if self.protected => return self.complain("503 5.5.1 TLS has begun already"),
            Command::Starttls => {
                self.wire.queue_reply("220 2.0.0 go on");
                return Next::BeginTls;
            }
            Command::Reset => {
                self.transaction = None;
                self.wire.queue_reply("250 2.0.0 forgotten");
            }
            Command::Nothing => self.wire.queue_reply("250 2.0.0 nothing done"),
            Command::Verify => self.wire.queue_reply("252 2.5.0 send it and see"),
            Command::Help => self.wire.queue_reply("214 2.0.0 see RFC 5321"),
            Command::Quit => {
                self.wire.queue_reply("221 2.0.0 goodbye");
                return Next::Leave;
            }
        }
        Next::Listen
    }

    /// Says what is wrong, and ends the conversation with a program that does nothing right.
    fn complain(&mut self, fault: &str) -> Next {
        self.errors += 1;
        if self.errors > self.settings.limits.errors {
            self.wire.queue_reply("421 4.7.0 too many errors");
            return Next::Leave;
        }
        self.wire.queue_reply(fault);
        Next::Listen
    }

    fn hello(&mut self, extended: bool) {
        self.greeted = true;
        self.transaction = None;
        let host = &self.settings.host;
        if !extended {
            self.wire.queue_reply(&format!("250 {host}"));
            return;
        }
        let mut lines = vec![
            host.clone(),
            "PIPELINING".to_owned(),
            format!("SIZE {}", self.settings.limits.message),
            "8BITMIME".to_owned(),
            "SMTPUTF8".to_owned(),
        ];
        if self.settings.tls.is_some() && !self.protected {
            lines.push("STARTTLS".to_owned());
        }
        if self.settings.token.is_some() && self.may_log_in() {
            lines.push("AUTH PLAIN LOGIN".to_owned());
        }
        lines.push("ENHANCEDSTATUSCODES".to_owned());
        for (index, line) in lines.iter().enumerate() {
            let separator = if index + 1 == lines.len() { ' ' } else { '-' };
            self.wire.queue_reply(&format!("250{separator}{line}"));
        }
    }

    /// A token does not go over a network unprotected.
    fn may_log_in(&self) -> bool {
        self.protected || self.peer != Peer::Remote
    }

    async fn begin_tls(mut self) -> Option<Self> {
        self.wire.flush().await.ok()?;
        let acceptor = self.settings.tls.clone()?;
        // What was said before TLS by whoever stood between is not taken as said within it (CVE-2011-0411).
        let stream = self.wire.into_quiet_stream()?;
        let stream = timeout(self.settings.limits.piece, acceptor.accept(stream)).await.ok()?.ok()?;
        Some(Self {
            wire: Wire::new(Box::new(stream) as Box<dyn Stream>, self.settings.limits.piece),
            greeted: false,
            protected: true,
            logged_in: self.settings.token.is_none(),
            transaction: None,
            ..self
        })
    }

    async fn log_in(&mut self, mechanism: Mechanism, initial: Option<String>) -> Next {
        let Some(token) = self.settings.token.clone() else {
            return self.complain("503 5.5.1 nobody needs to log in here");
        };
        if !self.may_log_in() {
            return self.complain("538 5.7.11 begin TLS first");
        }
        if !self.greeted || self.transaction.is_some() {
            return self.complain("503 5.5.1 not now");
        }
        let accepted = match mechanism {
            Mechanism::Plain => match self.given_or_asked(initial, "").await {
                Ok(response) => token.accepts_plain(&response),
                Err(next) => return next,
            },
            Mechanism::Login => {
                // "Username:" and "Password:", in base64.
                if let Err(next) = self.given_or_asked(initial, "VXNlcm5hbWU6").await {
                    return next;
                }
                match self.given_or_asked(None, "UGFzc3dvcmQ6").await {
                    Ok(response) => token.accepts_password(&response),
                    Err(next) => return next,
                }
            }
        };
        match accepted {
            Some(true) => {
                self.logged_in = true;
                self.wire.queue_reply("235 2.7.0 welcome");
                Next::Listen
            }
            Some(false) => self.complain("535 5.7.8 this is not the token of this computer's Packetboat"),
            None => self.complain("501 5.5.2 this is not base64 of what was asked for"),
        }
    }

    async fn given_or_asked(&mut self, given: Option<String>, challenge: &str) -> Result<String, Next> {
        if let Some(given) = given {
            return Ok(if given == "=" { String::new() } else { given });
        }
        self.wire.queue_reply(&format!("334 {challenge}"));
        let line = self.listen().await.map_err(|no_line| self.give_up(no_line))?;
        if line == b"*" {
            return Err(self.complain("501 5.0.0 as you like"));
        }
        String::from_utf8(line).map_err(|_| self.complain("501 5.5.2 this is not base64"))
    }

    fn mail(&mut self, sender: ReversePath, size: Option<u64>) -> Next {
        let limit = self.settings.limits.message;
        if !self.greeted {
            return self.complain("503 5.5.1 say EHLO first");
        }
        if self.peer == Peer::Remote && !self.protected {
            return self.complain("530 5.7.0 begin TLS first");
        }
        if !self.logged_in {
            return self.complain("530 5.7.0 log in first");
        }
        if self.transaction.is_some() {
            return self.complain("503 5.5.1 one mail at a time");
        }
        if size.is_some_and(|size| size > limit) {
            let refusal = refused(&Refusal::TooBig { limit });
            return self.complain(&refusal);
        }
        if let Err(refusal) = self.queue.check_sender(&sender) {
            return self.complain(&refused(&refusal));
        }
        self.transaction = Some(Transaction { sender, recipients: Vec::new(), known: Default::default() });
        self.wire.queue_reply("250 2.1.0 sender ok");
        Next::Listen
    }

    fn recipient(&mut self, recipient: Address) -> Next {
        let Some(transaction) = &mut self.transaction else {
            return self.complain("503 5.5.1 say MAIL first");
        };
        if transaction.recipients.len() >= self.settings.limits.recipients {
            // Not a fault: RFC 5321, 4.5.3.1.10 lets a program send the mail again to the rest.
            self.wire.queue_reply("452 4.5.3 too many recipients");
            return Next::Listen;
        }
        if transaction.known.insert(recipient.clone()) {
            transaction.recipients.push(recipient);
        }
        self.wire.queue_reply("250 2.1.5 recipient ok");
        Next::Listen
    }

    async fn data(&mut self) -> Next {
        match &self.transaction {
            None => return self.complain("503 5.5.1 say MAIL first"),
            Some(transaction) if transaction.recipients.is_empty() => {
                return self.complain("554 5.5.1 no valid recipients");
            }
            Some(_) => {}
        }
        let Some(transaction) = self.transaction.take() else { return Next::Leave };
        self.wire.queue_reply("354 go on, and end with a dot on a line of its own");
        if self.wire.flush().await.is_err() {
            return Next::Leave;
        }
        let received = match timeout(self.settings.limits.transfer, self.receive()).await {
            Ok(Ok(received)) => received,
            Ok(Err(no_line)) => return self.give_up(no_line),
            Err(_) => return self.give_up(NoLine::Deadline),
        };
        let (prepared, body) = match received {
            Ok(received) => received,
            Err(fault) => return self.complain(&fault),
        };
        let submission =
            Submission { sender: transaction.sender, recipients: transaction.recipients, message: prepared, body };
        match self.queue.accept(submission).await {
            Ok(id) => self.wire.queue_reply(&format!("250 2.0.0 kept as {id}")),
            Err(refusal) => self.wire.queue_reply(&refused(&refusal)),
        }
        Next::Listen
    }

    /// Reads a message to its end, whatever is wrong with it; the inner error is the reply to it.
    async fn receive(&mut self) -> Result<Result<(Prepared, Spooled), String>, NoLine> {
        let limit = self.settings.limits.message;
        let pipe = self.peer == Peer::Pipe;
        let origin = self.settings.origin.clone();
        let rules = if pipe { Rules::unix_program(origin, limit) } else { Rules::port(origin, limit) };
        let mut decoder = if pipe { DotDecoder::lenient() } else { DotDecoder::strict() };
        let mut preparation = Preparation::new(rules, self.queue.stamp());
        let mut spool = Spool::new(&self.settings.spool);
        let mut fault: Option<String> = None;
        let mut decoded = Vec::new();
        loop {
            let piece = self.wire.piece().await?;
            decoded.clear();
            let end = decoder.push(&piece, &mut decoded);
            if fault.is_none() {
                fault = match preparation.push(&decoded, spool.buffer()) {
                    Err(error) => Some(wrong(&error)),
                    Ok(()) => spool.settle().await.err().map(|error| refused(&unwritten(&error))),
                };
            }
            if let Some(end) = end {
                self.wire.give_back(&piece[end..]);
                break;
            }
        }
        if let Some(fault) = fault {
            return Ok(Err(fault));
        }
        let prepared = match preparation.finish(spool.buffer()) {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Err(wrong(&error))),
        };
        Ok(match spool.finish().await {
            Ok(body) => Ok((prepared, body)),
            Err(error) => Err(refused(&unwritten(&error))),
        })
    }
}

/// The reply to a message that is wrong.
fn wrong(error: &MessageError) -> String {
    match error {
        MessageError::TooLong { limit } => refused(&Refusal::TooBig { limit: *limit }),
        _ => format!("550 5.6.0 {error}"),
    }
}

fn refused(refusal: &Refusal) -> String {
    let code = match refusal {
        Refusal::Full => "452 4.3.1",
        Refusal::Busy { .. } => "451 4.3.0",
        Refusal::TooBig { .. } => "552 5.3.4",
        Refusal::NoAccount { .. } => "550 5.7.1",
        Refusal::Never { .. } => "554 5.7.1",
    };
    // What stands in an error may come from anywhere, and a reply is one line.
    let text: String = refusal.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    format!("{code} {text}")
}

/// A spool that cannot be written is almost always full.
fn unwritten(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Refusal::Full,
        _ => Refusal::Busy { why: error.to_string() },
    }
}
