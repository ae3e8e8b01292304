//! The gate: what a module has to pass before a request meets it. Read, recognise, compile, link, instantiate once, answer the probe.
//!
//! Used at start-up and by swaps, on threads of their own or of the control socket: it takes as long as compiling takes. Nothing here
//! publishes anything.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response, header, uri::Scheme};
use http_body_util::BodyExt as _;

use crate::{
    compiler::Compiler,
    config::{HandlerConfig, ProbeConfig},
    dispatch::{self, PrintedLines},
    failure::{FailureKind, Outcome},
    guest::{self, CutBy, Engine, Gateway, Granted, GuestBody, LoadedModule, ModuleFile, Report, Watch},
    host_error::HostError,
    log_writer::Log,
    operator_error::OperatorError,
    package::Cancel,
    receipt::{Probed, milliseconds},
    request_id::{RequestId, RequestIds},
    router::Router,
};

/// The stack of the thread that loads a module at start-up in bytes: what a main thread has.
const LOAD_STACK: usize = 8 << 20;

/// How often it is looked whether a start is given up.
const LOOK: Duration = Duration::from_millis(20);

/// What modules are loaded with.
pub(crate) struct Gate {
    pub(crate) engine: Engine,
    pub(crate) trust_precompiled: bool,
    /// None: this process compiles by itself.
    pub(crate) compiler: Option<Compiler>,
    pub(crate) ids: Arc<RequestIds>,
    pub(crate) log: Option<Log>,
    pub(crate) probes: Probes,
}

/// The probes that are being answered, to be cut when the host ends.
#[derive(Default)]
pub(crate) struct Probes(Mutex<ProbeList>);

#[derive(Default)]
struct ProbeList {
    guests: Vec<Weak<Watch>>,
    is_over: bool,
}

impl Probes {
    /// Cuts those that are, and those that will be.
    fn stop(&self) {
        let mut list = self.lock();
        list.is_over = true;
        for guest in list.guests.iter().filter_map(Weak::upgrade) {
            guest.cut(CutBy::Operator);
        }
    }

    fn add(&self, guest: &Arc<Watch>) {
        let mut list = self.lock();
        list.guests.retain(|guest| guest.strong_count() > 0);
        list.guests.push(Arc::downgrade(guest));
        if list.is_over {
            guest.cut(CutBy::Operator);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ProbeList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A module that may be served.
pub(crate) struct Admitted {
    pub(crate) module: Arc<LoadedModule>,
    /// Where its machine code came from, for the receipt.
    pub(crate) code: String,
    pub(crate) probed: Option<Probed>,
}

impl Gate {
    /// Loads a module at start-up: nothing is served yet that compiling could disturb. What compiles here cannot be ended: once `given_up`,
    /// its thread is left to the end of the process.
    ///
    /// # Errors
    /// It cannot be served, or the start is given up.
    pub(crate) fn load_first(&self, path: &Path, given_up: Option<&Cancel>) -> Result<Arc<LoadedModule>, HostError> {
        let file = ModuleFile::read(path)?;
        let (engine, trust_precompiled) = (self.engine.clone(), self.trust_precompiled);
        let load = move || LoadedModule::load(&engine, file, trust_precompiled, None);
        let Some(given_up) = given_up else { return Ok(Arc::new(load()?)) };
        let (running, is_over) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("astra-load".to_owned()).stack_size(LOAD_STACK);
        let loading = thread.spawn(move || {
            let _running = running;
            load()
        });
        let loading = loading.map_err(HostError::Serve)?;
        while is_over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            if given_up.is_cancelled() {
                return Err(HostError::Stopped);
            }
        }
        let loaded = loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(Arc::new(loaded?))
    }

    /// The host ends: what is being loaded is given up.
    pub(crate) fn stop(&self) {
        self.probes.stop();
        if let Some(compiler) = &self.compiler {
            compiler.stop();
        }
    }

    /// Admits a module, or `loaded`, the same that has been admitted before and only has to answer the probe.
    ///
    /// # Errors
    /// It cannot be served.
    pub(crate) fn admit(
        &self,
        file: ModuleFile,
        loaded: Option<Arc<LoadedModule>>,
        config: &HandlerConfig,
        router: &Router,
    ) -> Result<Admitted, OperatorError> {
        let (module, code) = match loaded {
            Some(module) => (module, "loaded".to_owned()),
            None => {
                let compiler = self.compiler.as_ref();
                let module = LoadedModule::load(&self.engine, file, self.trust_precompiled, compiler)?;
                let code = module.compiled().to_string();
                (Arc::new(module), code)
            }
        };
        let probed = config.probe.as_ref().map(|probe| self.probe(&module, probe, config, router)).transpose()?;
        Ok(Admitted { module, code, probed })
    }

    /// Has a guest of `module` answer the probe's request, which comes by its handler's route like a client's, but from nobody.
    fn probe(
        &self,
        module: &LoadedModule,
        probe: &ProbeConfig,
        config: &HandlerConfig,
        router: &Router,
    ) -> Result<Probed, OperatorError> {
        let failed = |reason| OperatorError::Probe { name: config.name.clone(), reason };
        let started = Instant::now();
        let until = started + probe.within;
        let id = self.ids.next();
        let (request, gateway) = self.probe_request(probe, config, router, &id).map_err(failed)?;
        let status = self.ask(module, config, request, gateway, id, until).map_err(failed)?;
        let answer = Probed { status: status.as_u16(), ms: milliseconds(started.elapsed()) };
        if status == probe.status {
            return Ok(answer);
        }
        // Without the query, which may hold secrets.
        let (path, wanted) = (probe.path_only(), probe.status.as_u16());
        Err(failed(format!("`{path}` was answered {}, expected is {wanted}", answer.status)))
    }

    fn probe_request(
        &self,
        probe: &ProbeConfig,
        config: &HandlerConfig,
        router: &Router,
        id: &RequestId,
    ) -> Result<(astra_server::Request, Gateway), String> {
        let host = config.routes.iter().find_map(|route| route.host.as_deref());
        let host = host.map_or_else(|| "localhost".to_owned(), |host| host.replace('*', "probe"));
        let path = probe.path_only();
        let found = router.find(Some(&host), path).ok_or_else(|| format!("no route leads to `{path}`"))?;
        let mut request = Request::get(&probe.path)
            .header(header::HOST, &host)
            .header(header::USER_AGENT, HeaderValue::from_static("astra-host-probe"))
            .body(astra_server::Body::empty())
            .map_err(|error| format!("its path is none: {error}"))?;
        dispatch::prepare(request.headers_mut(), id);
        dispatch::put_route(request.headers_mut(), dispatch::told_route(&found));
        Ok((request, Gateway { script: found.script(path), ..Gateway::default() }))
    }

    /// Runs the guest on a thread of its own, since its body has to be read while it runs.
    fn ask(
        &self,
        module: &LoadedModule,
        config: &HandlerConfig,
        request: astra_server::Request,
        gateway: Gateway,
        id: RequestId,
        until: Instant,
    ) -> Result<http::StatusCode, String> {
        let granted =
            Arc::new(Granted::new(&config.name.as_str().into(), config.grants.clone(), self.engine.executor()));
        let mut limits = config.limits.clone();
        let left = until.saturating_duration_since(Instant::now());
        (limits.deadline, limits.stream_deadline) = (limits.deadline.min(left), Some(left));
        let output = PrintedLines { log: self.log.clone(), handler: config.name.as_str().into(), id };
        let watch = Arc::<Watch>::default();
        self.probes.add(&watch);
        let (sender, answer) = mpsc::sync_channel(1);
        let exchange =
            guest::Exchange { request, scheme: Scheme::HTTP, gateway, client: None, output: Arc::new(output), watch };
        let run = || {
            let _entered = self.engine.runtime().enter();
            // The answer to nobody is dropped, which the guest is told.
            guest::run(module, &granted, &limits, exchange, move |response| drop(sender.send(response)))
        };
        self.engine.while_ticking(|| {
            thread::scope(|scope| {
                let name = "astra-probe".to_owned();
                let guest = thread::Builder::new().name(name).stack_size(self.engine.worker_stack());
                let guest =
                    guest.spawn_scoped(scope, run).map_err(|error| format!("no thread to run it on: {error}"))?;
                let status = answer.recv().ok().map(|response| read(response, until));
                let report = guest.join().map_err(|_| "the host panicked".to_owned())?;
                conclude(status, &report)
            })
        })
    }
}

/// Reads an answer to its end.
fn read(response: Response<GuestBody>, until: Instant) -> Result<http::StatusCode, String> {
    let (head, mut body) = response.into_parts();
    loop {
        match astra_server::wait(body.frame(), Some(until)) {
            Ok(None) => return Ok(head.status),
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => return Err(format!("its answer broke off: {error}")),
            Err(_) => return Err("its answer did not end in time".to_owned()),
        }
    }
}

/// What the guest made of it comes first: it knows why. Unless it was us who did not listen to the end.
fn conclude(status: Option<Result<http::StatusCode, String>>, report: &Report) -> Result<http::StatusCode, String> {
    match (&report.outcome, status) {
        (Outcome::Failed(failure), Some(Err(reason))) if failure.kind() == FailureKind::ClientGone => Err(reason),
        (Outcome::Failed(failure), _) => Err(failure.to_string()),
        (Outcome::Ok, Some(status)) => status,
        (Outcome::Ok, None) => Err("there was no answer".to_owned()),
    }
}
