//! One try of one mail over a connection: MAIL, RCPT, DATA, the message, the gate, the dot, the answer.
//!
//! Commands go out in groups where the server takes them so (RFC 2920), DATA at the end of the last, so that a mail
//! costs two round trips: one for all commands, one for the dot.
//! A group is limited: a server that answers while it reads must not wait for a client that writes while it must read.

use std::future::Future;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::address::{Address, ReversePath};
use crate::message::dots::DotEncoder;

use super::{Connection, Failure, Reply, Stage};

/// A mail, as far as the server is told of it before it gets it.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Who hears of failures.
    pub sender: &'a ReversePath,
    /// Who gets it.
    pub recipients: &'a [Address],
    /// The size of the message in bytes; a stored message of another size is damaged and is not sent.
    pub size: u64,
    /// Whether it has bytes above 127.
    pub eight_bit: bool,
}

/// Asked once all but the final dot was written and handed on.
pub trait Gate: Sync {
    /// Whether the dot may be written. Whoever says yes must count on the mail being accepted from now on, for those whom
    /// the server has not refused; of these, `recipients` says so already.
    fn may_write_dot(&self, recipients: &[Fate]) -> impl Future<Output = bool> + Send;
}

/// A gate that stands open: for whoever has nobody to take turns with.
#[derive(Clone, Copy, Debug)]
pub struct OpenGate;

impl Gate for OpenGate {
    async fn may_write_dot(&self, _: &[Fate]) -> bool {
        true
    }
}

/// How one try ended. Recipients are in the order in which they were given.
#[derive(Debug)]
pub enum Try {
    /// Certainly nothing was accepted: no final dot was written.
    Failed {
        /// Why.
        why: Failure,
        /// What the server had said of recipients before.
        recipients: Vec<Fate>,
    },
    /// The server answered for every recipient.
    Answered {
        /// What.
        recipients: Vec<Fate>,
    },
    /// The final dot was written, or may have been, and no answer came: the mail may have been accepted.
    AnswerLost {
        /// Why not.
        why: Failure,
        /// What is known.
        recipients: Vec<Fate>,
    },
}

/// What became of one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The server has taken the mail for this recipient.
    Accepted(Reply),
    /// The server has not: for now (4xx) or for good (5xx).
    Refused(Reply),
    /// The server gave no answer that counts, and has not taken the mail.
    Untried,
    /// The server may have taken the mail.
    Unknown,
}

impl Connection {
    /// Tries one mail. A future that is dropped leaves the connection unusable, and the mail as [`Try::Failed`] if the
    /// gate had not said yes.
    pub async fn send(
        &mut self,
        mail: &Outgoing<'_>,
        body: &mut (dyn AsyncRead + Unpin + Send),
        gate: &impl Gate,
    ) -> Try {
        if let Some(refused) = self.foresee(mail) {
            return Try::Answered { recipients: refused };
        }
        self.usable = self.is_usable();
        if !self.usable {
            let why = match self.replies.last_words(Stage::Idle).await {
                Some(reply) => Failure::Rejected { stage: Stage::Idle, reply },
                None => Failure::Closed { stage: Stage::Idle, source: None },
            };
            return Try::Failed { why, recipients: vec![Fate::Untried; mail.recipients.len()] };
        }
        // Only a try that comes to its end makes the connection good again.
        self.usable = false;
        let mut recipients = vec![Fate::Untried; mail.recipients.len()];
        match self.announce(mail, &mut recipients).await {
            Err(why) => return Try::Failed { why, recipients: never_taken(recipients) },
            Ok(Announced::Refused { clean }) => {
                self.needs_reset = true;
                self.usable = clean;
                return Try::Answered { recipients };
            }
            Ok(Announced::Wanted) => {}
        }
        if let Err(why) = self.write_message(mail, body).await {
            return Try::Failed { why, recipients: never_taken(recipients) };
        }
        if !gate.may_write_dot(&recipients).await {
            return Try::Failed { why: Failure::Withheld, recipients: never_taken(recipients) };
        }
        // The gate may have taken its time. Whoever has hung up accepts nothing.
        if !self.replies.is_quiet_now().await {
            let why = self.reason(Failure::Closed { stage: Stage::Message, source: None }).await;
            return Try::Failed { why, recipients: never_taken(recipients) };
        }
        match self.replies.exchange(b".\r\n", self.deadlines.answer, Stage::Answer).await {
            Ok(reply) if !(300..400).contains(&reply.code) => {
                self.usable = reply.code != 421;
                settle(&mut recipients, &reply);
                Try::Answered { recipients }
            }
            Ok(_) => {
                Try::AnswerLost { why: Failure::Garbled { stage: Stage::Answer }, recipients: in_doubt(recipients) }
            }
            Err(why) => Try::AnswerLost { why, recipients: in_doubt(recipients) },
        }
    }

    /// What the server would say, where it has said so in its greeting.
    fn foresee(&self, mail: &Outgoing<'_>) -> Option<Vec<Fate>> {
        let all = |reply: Reply| vec![Fate::Refused(reply); mail.recipients.len()];
        if let Some(limit) = self.capabilities.size_limit.filter(|limit| mail.size > *limit) {
            let text = format!("the message has {} bytes, and this server takes {limit}", mail.size);
            return Some(all(Reply::ours(552, [5, 3, 4], text)));
        }
        let sender = mail.sender.mailbox();
        if !self.capabilities.smtputf8 && sender.is_some_and(Address::is_international) {
            return Some(all(Reply::ours(550, [5, 6, 7], "this server takes no sender beyond ASCII (SMTPUTF8)")));
        }
        None
    }

    /// Sends all commands, and reads all their replies.
    async fn announce(&mut self, mail: &Outgoing<'_>, fates: &mut [Fate]) -> Result<Announced, Failure> {
        let window = if self.capabilities.pipelining { WINDOW } else { 1 };
        let mut commands = Vec::new();
        let mut refused: Option<Reply> = None;
        if self.needs_reset {
            commands.push((Stage::Idle, None));
        }
        commands.push((Stage::Sender, None));
        for (index, recipient) in mail.recipients.iter().enumerate() {
            if recipient.is_international() && !self.capabilities.smtputf8 {
                let text = "this server takes no address beyond ASCII (SMTPUTF8)";
                fates[index] = Fate::Refused(Reply::ours(550, [5, 6, 7], text));
            } else {
                commands.push((Stage::Recipient, Some(index)));
            }
        }
        commands.push((Stage::Data, None));
        let mut any_accepted = false;
        for group in commands.chunks(window) {
            // Where commands go one by one, the rest is spared once it is in vain.
            let in_vain = refused.is_some() || (group[0].0 == Stage::Data && !any_accepted);
            if in_vain {
                break;
            }
            let text: String = group.iter().map(|(stage, index)| self.command(*stage, *index, mail)).collect();
            self.replies.write(text.as_bytes(), self.deadlines.command, group[0].0).await?;
            for (stage, index) in group {
                let deadline = match stage {
                    Stage::Recipient => self.deadlines.recipient,
                    Stage::Data => self.deadlines.data,
                    _ => self.deadlines.command,
                };
                let reply = self.replies.reply(deadline, *stage).await?;
                if reply.code == 421 {
                    return Err(Failure::Rejected { stage: *stage, reply });
                }
                match (stage, index) {
                    (Stage::Recipient, Some(index)) => {
                        let reply = too_many_is_for_now(reply);
                        any_accepted |= reply.is_positive();
                        // An acceptance holds once the message was accepted; it is settled then.
                        fates[*index] = if reply.is_positive() { Fate::Accepted(reply) } else { Fate::Refused(reply) };
                    }
                    (Stage::Sender, _) if !reply.is_positive() => refused = Some(reply),
                    (Stage::Data, _) if reply.code == 354 && any_accepted && refused.is_none() => {
                        self.needs_reset = false;
                        return Ok(Announced::Wanted);
                    }
                    // It waits for a message that is for nobody. A dot would be an end like any other: better none.
                    (Stage::Data, _) if reply.code == 354 => {
                        settle_refusal(fates, refused);
                        return Ok(Announced::Refused { clean: false });
                    }
                    (Stage::Data, _) if any_accepted && refused.is_none() => refused = Some(reply),
                    _ => {}
                }
            }
        }
        settle_refusal(fates, refused);
        Ok(Announced::Refused { clean: true })
    }

    fn command(&self, stage: Stage, index: Option<usize>, mail: &Outgoing<'_>) -> String {
        match (stage, index) {
            (Stage::Idle, _) => "RSET\r\n".to_owned(),
            (Stage::Recipient, Some(index)) => format!("RCPT TO:<{}>\r\n", mail.recipients[index]),
            (Stage::Data, _) => "DATA\r\n".to_owned(),
            _ => {
                let mut command = format!("MAIL FROM:{}", mail.sender);
                if self.capabilities.size {
                    command.push_str(&format!(" SIZE={}", mail.size));
                }
                if self.capabilities.eight_bit && mail.eight_bit {
                    command.push_str(" BODY=8BITMIME");
                }
                let sender = mail.sender.mailbox().into_iter();
                if self.capabilities.smtputf8 && sender.chain(mail.recipients).any(Address::is_international) {
                    command.push_str(" SMTPUTF8");
                }
                command.push_str("\r\n");
                command
            }
        }
    }

    /// Writes the message, and sees it handed on.
    async fn write_message(
        &mut self,
        mail: &Outgoing<'_>,
        body: &mut (dyn AsyncRead + Unpin + Send),
    ) -> Result<(), Failure> {
        let mut encoder = DotEncoder::default();
        let mut piece = vec![0; BLOCK];
        let mut stuffed = Vec::with_capacity(BLOCK + BLOCK / 8);
        let mut size = 0_u64;
        loop {
            let count = body.read(&mut piece).await.map_err(|source| Failure::Body { source })?;
            if count == 0 {
                break;
            }
            size += count as u64;
            stuffed.clear();
            encoder.push(&piece[..count], &mut stuffed);
            if let Err(failure) = self.replies.write(&stuffed, self.deadlines.block, Stage::Message).await {
                return Err(self.reason(failure).await);
            }
        }
        if size != mail.size || !encoder.is_at_line_start() {
            let text = format!("it has {size} bytes and should have {}, and end in a whole line", mail.size);
            return Err(Failure::Body { source: io::Error::new(io::ErrorKind::InvalidData, text) });
        }
        if self.replies.is_quiet_now().await {
            Ok(())
        } else {
            Err(self.reason(Failure::Closed { stage: Stage::Message, source: None }).await)
        }
    }

    /// What the server gave as its reason for hanging up, if it did.
    async fn reason(&mut self, failure: Failure) -> Failure {
        match (self.replies.last_words(Stage::Message).await, failure) {
            (Some(reply), Failure::Closed { stage, .. }) => Failure::Rejected { stage, reply },
            (_, failure) => failure,
        }
    }
}

/// What the server said to all commands.
enum Announced {
    /// 354, and at least one recipient.
    Wanted,
    /// Every recipient has its answer, and no message is wanted.
    Refused {
        /// Whether the connection can be used for another mail.
        clean: bool,
    },
}

/// Old servers say 552 where they mean that there are too many recipients; those are to be sent by another transaction
/// and not to be given up (RFC 5321, 4.5.3.1.10).
fn too_many_is_for_now(reply: Reply) -> Reply {
    let meant = reply.code == 552 && reply.enhanced.is_none_or(|enhanced| enhanced == [5, 5, 3]);
    if meant { Reply { code: 452, enhanced: reply.enhanced.map(|_| [4, 5, 3]), ..reply } } else { reply }
}

/// The answer to the dot is the answer for everyone who had been accepted until then.
fn settle(fates: &mut [Fate], reply: &Reply) {
    for fate in fates.iter_mut().filter(|fate| matches!(fate, Fate::Accepted(_))) {
        *fate = if reply.is_positive() { Fate::Accepted(reply.clone()) } else { Fate::Refused(reply.clone()) };
    }
}

/// A refusal of the sender or of DATA is one of every recipient that has no refusal of its own that means something.
fn settle_refusal(fates: &mut [Fate], refused: Option<Reply>) {
    let Some(reply) = refused else { return };
    for fate in fates {
        match fate {
            // After a refused MAIL, every RCPT is out of sequence: that says nothing of the recipient.
            Fate::Refused(own) if own.code != 503 => {}
            _ => *fate = Fate::Refused(reply.clone()),
        }
    }
}

/// Without the dot, an acceptance of a recipient is worth nothing; a refusal holds.
fn never_taken(mut fates: Vec<Fate>) -> Vec<Fate> {
    fates.iter_mut().filter(|fate| matches!(fate, Fate::Accepted(_))).for_each(|fate| *fate = Fate::Untried);
    fates
}

fn in_doubt(mut fates: Vec<Fate>) -> Vec<Fate> {
    fates.iter_mut().filter(|fate| matches!(fate, Fate::Accepted(_))).for_each(|fate| *fate = Fate::Unknown);
    fates
}

/// Commands in one group. Their replies, of some sixty bytes each, fit into the buffers of any system.
const WINDOW: usize = 200;

/// Bytes of the message written at once.
const BLOCK: usize = 64 << 10;
