//! The certificates that TLS listeners show: read from files, chosen by the name that a client asks for, read again when a file changes.
//!
//! A handshake reads one pointer, which a renewal exchanges; connections that are open notice nothing. What cannot be used is told,
//! and what was there before stays. Blocks while it reads: not for workers.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    InconsistentKeys, ServerConfig,
    client::verify_server_name,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{self, PemObject as _},
    },
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    config::CertificateFiles,
    validity,
    watch::{Change, Watched},
    whole_file,
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often what a person should know of them is said again.
const REMIND: Duration = Duration::from_secs(24 * 3600);

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// One of several: which.
    #[error("`{key}`")]
    Entry {
        /// The key of the configuration, such as `tls[1].cert`.
        key: String,
        /// What is wrong with it.
        source: Box<CertificateError>,
    },
    /// It is not there, we may not read it, or it is no file of a reasonable length.
    #[error("`{}` cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no PEM file with what it should have.
    #[error("`{}` must be a PEM file with {wanted}, found {found}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should have.
        wanted: &'static str,
        /// What it has.
        found: String,
    },
    /// The certificate is another key's.
    #[error(
        "the key `{}` is not that of the certificate `{}`, which must be the first in its file",
        files.key.display(), files.cert.display()
    )]
    Mismatch {
        /// The files.
        files: CertificateFiles,
    },
    /// Certificate or key are of a kind that is not known, or broken.
    #[error("the certificate `{}` cannot be used with the key `{}`", files.cert.display(), files.key.display())]
    Unusable {
        /// The files.
        files: CertificateFiles,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// The TLS library has no random numbers, or no protocol version.
    #[error("TLS cannot be configured")]
    Library(#[source] rustls::Error),
}

/// Reads the certificate with this number in `tls`, and its key, as [`read`] does.
///
/// # Errors
/// It cannot be used; says by which key it was configured.
pub(crate) fn read_entry(index: usize, files: &CertificateFiles) -> Result<CertifiedKey, CertificateError> {
    read(files).map_err(|error| {
        let key = match &error {
            CertificateError::Read { path, .. } | CertificateError::Content { path, .. } if *path == files.cert => {
                ".cert"
            }
            CertificateError::Read { .. } | CertificateError::Content { .. } => ".key",
            _ => "",
        };
        CertificateError::Entry { key: format!("tls[{index}]{key}"), source: Box::new(error) }
    })
}

/// Reads a certificate with what leads from it to a root, and its key.
///
/// # Errors
/// A file cannot be used, or they do not go together.
fn read(files: &CertificateFiles) -> Result<CertifiedKey, CertificateError> {
    let read_file =
        |path: &Path| whole_file::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source });
    let (text, key) = (read_file(&files.cert)?, read_file(&files.key)?);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) });
    let chain = chain.map_err(|error| content(&files.cert, &text, "a certificate", &error))?;
    let key =
        PrivateKeyDer::from_pem_slice(&key).map_err(|error| content(&files.key, &key, "a private key", &error))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|source| match source {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            CertificateError::Mismatch { files: files.clone() }
        }
        source => CertificateError::Unusable { files: files.clone(), source },
    })
}

/// What a person should know about a certificate and a key that can be used, a sentence each.
pub(crate) fn warnings(files: &CertificateFiles, certified: &CertifiedKey) -> Vec<String> {
    let (cert, key, now) = (files.cert.display(), files.key.display(), SystemTime::now());
    let concerns = certified.cert.iter().enumerate().filter_map(|(index, certificate)| {
        let concern = validity::concern(certificate, now)?;
        Some(match index {
            0 => format!("the certificate `{cert}` {concern}"),
            _ => format!("certificate {} in `{cert}` {concern}", index + 1),
        })
    });
    let is_open = fs::metadata(&files.key).is_ok_and(|found| found.mode() & 0o007 != 0);
    let open = is_open.then(|| format!("everybody may read the key `{key}`: `chmod 600 {key}` closes it"));
    concerns.chain(open).collect()
}

/// What is wrong with a file that does not have what it should.
fn content(path: &Path, text: &[u8], wanted: &'static str, error: &pem::Error) -> CertificateError {
    let text = String::from_utf8_lossy(text);
    let kinds: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
        .map(|kind| kind.get(..40).unwrap_or(kind))
        .collect();
    let found = match error {
        pem::Error::NoItemsFound if text.trim().is_empty() => "nothing: it is empty".to_owned(),
        pem::Error::NoItemsFound if kinds.is_empty() => "no PEM at all".to_owned(),
        // The second is OpenSSL's own way, of `openssl ec -aes256`.
        _ if kinds.contains(&"ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") => {
            "one that is encrypted: `openssl pkey -in KEY -out FILE` writes it in plain".to_owned()
        }
        pem::Error::MissingSectionEnd { end_marker } => {
            let marker = String::from_utf8_lossy(end_marker);
            format!(
                "the beginning of one only: the line `-----END {}-----` is missing; copy the file again",
                marker.trim()
            )
        }
        pem::Error::Base64Decode(_) => "one that is damaged (it is no base64): copy the file again".to_owned(),
        pem::Error::NoItemsFound => format!("`{}`: are certificate and key exchanged?", kinds.join("`, `")),
        error => error.to_string(),
    };
    CertificateError::Content { path: path.to_owned(), wanted, found }
}

/// Those that are shown now, in the order of the configuration.
#[derive(Debug)]
struct Shown(ArcSwap<Vec<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Shown {
    /// The first that is for the name the client asks for, else the first; of those that the client can verify.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.load();
        let usable = |shown: &&Arc<CertifiedKey>| shown.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| {
            shown.iter().filter(usable).find(|shown| {
                let parsed = shown.cert.first().and_then(|certificate| ParsedCertificate::try_from(certificate).ok());
                parsed.is_some_and(|parsed| verify_server_name(&parsed, &name).is_ok())
            })
        });
        named.or_else(|| shown.iter().find(usable)).cloned()
    }
}

/// Sees to it that what is shown is what the files have.
pub(crate) struct Certificates {
    shown: Arc<Shown>,
    files: Vec<WatchedFiles>,
    reminded: Instant,
}

struct WatchedFiles {
    files: CertificateFiles,
    watched: [Watched; 2],
    missing: [Missing; 2],
}

/// Whether a file is gone: many tools delete one before they write it anew, so one that is back at the next look never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Missing {
    #[default]
    No,
    Perhaps,
    /// And that was said.
    Yes,
}

impl WatchedFiles {
    /// Looks for changes; says that a file is gone, once.
    fn poll(&mut self, now: Instant) -> [Change; 2] {
        let changes = self.watched.each_mut().map(|file| file.poll(now));
        for ((file, path), missing) in
            self.watched.iter().zip([&self.files.cert, &self.files.key]).zip(&mut self.missing)
        {
            *missing = match missing {
                _ if file.is_there() => Missing::No,
                Missing::No => Missing::Perhaps,
                Missing::Perhaps => {
                    let path = path.display();
                    log::error!("`{path}` is gone: what was read from it is still used, but a restart would fail");
                    Missing::Yes
                }
                Missing::Yes => Missing::Yes,
            };
        }
        changes
    }
}

impl Certificates {
    /// Reads them all.
    ///
    /// # Errors
    /// One cannot be used.
    pub(crate) fn new(files: &[CertificateFiles]) -> Result<Self, CertificateError> {
        // Watched before they are read.
        let watched = |files: &CertificateFiles| WatchedFiles {
            files: files.clone(),
            watched: [&files.cert, &files.key].map(Watched::new),
            missing: [Missing::No; 2],
        };
        let watched = files.iter().map(watched).collect();
        let mut shown = Vec::new();
        for (index, files) in files.iter().enumerate() {
            let certified = read_entry(index, files)?;
            warn(files, &certified);
            shown.push(Arc::new(certified));
        }
        Ok(Self { shown: Arc::new(Shown(ArcSwap::from_pointee(shown))), files: watched, reminded: Instant::now() })
    }

    /// What a listener speaks TLS with. Sessions are resumed by tickets, whose keys live as long as this process.
    ///
    /// # Errors
    /// The TLS library cannot be used at all.
    pub(crate) fn config(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        let mut config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(CertificateError::Library)?
            .with_no_client_auth()
            .with_cert_resolver(self.shown.clone());
        config.ticketer = ring::Ticketer::new().map_err(CertificateError::Library)?;
        Ok(config.into())
    }

    /// Shows what has changed. When to look again, if there is anything to look at.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Duration> {
        for (index, entry) in self.files.iter_mut().enumerate() {
            let changes = entry.poll(now);
            // One that is missing may be still to come.
            let is_whole = entry.missing == [Missing::No; 2];
            if changes.contains(&Change::Changing) || !changes.contains(&Change::Stable) || !is_whole {
                continue;
            }
            let WatchedFiles { files, watched, .. } = entry;
            watched.iter_mut().for_each(Watched::taken);
            match read_entry(index, files) {
                Ok(renewed) => {
                    warn(files, &renewed);
                    let mut shown = Vec::clone(&self.shown.0.load());
                    shown[index] = Arc::new(renewed);
                    self.shown.0.store(Arc::new(shown));
                    log::info!("the certificate `{}` has changed and is shown from now on", files.cert.display());
                }
                // The other file may be still to come.
                Err(_) if watched.each_mut().map(Watched::waiting_for_more).contains(&true) => {}
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    log::error!("{error:#}; the certificate from before is still shown");
                }
            }
        }
        self.reminders(now).iter().for_each(|reminder| log::warn!("{reminder}"));
        (!self.files.is_empty()).then_some(LOOK)
    }

    /// What is to be said again: a certificate's time passes while it is shown.
    fn reminders(&mut self, now: Instant) -> Vec<String> {
        if now.saturating_duration_since(self.reminded) < REMIND {
            return Vec::new();
        }
        self.reminded = now;
        let shown = self.shown.0.load();
        self.files.iter().zip(&**shown).flat_map(|(entry, shown)| warnings(&entry.files, shown)).collect()
    }
}

fn warn(files: &CertificateFiles, certified: &CertifiedKey) {
    for warning in warnings(files, certified) {
        log::warn!("{warning}");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt as _,
        process,
        sync::atomic::{AtomicU32, Ordering},
    };

    use rcgen::{CertifiedKey as Signed, KeyPair, generate_simple_self_signed};

    use super::*;

    /// A directory of this test's own, gone with it.
    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("astra-host-certificates-{}-{number}", process::id()));
            fs::create_dir(&path).expect("is new");
            Self(path)
        }

        fn write(&self, signed: &Signed<KeyPair>) -> CertificateFiles {
            self.files(&signed.cert.pem(), &signed.signing_key.serialize_pem())
        }

        fn files(&self, cert: &str, key: &str) -> CertificateFiles {
            let files = CertificateFiles { cert: self.0.join("cert.pem"), key: self.0.join("key.pem") };
            fs::write(&files.cert, cert).expect("ours");
            fs::write(&files.key, key).expect("ours");
            files
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn signed(name: &str) -> Signed<KeyPair> {
        generate_simple_self_signed([name.to_owned()]).expect("a certificate")
    }

    /// What is wrong, without the directory.
    fn complaint(dir: &Dir, cert: &str, key: &str) -> String {
        let error = anyhow::Error::from(read(&dir.files(cert, key)).expect_err("it is wrong"));
        format!("{error:#}").replace(&format!("{}/", dir.0.display()), "")
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let (dir, one, two) = (Dir::new(), signed("one"), signed("two"));
        let (cert, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        assert!(read(&dir.files(&cert, &key)).is_ok());
        assert!(read(&dir.files(&(key.clone() + &cert), &(cert.clone() + &key))).is_ok(), "both in one file");
        assert_eq!(
            complaint(&dir, &cert, &two.signing_key.serialize_pem()),
            "the key `key.pem` is not that of the certificate `cert.pem`, which must be the first in its file"
        );
        for (wrong, found) in [
            ("\n", "nothing: it is empty"),
            ("\u{1}\u{2}", "no PEM at all"),
            (
                "-----BEGIN DH PARAMETERS-----\n-----END DH PARAMETERS-----\n",
                "`DH PARAMETERS`: are certificate and key exchanged?",
            ),
        ] {
            let expected = format!("`cert.pem` must be a PEM file with a certificate, found {found}");
            assert_eq!(complaint(&dir, wrong, &key), expected);
            let expected = format!("`key.pem` must be a PEM file with a private key, found {found}");
            assert_eq!(complaint(&dir, &cert, wrong), expected);
        }
        assert!(complaint(&dir, &key, &cert).contains("found `PRIVATE KEY`: are certificate and key exchanged?"));
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert!(complaint(&dir, &cert, &encrypted).contains("openssl pkey -in KEY -out FILE"));
        let legacy = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,6D7B05E1B28CD3DF1E9EF9A5BC9F57E4\n\nMHcC\n-----END EC PRIVATE KEY-----\n";
        assert!(complaint(&dir, &cert, legacy).contains("openssl pkey -in KEY -out FILE"));
        let half = complaint(&dir, &cert[..cert.len() / 2], &key);
        let expected = "`cert.pem` must be a PEM file with a certificate, found the beginning of one only: the line `-----END CERTIFICATE-----` is missing; copy the file again";
        assert_eq!(half, expected);
        let damaged = complaint(&dir, &cert, &key.replace("MI", "M-"));
        assert!(damaged.contains("found one that is damaged (it is no base64)"), "{damaged}");
        assert!(complaint(&dir, &cert.replace("MII", "AAA"), &key).contains("`cert.pem` cannot be used"));
        let files = CertificateFiles { cert: dir.0.clone(), key: dir.0.join("none") };
        assert!(matches!(read(&files), Err(CertificateError::Read { path, .. }) if path == dir.0));
        let error = read_entry(1, &CertificateFiles { cert: dir.0.join("cert.pem"), ..files }).expect_err("no key");
        assert_eq!(error.to_string(), "`tls[1].key`");
    }

    /// Certificates, and a clock that goes only when it is told to.
    struct Clock(Certificates, Instant);

    impl Clock {
        fn after(&mut self, milliseconds: u64) -> Vec<u8> {
            self.1 += Duration::from_millis(milliseconds);
            self.0.look(self.1);
            self.0.shown.0.load()[0].cert[0].to_vec()
        }
    }

    #[test]
    fn what_has_changed_is_shown_once_both_files_are_there_and_go_together() {
        let (dir, one, two) = (Dir::new(), signed("a"), signed("a"));
        let files = dir.write(&one);
        let mut clock = Clock(Certificates::new(std::slice::from_ref(&files)).expect("they are right"), Instant::now());
        assert_eq!(clock.after(1_000), one.cert.der().to_vec());
        fs::write(&files.cert, two.cert.pem()).expect("ours");
        for _ in 0..5 {
            assert_eq!(clock.after(1_000), one.cert.der().to_vec(), "the key is missing");
        }
        fs::write(&files.key, two.signing_key.serialize_pem()).expect("ours");
        assert_eq!(clock.after(1_000), one.cert.der().to_vec(), "it may be half of the key");
        assert_eq!(clock.after(1_000), two.cert.der().to_vec());
        fs::remove_file(&files.cert).expect("ours");
        fs::write(&files.key, "").expect("ours");
        for _ in 0..5 {
            assert_eq!(clock.after(1_000), two.cert.der().to_vec(), "what is broken is not shown");
        }
        dir.write(&one);
        clock.after(1_000);
        assert_eq!(clock.after(1_000), one.cert.der().to_vec());
    }

    #[test]
    fn what_a_person_should_know_is_said_again_every_day() {
        let dir = Dir::new();
        let files = dir.write(&signed("a"));
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).expect("ours");
        let mut certificates = Certificates::new(std::slice::from_ref(&files)).expect("they are right");
        let started = Instant::now();
        let said = [23, 25, 26, 48, 50].map(|hours| {
            let reminders = certificates.reminders(started + Duration::from_secs(hours * 3600));
            reminders.iter().filter(|reminder| reminder.starts_with("everybody may read the key")).count()
        });
        assert_eq!(said, [0, 1, 0, 0, 1]);
    }
}
