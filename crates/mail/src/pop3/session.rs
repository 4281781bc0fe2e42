//! A POP3 session: connecting, logging in, listing, fetching and deleting.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use super::reply::{Reply, parse_listed, parse_uidl};
use super::unstuff::Unstuffing;
use crate::connection::{
    ConnectError, Deadlines, Endpoint, LOGIN_HINT, LineError, Lines, Login, NO_LOGIN_HINT, Security, Stream,
};

/// What is needed for a session.
#[derive(Clone, Debug)]
pub struct Pop3Account {
    /// Where.
    pub endpoint: Endpoint,
    /// Whom the server's certificate is to be trusted by.
    pub tls: Arc<ClientConfig>,
    /// Who.
    pub login: Login,
    /// For how long anything is waited.
    pub deadlines: Deadlines,
}

/// A session in which someone is logged in.
#[derive(Debug)]
pub struct Pop3Session {
    lines: Lines<Stream>,
    deadlines: Deadlines,
    capabilities: BTreeSet<String>,
}

/// A message as the server lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its number in this session.
    pub number: u32,
    /// Its unique id.
    pub uidl: Arc<str>,
    /// Its size as the server counts it, which need not be what comes.
    pub size: u64,
}

impl Pop3Session {
    /// Connects and logs in.
    pub async fn open(account: &Pop3Account) -> Result<Self, Pop3Error> {
        let stream = Stream::connect(&account.endpoint, &account.tls, &account.deadlines).await?;
        Self::over(stream, account).await
    }

    /// Logs in over a connection that stands.
    pub(crate) async fn over(stream: Stream, account: &Pop3Account) -> Result<Self, Pop3Error> {
        let Pop3Account { endpoint, login, deadlines, .. } = account;
        let mut session =
            Self { lines: Lines::new(stream, deadlines.silence), deadlines: *deadlines, capabilities: BTreeSet::new() };
        match session.reply().await {
            Ok(Reply::Ok(_)) => {}
            Ok(Reply::Refused(reply)) => return Err(Pop3Error::Busy { reply }),
            Ok(Reply::Challenge) => return Err(ConnectError::Greeting { reply: "+".to_owned() }.into()),
            Err(Pop3Error::NotPop3 { line }) => return Err(ConnectError::Greeting { reply: line }.into()),
            Err(error) => return Err(error),
        }
        session.ask_capabilities().await?;
        if endpoint.security == Security::Upgrade {
            session = session.upgrade(account).await?;
        }
        session.log_in(login).await?;
        // Others than before the login may hold now.
        session.ask_capabilities().await?;
        Ok(session)
    }

    /// Whether the server can do something, by its name in capital letters.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }

    /// Every message, in the order of the server.
    pub async fn list(&mut self) -> Result<Vec<Listed>, Pop3Error> {
        let mut sizes = std::collections::BTreeMap::new();
        self.multi_line("LIST", MAXIMUM_MESSAGES, |line| {
            let (number, size) = parse_listed(line)?;
            sizes.insert(number, size);
            Some(())
        })
        .await?;
        let mut listed = Vec::new();
        self.multi_line("UIDL", MAXIMUM_MESSAGES, |line| {
            let (number, uidl) = parse_uidl(line)?;
            listed.push(Listed { number, uidl: uidl.into(), size: *sizes.get(&number)? });
            Some(())
        })
        .await?;
        Ok(listed)
    }

    /// How many commands may be sent before the first of them is answered.
    pub fn ahead(&self) -> usize {
        if self.can("PIPELINING") { COMMANDS_AHEAD } else { 1 }
    }

    /// Asks for a message; its answer is read by [`Pop3Session::receive`], in the order of the asking.
    pub async fn ask(&mut self, number: u32) -> Result<(), Pop3Error> {
        self.send(&format!("RETR {number}")).await
    }

    /// Begins to read a message that was asked for; nothing for one that the server refuses.
    pub async fn receive(&mut self, limit: u64) -> Result<Option<Receiving>, Pop3Error> {
        match self.reply().await? {
            Reply::Ok(_) => Ok(Some(Receiving { unstuffing: Unstuffing::new(), size: 0, limit })),
            Reply::Refused(reply) => {
                tracing::debug!(reply, "the server refuses a message");
                Ok(None)
            }
            Reply::Challenge => Err(Pop3Error::NotPop3 { line: "+".to_owned() }),
        }
    }

    /// The next piece of a message; nothing at its end.
    pub async fn piece(&mut self, receiving: &mut Receiving) -> Result<Option<Vec<u8>>, Pop3Error> {
        let Receiving { unstuffing, size, limit } = receiving;
        let mut piece = Vec::new();
        while !unstuffing.ended() && piece.len() < PIECE {
            if self.lines.waiting().is_empty() {
                self.lines.fill().await?;
            }
            let taken = unstuffing.take(self.lines.waiting(), &mut piece);
            self.lines.take(taken);
            if *size + piece.len() as u64 > *limit {
                return Err(Pop3Error::TooLarge { limit: *limit });
            }
        }
        *size += piece.len() as u64;
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// Marks a message as deleted; it goes when the session is closed well.
    pub async fn delete(&mut self, number: u32) -> Result<(), Pop3Error> {
        self.command(&format!("DELE {number}")).await.map(drop)
    }

    /// Ends the session, which is when the server deletes what was marked.
    pub async fn quit(mut self) -> Result<(), Pop3Error> {
        self.command("QUIT").await.map(drop)
    }

    async fn ask_capabilities(&mut self) -> Result<(), Pop3Error> {
        let mut capabilities = BTreeSet::new();
        let asked = self
            .multi_line("CAPA", MAXIMUM_CAPABILITIES, |line| {
                let line = String::from_utf8_lossy(line).to_ascii_uppercase();
                if let Some(mechanisms) = line.strip_prefix("SASL ") {
                    capabilities.extend(mechanisms.split_whitespace().map(|mechanism| format!("SASL {mechanism}")));
                }
                capabilities.insert(line);
                Some(())
            })
            .await;
        match asked {
            // A server of before 1998 knows no capabilities, and has none.
            Err(Pop3Error::Refused { .. }) => {}
            asked => asked?,
        }
        self.capabilities = capabilities;
        Ok(())
    }

    async fn upgrade(mut self, account: &Pop3Account) -> Result<Self, Pop3Error> {
        if !self.can("STLS") {
            return Err(ConnectError::NoUpgrade.into());
        }
        self.command("STLS").await?;
        let (stream, ahead) = self.lines.into_parts();
        if !ahead.is_empty() {
            return Err(ConnectError::AheadOfTls.into());
        }
        let stream = stream.upgrade(&account.endpoint, &account.tls, &self.deadlines).await?;
        let mut session = Self {
            lines: Lines::new(stream, self.deadlines.silence),
            deadlines: self.deadlines,
            capabilities: BTreeSet::new(),
        };
        // What was offered before TLS could have been anyone's offer.
        session.ask_capabilities().await?;
        Ok(session)
    }

    async fn log_in(&mut self, login: &Login) -> Result<(), Pop3Error> {
        let logged_in = match login {
            Login::Token { .. } => self.authenticate("XOAUTH2", login).await,
            Login::Password { .. } if self.can("SASL PLAIN") => self.authenticate("PLAIN", login).await,
            Login::Password { user, password } => {
                self.command(&format!("USER {}", one_line(user)?)).await?;
                self.command(&format!("PASS {}", one_line(password)?)).await.map(drop)
            }
        };
        logged_in.map_err(|error| match error {
            Pop3Error::Refused { reply, .. } if reply.contains("[IN-USE]") || reply.contains("[SYS/TEMP]") => {
                Pop3Error::Busy { reply }
            }
            Pop3Error::Refused { reply, .. } => Pop3Error::LoginRefused { reply },
            error => error,
        })
    }

    async fn authenticate(&mut self, mechanism: &str, login: &Login) -> Result<(), Pop3Error> {
        if !self.can(&format!("SASL {mechanism}")) {
            return Err(Pop3Error::NoLogin);
        }
        // The proof goes behind the challenge, since a command has no room for a long token.
        self.send(&format!("AUTH {mechanism}")).await?;
        let mut proof = Some(STANDARD.encode(login.response()));
        for _ in 0..3 {
            match self.reply().await? {
                Reply::Ok(_) => return Ok(()),
                Reply::Refused(reply) => return Err(Pop3Error::Refused { command: "AUTH".to_owned(), reply }),
                // A second challenge is the report of a failure, which wants an empty answer.
                Reply::Challenge => {
                    let proof = proof.take().unwrap_or_default();
                    self.lines.send(format!("{proof}\r\n").as_bytes()).await?;
                }
            }
        }
        Err(Pop3Error::NoLogin)
    }

    /// Sends a command and wants it accepted.
    async fn command(&mut self, command: &str) -> Result<String, Pop3Error> {
        self.send(command).await?;
        match self.reply().await? {
            Reply::Ok(told) => Ok(told),
            Reply::Refused(reply) => Err(Pop3Error::Refused { command: verb(command), reply }),
            Reply::Challenge => Err(Pop3Error::NotPop3 { line: "+".to_owned() }),
        }
    }

    /// Sends a command and hands on each line of its answer, which `take` understands or not.
    async fn multi_line(
        &mut self,
        command: &str,
        lines: u32,
        mut take: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<(), Pop3Error> {
        self.command(command).await?;
        let deadline = Instant::now() + self.deadlines.answer;
        for _ in 0..=lines {
            let line = timeout_at(deadline, self.lines.line(MAXIMUM_LINE)).await;
            let line = line.map_err(|_| Pop3Error::Silent(self.deadlines.answer))??;
            if line == b"." {
                return Ok(());
            }
            let line = line.strip_prefix(b".").unwrap_or(&line);
            take(line).ok_or_else(|| Pop3Error::NotPop3 { line: String::from_utf8_lossy(line).into_owned() })?;
        }
        Err(Pop3Error::Endless { command: verb(command) })
    }

    async fn send(&mut self, command: &str) -> Result<(), Pop3Error> {
        Ok(self.lines.send(format!("{command}\r\n").as_bytes()).await?)
    }

    async fn reply(&mut self) -> Result<Reply, Pop3Error> {
        let line = self.lines.line(MAXIMUM_LINE).await?;
        Reply::parse(&line).ok_or_else(|| Pop3Error::NotPop3 {
            line: String::from_utf8_lossy(&line)
                .chars()
                .filter(|character| !character.is_control())
                .take(100)
                .collect(),
        })
    }
}

fn verb(command: &str) -> String {
    command.split(' ').next().unwrap_or_default().to_owned()
}

fn one_line(text: &str) -> Result<&str, Pop3Error> {
    if text.contains(['\r', '\n', '\0']) { Err(Pop3Error::NotALine) } else { Ok(text) }
}

/// A message that is being read.
pub struct Receiving {
    unstuffing: Unstuffing,
    size: u64,
    limit: u64,
}

/// Why a session failed. But for the first three, another session may do better.
#[derive(Debug, thiserror::Error)]
pub enum Pop3Error {
    /// The server knows the user not, or not by this.
    #[error("the server refused the login: {reply}")]
    LoginRefused {
        /// What it said.
        reply: String,
    },
    /// There is no way to log in that both know.
    #[error("the server offers no way to log in with these credentials")]
    NoLogin,
    /// A name or password has a character that no command can carry.
    #[error("the user name or password has a line end in it")]
    NotALine,
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server has no time now, or someone else has the mailbox.
    #[error("the server is busy: {reply}")]
    Busy {
        /// What it said.
        reply: String,
    },
    /// It will not do something.
    #[error("the server refused {command}: {reply}")]
    Refused {
        /// What was asked.
        command: String,
        /// What it said.
        reply: String,
    },
    /// What came is not POP3.
    #[error("the server's answer is not understood: {line:?}")]
    NotPop3 {
        /// The beginning of what came.
        line: String,
    },
    /// A line is longer than any may be.
    #[error("the server sent a line of more than {limit} bytes")]
    Line {
        /// What a line may have.
        limit: usize,
    },
    /// A list does not end.
    #[error("the server's answer to {command} has no end")]
    Endless {
        /// What was asked.
        command: String,
    },
    /// A message does not end.
    #[error("the server sent a message of more than {limit} bytes")]
    TooLarge {
        /// What a message may have.
        limit: u64,
    },
    /// Nothing came.
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
    /// The connection was cut.
    #[error("the connection broke off")]
    Broken(#[source] io::Error),
}

impl Pop3Error {
    /// Whether no other try can help until someone changes the account.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::LoginRefused { .. } | Self::NoLogin | Self::NotALine)
    }

    /// What a person can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::LoginRefused { .. } => Some(LOGIN_HINT),
            Self::NoLogin => Some(NO_LOGIN_HINT),
            Self::Connect(error) => Some(error.hint()),
            Self::Silent(_) => {
                Some("look at security in the account; else the server is slow, and another time may do")
            }
            Self::Refused { command, .. } if command == "UIDL" => {
                Some("the server has no unique ids, so nothing can be known to have been fetched; fetch by IMAP")
            }
            _ => None,
        }
    }
}

impl From<LineError> for Pop3Error {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Broken(source) => Self::Broken(source),
            LineError::Silent(silence) => Self::Silent(silence),
            LineError::TooLong { limit } => Self::Line { limit },
        }
    }
}

/// RFC 2449 allows 512; some servers' greetings are longer.
const MAXIMUM_LINE: usize = 4096;
const MAXIMUM_MESSAGES: u32 = 4_000_000;
const MAXIMUM_CAPABILITIES: u32 = 1000;
const COMMANDS_AHEAD: usize = 32;

/// A message is handed on in pieces of about so many bytes.
const PIECE: usize = 256 << 10;
