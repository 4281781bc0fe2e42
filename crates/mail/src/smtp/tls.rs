//! Whose certificates are believed: the platform's authorities, and one more where a file names it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;
use tokio_rustls::TlsConnector;

use super::Failure;

/// A verifier that was made once and is shared by all connections of an account.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// The platform's authorities, and those in a PEM file.
    ///
    /// Reads the platform's store, so it is made once for an account, and blocks for some milliseconds.
    pub fn load(ca_file: Option<&Path>) -> Result<Self, Failure> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let extra = match ca_file {
            None => Vec::new(),
            Some(path) => certificates(path)?,
        };
        let setting =
            |error: rustls::Error| Failure::Setting { what: format!("no authorities can be loaded: {error}") };
        let verifier = Verifier::new_with_extra_roots(extra, provider.clone()).map_err(setting)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(setting)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// What a fuzz target brings along: its servers are never met over TLS.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn of(config: Arc<ClientConfig>) -> Self {
        Self(config)
    }

    pub(super) fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.0.clone())
    }

    /// The same verifier for another protocol of the account.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let failed =
        |why: String| Failure::Setting { what: format!("{} is no file of certificates: {why}", path.display()) };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| failed(error.to_string()))?;
    if found.is_empty() { Err(failed("it holds none".to_owned())) } else { Ok(found) }
}
