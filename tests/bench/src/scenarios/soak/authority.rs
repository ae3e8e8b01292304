//! An authority that clients trust: it signs certificates for the host, one after the other, and they are put where the host looks.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::folder::Folder;

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl Authority {
    /// With a first certificate.
    pub(super) fn new(folder: &Folder) -> Result<Self> {
        let mut own = CertificateParams::default();
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let mut roots = RootCertStore::empty();
        roots.add(own.self_signed(&key)?.der().clone())?;
        let issuer = Issuer::new(own, key);
        let path = |name| folder.path().join(name);
        let authority = Self { issuer, roots: roots.into(), cert: path("cert.pem"), key: path("key.pem") };
        authority.sign()?;
        Ok(authority)
    }

    /// Another certificate with another key, which the host should show from now on.
    pub(super) fn sign(&self) -> Result<CertificateDer<'static>> {
        let key = KeyPair::generate()?;
        let signed = CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, &self.issuer)?;
        for (path, text) in [(&self.cert, signed.pem()), (&self.key, key.serialize_pem())] {
            let new = path.with_extension("new");
            fs::write(&new, text).and_then(|()| fs::rename(&new, path)).context("cannot write a certificate")?;
        }
        Ok(signed.der().clone())
    }

    /// Of clients that trust it and resume their sessions.
    pub(super) fn clients(&self, version: &'static SupportedProtocolVersion) -> Result<ClientConfig> {
        Ok(ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[version])?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth())
    }

    /// Of clients that look at the certificate each time.
    pub(super) fn strangers(&self) -> Result<ClientConfig> {
        let mut config = self.clients(&rustls::version::TLS13)?;
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}
