//! What a host is to do, as plain checked values, and how each value is read from what a person typed.
//!
//! Nothing of clap or TOML lives here: the command line and the configuration file hand in text together with the name to
//! blame, and an error says the name, the value and what is allowed. Nothing here touches the network or starts anything.

use std::{
    fmt::Display,
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    forwarded::Network,
    guest::{CacheMode, DirGrant, Grants, Limits, Reset},
    router::Route,
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
    /// Addresses to listen on, `HOST:PORT`; port 0 lets the system choose.
    pub listen: Vec<String>,
    /// Peers whose `forwarded` and `x-forwarded-*` are believed.
    pub trusted_proxies: Vec<Network>,
    /// Largest request body, in bytes; 413 beyond it.
    pub max_body: u64,
    /// How long a request body may stand still while its guest reads it; then the client gets 408, if the guest has not answered.
    /// Shorter than the default deadline, which would come first otherwise.
    pub body_timeout: Duration,
    /// Requests that run or wait in a guest at once.
    pub max_workers: u32,
    /// Linear memory of all guests together, in bytes; by default 70 % of what the control group or the machine has. A guest that
    /// would need more is answered 503.
    pub memory_budget: Option<u64>,
    /// How a guest's memory is made fresh again.
    pub reset: Reset,
    /// Whether compiled modules are kept on disk.
    pub cache: CacheMode,
    /// Whether a `.cwasm` may be loaded: it is machine code and can do anything this process can.
    pub trust_precompiled: bool,
    /// How long requests may take to finish when the host stops.
    pub drain: Duration,
    /// Where the host can be operated; not at all by default.
    pub control: ControlConfig,
    /// The directory where swaps are recorded, so that they outlive a restart; without it they do not.
    pub state: Option<PathBuf>,
    /// How modules are compiled that come while the host serves.
    pub compile: CompileConfig,
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

/// How long a module may take to compile unless told otherwise. Interpreters compiled to Wasm take half a minute on two cores.
pub const DEFAULT_COMPILE_TIMEOUT: Duration = Duration::from_secs(120);

/// Memory for compiling a module unless told otherwise.
pub const DEFAULT_COMPILE_MEMORY: u64 = 2 << 30;

/// Where a host listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

impl Config {
    /// The defaults for serving `module` at every path.
    pub fn new(module: impl Into<PathBuf>) -> Self {
        Self { server: ServerConfig::default(), handlers: vec![HandlerConfig::new(module)] }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            trusted_proxies: Vec::new(),
            max_body: DEFAULT_MAX_BODY,
            body_timeout: DEFAULT_BODY_TIMEOUT,
            max_workers: DEFAULT_MAX_WORKERS,
            memory_budget: None,
            reset: Reset::Copy,
            cache: CacheMode::On,
            trust_precompiled: false,
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
fn handler_name(module: &Path) -> String {
    module.file_stem().map_or_else(|| "handler".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// A value that a person wrote and that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The value is not of the right form, or out of range.
    #[error("`{name}` must be {allowed}, found `{found}`")]
    NotAllowed {
        /// The flag or key.
        name: String,
        /// What would have been accepted.
        allowed: String,
        /// What was there.
        found: String,
    },
    /// A variable was to be taken from the host's own environment, which does not have it.
    #[error(
        "`{name}` takes `{variable}` from the environment of the host, where it is not set; write `{variable}=VALUE`"
    )]
    NoSuchVariable {
        /// The flag, or file and line.
        name: String,
        /// The variable.
        variable: String,
    },
    /// A file that a value names cannot be read.
    #[error("`{name}`: cannot read `{}`", path.display())]
    Unreadable {
        /// The flag or key.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

pub(crate) fn not_allowed(name: &str, allowed: impl Display, found: &str) -> ValueError {
    ValueError::NotAllowed { name: name.to_owned(), allowed: allowed.to_string(), found: found.to_owned() }
}

/// Reads a duration such as `30s`, `500ms` or `2m`, and checks that it is in `range`.
///
/// # Errors
/// When it is no duration or out of range.
pub fn duration(name: &str, text: &str, range: RangeInclusive<Duration>) -> Result<Duration, ValueError> {
    humantime::parse_duration(text).ok().filter(|duration| range.contains(duration)).ok_or_else(|| {
        let (least, most) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
        not_allowed(name, format_args!("a duration between {least} and {most}, such as `30s`, `500ms` or `2m`"), text)
    })
}

/// Reads a number of bytes such as `128MiB`, `1GiB` or `65536`, and checks that it is in `range`.
///
/// # Errors
/// When it is no size or out of range.
pub fn size(name: &str, text: &str, range: RangeInclusive<u64>) -> Result<u64, ValueError> {
    parse_size(text).filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        let (least, most) = (format_size(*range.start()), format_size(*range.end()));
        not_allowed(name, format_args!("a size between {least} and {most}, such as `128MiB` or `1GiB`"), text)
    })
}

fn parse_size(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let bytes: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(bytes)
}

/// Writes a number of bytes for a person: exactly where it is a round number, with one decimal otherwise.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        None => format!("{bytes}B"),
        Some((shift, unit)) if bytes & ((1 << shift) - 1) == 0 => format!("{}{unit}", bytes >> shift),
        Some((shift, unit)) => format!("{:.1}{unit}", bytes as f64 / (1_u64 << shift) as f64),
    }
}

/// Reads a whole number and checks that it is in `range`.
///
/// # Errors
/// When it is no number or out of range.
pub fn count(name: &str, text: &str, range: RangeInclusive<u32>) -> Result<u32, ValueError> {
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        not_allowed(name, format_args!("a whole number between {} and {}", range.start(), range.end()), text)
    })
}

/// Reads a share such as `10%`, `0.5%` or `0.05`, and checks that it is more than nothing and at most all.
///
/// # Errors
/// When it is none.
pub fn share(name: &str, text: &str) -> Result<Share, ValueError> {
    let parts = match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().map(|percent| percent * 100.0),
        None => text.parse::<f64>().map(|share| share * 10_000.0),
    };
    parts
        .ok()
        .map(f64::round)
        .filter(|parts| (1.0..=10_000.0).contains(parts))
        .map(|parts| Share(parts as u32))
        .ok_or_else(|| not_allowed(name, "a share of more than 0 and at most all, such as `10%` or `0.5%`", text))
}

/// Checks an address to listen on: `HOST:PORT`, `1.2.3.4:80`, `[::1]:80`, `localhost:0`.
///
/// # Errors
/// When host or port is missing or the port is no number. Whether the name exists is found out at start.
pub fn address(name: &str, text: &str) -> Result<String, ValueError> {
    let fits = text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && !bare_ipv6 && port.parse::<u16>().is_ok()
    });
    if fits {
        Ok(text.to_owned())
    } else {
        Err(not_allowed(name, "an address and a port, such as `127.0.0.1:8080`, `[::1]:8080` or `localhost:0`", text))
    }
}

/// Reads the address, or range of addresses, of a trusted proxy.
///
/// # Errors
/// When it is neither.
pub fn network(name: &str, text: &str) -> Result<Network, ValueError> {
    text.parse()
        .map_err(|()| not_allowed(name, "an IP address or a range of them, such as `10.0.0.1` or `10.0.0.0/8`", text))
}

/// Reads a directory grant, `HOST[::GUEST][:rw]`: the guest sees the directory under the same path unless `GUEST` says
/// another one, and cannot write unless `:rw` says so. (A directory whose name ends in `:rw` needs the `::GUEST` part.)
///
/// # Errors
/// When one of the paths is empty. Whether the directory exists is found out at start.
pub fn dir(name: &str, text: &str) -> Result<DirGrant, ValueError> {
    let (paths, writable) = match text.strip_suffix(":rw") {
        Some(paths) => (paths, true),
        None => (text, false),
    };
    let (host, guest) = paths.split_once("::").unwrap_or((paths, paths));
    if host.is_empty() || guest.is_empty() || guest.contains(':') {
        return Err(not_allowed(name, "`HOST[::GUEST][:rw]`, such as `data`, `./site::/` or `data::/data:rw`", text));
    }
    Ok(DirGrant { host: PathBuf::from(host), guest: guest.to_owned(), writable })
}

/// Reads a variable: `K=V`, or `K` alone for the value it has in the environment of the host.
///
/// # Errors
/// When the name is empty or has white space, either part has a NUL, or the host has no such variable (or one that is not Unicode).
pub fn variable(
    name: &str,
    text: &str,
    environment: impl FnOnce(&str) -> Option<String>,
) -> Result<(String, Text), ValueError> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.is_empty() || key.contains(char::is_whitespace) || text.contains('\0') {
        return Err(not_allowed(name, "`K=V`, or `K` alone to take the value from the environment of the host", text));
    }
    let value = value
        .map(Text::from)
        .or_else(|| environment(key).map(|value| Text::secret(value, format!("${{env:{key}}}"))))
        .ok_or_else(|| ValueError::NoSuchVariable { name: name.to_owned(), variable: key.to_owned() })?;
    Ok((key.to_owned(), value))
}

/// Reads variables from a file: one a line as in [`variable`], `#` starts a comment line, quotes have no meaning.
///
/// # Errors
/// When the file cannot be read or a line is not as said; the error names the line.
pub fn env_file(
    name: &str,
    path: &Path,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, Text)>, ValueError> {
    let unreadable = |source| ValueError::Unreadable { name: name.to_owned(), path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| variable(&format!("{name}: {}:{number}", path.display()), line, &environment))
        .collect()
}

/// Adds variables to those there are; a later one of the same name replaces the earlier one.
pub fn add_variables(env: &mut Vec<(String, Text)>, more: impl IntoIterator<Item = (String, Text)>) {
    for (key, value) in more {
        match env.iter_mut().find(|(existing, _)| *existing == key) {
            Some(variable) => variable.1 = value,
            None => env.push((key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let range = Duration::from_millis(1)..=HOUR;
        let read = |text| duration("--deadline", text, range.clone()).map_err(|error| error.to_string());
        assert_eq!(read("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(read("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(read("1h"), Ok(HOUR));
        for wrong in ["", "30", "-1s", "0s", "61m", "soon", "s"] {
            assert_eq!(
                read(wrong),
                Err(format!(
                    "`--deadline` must be a duration between 1ms and 1h, such as `30s`, `500ms` or `2m`, found `{wrong}`"
                ))
            );
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = |text| size("--max-memory", text, 1 << 16..=4 << 30).map_err(|error| error.to_string());
        assert_eq!(read("128MiB"), Ok(128 << 20));
        assert_eq!(read("1GiB"), Ok(1 << 30));
        assert_eq!(read("64 kib"), Ok(1 << 16));
        assert_eq!(read("65536"), Ok(1 << 16));
        assert_eq!(read("65536B"), Ok(1 << 16));
        for wrong in ["", "MiB", "1", "9TiB", "128MB", "-1GiB", "1.5GiB", "99999999999999999999", "99999999999999TiB"] {
            let allowed = "a size between 64KiB and 4GiB, such as `128MiB` or `1GiB`";
            assert_eq!(read(wrong), Err(format!("`--max-memory` must be {allowed}, found `{wrong}`")));
        }
    }

    #[test]
    fn sizes_are_written_as_people_read_them() {
        assert_eq!(format_size(0), "0B");
        assert_eq!(format_size(1023), "1023B");
        assert_eq!(format_size(1 << 10), "1KiB");
        assert_eq!(format_size(64_100), "62.6KiB");
        assert_eq!(format_size(128 << 20), "128MiB");
        assert_eq!(format_size(u64::MAX), "16777216.0TiB");
    }

    #[test]
    fn shares_are_read_and_written_as_percent() {
        let read = |text| share("--canary", text).map(|share| share.to_string()).ok();
        for (text, written) in [("10%", "10%"), ("0.5%", "0.5%"), ("0.25", "25%"), ("12.34 %", "12.34%"), ("1", "100%")]
        {
            assert_eq!(read(text).as_deref(), Some(written), "{text}");
        }
        for wrong in ["", "%", "0", "0%", "101%", "1.1", "-1%", "ten", "NaN", "inf"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_share_is_exact_in_any_thousand_requests() {
        for parts in [10, 100, 1_000, 3_330, 9_990, 10_000] {
            let share = Share::of_ten_thousand(parts);
            for start in [0, 1, 7, 999, 123_456_789] {
                let taken = (start..start + 1_000).filter(|n| share.takes(*n)).count();
                assert_eq!(taken as u32, parts / 10, "{share} from {start}");
            }
        }
    }

    #[test]
    fn a_secret_is_shown_as_it_was_written() {
        let secret = Text::secret("hunter2", "${env:TOKEN}");
        assert_eq!((secret.to_string(), secret.expose()), ("${env:TOKEN}".to_owned(), "hunter2"));
        assert_eq!(format!("{secret:?}"), "\"${env:TOKEN}\"");
    }

    #[test]
    fn addresses_need_host_and_port() {
        for right in ["127.0.0.1:8080", "[::1]:0", "localhost:3000", "example.com:80"] {
            assert_eq!(address("--listen", right).expect("allowed"), right);
        }
        for wrong in ["", "8080", ":8080", "127.0.0.1", "::1:80", "localhost:http", "localhost:65536"] {
            let error = address("--listen", wrong).expect_err("not allowed").to_string();
            assert!(error.starts_with("`--listen` must be") && error.ends_with(&format!("found `{wrong}`")), "{error}");
        }
    }

    #[test]
    fn directories_are_read_only_unless_said() {
        let read = |text| dir("--dir", text).map(|grant| (grant.host, grant.guest, grant.writable)).ok();
        assert_eq!(read("data"), Some(("data".into(), "data".into(), false)));
        assert_eq!(read("data:rw"), Some(("data".into(), "data".into(), true)));
        assert_eq!(read("/srv/site::/"), Some(("/srv/site".into(), "/".into(), false)));
        assert_eq!(read("/srv/site::/www:rw"), Some(("/srv/site".into(), "/www".into(), true)));
        for wrong in ["", ":rw", "::/x", "data::", "data::/x:wr", "a::b::c"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn variables_come_with_a_value_or_from_the_environment() {
        let environment = |key: &str| (key == "HOME").then(|| "/root".to_owned());
        let read = |text| variable("--env", text, environment).map_err(|error| error.to_string());
        assert_eq!(read("A=b"), Ok(("A".into(), "b".into())));
        assert_eq!(read("A="), Ok(("A".into(), "".into())));
        assert_eq!(read("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(read("HOME"), Ok(("HOME".into(), Text::secret("/root", "${env:HOME}"))));
        assert!(read("NOPE").is_err_and(|error| error.contains("`NOPE=VALUE`")));
        assert!(read("=b").is_err());
        assert!(read("A B=c").is_err());
        assert!(read("").is_err());
        assert!(read("A\0=b").is_err());
    }

    #[test]
    fn an_env_file_has_comments_and_its_errors_have_lines() {
        let path = std::env::temp_dir().join(format!("astra-host-env-{}", std::process::id()));
        std::fs::write(&path, "# comment\n\nA=1\n  B= two words \nQ=\"q\"\n").expect("writes");
        let read = env_file("--env-file", &path, nothing).expect("it is right");
        let expected = [("A", "1"), ("B", " two words"), ("Q", "\"q\"")];
        assert_eq!(read, expected.map(|(key, value)| (key.to_owned(), value.into())));
        std::fs::write(&path, "A=1\n=2\n").expect("writes");
        let error = env_file("--env-file", &path, nothing).expect_err("line 2 has no name").to_string();
        std::fs::remove_file(&path).expect("removes");
        assert!(error.starts_with(&format!("`--env-file: {}:2` must be", path.display())), "{error}");
        let error = env_file("--env-file", &path, nothing).expect_err("it is gone");
        assert!(error.to_string().contains("cannot read"), "{error}");
    }

    #[test]
    fn later_variables_replace_earlier_ones() {
        let pair = |key: &str, value: &str| (key.to_owned(), Text::from(value));
        let mut env = vec![pair("A", "1"), pair("B", "2")];
        add_variables(&mut env, [pair("A", "3"), pair("C", "4")]);
        assert_eq!(env, [pair("A", "3"), pair("B", "2"), pair("C", "4")]);
    }
}
