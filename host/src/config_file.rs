//! The configuration file: which keys there are, what they may be, what they are when they are left out.
//!
//! Everything that is wrong is reported at once, a line each, with file, table and key. Reading touches the file and those that
//! `${file:…}` refers to, and starts nothing. Values that a reference stands for appear in no error and in nothing that
//! [`ConfigFile::print`] prints. `table.rs` reads keys, `grants.rs` those of grants, `reference.rs` what is behind a `${…}`; `print.rs` writes it
//! all down again.

mod clients;
mod grants;
mod print;
mod reference;
mod table;

use std::{
    fs::File,
    io::{self, Read},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use http::StatusCode;

use self::table::{Source, Table, Written};
use crate::{
    config::{
        self, Admission, CertificateFiles, CompileConfig, Config, ControlConfig, DEFAULT_BODY_TIMEOUT,
        DEFAULT_COMPILE_MEMORY, DEFAULT_COMPILE_TIMEOUT, DEFAULT_DRAIN, DEFAULT_KEEP, DEFAULT_LISTEN,
        DEFAULT_LISTEN_TLS, DEFAULT_MAX_BODY, DEFAULT_MAX_MODULE, DEFAULT_MAX_WORKERS, GuardConfig, HTTPS,
        HandlerConfig, NewImports, ProbeConfig, ServerConfig, Share, ValueError, not_allowed,
    },
    guest::{CacheMode, Limits, OutboundRule, Reset},
    router::{Route, Router},
};

/// The largest file that is read, be it the configuration or one that it refers to.
const MAX_FILE: u64 = 1 << 20;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a configuration file says.
#[derive(Debug)]
pub struct ConfigFile {
    /// The values. Paths are absolute: relative ones were relative to the file.
    pub config: Config,
    /// Whether `control` was left out, rather than switched off: then whoever serves chooses a path.
    pub control_left_out: bool,
    /// Whether `state` was left out, rather than switched off: then whoever serves chooses a directory.
    pub state_left_out: bool,
    written: Written,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFileError {
    /// It is not there, cannot be read, is too long, or is not UTF-8.
    #[error("cannot read the configuration file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not TOML.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// The parser's.
        message: String,
    },
    /// It says what cannot be done.
    #[error("{}", problems.join("\n"))]
    Wrong {
        /// A line each: file, table, key, what is wrong.
        problems: Vec<String>,
    },
}

/// Reads the configuration file at `path`; `environment` is what `${env:…}` refers to.
///
/// # Errors
/// All that is wrong with it.
pub fn read(path: &Path, environment: impl Fn(&str) -> Option<String>) -> Result<ConfigFile, ConfigFileError> {
    let text = read_file(path).map_err(|source| ConfigFileError::Read { path: path.to_owned(), source })?;
    let entries: toml::Table = text.parse().map_err(|error| syntax(path, &text, &error))?;

    let source = Source::new(path, &environment);
    let (server, handlers) = source.table("", 0, "", entries, |top| {
        let server = top.table("server").unwrap_or_default();
        let server = source.table("[server]: ", 0, "", server, read_server);
        let handlers = top.tables("handler");
        let is_only = handlers.len() == 1;
        let read = |(index, entries)| {
            source.table(&format!("handler {}: ", index + 1), index + 1, "", entries, |table| {
                read_handler(table, is_only, server.config.drain)
            })
        };
        let handlers: Vec<HandlerConfig> = handlers.into_iter().enumerate().map(read).collect();
        (server, handlers)
    });
    if source.is_fine() {
        check_names(&source, &handlers);
        check_admission(&source, &handlers, server.config.max_workers);
        check_routes(&source, &handlers);
    }
    let written = source.finish().map_err(|problems| ConfigFileError::Wrong { problems })?;
    let Server { config: server, control_left_out, state_left_out } = server;
    Ok(ConfigFile { config: Config { server, handlers }, control_left_out, state_left_out, written })
}

/// Reads one entry of a handler's `outbound` as a flag has it: a URL, or a table as in a file, whose paths are relative to where we are.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn outbound(
    flag: &str,
    text: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<OutboundRule, ValueError> {
    if !text.trim_start().starts_with('{') {
        return config::outbound(flag, text);
    }
    let entry: toml::Value = text.parse().map_err(|error: toml::de::Error| {
        let allowed = "a URL, or a table such as `{ url = \"https://api.example.com\", private = true }`";
        not_allowed(flag, format_args!("{allowed} ({})", one_line(error.message())), text)
    })?;
    let source = Source::new(Path::new(flag), &environment);
    let rule = source.table("", 0, "", toml::Table::new(), |top| grants::read_rule(top, "outbound", entry));
    match (source.finish(), rule) {
        (Ok(_), Some(rule)) => Ok(rule),
        (finished, _) => Err(ValueError::Table { problems: finished.err().unwrap_or_default() }),
    }
}

/// Text of a bounded length.
fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    if File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)? as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1MiB"));
    }
    Ok(text)
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigFileError {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    ConfigFileError::Syntax {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: match error.span().and_then(|span| text.get(span)) {
            Some(key) if error.message().trim() == "duplicate key" => format!("`{key}` is there twice"),
            _ => one_line(error.message()),
        },
    }
}

/// What TOML's parser says, in our words where they are not for people.
fn one_line(message: &str) -> String {
    let message = message.trim();
    // The only value that it can read and not keep.
    if message.starts_with("invalid type: integer") && message.contains("128") {
        return "the number is too large".to_owned();
    }
    message.replace('\n', ", ")
}

/// What `[server]` says.
struct Server {
    config: ServerConfig,
    control_left_out: bool,
    state_left_out: bool,
}

fn read_server(table: &mut Table<'_>) -> Server {
    let tls = read_tls(table);
    let default = if table.has("tls") { DEFAULT_LISTEN_TLS } else { DEFAULT_LISTEN };
    let base = table.base().to_owned();
    let listen = table
        .list("listen", |name, text| config::listen(name, text, &base))
        .unwrap_or_else(|| vec![default.to_owned()]);
    if listen.is_empty() {
        table.problem("`listen` must have at least one address, such as `127.0.0.1:8080`");
    }
    match (listen.iter().any(|address| address.starts_with(HTTPS)), table.has("tls")) {
        (true, false) => table.problem(
            "`listen` has an address that begins with `https://`: `tls` is missing, such as `{ cert = \"cert.pem\", key = \"key.pem\" }`",
        ),
        (false, true) if !listen.is_empty() => table.problem(
            "`tls` is for addresses in `listen` that begin with `https://`, such as `https://0.0.0.0:443`, and there is none",
        ),
        _ => {}
    }
    let control = table.path_or_off("control");
    let state = table.path_or_off("state");
    let tcp = match (table.value("control_tcp", config::address), table.path("control_token_file")) {
        (Some(address), Some(token)) => Some((address, token)),
        _ if table.has("control_tcp") && !table.has("control_token_file") => {
            table.problem("`control_tcp` needs `control_token_file`: without a token anyone could swap modules");
            None
        }
        _ if table.has("control_token_file") && !table.has("control_tcp") => {
            table.problem("`control_token_file` is for `control_tcp`, which is missing");
            None
        }
        _ => None,
    };
    let (mut timeout, mut memory) = (None, None);
    table.sub("compile", |compile| {
        timeout = compile.value("timeout", duration(SECOND..=HOUR));
        memory = compile.value("memory", size(64 << 20..=64 << 30));
    });
    let config = ServerConfig {
        listen,
        tls,
        proxy_protocol: table.list("proxy_protocol", config::network).unwrap_or_default(),
        trusted_proxies: table.list("trusted_proxies", config::proxy).unwrap_or_default(),
        max_body: table.value("max_body", size(config::BODY)).unwrap_or(DEFAULT_MAX_BODY),
        body_timeout: table.value("body_timeout", duration(config::LIMIT)).unwrap_or(DEFAULT_BODY_TIMEOUT),
        clients: clients::read(table),
        max_workers: table.value("max_workers", count(config::WORKERS)).unwrap_or(DEFAULT_MAX_WORKERS),
        memory_budget: table.value("memory_budget", size(1 << 20..=64 << 40)),
        reset: table.value("reset", choice([("copy", Reset::Copy), ("scan", Reset::Scan)])),
        cache: if table.flag("cache", true) { CacheMode::On } else { CacheMode::Off },
        trust_precompiled: table.flag("trust_precompiled", false),
        health: table.value("health", plain_path),
        drain: table.value("drain", duration(config::DRAIN)).unwrap_or(DEFAULT_DRAIN),
        control: ControlConfig {
            socket: control.clone().flatten(),
            tcp,
            max_module: table.value("max_module", size(1 << 10..=4 << 30)).unwrap_or(DEFAULT_MAX_MODULE),
        },
        state: state.clone().flatten(),
        compile: CompileConfig {
            program: None,
            timeout: timeout.unwrap_or(DEFAULT_COMPILE_TIMEOUT),
            memory: memory.unwrap_or(DEFAULT_COMPILE_MEMORY),
        },
    };
    Server { config, control_left_out: control.is_none(), state_left_out: state.is_none() }
}

fn read_tls(table: &mut Table<'_>) -> Vec<CertificateFiles> {
    let tables = table.table_or_tables("tls");
    let read = |(name, entries): (String, toml::Table)| {
        table.nested(&name, entries, |tls| {
            let cert = tls.required("cert", |tls| tls.path("cert"));
            let key = tls.required("key", |tls| tls.path("key"));
            Some(CertificateFiles { cert: cert?, key: key? })
        })
    };
    tables.into_iter().filter_map(read).collect()
}

fn read_handler(table: &mut Table<'_>, is_only: bool, server_drain: Duration) -> HandlerConfig {
    let name = table.required("name", |table| table.value("name", handler_name)).unwrap_or_default();
    if !name.is_empty() {
        table.call(&format!("handler `{}`: ", table.shown("name", &name)));
    }
    let module = table.required("module", |table| table.path("module")).unwrap_or_default();
    let routes = read_routes(table, is_only);
    let (limits, admission) = table.sub("limits", read_limits).unwrap_or_default();
    let new_imports = choice([("allow", NewImports::Allow), ("refuse", NewImports::Refuse)]);
    HandlerConfig {
        watch: table.flag("watch", false),
        probe: table.sub("probe", |probe| ProbeConfig {
            path: probe.required("path", |probe| probe.value("path", probe_path)).unwrap_or_default(),
            status: probe.value("status", status).unwrap_or(StatusCode::OK),
            within: probe.value("within", duration(MILLISECOND..=HOUR)).unwrap_or(2 * SECOND),
        }),
        guard: table.sub("guard", |guard| GuardConfig {
            window: guard.value("window", duration(SECOND..=DAY)).unwrap_or(30 * SECOND),
            max_failures: guard.value("max_failures", config::share).unwrap_or(Share::of_ten_thousand(500)),
            min_requests: guard.value("min_requests", count(1..=1_000_000)).unwrap_or(20).into(),
            count_5xx: guard.flag("count_5xx", false),
        }),
        grants: grants::read(table),
        limits,
        admission,
        drain: table.value("drain", duration(config::DRAIN)).unwrap_or(server_drain),
        keep: table.value("keep", count(0..=100)).map_or(DEFAULT_KEEP, |keep| keep as usize),
        new_imports: table.value("new_imports", new_imports).unwrap_or_default(),
        name,
        module,
        routes,
    }
}

fn read_routes(table: &mut Table<'_>, is_only: bool) -> Vec<Route> {
    // A host that is none is one problem, not one for each route.
    let host = table.value("host", |name, text| match Route::parse(Some(text), "/") {
        Ok(route) => Ok(route.host),
        Err(error) => Err(not_allowed(name, error.allowed(), text)),
    });
    let route = |name: &str, text: &str| {
        let route = Route::parse(None, text).map_err(|error| not_allowed(name, error.allowed(), text))?;
        Ok(Route { host: host.clone().flatten(), ..route })
    };
    let routes = table.list("route", route);
    match routes {
        Some(routes) if routes.is_empty() => {
            table.problem("`route` must have at least one path, such as `/hello/*`");
            routes
        }
        Some(routes) => routes,
        None if is_only => vec![Route { host: host.flatten(), ..Route::everything() }],
        None => {
            if !table.has("route") {
                table.problem("`route` is missing: only a handler that is alone does without");
            }
            Vec::new()
        }
    }
}

fn read_limits(table: &mut Table<'_>) -> (Limits, Admission) {
    let default = Limits::default();
    let limits = Limits {
        deadline: table.value("deadline", duration(config::LIMIT)).unwrap_or(default.deadline),
        stream_deadline: table.value("stream_deadline", duration(config::LIMIT)),
        cpu: table.value("cpu", duration(config::LIMIT)),
        memory: table.value("memory", size(config::MEMORY)).unwrap_or(default.memory),
        ..default
    };
    let admission = Admission {
        in_flight: table.value("in_flight", count(config::WORKERS)),
        queue: table.value("queue", count(config::QUEUE)),
        queue_timeout: table.value("queue_timeout", duration(config::LIMIT)),
    };
    (limits, admission)
}

fn check_names(source: &Source<'_>, handlers: &[HandlerConfig]) {
    for (index, handler) in handlers.iter().enumerate() {
        if let Some(first) = handlers[..index].iter().position(|other| other.name == handler.name) {
            let (first, second) = (first + 1, index + 1);
            let name = source.shown(second, "name", &handler.name);
            source.problem(&format!("handlers {first} and {second} are both called `{name}`: rename one"));
        }
        if handler.guard.is_some() && handler.keep == 0 {
            source.problem(&format!(
                "handler `{}`: a `guard` goes back to the revision before: `keep` must be at least 1",
                source.shown(index + 1, "name", &handler.name)
            ));
        }
    }
}

/// What a handler may have is a part of what the host has.
fn check_admission(source: &Source<'_>, handlers: &[HandlerConfig], max_workers: u32) {
    for (index, HandlerConfig { name, admission, .. }) in handlers.iter().enumerate() {
        if let Some(in_flight) = admission.in_flight.filter(|in_flight| *in_flight > max_workers) {
            let most = source.shown(0, "max_workers", &max_workers.to_string());
            let found = source.shown(index + 1, "limits.in_flight", &in_flight.to_string());
            source.problem(&format!(
                "handler `{name}`: `limits.in_flight` must be at most `max_workers` of `[server]`, which is `{most}`, found `{found}`"
            ));
        }
    }
}

/// Whether the routes can be told apart, and each probe asks the handler that it is for.
fn check_routes(source: &Source<'_>, handlers: &[HandlerConfig]) {
    if handlers.is_empty() {
        source.problem("there is no handler: begin one with `[[handler]]`");
    }
    let shown = |(index, handler): (usize, &HandlerConfig)| source.shown(index + 1, "name", &handler.name);
    let names: Vec<String> = handlers.iter().enumerate().map(shown).collect();
    let routes = handlers.iter().map(|handler| &handler.routes[..]);
    let router = match Router::new(names.iter().map(String::as_str).zip(routes)) {
        Ok(router) => router,
        Err(error) => return source.problem(&with_routes_as_written(source, handlers, error.to_string())),
    };
    for (index, handler) in handlers.iter().enumerate() {
        let Some(probe) = &handler.probe else { continue };
        let path = probe.path_only();
        // A host with a `*` is below itself, as far as the router is concerned.
        let found = router.find(handler.routes.first().and_then(|route| route.host.as_deref()), path);
        let found = found.map(|found| found.handler);
        if found == Some(index) {
            continue;
        }
        let whose = found.map_or("no handler".to_owned(), |other| format!("handler `{}`", names[other]));
        let routes = handler.routes.iter().map(|route| format!("`{route}`")).collect::<Vec<_>>().join(", ");
        let problem = format!(
            "handler `{}`: `probe.path` must be a path that its routes match ({routes}), found `{}`, which {whose} answers",
            names[index],
            source.shown(index + 1, "probe.path", &probe.path),
        );
        source.problem(&with_routes_as_written(source, handlers, problem));
    }
}

fn with_routes_as_written(source: &Source<'_>, handlers: &[HandlerConfig], mut text: String) -> String {
    for (index, handler) in handlers.iter().enumerate() {
        for (at, route) in handler.routes.iter().enumerate() {
            let host = route.host.as_deref().map(|host| source.shown(index + 1, "host", host)).unwrap_or_default();
            let path = source.shown(index + 1, &format!("route[{at}]"), &route.path);
            text = text.replace(&format!("`{route}`"), &format!("`{host}{path}`"));
        }
    }
    text
}

fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str, &str) -> Result<Duration, ValueError> {
    move |name, text| config::duration(name, text, range.clone())
}

fn size(range: RangeInclusive<u64>) -> impl Fn(&str, &str) -> Result<u64, ValueError> {
    move |name, text| config::size(name, text, range.clone())
}

fn count(range: RangeInclusive<u32>) -> impl Fn(&str, &str) -> Result<u32, ValueError> {
    move |name, text| config::count(name, text, range.clone())
}

fn choice<T: Copy>(choices: [(&str, T); 2]) -> impl Fn(&str, &str) -> Result<T, ValueError> {
    move |name, text| {
        let found = choices.iter().find(|(choice, _)| *choice == text).map(|(_, value)| *value);
        found.ok_or_else(|| not_allowed(name, format_args!("`{}` or `{}`", choices[0].0, choices[1].0), text))
    }
}

fn handler_name(name: &str, text: &str) -> Result<String, ValueError> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if fits { Ok(text.to_owned()) } else { Err(not_allowed(name, "1 to 64 letters, digits, `.`, `_` and `-`", text)) }
}

fn probe_path(name: &str, text: &str) -> Result<String, ValueError> {
    let fits = text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok_and(|path| path.as_str() == text);
    if fits {
        Ok(text.to_owned())
    } else {
        Err(not_allowed(name, "a path, such as `/healthz` or `/healthz?deep`", text))
    }
}

fn plain_path(name: &str, text: &str) -> Result<String, ValueError> {
    let is_pattern = text.contains('*') || text.contains("/:");
    match probe_path(name, text) {
        Ok(path) if !path.contains('?') && !is_pattern => Ok(path),
        _ => Err(not_allowed(name, "one path, such as `/healthz`: `*` and `:name` are for routes", text)),
    }
}

fn status(name: &str, text: &str) -> Result<StatusCode, ValueError> {
    let number = text.parse().ok().filter(|number| (200..=599).contains(number));
    let status = number.and_then(|number: u16| StatusCode::from_u16(number).ok());
    status.ok_or_else(|| not_allowed(name, "a status between 200 and 599", text))
}

/// The keys of `[server]` whose values differ. A running host cannot change any of them.
#[must_use]
pub fn restart_keys(old: &ServerConfig, new: &ServerConfig) -> Vec<&'static str> {
    // Taken apart, so that a new field cannot be forgotten.
    let ServerConfig {
        listen,
        tls,
        trusted_proxies,
        proxy_protocol,
        max_body,
        body_timeout,
        clients,
        max_workers,
        memory_budget,
        reset,
        cache,
        trust_precompiled,
        health,
        drain,
        control: ControlConfig { socket, tcp, max_module },
        state,
        compile: CompileConfig { program: _, timeout, memory },
    } = old;
    let (address, token) = tcp.as_ref().map(|(address, token)| (address, token)).unzip();
    let (new_address, new_token) = new.control.tcp.as_ref().map(|(address, token)| (address, token)).unzip();
    let differ = [
        ("listen", *listen != new.listen),
        ("tls", *tls != new.tls),
        ("control", *socket != new.control.socket),
        ("control_tcp", address != new_address),
        ("control_token_file", token != new_token),
        ("max_module", *max_module != new.control.max_module),
        ("trusted_proxies", *trusted_proxies != new.trusted_proxies),
        ("proxy_protocol", *proxy_protocol != new.proxy_protocol),
        ("max_body", *max_body != new.max_body),
        ("body_timeout", *body_timeout != new.body_timeout),
        ("max_workers", *max_workers != new.max_workers),
        ("memory_budget", *memory_budget != new.memory_budget),
        ("reset", *reset != new.reset),
        ("cache", *cache != new.cache),
        ("trust_precompiled", *trust_precompiled != new.trust_precompiled),
        ("health", *health != new.health),
        ("drain", *drain != new.drain),
        ("state", *state != new.state),
        ("compile", (*timeout, *memory) != (new.compile.timeout, new.compile.memory)),
    ];
    differ
        .into_iter()
        .chain(clients::differ(clients, &new.clients))
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| key)
        .collect()
}

#[cfg(test)]
mod tests;
