//! Why a try failed, in words for whoever reads the queue at the end of a long day, and in kinds for the program.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use super::Reply;

/// Why nothing was accepted, or why the answer is not known.
#[derive(Debug, Error)]
pub enum Failure {
    /// The name of the server has no address, or nobody could be asked for it.
    #[error("the address of {host} cannot be found")]
    Lookup {
        /// The name.
        host: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The system knows no way to the server.
    #[error("there is no network to {address}")]
    Unreachable {
        /// Where to.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Nothing listens there, or something on the way forbids it.
    #[error("{address} refused the connection")]
    Refused {
        /// Where to.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Connecting failed in another way.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The connection stood no longer, or was closed by the server.
    #[error("the server hung up {stage}")]
    Closed {
        /// When.
        stage: Stage,
        /// The system's reason, where it gave one.
        #[source]
        source: Option<io::Error>,
    },
    /// Nothing came in time.
    #[error("nothing came {stage} within {}", Seconds(*after))]
    Deadline {
        /// What was waited for.
        stage: Stage,
        /// How long.
        after: Duration,
    },
    /// What came is not SMTP.
    #[error("the server's answer {stage} is not SMTP")]
    Garbled {
        /// When.
        stage: Stage,
    },
    /// The certificate is not one to believe.
    #[error("the certificate of {host} is not trusted")]
    Untrusted {
        /// The name it should be for.
        host: String,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// TLS failed in another way.
    #[error("no protected connection to {host} can be made")]
    Tls {
        /// The server.
        host: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The server has no STARTTLS, or somebody on the way removed it.
    #[error("the server does not offer STARTTLS")]
    NoStarttls,
    /// The server does not believe user and password, or token.
    #[error("the server does not accept the login of {user}: {reply}")]
    Login {
        /// The user.
        user: String,
        /// What it said.
        reply: Reply,
    },
    /// The server knows no way to log in that is known here.
    #[error("the server offers none of the ways to log in that this account allows")]
    NoMechanism,
    /// The server refuses, not a recipient, but to go on at all.
    #[error("the server refused {stage}: {reply}")]
    Rejected {
        /// When.
        stage: Stage,
        /// What it said.
        reply: Reply,
    },
    /// The gate did not let the dot pass.
    #[error("the mail was held back before its end")]
    Withheld,
    /// The stored message cannot be read, or is not as long as it was.
    #[error("the stored message cannot be read")]
    Body {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A setting that cannot be used.
    #[error("{what}")]
    Setting {
        /// What is wrong with it.
        what: String,
    },
}

/// What a failure says about whether and where to try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// This way to the network does not carry; another may.
    Path,
    /// The server is there and cannot at present.
    Server,
    /// Somebody has to change the account: no other try will do better.
    Account,
    /// This device: a setting or a stored message.
    Local,
    /// The caller wanted it so.
    Withheld,
}

impl Failure {
    /// What to make of it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Lookup { .. } | Self::Unreachable { .. } | Self::Refused { .. } | Self::Connect { .. } => Kind::Path,
            // A network that answers for everybody has a certificate of its own, and takes STARTTLS away.
            Self::Closed { .. } | Self::Deadline { .. } | Self::Tls { .. } | Self::Garbled { .. } => Kind::Path,
            Self::Untrusted { .. } | Self::NoStarttls | Self::NoMechanism => Kind::Account,
            Self::Login { reply, .. } if reply.is_permanent() => Kind::Account,
            Self::Login { .. } | Self::Rejected { .. } => Kind::Server,
            Self::Withheld => Kind::Withheld,
            Self::Body { .. } | Self::Setting { .. } => Kind::Local,
        }
    }

    /// What a person can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Lookup { .. } => Some("check the server's name in the account, and whether this device is online"),
            Self::Refused { .. } => Some("check the port in the account; some networks block it"),
            Self::Untrusted { .. } => Some(
                "check the server's name in the account and this device's date; name the certificate of a private \
                 authority in `ca_file`; on a network that asks to log in first, open a browser",
            ),
            Self::NoStarttls => {
                Some("if the server takes TLS from the first byte, set `security = \"tls\"` and port 465")
            }
            Self::Login { .. } => Some("many providers want an app password, or a token instead of the usual password"),
            Self::NoMechanism => Some("some servers offer a login only over TLS, or only with a token"),
            Self::Deadline { stage: Stage::Connect, .. } => {
                Some("some networks drop connections to mail servers silently")
            }
            Self::Tls { .. } | Self::Garbled { .. } | Self::Deadline { stage: Stage::Tls | Stage::Greeting, .. } => {
                Some(
                    "look at port and security in the account: at port 465 TLS begins at once (`tls`), at port 587 it is \
                 asked for (`starttls`)",
                )
            }
            _ => None,
        }
    }
}

/// What was being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Finding the server's address.
    Lookup,
    /// Connecting.
    Connect,
    /// Beginning TLS.
    Tls,
    /// Before anything was said.
    Greeting,
    /// EHLO.
    Hello,
    /// AUTH.
    Login,
    /// Between two mails.
    Idle,
    /// MAIL.
    Sender,
    /// RCPT.
    Recipient,
    /// DATA.
    Data,
    /// The message itself.
    Message,
    /// The final dot.
    Answer,
    /// QUIT.
    Quit,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup => "when its address was looked up",
            Self::Connect => "on connecting",
            Self::Tls => "on beginning TLS",
            Self::Greeting => "on greeting",
            Self::Hello => "after EHLO",
            Self::Login => "on logging in",
            Self::Idle => "between two mails",
            Self::Sender => "when the sender was named",
            Self::Recipient => "when a recipient was named",
            Self::Data => "when the message was announced",
            Self::Message => "while the message was sent",
            Self::Answer => "after the whole message was sent",
            Self::Quit => "on leaving",
        })
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_millis() {
            0 => write!(f, "{} s", self.0.as_secs()),
            _ => write!(f, "{:.3} s", self.0.as_secs_f64()),
        }
    }
}
