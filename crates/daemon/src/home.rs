//! Where a daemon keeps what it must not lose, and its claim to be the only one there.
//!
//! ```text
//! STATE/daemon/            for its owner alone
//!   lock                   held by the process that writes here
//!   key                    the daemon's Ed25519 seed, 32 bytes
//!   submission-token       what a mail program gives as its password
//!   submission-certificate.pem  submission-key.pem
//!                          what the submission port proves itself by, where no other certificate is named
//!   pair.json              the other device of the pair
//!   companion.sealed       what the host gave its companion to send by
//!   outbox.db  inbox.db    queues and records
//!   carried.json           the vaults that are carried for the other device
//!   shelf/                 what waits to be put up of them, and copies
//!   bodies/                bodies too large for a row
//!   control                the socket that the other commands use
//! CONFIG/daemon.toml       settings
//! CONFIG/accounts.toml     accounts
//! ```
//!
//! One process at a time writes here: the daemon, or a command while no daemon runs. Everyone else asks that process
//! through the socket. The paths are passed in; nothing here looks at the environment.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use packetboat_core::keys::DeviceKey;
use packetboat_engine::ports::Entropy;

use crate::files::{self, FileError};

/// The two directories of one user's daemon.
#[derive(Clone, Debug)]
pub struct Home {
    state: PathBuf,
    config: PathBuf,
}

impl Home {
    /// The daemon's home below packetboat's state directory and its configuration directory.
    pub fn new(state_root: &Path, config_root: &Path) -> Self {
        Self { state: state_root.join("daemon"), config: config_root.to_owned() }
    }

    /// Makes the directories of the state where they are missing.
    pub fn prepare(&self) -> Result<(), FileError> {
        let bodies = self.bodies();
        files::make_directory(&bodies).map_err(|source| FileError::Io { what: "make", path: bodies, source })
    }

    /// Claims the home for this process; nothing, where another has it.
    pub fn claim(&self) -> Result<Option<Claim>, FileError> {
        self.prepare()?;
        let path = self.state.join("lock");
        let failed = |source| FileError::Io { what: "lock", path: path.clone(), source };
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Claim { home: self.clone(), _locked: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The directory of the state.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The configuration directory.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The file of settings, which may be missing.
    pub fn settings(&self) -> PathBuf {
        self.config.join("daemon.toml")
    }

    /// The file of accounts, which may be missing.
    pub fn accounts(&self) -> PathBuf {
        self.config.join("accounts.toml")
    }

    /// The outbox's database.
    pub fn outbox(&self) -> PathBuf {
        self.state.join("outbox.db")
    }

    /// The inbox's database.
    pub fn inbox(&self) -> PathBuf {
        self.state.join("inbox.db")
    }

    /// The directory of bodies that are too large for a row.
    pub fn bodies(&self) -> PathBuf {
        self.state.join("bodies")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.state.join("control")
    }

    /// What is remembered of the other device.
    pub fn pair(&self) -> PathBuf {
        self.state.join("pair.json")
    }

    /// The list of vaults that this device carries.
    pub fn carried(&self) -> PathBuf {
        self.state.join("carried.json")
    }

    /// What is kept of the vaults that this device carries.
    pub fn shelf(&self) -> PathBuf {
        self.state.join("shelf")
    }

    /// The accounts that a companion got from its host, sealed under this daemon's key.
    pub fn sealed_accounts(&self) -> PathBuf {
        self.state.join("companion.sealed")
    }

    /// The certificate that the submission port made for itself.
    pub fn certificate(&self) -> PathBuf {
        self.state.join("submission-certificate.pem")
    }

    /// The key of that certificate.
    pub fn certificate_key(&self) -> PathBuf {
        self.state.join("submission-key.pem")
    }

    /// The token that mail programs authenticate by, if the daemon made one already.
    pub fn read_token(&self) -> Result<Option<String>, FileError> {
        let path = self.state.join("submission-token");
        let read = files::read_if_there(&path);
        let bytes = read.map_err(|source| FileError::Io { what: "read", path: path.clone(), source })?;
        bytes.map(|bytes| String::from_utf8(bytes).map_err(|_| FileError::Damaged { path })).transpose()
    }
}

/// The right to write in a home, for as long as it lives.
#[derive(Debug)]
pub struct Claim {
    home: Home,
    _locked: File,
}

impl Claim {
    /// The home that was claimed.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The daemon's key, which is made at the first call.
    pub fn key(&self, entropy: &mut dyn Entropy) -> Result<DeviceKey, FileError> {
        let path = self.home.state.join("key");
        let failed = |what, source| FileError::Io { what, path: path.clone(), source };
        let seed = match files::read_if_there(&path).map_err(|source| failed("read", source))? {
            Some(bytes) => bytes.try_into().map_err(|_| FileError::Damaged { path: path.clone() })?,
            None => {
                let mut seed = [0; 32];
                entropy.fill(&mut seed);
                files::write_whole(&path, &seed).map_err(|source| failed("write", source))?;
                seed
            }
        };
        Ok(DeviceKey::from_seed(&seed))
    }

    /// The token that mail programs authenticate by, which is made at the first call.
    pub fn token(&self, entropy: &mut dyn Entropy) -> Result<String, FileError> {
        if let Some(token) = self.home.read_token()? {
            return Ok(token);
        }
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes);
        let token = packetboat_core::hex::encode(&bytes);
        let path = self.home.state.join("submission-token");
        let written = files::write_whole(&path, token.as_bytes());
        written.map_err(|source| FileError::Io { what: "write", path, source })?;
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use packetboat_testkit::rng::Rng;

    use super::*;

    #[test]
    fn a_home_has_one_owner_at_a_time_and_one_key_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path(), directory.path());
        let claim = home.claim().unwrap().expect("nobody else is here");
        assert!(home.claim().unwrap().is_none());
        let (key, token) = (claim.key(&mut Rng::new(0)).unwrap(), claim.token(&mut Rng::new(7)).unwrap());
        drop(claim);
        let claim = home.claim().unwrap().expect("the first has gone");
        assert_eq!(claim.key(&mut Rng::new(40)).unwrap().seed(), key.seed());
        assert_eq!(claim.token(&mut Rng::new(40)).unwrap(), token);
        let mode = std::fs::metadata(directory.path().join("daemon")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_cut_key_is_damage_and_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path(), directory.path());
        let claim = home.claim().unwrap().unwrap();
        std::fs::write(directory.path().join("daemon/key"), b"short").unwrap();
        assert!(matches!(claim.key(&mut Rng::new(0)), Err(FileError::Damaged { .. })));
    }
}
