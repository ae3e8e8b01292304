//! What a host is to do, as plain checked values, and how each value is read from what a person typed.
//!
//! Nothing of clap or TOML lives here: the command line and the configuration file hand in text together with the name to
//! blame, and an error says the name, the value and what is allowed. Nothing here touches the network or starts anything.

mod clients;
mod values;

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::clients::ClientLimits;
pub(crate) use self::values::{BODY, DRAIN, LIMIT, MEMORY, QUEUE, WORKERS, not_allowed};
pub use self::values::{
    ValueError, add_variables, address, argument, count, dir, dns, duration, env_file, format_size, listen, network,
    outbound, proxy, share, size, tcp, variable,
};
use crate::{
    forwarded::Network,
    guest::{CacheMode, Grants, Limits, Reset},
    router::{Route, RouteError, Router},
};

/// Everything a host needs to know before it starts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// What all handlers share; fixed once the host has started.
    pub server: ServerConfig,
    /// What answers the requests. Can be changed while serving.
    pub handlers: Vec<HandlerConfig>,
}

/// What all handlers share.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Addresses to listen on, `HOST:PORT`, or `https://HOST:PORT` to speak TLS there; port 0 lets the system choose. Or Unix sockets,
    /// `unix:PATH`.
    pub listen: Vec<String>,
    /// What is shown where TLS is spoken: to each client the first that is for the name it asks for, or the very first.
    pub tls: Vec<CertificateFiles>,
    /// Peers whose `forwarded` and `x-forwarded-*` are believed; [`Network::Unix`] are those that come over Unix sockets.
    pub trusted_proxies: Vec<Network>,
    /// Peers that say in front of everything else who their client is: the PROXY protocol, version 2.
    pub proxy_protocol: Vec<Network>,
    /// Largest request body, in bytes; 413 beyond it.
    pub max_body: u64,
    /// How long a request body may stand still while its guest reads it; then the client gets 408, if the guest has not answered.
    /// Shorter than the default deadline, which would come first otherwise.
    pub body_timeout: Duration,
    /// What else clients may do.
    pub clients: ClientLimits,
    /// Requests that run or wait in a guest at once.
    pub max_workers: u32,
    /// Linear memory of all guests together, in bytes; by default 70 % of what the control group or the machine has. A guest that
    /// would need more is answered 503.
    pub memory_budget: Option<u64>,
    /// How a guest's memory is made fresh again; by scanning where the kernel can, if nothing is said.
    pub reset: Option<Reset>,
    /// Whether compiled modules are kept on disk.
    pub cache: CacheMode,
    /// Whether a `.cwasm` may be loaded: it is machine code and can do anything this process can.
    pub trust_precompiled: bool,
    /// A path that the host itself answers before it looks at routes: 200 while it serves, 503 once it drains.
    pub health: Option<String>,
    /// How long requests may take to finish when the host stops.
    pub drain: Duration,
    /// Where the host can be operated; not at all by default.
    pub control: ControlConfig,
    /// The directory where swaps are recorded, so that they outlive a restart; without it they do not.
    pub state: Option<PathBuf>,
    /// How modules are compiled that come while the host serves.
    pub compile: CompileConfig,
}

/// A certificate and its key, both in PEM; read again when one of the files changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and below it in the same file what leads from it to a root.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Where a host can be operated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ControlConfig {
    /// The path of a Unix socket, mode 0600.
    pub socket: Option<PathBuf>,
    /// An address for the same over TCP, `HOST:PORT`, and the file that holds the bearer token that it asks for.
    pub tcp: Option<(String, PathBuf)>,
    /// Largest module that is taken, in bytes.
    pub max_module: u64,
}

/// How modules are compiled while the host serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompileConfig {
    /// The `astra-host` program, which compiles in a process of its own; without it the host's own process does, unbounded.
    pub program: Option<PathBuf>,
    /// Longest time; then the process is killed and the swap has failed.
    pub timeout: Duration,
    /// Most memory of that process, in bytes.
    pub memory: u64,
}

/// One handler: its module, what it may do and how much.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HandlerConfig {
    /// How logs and operators call it.
    pub name: String,
    /// The `.wasm` file, or the directory of the Cargo package that builds it.
    pub module: PathBuf,
    /// Which requests are its own.
    pub routes: Vec<Route>,
    /// What its guests may touch.
    pub grants: Grants,
    /// What its guests may use up.
    pub limits: Limits,
    /// How many requests there may be.
    pub admission: Admission,
    /// Whether a change of `module` is a swap.
    pub watch: bool,
    /// The request that a new revision must answer before it is published.
    pub probe: Option<ProbeConfig>,
    /// When a new revision is taken back.
    pub guard: Option<GuardConfig>,
    /// How long requests may take to finish on the revision that a swap has replaced.
    pub drain: Duration,
    /// How many replaced revisions stay loaded, for rollback.
    pub keep: usize,
    /// Whether a swap may bring a module that imports what the one before did not.
    pub new_imports: NewImports,
}

/// How many requests of a handler there may be. However many handlers are slow, the last quarter of the host's workers is
/// kept for all of them alike.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    /// Requests that run or wait in its guests at once.
    pub in_flight: Option<u32>,
    /// Requests that may wait for that; one more is answered 503.
    pub queue: Option<u32>,
    /// How long one may wait; then it is answered 503.
    pub queue_timeout: Option<Duration>,
}

/// The request that a new revision must answer before it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeConfig {
    /// The path, with a query if need be.
    pub path: String,
    /// The status that the answer must have.
    pub status: http::StatusCode,
    /// How long the whole answer may take.
    pub within: Duration,
}

impl ProbeConfig {
    /// The path without its query.
    pub(crate) fn path_only(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }
}

/// When a new revision is taken back: within `window` after the swap, once it has answered at least `min_requests`, if its share of
/// failures is more than `max_failures` above that of the other side (the other revision beside a canary, else the revision before, in
/// as long a time before the swap).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardConfig {
    /// How long it watches.
    pub window: Duration,
    /// How much more may fail than on the other side.
    pub max_failures: Share,
    /// How many answers make a judgement.
    pub min_requests: u64,
    /// Whether answers 500 to 599 that a guest made itself count as failures.
    pub count_5xx: bool,
}

/// What to do with a module that imports more than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NewImports {
    /// Tell.
    #[default]
    Allow,
    /// Refuse the swap.
    Refuse,
}

/// A share of all requests, in steps of a hundredth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// Everything.
    pub const ALL: Self = Self(10_000);

    /// So many hundredths of a percent, at most all.
    #[must_use]
    pub fn of_ten_thousand(parts: u32) -> Self {
        Self(parts.min(Self::ALL.0))
    }

    /// In hundredths of a percent.
    #[must_use]
    pub fn ten_thousandths(self) -> u32 {
        self.0
    }

    /// Whether request `n` (from 0) is one of the share: ⌊(n+1)p⌋ > ⌊np⌋, which spreads them evenly and is exact in any 10,000 in a row.
    #[must_use]
    pub fn takes(self, n: u64) -> bool {
        let all = u128::from(Self::ALL.0);
        let upto = |n: u128| n * u128::from(self.0) / all;
        upto(u128::from(n) + 1) > upto(u128::from(n))
    }
}

impl Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        match hundredths {
            0 => write!(f, "{whole}%"),
            _ if hundredths % 10 == 0 => write!(f, "{whole}.{}%", hundredths / 10),
            _ => write!(f, "{whole}.{hundredths:02}%"),
        }
    }
}

/// A text that may be a secret: one that was written as a reference (`${env:TOKEN}`, `${file:/run/secrets/token}`) shows itself as it was
/// written, wherever it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    value: String,
    written: Option<String>,
}

impl Text {
    /// What `written` refers to.
    pub fn secret(value: impl Into<String>, written: impl Into<String>) -> Self {
        Self { value: value.into(), written: Some(written.into()) }
    }

    /// The text itself, for whoever it was granted to.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// Whether it must not be printed.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.written.is_some()
    }
}

impl<T: Into<String>> From<T> for Text {
    fn from(value: T) -> Self {
        Self { value: value.into(), written: None }
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.written.as_ref().unwrap_or(&self.value))
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Requests in guests at once unless told otherwise. Each costs a thread and its guest's memory while it waits, together about
/// 270 KiB for a small guest, and address space.
pub const DEFAULT_MAX_WORKERS: u32 = 1024;

/// Largest request body unless told otherwise: 10 MiB.
pub const DEFAULT_MAX_BODY: u64 = 10 << 20;

/// How long a request body may stand still unless told otherwise.
pub const DEFAULT_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a shutdown or a swap waits for running requests unless told otherwise.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

/// Replaced revisions that stay loaded unless told otherwise.
pub const DEFAULT_KEEP: usize = 3;

/// Largest module that is taken over the control socket unless told otherwise: 256 MiB.
pub const DEFAULT_MAX_MODULE: u64 = 256 << 20;

/// How long a module may take to compile unless told otherwise. Interpreters compiled to Wasm take a few seconds of a core, and what is
/// compiled gets little of one while the host is busy.
pub const DEFAULT_COMPILE_TIMEOUT: Duration = Duration::from_secs(300);

/// Memory for compiling a module unless told otherwise.
pub const DEFAULT_COMPILE_MEMORY: u64 = 2 << 30;

/// Where a host listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// The same for a host that has certificates.
pub const DEFAULT_LISTEN_TLS: &str = "https://127.0.0.1:8443";

/// What an address begins with where TLS is spoken.
pub(crate) const HTTPS: &str = "https://";

/// What is before the path of a Unix socket.
pub(crate) const UNIX: &str = "unix:";

impl Config {
    /// The defaults for serving `module` at every path.
    pub fn new(module: impl Into<PathBuf>) -> Self {
        Self { server: ServerConfig::default(), handlers: vec![HandlerConfig::new(module)] }
    }

    /// The routes of all handlers.
    ///
    /// # Errors
    /// A route is none, two cannot be told apart, or two handlers have one name.
    pub(crate) fn router(&self) -> Result<Router, RouteError> {
        for (index, handler) in self.handlers.iter().enumerate() {
            if self.handlers[..index].iter().any(|other| other.name == handler.name) {
                return Err(RouteError::Name { name: handler.name.clone() });
            }
        }
        Router::new(self.handlers.iter().map(|handler| (handler.name.as_str(), &handler.routes[..])))
    }
}

impl ServerConfig {
    /// The addresses to listen on, or the default.
    pub(crate) fn addresses(&self) -> Vec<&str> {
        match (&self.listen[..], &self.tls[..]) {
            ([], []) => vec![DEFAULT_LISTEN],
            ([], _) => vec![DEFAULT_LISTEN_TLS],
            (listen, _) => listen.iter().map(String::as_str).collect(),
        }
    }

    /// Whether TLS is spoken at any of them.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.addresses().iter().any(|address| address.starts_with(HTTPS))
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            tls: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            max_body: DEFAULT_MAX_BODY,
            body_timeout: DEFAULT_BODY_TIMEOUT,
            clients: ClientLimits::default(),
            max_workers: DEFAULT_MAX_WORKERS,
            memory_budget: None,
            reset: None,
            cache: CacheMode::On,
            trust_precompiled: false,
            health: None,
            drain: DEFAULT_DRAIN,
            control: ControlConfig { max_module: DEFAULT_MAX_MODULE, ..ControlConfig::default() },
            state: None,
            compile: CompileConfig { program: None, timeout: DEFAULT_COMPILE_TIMEOUT, memory: DEFAULT_COMPILE_MEMORY },
        }
    }
}

impl HandlerConfig {
    /// The defaults for serving `module` at every path.
    pub fn new(module: impl Into<PathBuf>) -> Self {
        let module = module.into();
        Self {
            name: handler_name(&module),
            module,
            routes: vec![Route::everything()],
            grants: Grants::default(),
            limits: Limits::default(),
            admission: Admission::default(),
            watch: false,
            probe: None,
            guard: None,
            drain: DEFAULT_DRAIN,
            keep: DEFAULT_KEEP,
            new_imports: NewImports::Allow,
        }
    }
}

/// A handler that was given no name is called like its file, without the extension.
pub(crate) fn handler_name(module: &Path) -> String {
    module.file_stem().map_or_else(|| "handler".to_owned(), |stem| stem.to_string_lossy().into_owned())
}
