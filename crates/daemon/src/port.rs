//! The submission port of a daemon: where it listens, who is heard there, and by which certificate it is protected.
//!
//! At an address that other computers reach, a program must begin TLS and give the token, whatever the settings say of
//! programs on this computer. So such a port always has a certificate: the one that settings name, or one that is made
//! here once and kept beside the outbox, with the names and addresses that the port goes by. On this computer nobody
//! can listen to what goes by the loopback address, and programs that find a certificate there ask their users about it;
//! there TLS is offered only where settings want it.
//!
//! Files of certificates are read again on a reload, since certificates of authorities are renewed every few weeks.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use packetboat_mail::submission::{
    self, Certificate, CertificateError, Limits, Reach, Server, ServerError, Tls, Token,
};
use thiserror::Error;
use tokio::net::TcpListener;

use crate::files;
use crate::home::Home;
use crate::outbox::intake::Intake;
use crate::settings;

/// What all addresses of the port have in common.
pub(crate) struct Port {
    home: Home,
    host_name: String,
    token: String,
    tls: Option<Tls>,
}

impl Port {
    /// Reads or makes the certificate, where one is needed.
    pub(crate) fn new(
        home: &Home,
        host_name: String,
        token: String,
        wanted: &settings::Submission,
    ) -> Result<Self, PortError> {
        let mut port = Self { home: home.clone(), host_name, token, tls: None };
        if wanted.listen.iter().any(|address| offers_tls(wanted, address)) {
            let certificate = port.certificate(wanted)?;
            port.tls =
                Some(Tls::new(certificate).map_err(|source| PortError::Certificate { of: "TLS".into(), source })?);
        }
        Ok(port)
    }

    /// Listens at one address.
    pub(crate) async fn listen(
        &self,
        address: SocketAddr,
        wanted: &settings::Submission,
        queue: Arc<Intake>,
    ) -> Result<Server<Intake>, PortError> {
        let failed = |source| PortError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let beyond = !address.ip().is_loopback();
        let settings = submission::Settings {
            host: self.host_name.clone(),
            origin: self.host_name.clone(),
            token: if wanted.require_token || beyond { Token::new(&self.token) } else { None },
            tls: self.tls.as_ref().filter(|_| offers_tls(wanted, &address)).map(Tls::acceptor),
            spool: self.home.bodies(),
            limits: Limits { message: wanted.message_limit, ..Limits::default() },
        };
        let reach = if wanted.beyond_loopback { Reach::Network } else { Reach::Loopback };
        Ok(Server::new(listener, reach, settings, queue)?)
    }

    /// Reads the certificate again. One that cannot be read leaves the old one in its place.
    pub(crate) fn reload(&self, wanted: &settings::Submission) {
        let Some(tls) = &self.tls else { return };
        match self.certificate(wanted) {
            Ok(certificate) => tls.replace(certificate),
            Err(error) => {
                let error = files::with_causes(&error);
                tracing::error!(error, "the submission port keeps the certificate that it has");
            }
        }
    }

    fn certificate(&self, wanted: &settings::Submission) -> Result<Certificate, PortError> {
        if wanted.certificate.is_empty() {
            return self.own_certificate(wanted);
        }
        let config = self.home.config();
        let (chain, key) = (config.join(&wanted.certificate), config.join(&wanted.key));
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| PortError::File { what: "read", path: path.to_owned(), source })
        };
        let mode = key.metadata().map_or(0, |data| data.permissions().mode());
        if mode & FOR_ALL != 0 {
            return Err(PortError::OpenKey { path: key });
        }
        let parsed = Certificate::parse(&read(&chain)?, &read(&key)?);
        parsed.map_err(|source| PortError::Certificate { of: chain.display().to_string(), source })
    }

    /// The certificate that was made here; a new one, by the same key, where the port goes by other names now.
    fn own_certificate(&self, wanted: &settings::Submission) -> Result<Certificate, PortError> {
        let (chain_path, key_path) = (self.home.certificate(), self.home.certificate_key());
        let made = |source| PortError::Certificate { of: chain_path.display().to_string(), source };
        let read = |path: &Path| {
            let read = files::read_if_there(path);
            read.map_err(|source| PortError::File { what: "read", path: path.to_owned(), source })
        };
        let write = |path: &Path, text: &str| {
            let written = files::write_whole(path, text.as_bytes());
            written.map_err(|source| PortError::File { what: "write", path: path.to_owned(), source })
        };
        let names = self.names(wanted);
        let heading = format!("Packetboat's certificate for {}, made by itself\n", names.join(", "));
        let kept = read(&key_path)?.and_then(|bytes| String::from_utf8(bytes).ok());
        if let (Some(chain), Some(key)) = (read(&chain_path)?, &kept)
            && chain.starts_with(heading.as_bytes())
            && let Ok(certificate) = Certificate::parse(&chain, key.as_bytes())
        {
            return Ok(certificate);
        }
        let key = match kept.filter(|key| Certificate::make(&names, key).is_ok()) {
            Some(key) => key,
            None => {
                let key = Certificate::make_key().map_err(made)?;
                write(&key_path, &key)?;
                key
            }
        };
        let chain = heading + &Certificate::make(&names, &key).map_err(made)?;
        write(&chain_path, &chain)?;
        tracing::info!(path = %chain_path.display(), "made a certificate, which mail programs are to be told to trust");
        Certificate::parse(chain.as_bytes(), key.as_bytes()).map_err(made)
    }

    /// What programs may call the port.
    fn names(&self, wanted: &settings::Submission) -> Vec<String> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), self.host_name.clone()];
        names.extend(wanted.names.iter().cloned());
        let named = wanted.listen.iter().map(SocketAddr::ip).filter(|address| !address.is_unspecified());
        names.extend(named.map(|address| address.to_string()));
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }
}

fn offers_tls(wanted: &settings::Submission, address: &SocketAddr) -> bool {
    wanted.starttls || !address.ip().is_loopback()
}

/// Why mail programs cannot be listened to.
#[derive(Debug, Error)]
pub enum PortError {
    /// The address cannot be had.
    #[error("mail cannot be taken at {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The port reaches further than it may.
    #[error(transparent)]
    Reach(#[from] ServerError),
    /// A file of the certificate cannot be used.
    #[error("cannot {what} {} for the submission port", path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The key is open to everyone on this computer.
    #[error("{} can be read by everyone on this computer", path.display())]
    OpenKey {
        /// The file of the key.
        path: PathBuf,
    },
    /// The certificate cannot be shown.
    #[error("the submission port cannot use {of}")]
    Certificate {
        /// Which.
        of: String,
        /// Why not.
        #[source]
        source: CertificateError,
    },
}

impl PortError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Listen { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "another program listens there: choose another port as submission.listen in daemon.toml, and name it \
                     in mail programs"
                }
                io::ErrorKind::AddrNotAvailable => {
                    "this computer does not have that address now: look at submission.listen in daemon.toml"
                }
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 are the system's: choose one above as submission.listen in daemon.toml"
                }
                _ => return None,
            },
            Self::Reach(_) => "`packetboat run --print-settings` says what submission.beyond_loopback means",
            Self::File { .. } => {
                "look at submission.certificate and submission.key in daemon.toml, and at who owns them"
            }
            Self::OpenKey { .. } => {
                "take the file from others with `chmod 600`, and make a new key if they may have read it"
            }
            Self::Certificate { .. } => {
                "submission.certificate is a PEM file of the certificate and those that signed it, submission.key one of \
                 its key; without both, Packetboat makes its own"
            }
        })
    }
}

/// The bits of a file's mode that let everyone read or write it. A group may be that of the programs that renew it.
const FOR_ALL: u32 = 0o006;

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> settings::Submission {
        settings::Settings::parse(&format!("[submission]\n{text}")).unwrap().submission
    }

    fn port(home: &Home, text: &str) -> Result<Port, PortError> {
        home.prepare().unwrap();
        Port::new(home, "laptop".to_owned(), "the-local-token".to_owned(), &settings(text))
    }

    const BEYOND: &str = "listen = [\"127.0.0.1:0\", \"0.0.0.0:0\"]\nbeyond_loopback = true\n";

    #[test]
    fn a_certificate_is_made_where_one_is_needed_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path(), directory.path());
        assert!(port(&home, "").unwrap().tls.is_none());
        assert!(!home.certificate().exists(), "nothing is made that nobody is shown");
        assert!(port(&home, "starttls = true").unwrap().tls.is_some());
        let (chain, key) = (std::fs::read(home.certificate()).unwrap(), std::fs::read(home.certificate_key()).unwrap());
        assert!(port(&home, BEYOND).unwrap().tls.is_some());
        assert_eq!(std::fs::read(home.certificate()).unwrap(), chain, "programs that trust it still do");
        // Another name is another certificate by the same key.
        let _port = port(&home, &format!("{BEYOND}names = [\"laptop.example.org\"]")).unwrap();
        assert_ne!(std::fs::read(home.certificate()).unwrap(), chain);
        assert_eq!(std::fs::read(home.certificate_key()).unwrap(), key);
        let mode = std::fs::metadata(home.certificate_key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_left_of_a_certificate_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path(), directory.path());
        drop(port(&home, BEYOND).unwrap());
        for damaged in [home.certificate(), home.certificate_key()] {
            let whole = std::fs::read(&damaged).unwrap();
            std::fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
            assert!(port(&home, BEYOND).unwrap().tls.is_some());
        }
    }

    #[test]
    fn a_certificate_that_cannot_be_used_is_refused_with_a_hint() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path(), directory.path());
        let named = format!("{BEYOND}certificate = \"chain.pem\"\nkey = \"key.pem\"");
        let missing = port(&home, &named).err().unwrap();
        assert!(matches!(missing, PortError::File { .. }) && missing.hint().is_some(), "{missing}");
        let key = Certificate::make_key().unwrap();
        let chain = Certificate::make(&["mail.example.org".to_owned()], &key).unwrap();
        std::fs::write(directory.path().join("chain.pem"), chain).unwrap();
        files::write_whole(&directory.path().join("key.pem"), Certificate::make_key().unwrap().as_bytes()).unwrap();
        let strangers = port(&home, &named).err().unwrap();
        assert!(matches!(strangers, PortError::Certificate { .. }), "{strangers}");
        files::write_whole(&directory.path().join("key.pem"), key.as_bytes()).unwrap();
        let right = port(&home, &named).unwrap();
        right.reload(&settings(&named));
        drop(right);
        std::fs::set_permissions(directory.path().join("key.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(port(&home, &named), Err(PortError::OpenKey { .. })));
    }
}
