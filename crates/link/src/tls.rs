//! TLS 1.3 with raw Ed25519 keys on both sides, and the question whether a key is the peer's.
//!
//! A link trusts exactly the keys that were paired, compared whole; while two devices are being paired any key is let
//! through, because people compare a code that is bound to both keys instead.
//! That a peer holds the private half is proven by its signature over the handshake, which is checked in both cases.
//!
//! There is no resumption, no early data and no TLS 1.2: each connection proves both keys anew, so a key that was
//! forgotten a moment ago opens nothing, and nothing that was recorded can be replayed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, RwLock};

use packetboat_core::keys::PublicKey;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::version::TLS13;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};

use crate::identity::{Identity, decode_public};

/// Whose key may be at the other end.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// The one that is dialled.
    Key(PublicKey),
    /// Any that is paired now; the set is shared, so forgetting a key takes effect at once.
    Paired(Paired),
    /// Whoever comes: people compare a code before anything is believed.
    Anyone,
}

/// The keys that are paired now.
#[derive(Clone, Default)]
pub(crate) struct Paired(Arc<RwLock<BTreeSet<PublicKey>>>);

impl Paired {
    pub(crate) fn insert(&self, key: PublicKey) -> bool {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(key)
    }

    pub(crate) fn remove(&self, key: &PublicKey) {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(key);
    }

    fn contains(&self, key: &PublicKey) -> bool {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).contains(key)
    }
}

impl fmt::Debug for Paired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Paired(..)")
    }
}

/// What dials a peer of `trust`, speaking `protocol`.
pub(crate) fn client(identity: &Identity, trust: Trust, protocol: &[u8]) -> Arc<QuicClientConfig> {
    let provider = provider();
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("ring speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(KeyVerifier { trust, provider }))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity.certified())));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Arc::new(QuicClientConfig::try_from(config).expect("ring has the suite of QUIC's first packets"))
}

/// What answers peers of `trust`, speaking `protocol`.
pub(crate) fn server(identity: &Identity, trust: Trust, protocol: &[u8]) -> Arc<QuicServerConfig> {
    let provider = provider();
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("ring speaks TLS 1.3")
        .with_client_cert_verifier(Arc::new(KeyVerifier { trust, provider }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity.certified())));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(QuicServerConfig::try_from(config).expect("ring has the suite of QUIC's first packets"))
}

/// The key that the other end of a connection proved to hold.
pub(crate) fn peer_key(connection: &quinn::Connection) -> Option<PublicKey> {
    let presented = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    decode_public(presented.first()?)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Lets the keys of [`Trust`] through and no others.
#[derive(Debug)]
struct KeyVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl KeyVerifier {
    fn judge(&self, presented: &CertificateDer<'_>) -> Result<(), Error> {
        let key = decode_public(presented).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let trusted = match &self.trust {
            Trust::Key(expected) => *expected == key,
            Trust::Paired(paired) => paired.contains(&key),
            Trust::Anyone => true,
        };
        // Becomes the alert `access_denied`, by which the other side knows that it was the key.
        if trusted { Ok(()) } else { Err(CertificateError::ApplicationVerificationFailure.into()) }
    }

    fn check_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(presented.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(presented).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _presented: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, presented, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        presented: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(presented).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _presented: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, presented, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
