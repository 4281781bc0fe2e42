//! Passphrases and recovery keys: from a file, from the environment, or typed unseen. Never from the command line.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use packetboat_core::keys::KeyRing;
use packetboat_core::marker::{Marker, UnlockError};
use packetboat_core::recovery::RecoveryKey;
use packetboat_engine::replica::Replica;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::text;
use crate::ui::Ui;

/// Bytes that are wiped when dropped.
pub(crate) type Secret = Zeroizing<Vec<u8>>;

/// Where secrets come from.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    /// A file that holds the secret.
    pub(crate) file: Option<PathBuf>,
    /// Who could be asked.
    pub(crate) ui: Ui,
}

impl Secrets {
    /// The passphrase that was given without asking, if one was.
    pub(crate) fn given_passphrase(&self) -> Result<Option<Secret>, Failure> {
        self.given("PACKETBOAT_PASSPHRASE", "passphrase")
    }

    /// A passphrase for a vault that is made, or for a vault whose passphrase is to change.
    pub(crate) fn new_passphrase(&self) -> Result<Secret, Failure> {
        let passphrase = match self.given_passphrase()? {
            Some(passphrase) => passphrase,
            None => self.type_new_passphrase()?,
        };
        if String::from_utf8_lossy(&passphrase).chars().count() < LEAST_CHARACTERS {
            self.ui.warn(&format!(
                "the passphrase is shorter than {LEAST_CHARACTERS} characters; whoever can read the intermediary can try \
                 to guess it"
            ));
        }
        Ok(passphrase)
    }

    /// A passphrase for a vault that is to be opened by its former one no more: the same again would keep nobody out.
    pub(crate) fn another_passphrase(&self, replica: &Replica) -> Result<Secret, Failure> {
        let is_typed = self.given_passphrase()?.is_none();
        for attempt in 1.. {
            let passphrase = self.new_passphrase()?;
            match replica.is_opened_by(&passphrase)? {
                Some(false) => return Ok(passphrase),
                None => {
                    self.ui.warn(
                        "the vault's marker is lost or damaged, so nobody can tell whether this is the passphrase that it \
                         had: where somebody is to be kept out, it must be another. `packetboat key passphrase` changes it \
                         again",
                    );
                    return Ok(passphrase);
                }
                Some(true) if is_typed && attempt < ATTEMPTS => {
                    eprintln!("That is the passphrase which the vault has now. Whoever is to be kept out may know it.");
                }
                Some(true) => {
                    return Err(Failure::new("that is the passphrase which the vault has now").hint(
                        "choose another: whoever is to be kept out may know this one. Where PACKETBOAT_PASSPHRASE is set, it \
                         is taken for the new one; --passphrase-file FILE comes before it",
                    ));
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Unlocks a vault with its passphrase.
    ///
    /// Each attempt costs one derivation of about a second. What was given is tried once, what is typed up to three times.
    pub(crate) fn unlock(&self, marker: &Marker) -> Result<KeyRing, Failure> {
        if let Some(passphrase) = self.given_passphrase()? {
            return Ok(marker.unlock_with_passphrase(&passphrase)?);
        }
        self.require_terminal("the vault's passphrase", "PACKETBOAT_PASSPHRASE")?;
        for attempt in 1.. {
            let passphrase = type_unseen("Passphrase of the vault: ")?;
            match marker.unlock_with_passphrase(&passphrase) {
                Err(UnlockError::WrongPassphrase) if attempt < ATTEMPTS => {
                    eprintln!("That passphrase does not open this vault.");
                }
                outcome => return Ok(outcome?),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Unlocks a vault with its recovery key.
    pub(crate) fn unlock_with_recovery(&self, marker: &Marker) -> Result<KeyRing, Failure> {
        if let Some(text) = self.given("PACKETBOAT_RECOVERY_KEY", "recovery key")? {
            return Ok(marker.unlock_with_recovery(&recovery_key(&text)?)?);
        }
        self.require_terminal("the vault's recovery key", "PACKETBOAT_RECOVERY_KEY")?;
        for attempt in 1.. {
            let text = type_unseen("Recovery key of the vault: ")?;
            let outcome = recovery_key(&text).and_then(|key| Ok(marker.unlock_with_recovery(&key)?));
            match outcome {
                Err(failure) if attempt < ATTEMPTS => eprint!("{failure}"),
                outcome => return outcome,
            }
        }
        unreachable!("the last attempt returns")
    }

    fn given(&self, variable: &str, what: &str) -> Result<Option<Secret>, Failure> {
        let (bytes, place) = match (&self.file, std::env::var_os(variable)) {
            (Some(file), _) => (read(file)?, text::path(file)),
            (None, Some(value)) => (Zeroizing::new(value.into_encoded_bytes()), variable.to_owned()),
            (None, None) => return Ok(None),
        };
        let secret = strip_newline(bytes);
        match secret.is_empty() {
            true => Err(Failure::new(format!("the {what} in {place} is empty"))),
            false => Ok(Some(secret)),
        }
    }

    fn type_new_passphrase(&self) -> Result<Secret, Failure> {
        self.require_terminal("a passphrase for the vault", "PACKETBOAT_PASSPHRASE")?;
        for _ in 0..ATTEMPTS {
            let first = type_unseen("New passphrase for the vault: ")?;
            if first.is_empty() {
                eprintln!("An empty passphrase protects nothing.");
                continue;
            }
            if type_unseen("The same again: ")? == first {
                return Ok(first);
            }
            eprintln!("The two differ.");
        }
        Err(Failure::new("no passphrase was chosen"))
    }

    fn require_terminal(&self, what: &str, variable: &str) -> Result<(), Failure> {
        if self.ui.can_ask() {
            return Ok(());
        }
        Err(Failure::new(format!("{what} is needed, and there is no terminal to ask for it"))
            .hint(format!("set {variable}, or name a file that holds it with --passphrase-file")))
    }
}

fn recovery_key(text: &[u8]) -> Result<RecoveryKey, Failure> {
    let text = std::str::from_utf8(text).map_err(|_| Failure::new("the recovery key is not text"))?;
    RecoveryKey::from_text(text).map_err(|error| Failure::new("this is not a recovery key").because(&error))
}

fn type_unseen(prompt: &str) -> Result<Secret, Failure> {
    let typed = rpassword::prompt_password(prompt)
        .map_err(|error| Failure::new("cannot read from the terminal").because(&error))?;
    Ok(Zeroizing::new(typed.into_bytes()))
}

/// What a file holds; it is read once in the life of the process, since a pipe gives its bytes to the first who asks.
fn read(file: &Path) -> Result<Secret, Failure> {
    static READ: Mutex<Option<(PathBuf, Secret)>> = Mutex::new(None);
    let mut known = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((path, secret)) = &*known
        && path == file
    {
        return Ok(secret.clone());
    }
    let secret = std::fs::read(file)
        .map(Zeroizing::new)
        .map_err(|error| Failure::new(format!("cannot read {}", text::path(file))).because(&error))?;
    *known = Some((file.to_owned(), secret.clone()));
    Ok(secret)
}

/// Without one newline at the end, as editors and `echo` leave it.
fn strip_newline(mut bytes: Secret) -> Secret {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    bytes
}

const LEAST_CHARACTERS: usize = 10;
const ATTEMPTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_is_not_part_of_a_passphrase() {
        for (given, meant) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a "), ("\n", "")] {
            let stripped = strip_newline(Zeroizing::new(given.as_bytes().to_vec()));
            assert_eq!(*stripped, meant.as_bytes(), "{given:?}");
        }
    }
}
