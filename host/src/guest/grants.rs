//! What the configuration lets a guest see: environment variables, arguments and directories. Everything else is
//! denied.
//!
//! [`Grants`] become a WASI context on the worker, and only for requests that touch one: building it costs a
//! microsecond and a hello guest needs none. TCP connections are allowed where a rule says so, listening and UDP never;
//! names are looked up in `network.rs`. In granted directories only regular files and directories can be opened
//! (`opening.rs`, `preview1.rs`).

use std::{future::ready, io, path::PathBuf, sync::Arc};

use wasmtime::Result;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder, sockets::SocketAddrUse};

use super::{
    cgi::Cgi,
    destination::{HostPattern, OutboundRule, TcpRule},
    limits::Limits,
    network::Network,
    opening::ON_WORKER,
    outbound::{self, TlsError},
    stdio::{Bounded, GuestOutput, Lines, Stream},
};
use crate::config::Text;

/// What a handler's guests are given. Nothing by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grants {
    /// Environment variables, all that the guest sees.
    pub env: Vec<(String, Text)>,
    /// Directories.
    pub dirs: Vec<DirGrant>,
    /// Where outgoing HTTP requests may go. The first rule that names a destination is the one that counts.
    pub outbound: Vec<OutboundRule>,
    /// What raw sockets may do.
    pub network: NetworkGrant,
    /// What `wasi:config` answers with.
    pub config: Vec<(String, Text)>,
    /// What a CGI program finds behind its name as arguments. Other guests get none.
    pub args: Vec<String>,
}

/// What raw sockets may do: connect, and look names up. Listening can never be granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkGrant {
    /// Where TCP may connect to.
    pub tcp: Vec<TcpRule>,
    /// Names that may be looked up, beside those that `tcp` names.
    pub dns: Vec<HostPattern>,
}

/// A directory of the host's that a guest may use.
#[derive(Debug, Clone, PartialEq)]
pub struct DirGrant {
    /// Where it is.
    pub host: PathBuf,
    /// What the guest calls it, an absolute path (`/data`).
    pub guest: String,
    /// Whether the guest may change it.
    pub writable: bool,
}

/// Why grants cannot be given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// The directory is not there, or we may not open it.
    #[error("directory `{}` cannot be opened", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is something else.
    #[error("`{}` is not a directory", path.display())]
    NotADirectory {
        /// What should have been a directory.
        path: PathBuf,
    },
    /// Two directories under one name, or none.
    #[error("the guest's name `{name}` for a directory is empty or used twice")]
    GuestName {
        /// The name.
        name: String,
    },
    /// A rule's certificates or key cannot be used.
    #[error("requests to `{rule}` cannot be made")]
    Tls {
        /// The rule.
        rule: String,
        /// Which file, and what is wrong with it.
        source: Box<TlsError>,
    },
    /// A variable without a name, or with a `=` or a zero byte in it.
    #[error("`{name}` cannot be the name of an environment variable")]
    EnvName {
        /// The name.
        name: String,
    },
}

impl Grants {
    /// Whether all this can be given, as things are now.
    ///
    /// # Errors
    /// The first grant that cannot.
    pub fn check(&self) -> Result<(), GrantError> {
        for (name, _) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(GrantError::EnvName { name: name.clone() });
            }
        }
        for (index, dir) in self.dirs.iter().enumerate() {
            if dir.guest.is_empty() || self.dirs[..index].iter().any(|other| other.guest == dir.guest) {
                return Err(GrantError::GuestName { name: dir.guest.clone() });
            }
            let open = |source| GrantError::Open { path: dir.host.clone(), source };
            if !std::fs::metadata(&dir.host).map_err(open)?.is_dir() {
                return Err(GrantError::NotADirectory { path: dir.host.clone() });
            }
            std::fs::read_dir(&dir.host).map_err(open)?;
        }
        for rule in &self.outbound {
            outbound::tls_config(rule)
                .map_err(|source| GrantError::Tls { rule: rule.to_string(), source: source.into() })?;
        }
        Ok(())
    }

    /// What makes a WASI context with these grants and nothing else.
    ///
    /// # Errors
    /// A directory cannot be opened (any more).
    pub(crate) fn context(
        &self,
        limits: &Limits,
        stdio: &Stdio,
        network: Network,
        cgi: Option<&Cgi>,
    ) -> Result<WasiCtxBuilder> {
        let mut builder = WasiCtxBuilder::new();
        builder
            .max_random_size(limits.random_bytes)
            .stdout(stdio.stdout.clone())
            .stderr(stdio.stderr.clone())
            .allow_blocking_current_thread(ON_WORKER)
            .allow_ip_name_lookup(false)
            .allow_tcp(!self.network.tcp.is_empty())
            .socket_addr_check(move |address, used_for| {
                let allowed = match used_for {
                    // What a connection is preceded by. A guest may ask for it too, and has nothing of it.
                    SocketAddrUse::TcpBind if address.ip().is_unspecified() && address.port() == 0 => true,
                    SocketAddrUse::TcpConnect => network.may_connect(address),
                    SocketAddrUse::TcpBind => network.refuse(&format!("binding a socket to {address}")),
                    // Without the port, which the system chooses anew each time.
                    _ => network.refuse("listening"),
                };
                Box::pin(ready(allowed))
            })
            .allow_udp(false);
        for (name, value) in &self.env {
            builder.env(name, value.expose());
        }
        if let Some(cgi) = cgi {
            // Programs take it for granted that the first argument is a name.
            builder.stdin(cgi.stdin.clone()).stdout(cgi.stdout.clone()).arg(&*cgi.name).args(&self.args);
            let is_granted = |name: &str| self.env.iter().any(|(granted, _)| granted == name);
            // No client can change by a header what was granted, and who is behind a proxy can grant `HTTPS=on`.
            for (name, value) in cgi.variables.iter().filter(|(name, _)| !is_granted(name)) {
                builder.env(name, value);
            }
        }
        for dir in &self.dirs {
            let perms = if dir.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            builder.preopened_dir(&dir.host, &dir.guest, perms)?;
        }
        Ok(builder)
    }
}

/// Both output streams of one request.
pub(crate) struct Stdio {
    output: Arc<Bounded>,
    stdout: Lines,
    stderr: Lines,
}

impl Stdio {
    pub(crate) fn new(output: &Arc<dyn GuestOutput>) -> Self {
        let output = Arc::new(Bounded::new(Arc::clone(output)));
        Self {
            stdout: Lines::new(Stream::Stdout, Arc::clone(&output)),
            stderr: Lines::new(Stream::Stderr, Arc::clone(&output)),
            output,
        }
    }

    pub(crate) fn finish(&self) {
        self.stdout.finish();
        self.stderr.finish();
        self.output.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(host: &str, guest: &str) -> DirGrant {
        DirGrant { host: host.into(), guest: guest.into(), writable: false }
    }

    #[test]
    fn a_directory_must_be_there() {
        let grants = Grants { dirs: vec![dir("/does/not/exist", "/data")], ..Grants::default() };
        let error = grants.check().expect_err("missing");
        assert_eq!(error.to_string(), "directory `/does/not/exist` cannot be opened");
    }

    #[test]
    fn a_file_is_not_a_directory() {
        let grants = Grants { dirs: vec![dir("/proc/self/status", "/data")], ..Grants::default() };
        assert!(matches!(grants.check(), Err(GrantError::NotADirectory { .. })));
    }

    #[test]
    fn two_directories_need_two_names() {
        let grants = Grants { dirs: vec![dir("/", "/data"), dir("/", "/data")], ..Grants::default() };
        assert!(matches!(grants.check(), Err(GrantError::GuestName { .. })));
    }

    #[test]
    fn a_variable_needs_a_name() {
        let grants = Grants { env: vec![("A=B".into(), "".into())], ..Grants::default() };
        assert!(matches!(grants.check(), Err(GrantError::EnvName { .. })));
    }
}
