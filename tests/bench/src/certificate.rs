//! A certificate that nobody knows, for the contenders that speak TLS: the same configuration for each.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;

/// TLS 1.2 and 1.3, ECDSA on P-256, sessions resumed by tickets, HTTP/1.1.
pub(crate) fn config() -> ServerConfig {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has both versions")
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .expect("they match");
    config.ticketer = ring::Ticketer::new().expect("random numbers");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}
