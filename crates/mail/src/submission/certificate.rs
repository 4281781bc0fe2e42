//! What the submission port proves itself by in STARTTLS: a certificate that its user has, or one that it makes itself.
//!
//! A certificate that is made here is signed by its own key, so a program believes it only where it is told to
//! (`tls_trust_file`, `ca_file`, a pinned fingerprint). It has no end worth speaking of: its validity is not what makes
//! it believed, and a device whose clock is wrong must still be able to hand in mail.
//!
//! A certificate can be replaced while the port is served; conversations that have begun go on with the old one.
//! Reading and keeping files is the caller's.

use std::fmt;
use std::sync::{Arc, RwLock};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// A certificate with its chain and its key, which fit together.
#[derive(Clone)]
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// Reads a chain, the port's own certificate first, and its key, both in PEM.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Chain { why: error.to_string() })?;
        if chain.is_empty() {
            return Err(CertificateError::Chain { why: "there is none in it".to_owned() });
        }
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| CertificateError::Key { why: error.to_string() })?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => CertificateError::Strangers,
            source => CertificateError::Unusable { source },
        })?;
        Ok(Self(Arc::new(key)))
    }

    /// Makes a key, in PEM.
    pub fn make_key() -> Result<String, CertificateError> {
        Ok(KeyPair::generate()?.serialize_pem())
    }

    /// Makes a certificate for names and addresses, signed by the key itself, in PEM.
    pub fn make(names: &[String], key: &str) -> Result<String, CertificateError> {
        let key = KeyPair::from_pem(key).map_err(|error| CertificateError::Key { why: error.to_string() })?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Packetboat submission");
        // Not an authority: nobody who comes to believe this certificate believes another by it.
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(params.self_signed(&key)?.pem())
    }
}

/// Says nothing of the key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

/// The TLS of a port, whose certificate can be replaced.
#[derive(Clone)]
pub struct Tls {
    shown: Arc<Shown>,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Shows a certificate to all who begin TLS.
    pub fn new(certificate: Certificate) -> Result<Self, CertificateError> {
        let shown = Arc::new(Shown(RwLock::new(certificate.0)));
        let unusable = |source| CertificateError::Unusable { source };
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        Ok(Self { shown, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Shows another certificate from now on.
    pub fn replace(&self, certificate: Certificate) {
        *self.shown.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = certificate.0;
    }

    /// For [`Settings::tls`](super::Settings).
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// The certificate that is shown at present, whatever name is asked for: a port has one.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone())
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Why there is no certificate to show.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The chain cannot be read.
    #[error("the certificate cannot be read: {why}")]
    Chain {
        /// Why not.
        why: String,
    },
    /// The key cannot be read.
    #[error("the key of the certificate cannot be read: {why}")]
    Key {
        /// Why not.
        why: String,
    },
    /// The key is another certificate's.
    #[error("the key is not that of the certificate")]
    Strangers,
    /// It cannot be used for TLS.
    #[error("the certificate cannot be used")]
    Unusable {
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// None can be made.
    #[error("no certificate can be made")]
    Make(#[from] rcgen::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = Certificate::make_key().unwrap();
        (Certificate::make(&names, &key).unwrap(), key)
    }

    #[test]
    fn a_certificate_is_used_with_its_own_key_alone() {
        let (chain, key) = make(&["localhost", "127.0.0.1"]);
        let (_, other) = make(&["localhost"]);
        assert!(Certificate::parse(chain.as_bytes(), key.as_bytes()).is_ok());
        // Text before a certificate is a comment, as in the files of many authorities.
        assert!(Certificate::parse(format!("for people\n{chain}").as_bytes(), key.as_bytes()).is_ok());
        let strangers = Certificate::parse(chain.as_bytes(), other.as_bytes());
        assert!(matches!(strangers, Err(CertificateError::Strangers)), "{strangers:?}");
        for (chain, key) in [("", &key[..]), (&chain[..], ""), (&chain[..chain.len() / 2], &key[..]), (&chain, &chain)]
        {
            let read = Certificate::parse(chain.as_bytes(), key.as_bytes());
            assert!(matches!(read, Err(CertificateError::Chain { .. } | CertificateError::Key { .. })), "{read:?}");
        }
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        let (chain, key) = make(&["localhost"]);
        let certificate = Certificate::parse(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(format!("{certificate:?} {:?}", Tls::new(certificate.clone()).unwrap()), "Certificate Tls");
    }
}
