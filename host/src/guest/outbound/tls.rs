//! Whom guests' outgoing requests trust, and who they say they are: files to a TLS configuration. Blocks while it reads.

use std::{
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use http::uri::Scheme;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};

use crate::{guest::OutboundRule, whole_file};

/// Why a rule's TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// It is not there, or we may not read it.
    #[error("`{}` cannot be read", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is no PEM file with what it should have.
    #[error("`{}` must be a PEM file with {content}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should have.
        content: &'static str,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// There are certificates in it, and one is no root.
    #[error("`{}` has a certificate that cannot be a root", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// Certificate and key do not go together, or are of a kind that is not known.
    #[error("the certificate `{}` cannot be used with the key `{}`", certificate.display(), key.display())]
    Client {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// The TLS library has no protocol version: cannot happen with the one that is built in.
    #[error("TLS cannot be configured")]
    Versions(#[source] rustls::Error),
}

/// What `rule` says about TLS; without any for `http`.
///
/// # Errors
/// A file cannot be used.
pub(crate) fn config(rule: &OutboundRule) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    if rule.scheme == Scheme::HTTPS {
        roots.add_parsable_certificates(system_roots().iter().cloned());
    }
    if let Some(path) = &rule.roots {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|source| TlsError::Root { path: path.clone(), source })?;
        }
    }
    let builder = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &rule.client else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(certificate)?;
    let read_key = whole_file::read(key).map_err(pem::Error::Io).and_then(|text| PrivateKeyDer::from_pem_slice(&text));
    let read_key = read_key.map_err(|error| unreadable(key, "a private key", error))?;
    builder.with_client_auth_cert(chain, read_key).map_err(|source| TlsError::Client {
        certificate: certificate.clone(),
        key: key.clone(),
        source,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |error| unreadable(path, "certificates", error);
    let text = whole_file::read(path).map_err(|error| read(pem::Error::Io(error)))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(read)?;
    if certificates.is_empty() { Err(read(pem::Error::NoItemsFound)) } else { Ok(certificates) }
}

fn unreadable(path: &Path, content: &'static str, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => TlsError::Open { path, source },
        source => TlsError::Content { path, content, source },
    }
}

/// The system's roots, or what `SSL_CERT_FILE` and `SSL_CERT_DIR` say instead; read once, when first wanted.
fn system_roots() -> &'static [CertificateDer<'static>] {
    static ROOTS: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            log::warn!(
                "the system has no root certificates: `https` needs rules with `roots` of their own (Debian has them in \
                 `ca-certificates`, and `SSL_CERT_FILE` may name others)"
            );
        }
        found.certs
    })
}
