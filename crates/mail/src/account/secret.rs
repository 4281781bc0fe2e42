//! Passwords and tokens: where they are kept, and getting at them only when they are needed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::keyring::{Entry, Keyring, KeyringError};
use crate::connection::Login;
use crate::message::{Moment, format_date};

/// Who logs in, and where the secret is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    user: String,
    kept: Kept,
}

#[derive(Clone, PartialEq, Eq)]
enum Kept {
    Here(String),
    File(PathBuf),
    Command(String),
    TokenCommand(String),
    Keyring(Entry),
    Token(Token),
}

/// The places where a secret may be kept, of which an account names exactly one.
#[derive(Clone, Copy, Default)]
pub(super) struct Places<'a> {
    pub(super) password: Option<&'a Hidden>,
    pub(super) file: Option<&'a PathBuf>,
    pub(super) command: Option<&'a String>,
    pub(super) token_command: Option<&'a String>,
    /// The server whose password the keyring holds.
    pub(super) keyring: Option<&'a str>,
    pub(super) token: Option<&'a Token>,
}

impl Credentials {
    pub(super) fn new(user: &str, places: Places<'_>) -> Result<Self, SecretError> {
        let Places { password, file, command, token_command, keyring, token } = places;
        let kept = match (password, file, command, token_command, keyring, token) {
            (Some(password), None, None, None, None, None) => Kept::Here(password.0.clone()),
            (None, Some(file), None, None, None, None) => Kept::File(file.clone()),
            (None, None, Some(command), None, None, None) => Kept::Command(command.clone()),
            (None, None, None, Some(command), None, None) => Kept::TokenCommand(command.clone()),
            (None, None, None, None, Some(server), None) => {
                Kept::Keyring(Entry { server: server.to_owned(), user: user.to_owned() })
            }
            (None, None, None, None, None, Some(token)) => Kept::Token(token.clone()),
            _ => return Err(SecretError::NotOnePlace),
        };
        Ok(Self { user: user.to_owned(), kept })
    }

    /// Who logs in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Gets the secret. A token is fetched anew each time, because it soon expires.
    pub async fn login(&self) -> Result<Login, SecretError> {
        let user = self.user.clone();
        let password = match &self.kept {
            Kept::TokenCommand(command) => return Ok(Login::Token { user, token: run(command).await? }),
            Kept::Token(token) => return Ok(Login::Token { user, token: token.text.0.clone() }),
            Kept::Here(password) => password.clone(),
            Kept::File(path) => read(path).await?,
            Kept::Command(command) => run(command).await?,
            Kept::Keyring(entry) => {
                let found = Keyring::of_user().find(entry).await?;
                found.ok_or_else(|| SecretError::NotInKeyring { entry: entry.clone() })?.to_string()
            }
        };
        Ok(Login::Password { user, password })
    }
}

/// An access token itself, as a host lends it to a companion, which cannot run the host's command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The token.
    pub text: Hidden,
    /// Until when it is good at most, in milliseconds since 1970.
    pub expires_ms: u64,
}

impl Token {
    /// Whether it is good still, as far as this device can know.
    pub fn still_good(&self, now_ms: u64) -> Result<(), SecretError> {
        match self.expires_ms > now_ms {
            true => Ok(()),
            false => Err(SecretError::Expired { expires_ms: self.expires_ms }),
        }
    }
}

/// A text that is never shown, only written where the account is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

/// Says where it is, and never what.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(_) => f.write_str("Here"),
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Command(_) => f.write_str("Command"),
            Self::TokenCommand(_) => f.write_str("TokenCommand"),
            Self::Keyring(entry) => write!(f, "Keyring({entry:?})"),
            Self::Token(_) => f.write_str("Token"),
        }
    }
}

/// Reads the first line of a file that nobody else can read.
async fn read(path: &Path) -> Result<String, SecretError> {
    let failed = |source| SecretError::File { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The open file is asked, not the name, which may be another's by now.
        let mode = file.metadata().await.map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(SecretError::Readable { path: path.to_owned() });
        }
    }
    let mut text = Zeroizing::new(Vec::new());
    file.take(LIMIT).read_to_end(&mut text).await.map_err(failed)?;
    first_line(&text).ok_or(SecretError::Empty)
}

/// Runs a command and reads the first line that it prints.
async fn run(command: &str) -> Result<String, SecretError> {
    let failed = |source| SecretError::Command { source };
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut text = Zeroizing::new(Vec::new());
    let output = child.stdout.take();
    let finish = async {
        if let Some(output) = output {
            output.take(LIMIT).read_to_end(&mut text).await?;
        }
        child.wait().await
    };
    let status = timeout(DEADLINE, finish).await.map_err(|_| SecretError::Deadline)?.map_err(failed)?;
    if !status.success() {
        return Err(SecretError::Status { status });
    }
    first_line(&text).ok_or(SecretError::Empty)
}

fn first_line(text: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(text).ok()?.lines().next()?;
    (!line.is_empty()).then(|| line.to_owned())
}

fn moment(ms: u64) -> String {
    format_date(Moment { unix_seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX), offset_minutes: 0 })
}

/// Why there is no password or token.
#[derive(Debug, Error)]
pub enum SecretError {
    /// None of the places is given, or several are.
    #[error("one of `password`, `password_file`, `password_command`, `token_command` and `keyring = true` is needed")]
    NotOnePlace,
    /// The keyring cannot be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The keyring does not know it.
    #[error("the desktop's keyring has no password of {} at {}", entry.user, entry.server)]
    NotInKeyring {
        /// What it was asked for.
        entry: Entry,
    },
    /// A token that was lent is good no more.
    #[error("the token that the host lent expired at {}", moment(*expires_ms))]
    Expired {
        /// When, in milliseconds since 1970.
        expires_ms: u64,
    },
    /// A password without a user.
    #[error("a password needs a `user`")]
    NoUser,
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Others can read the file.
    #[error("others can read {}: `chmod 600` it", path.display())]
    Readable {
        /// Which.
        path: PathBuf,
    },
    /// The command cannot be run.
    #[error("cannot run the command that knows the password")]
    Command {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The command failed.
    #[error("the command that knows the password failed: {status}")]
    Status {
        /// How.
        status: ExitStatus,
    },
    /// The command waits, perhaps for somebody to type.
    #[error("the command that knows the password did not end within {} s", DEADLINE.as_secs())]
    Deadline,
    /// Nothing stands in the first line, or something that is not UTF-8.
    #[error("there is no password in the first line")]
    Empty,
}

/// Long enough for a person to unlock a store of passwords.
const DEADLINE: Duration = Duration::from_secs(60);

/// Tokens are a few KiB long.
const LIMIT: u64 = 64 << 10;
