//! Builds everything in the order it is needed, starts it, and shuts it down. Checks come first and listening last: an
//! address is bound only when there is a revision that can answer.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use astra_server::{Handle, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    config::{Config, DEFAULT_LISTEN, HandlerConfig, Text},
    dispatch::Dispatch,
    guest::{DirGrant, Engine, EngineError, EngineOptions, GrantError, LoadError, LoadedModule},
    handler::Handler,
    log_writer::Log,
    request_id::RequestIds,
};

/// Requests that may wait for a worker; beyond that, and after [`QUEUE_TIMEOUT`], the answer is 503.
const QUEUE: usize = 1024;

/// How long a request may wait for a worker.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Instances the pool keeps beyond one for each worker.
const SPARE_INSTANCES: u32 = 16;

/// Most connections a host holds, if the limit on open files allows as many.
const MAX_CONNECTIONS: usize = 65_536;

/// Where hosts come from: [`Host::builder`].
#[derive(Debug)]
pub struct Host(());

impl Host {
    /// A host in the making; it needs a [`module`](HostBuilder::module).
    pub fn builder() -> HostBuilder {
        HostBuilder { config: Config::new(""), log: None }
    }

    /// A host in the making that does what `config` says.
    pub fn from_config(config: Config) -> HostBuilder {
        HostBuilder { config, log: None }
    }
}

/// A host in the making. What is not set here is set in its [`Config`].
#[must_use = "a builder does nothing until it is started"]
pub struct HostBuilder {
    config: Config,
    log: Option<Log>,
}

impl HostBuilder {
    /// The `.wasm` file whose guests answer the requests.
    pub fn module(mut self, path: impl Into<PathBuf>) -> Self {
        let named = HandlerConfig::new(path);
        self.config.handlers[0].name = named.name;
        self.config.handlers[0].module = named.module;
        self
    }

    /// Listens on one more address, `HOST:PORT`; `127.0.0.1:8080` when there is none. Port 0 lets the system choose;
    /// `localhost` is both 127.0.0.1 and ::1.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.config.server.listen.push(address.into());
        self
    }

    /// Grants the guests an environment variable.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        crate::config::add_variables(&mut self.config.handlers[0].grants.env, [(key.into(), Text::from(value.into()))]);
        self
    }

    /// Grants the guests a directory.
    pub fn dir(mut self, dir: DirGrant) -> Self {
        self.config.handlers[0].grants.dirs.push(dir);
        self
    }

    /// How long a guest may take until the head of its response.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.config.handlers[0].limits.deadline = deadline;
        self
    }

    /// Logs there: what guests print, and a line for each request if the log has access lines. Without it guests print
    /// into the void. Records of the `log` crate go wherever the program sends them.
    pub fn log(mut self, log: Log) -> Self {
        self.log = Some(log);
        self
    }

    /// Everything else, before it is started.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Loads the module, listens and serves, on threads of its own.
    ///
    /// Raises the process's soft limit on open files to the hard one.
    ///
    /// # Errors
    /// When a grant, the module or an address cannot be used; nothing is left running then.
    pub fn start(self) -> Result<RunningHost, HostError> {
        let Self { config, log } = self;
        if config.handlers[0].module.as_os_str().is_empty() {
            return Err(HostError::NoModule);
        }
        config.handlers[0].grants.check()?;
        let open_files = raise_open_files();

        let engine = Engine::new(&engine_options(&config))?;
        let revision = LoadedModule::load(&engine, &config.handlers[0].module, config.server.trust_precompiled, None)?;
        let mut limits = config.handlers[0].limits.clone();
        // Reading the CPU clock costs two system calls a request: only for those who want to see it.
        limits.measure_cpu = log.as_ref().is_some_and(Log::has_access_lines);
        let handler = Arc::new(Handler {
            name: config.handlers[0].name.clone().into(),
            revision: Arc::new(revision),
            grants: Arc::new(config.handlers[0].grants.clone()),
            limits,
        });

        let listen =
            if config.server.listen.is_empty() { vec![DEFAULT_LISTEN.to_owned()] } else { config.server.listen };
        let dispatch = Dispatch {
            handler: Arc::clone(&handler),
            ids: RequestIds::new(),
            trusted_proxies: config.server.trusted_proxies,
            log,
        };
        let server = bind(&listen)?
            .max_workers(config.server.max_workers as usize)
            .queue(QUEUE, QUEUE_TIMEOUT)
            .max_connections(max_connections(open_files))
            .max_body(config.server.max_body)
            .body_read_timeout(config.server.body_timeout)
            .worker_stack(engine.worker_stack())
            .around_worker({
                let runtime = engine.runtime().clone();
                move |work| {
                    let _entered = runtime.enter();
                    work();
                }
            })
            .on_tick({
                let engine = engine.clone();
                move || engine.tick()
            })
            .start(dispatch)
            .map_err(HostError::Serve)?;
        Ok(RunningHost { server, handler, engine })
    }
}

/// A host that serves. Dropping it stops it at once, cutting what runs; [`shutdown`](Self::shutdown) is kinder.
#[must_use = "a host that is dropped stops serving"]
pub struct RunningHost {
    // Dropped in this order: the workers that run guests before the engine they run in.
    server: Handle,
    handler: Arc<Handler>,
    engine: Engine,
}

impl RunningHost {
    /// The addresses it really listens on.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.server.local_addrs()
    }

    /// What it serves.
    #[must_use]
    pub fn revision(&self) -> &LoadedModule {
        &self.handler.revision
    }

    /// What the operator should know about how guests are run here: what is not as it was asked for, and why.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        self.engine.notes()
    }

    /// Stops accepting, lets requests finish for at most `drain`, cuts the rest and joins all threads. True when nothing
    /// was cut.
    pub fn shutdown(self, drain: Duration) -> bool {
        self.server.shutdown(drain)
    }
}

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// No module was set.
    #[error("there is no module to serve")]
    NoModule,
    /// Something is granted that is not there or is not what it should be.
    #[error("cannot grant")]
    Grant(#[from] GrantError),
    /// The sandbox cannot be set up as asked for.
    #[error("cannot set up the engine")]
    Engine(#[from] EngineError),
    /// The module is not there, not a handler, or does not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An address is in use, not ours, not allowed, or its name is unknown.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// As it was given.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// Threads or poll cannot be set up.
    #[error("cannot serve")]
    Serve(#[source] io::Error),
}

/// The sandbox that a configuration asks for.
pub(crate) fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        instances: config.server.max_workers.saturating_add(SPARE_INSTANCES),
        max_memory: config.handlers[0].limits.memory,
        memory_budget: config.server.memory_budget,
        reset: config.server.reset,
        cache: config.server.cache,
    }
}

/// Raises the soft limit on open files to the hard one and returns what it is then.
fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // macOS says "unlimited" and then refuses it: what we have is enough for development.
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// A quarter of the open files is left for what guests open.
fn max_connections(open_files: Option<u64>) -> usize {
    open_files.map_or(MAX_CONNECTIONS, |files| (files / 4 * 3).clamp(16, MAX_CONNECTIONS as u64) as usize)
}

fn bind(listen: &[String]) -> Result<Server, HostError> {
    let mut server = Server::default();
    for address in listen {
        let bound = match localhost(address) {
            Some(both) => server.and_bind(&both[..]),
            None => server.and_bind(address.as_str()),
        };
        server = bound.map_err(|source| HostError::Listen { address: address.clone(), source })?;
    }
    Ok(server)
}

/// `localhost` is both families, whatever the machine's files say; the server passes over the one that does not exist.
fn localhost(address: &str) -> Option<[SocketAddr; 2]> {
    let port = address.strip_prefix("localhost:")?.parse().ok()?;
    Some([SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_both_families() {
        let both = localhost("localhost:80").expect("is localhost");
        assert_eq!(both.map(|address| address.to_string()), ["127.0.0.1:80", "[::1]:80"]);
        assert_eq!(localhost("localhost.example:80"), None);
    }

    #[test]
    fn connections_leave_files_for_guests() {
        assert_eq!(max_connections(Some(1024)), 768);
        assert_eq!(max_connections(Some(1 << 20)), MAX_CONNECTIONS);
        assert_eq!(max_connections(None), MAX_CONNECTIONS);
    }

    #[test]
    fn a_host_without_a_module_says_so() {
        let error = Host::builder().start().err().expect("has no module");
        assert!(matches!(error, HostError::NoModule));
    }
}
