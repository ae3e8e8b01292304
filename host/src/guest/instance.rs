//! One request in one fresh guest: store, limits, call, and what became of it.
//!
//! [`run`] does all of it on the calling worker and returns when the guest has ended and its memory is given back. The
//! only place where a `wasmtime::Error` becomes an outcome is [`classify`]. Nothing of a guest outlives its request.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use astra_server::Gone;
use http::{Response, uri::Scheme};
use wasmtime::{
    Result, Store, StoreContextMut, Trap, UpdateDeadline, WasmBacktrace,
    component::{Resource, ResourceTable},
};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, clocks::WasiClocksCtx, p1::WasiP1Ctx};
use wasmtime_wasi_http::{
    WasiHttpCtx, WasiHttpCtxView, WasiHttpView,
    p2::types::{HostIncomingRequest, HostResponseOutparam},
};

use super::{
    answer::{Answer, Respond},
    blocking::{self, Io},
    body::{Budget, GuestBody},
    cgi::{self, Cgi, Gateway, Stdin, Stdout},
    concurrent,
    descriptors::{Opened, Place},
    direct,
    granted::Granted,
    grants::{Grants, Stdio},
    heads,
    http::{self as wasi_http, RequestBody},
    http03,
    limits::{self, Clock, Cut, Limits, Memory, Phase},
    loaded_module::LoadedModule,
    memory_budget::MemoryBudget,
    network::Network,
    outbound::Hooks,
    program::Program,
    stacks::NoStack,
    stdio::GuestOutput,
    watch::Watch,
};
use crate::{
    failure::{DETAIL, Failure, FailureKind, Outcome},
    short_text::shortened,
};

/// A guest has run through one whole tick before it is asked anything, so its first is the second from now.
const FIRST_TICK: u64 = 2;
/// Frames of a trap's backtrace that are worth a place in the log line.
const FRAMES: usize = 8;
/// Bytes of a function's name, which is whatever its module says.
const NAME: usize = 256;

/// What a request reports about itself when it has ended.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// CPU time, from the start of the guest to the end of its clean-up: less than a millisecond too much.
    pub cpu: Duration,
    /// Bytes of the request's body that the guest has taken in.
    pub bytes_in: u64,
    /// Most memory that the guest had asked for, linear memories and tables, in bytes.
    pub peak_memory: u64,
}

/// What is known about the request's body. Written where it is read, which is the same thread, so nothing needs ordering.
#[derive(Default)]
pub(crate) struct Upload {
    pub(crate) bytes: AtomicU64,
    broken: OnceLock<UploadEnd>,
}

/// How a request's body ended, if not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadEnd {
    /// It went over the server's limit.
    TooLarge,
    /// The client stopped sending.
    TooSlow,
    /// Its framing is none.
    Malformed,
    /// The client went away, or ended it early.
    ClientGone,
}

impl Upload {
    pub(crate) fn end(&self, end: UploadEnd) {
        // The first reason counts.
        let _ = self.broken.set(end);
    }

    /// The client went away, or ended its body early.
    pub(crate) fn client_left(&self) -> bool {
        self.broken.get() == Some(&UploadEnd::ClientGone)
    }

    /// What the server answers by itself if the guest's response has not gone out yet.
    pub(crate) fn refusal(&self) -> Option<Failure> {
        match self.broken.get()? {
            UploadEnd::TooLarge => {
                Some(Failure::new(FailureKind::BodyTooLarge, "the request body went over `max_body`"))
            }
            UploadEnd::TooSlow => {
                Some(Failure::new(FailureKind::ClientTooSlow, "the client stopped sending the request body"))
            }
            UploadEnd::Malformed => Some(Failure::new(FailureKind::BadRequest, "the request body is malformed")),
            UploadEnd::ClientGone => None,
        }
    }
}

/// What a guest's imports work on: everything of one request.
pub(crate) struct State {
    pub(crate) table: ResourceTable,
    pub(crate) answer: Answer,
    pub(crate) clock: Clock,
    pub(crate) upload: Arc<Upload>,
    /// For bodies that have not been set as the answer.
    pub(crate) unsent: Budget,
    /// Bytes that may still go into heads.
    pub(crate) heads_left: usize,
    /// Made when first asked for.
    pub(crate) clocks: Option<WasiClocksCtx>,
    memory: Memory,
    client: Option<astra_server::Client>,
    http: WasiHttpCtx,
    /// Made when first asked for, unless there are directories to open.
    wasi: Option<WasiCtx>,
    stdio: Option<Stdio>,
    /// For programs that are core modules, instead of that.
    pub(crate) preview1: Option<Box<WasiP1Ctx>>,
    /// For guests that are called directly, once they are instantiated.
    pub(crate) direct: Option<direct::Instance>,
    /// What a CGI program is given.
    cgi: Option<Cgi>,
    /// What outgoing requests ask, and all that was granted.
    pub(crate) hooks: Hooks,
    /// Made when first asked for.
    network: Option<Network>,
    pub(crate) limits: Limits,
    output: Arc<dyn GuestOutput>,
    /// Last, so that places are given back when what has them is closed.
    pub(crate) opened: Opened,
}

impl State {
    pub(crate) fn new(
        memory: &MemoryBudget,
        granted: &Arc<Granted>,
        limits: &Limits,
        output: Arc<dyn GuestOutput>,
        watch: Arc<Watch>,
        to_head: bool,
        respond: Respond,
    ) -> Self {
        let upload = Arc::<Upload>::default();
        let answer = Answer::new(to_head, Arc::clone(&upload), respond);
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles as usize);
        Self {
            table,
            answer,
            clock: Clock::start(limits, watch),
            upload,
            unsent: Budget::new(),
            heads_left: heads::MOST,
            clocks: None,
            memory: Memory::new(limits.memory, memory),
            client: None,
            http: WasiHttpCtx::new(),
            wasi: None,
            stdio: None,
            preview1: None,
            direct: None,
            cgi: None,
            hooks: Hooks::new(granted),
            network: None,
            limits: limits.clone(),
            output,
            opened: Opened::default(),
        }
    }

    pub(crate) fn io(&mut self) -> Io<'_> {
        Io { table: &mut self.table, answer: &mut self.answer, clock: &mut self.clock }
    }

    /// The client is gone.
    pub(crate) fn is_alone(&self) -> bool {
        self.client.as_ref().is_some_and(astra_server::Client::is_gone)
    }

    /// The client will not see the rest of the response: it has gone, has broken off its own body, or does not read any more.
    fn client_left(&self) -> bool {
        self.is_alone() || self.upload.client_left() || self.answer.is_refused()
    }

    /// Makes the WASI context.
    ///
    /// # Errors
    /// A granted directory cannot be opened.
    fn make_wasi(&mut self) -> Result<()> {
        self.wasi = Some(self.wasi_builder()?.build());
        Ok(())
    }

    fn wasi_builder(&mut self) -> Result<WasiCtxBuilder> {
        let network = self.network().clone();
        let stdio = self.stdio.get_or_insert_with(|| Stdio::new(&self.output));
        self.hooks.granted.context(&self.limits, stdio, network, self.cgi.as_ref())
    }

    /// What it may do with raw sockets.
    pub(crate) fn network(&mut self) -> &Network {
        self.network.get_or_insert_with(|| Network::new(&self.hooks.granted))
    }

    /// A place for one descriptor more, if there is any.
    pub(crate) fn place(&mut self) -> Option<Place> {
        self.hooks.granted.place(&mut self.opened)
    }

    pub(crate) fn grants(&self) -> &Grants {
        &self.hooks.granted
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        // Only a directory can fail, and `run` opens those first: a guest that comes here has none.
        if self.wasi.is_none()
            && let Err(error) = self.make_wasi()
        {
            log::error!("a guest goes without what it was granted: {error:#}");
        }
        WasiCtxView { ctx: self.wasi.get_or_insert_default(), table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

/// A store for one guest, with its limits set.
pub(crate) fn store(engine: &wasmtime::Engine, state: State) -> Store<State> {
    let (fuel, handles) = (state.limits.hostcall_bytes, state.limits.handles as usize);
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(fuel);
    store.set_max_component_handles(handles);
    store.set_epoch_deadline(FIRST_TICK);
    store.epoch_deadline_callback(tick);
    store
}

/// Called when a guest has run through a tick.
fn tick(mut store: StoreContextMut<'_, State>) -> Result<UpdateDeadline> {
    let state = store.data_mut();
    state.clock.show_cpu();
    blocking::send_out(&mut state.answer);
    astra_server::give_way();
    let phase = state.answer.phase();
    state.clock.check(phase)?;
    if state.is_alone() {
        state.clock.without_client(phase)?;
    }
    Ok(UpdateDeadline::Continue(1))
}

/// A request for a guest, and what belongs to it.
pub struct Exchange {
    /// The request as the guest shall see it, its authority in the URI or in `host`.
    pub request: astra_server::Request,
    /// How the client reached us.
    pub scheme: Scheme,
    /// What a CGI program is told beside that.
    pub gateway: Gateway,
    /// The client, which cancels its guest by going away.
    pub client: Option<astra_server::Client>,
    /// Where the guest's lines go.
    pub output: Arc<dyn GuestOutput>,
    /// How others see the request, and end it.
    pub watch: Arc<Watch>,
}

/// Runs one request in a fresh instance, on this thread, and returns when the guest has ended.
///
/// `respond` is called at most once, with the head and a body that is still being written: at the latest when the guest waits,
/// or after it has ended (its memory given back already, so that the caller can go straight on to the connection). If the
/// guest fails before, it is dropped uncalled, and [`Report::outcome`] says what to answer.
pub fn run(
    module: &LoadedModule,
    granted: &Arc<Granted>,
    limits: &Limits,
    exchange: Exchange,
    respond: impl FnOnce(Response<GuestBody>) + Send + 'static,
) -> Report {
    let Exchange { request, scheme, gateway, client, output, watch } = exchange;
    let respond: Respond = Box::new(respond);
    let to_head = request.method() == http::Method::HEAD;
    let mut state = State::new(module.memory(), granted, limits, output, watch, to_head, respond);
    state.client = client;
    let mut store = store(module.engine(), state);
    let result = call(module, &mut store, request, &scheme, &gateway);
    end(store, result)
}

/// Where a call failed, which decides who is to blame.
enum CallError {
    Grants(wasmtime::Error),
    Request(wasmtime::Error),
    Guest(wasmtime::Error),
}

fn call(
    module: &LoadedModule,
    store: &mut Store<State>,
    request: astra_server::Request,
    scheme: &Scheme,
    gateway: &Gateway,
) -> Result<(), CallError> {
    match module.program() {
        Program::Http(program) => {
            let (request, outparam) = handles(store, request, scheme)?;
            let guest = module.instantiating(|| program.instantiate(&mut *store)).map_err(CallError::Guest)?;
            guest.wasi_http_incoming_handler().call_handle(store, request, outparam).map_err(CallError::Guest)
        }
        Program::Direct(program) => {
            let (request, outparam) = handles(store, request, scheme)?;
            let guest = module.instantiating(|| program.instantiate(store)).map_err(CallError::Guest)?;
            guest.call_handle(store, &request, &outparam).map_err(CallError::Guest)
        }
        Program::Http03(program) => {
            open_dirs(store)?;
            let request = http03::request(store.data_mut(), request, scheme).map_err(CallError::Request)?;
            let make = async |store: &mut Store<State>| program.instantiate_async(store).await;
            let guest = module.instantiating(|| concurrent::instantiate(store, make));
            let guest = guest.map_err(CallError::Guest)?;
            concurrent::run(store, async |store| http03::call(&guest, store, request).await).map_err(CallError::Guest)
        }
        Program::CgiModule(program) => {
            prepare_cgi(store, request, scheme, gateway)?;
            let builder = store.data_mut().wasi_builder();
            store.data_mut().preview1 = Some(builder.map_err(CallError::Grants)?.build_p1().into());
            let instance = module.instantiating(|| program.instantiate(&mut *store)).map_err(CallError::Guest)?;
            let start = instance.get_typed_func::<(), ()>(&mut *store, "_start").map_err(CallError::Guest)?;
            let ended = start.call(&mut *store, ());
            end_cgi(store, ended.map(Ok))
        }
        Program::Cgi(program) => {
            prepare_cgi(store, request, scheme, gateway)?;
            store.data_mut().make_wasi().map_err(CallError::Grants)?;
            let guest = module.instantiating(|| program.instantiate(&mut *store)).map_err(CallError::Guest)?;
            let ended = guest.wasi_cli_run().call_run(&mut *store);
            end_cgi(store, ended)
        }
        Program::Cgi03(program) => {
            prepare_cgi(store, request, scheme, gateway)?;
            store.data_mut().make_wasi().map_err(CallError::Grants)?;
            let make = async |store: &mut Store<State>| program.instantiate_async(store).await;
            let guest = module.instantiating(|| concurrent::instantiate(store, make));
            let guest = guest.map_err(CallError::Guest)?;
            let ended = concurrent::run(store, async |store| guest.wasi_cli_run().call_run(store).await);
            end_cgi(store, ended)
        }
    }
}

/// What a handler of WASI 0.2 is called with.
fn handles(
    store: &mut Store<State>,
    request: astra_server::Request,
    scheme: &Scheme,
) -> Result<(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>), CallError> {
    open_dirs(store)?;
    wasi_http::handles(store.data_mut(), request, scheme).map_err(CallError::Request)
}

/// Directories are opened before the guest starts, so that it is not the guest that fails if one cannot be.
fn open_dirs(store: &mut Store<State>) -> Result<(), CallError> {
    if store.data().grants().dirs.is_empty() {
        return Ok(());
    }
    store.data_mut().make_wasi().map_err(CallError::Grants)
}

/// Makes the request a program's environment and standard input.
fn prepare_cgi(
    store: &mut Store<State>,
    request: astra_server::Request,
    scheme: &Scheme,
    gateway: &Gateway,
) -> Result<(), CallError> {
    let state = store.data_mut();
    let (head, body) = request.into_parts();
    let variables = cgi::variables(&head, scheme, gateway).map_err(CallError::Request)?;
    let stdin = Stdin::new(RequestBody { body, upload: Arc::clone(&state.upload) });
    let stdout = Stdout::new(&state.unsent);
    state.answer.print_to(stdout.clone());
    let name = Arc::clone(state.hooks.granted.handler());
    state.cgi = Some(Cgi { name, variables, stdin, stdout });
    Ok(())
}

/// A program that ends well has printed all of its response; one that does not may have been in the middle of it.
fn end_cgi(store: &mut Store<State>, ended: Result<Result<(), ()>>) -> Result<(), CallError> {
    match ended {
        _ if store.data_mut().answer.is_unprintable() => {}
        Ok(Err(())) => return Err(CallError::Guest(I32Exit(1).into())),
        Err(error) if !matches!(error.downcast_ref(), Some(I32Exit(0))) => return Err(CallError::Guest(error)),
        Ok(Ok(())) | Err(_) => store.data_mut().answer.finish_printed(),
    }
    Ok(())
}

/// Takes the store apart and settles the answer.
fn end(mut store: Store<State>, result: Result<(), CallError>) -> Report {
    if !store.data().grants().dirs.is_empty() {
        let has_sockets = !store.data().grants().network.tcp.is_empty();
        blocking::settle(&mut store.data_mut().table, has_sockets);
    }
    let mut state = store.into_data(); // the instance ends here, and its memory is made fresh
    if let Some(stdio) = &state.stdio {
        stdio.finish();
    }
    let outcome = match settle(&mut state, result) {
        Ok(()) => Outcome::Ok,
        Err(failure) if failure.kind() == FailureKind::ClientGone => {
            Outcome::Failed(cut_by_host(state.client.as_ref()).unwrap_or(failure))
        }
        Err(failure) => Outcome::Failed(failure),
    };
    let bytes_in = state.upload.bytes.load(Ordering::Relaxed);
    let report = Report { outcome, cpu: state.clock.end(), bytes_in, peak_memory: state.memory.peak() };
    drop(state); // a body that the guest left unfinished breaks here
    report
}

/// Settles the answer of a guest that has ended, and finds who is to blame if something went wrong; whoever comes first here.
fn settle(state: &mut State, result: Result<(), CallError>) -> Result<(), Failure> {
    let complete = state.answer.phase() == Phase::Complete;
    let is_out = complete && state.answer.is_sent();
    // A guest that breaks its body off loses its client by that, unless its client has done the same before.
    let is_broken = state.answer.is_broken() && !state.upload.client_left();
    let left = !is_out && !is_broken && state.client_left();
    let answered = if left { Err(client_gone()) } else { state.answer.end() };

    // The client, of whose request's body the server has had enough: it is told so, or gets half a response because of it.
    if !is_out && let Some(failure) = state.upload.refusal() {
        return Err(failure);
    }
    let error = match result {
        // The guest for the answer that it has given, or the client for not being there to take it.
        Ok(()) => return answered,
        // The client, whose request is none.
        Err(CallError::Request(error)) => return Err(Failure::new(FailureKind::BadRequest, format_args!("{error:#}"))),
        // The host, or its configuration.
        Err(CallError::Grants(error)) => return Err(Failure::new(FailureKind::Host, format_args!("{error:#}"))),
        Err(CallError::Guest(error)) => error,
    };
    match error.downcast_ref() {
        // The client, whatever its guest made of its going.
        None if left => return Err(client_gone()),
        // The guest, which would have gone on after it had broken its answer off.
        Some(Cut::ClientGone) if is_broken && answered.is_err() => return answered,
        _ => {}
    }
    // The guest, or whoever has cut it.
    classify(&error, state, complete).map_or(answered, Err)
}

/// The guest did not get to its end because of its client, whatever it made of that.
fn client_gone() -> Failure {
    Failure::new(FailureKind::ClientGone, "the client went away before it had the whole response")
}

/// Why the client is gone, if it has not left by itself.
fn cut_by_host(client: Option<&astra_server::Client>) -> Option<Failure> {
    match client?.gone()? {
        Gone::Stopped => Some(Failure::new(FailureKind::Drained, "the host stopped, and `drain` passed")),
        Gone::TooSlow => Some(Failure::new(FailureKind::ClientTooSlow, "the client took nothing of the response")),
        _ => None,
    }
}

/// The one place where a `wasmtime::Error` becomes an outcome. `None`: the guest ended well after all.
fn classify(error: &wasmtime::Error, state: &State, complete: bool) -> Option<Failure> {
    let failure = |kind, detail: fmt::Arguments<'_>| Some(Failure::new(kind, detail));
    if let Some(I32Exit(status)) = error.downcast_ref() {
        return match status {
            0 if complete => None,
            _ => failure(FailureKind::Exit, format_args!("the guest called exit({status})")),
        };
    }
    if let Some(cut) = error.downcast_ref::<Cut>() {
        let kind = match cut {
            Cut::Deadline | Cut::StreamDeadline => FailureKind::Deadline,
            Cut::Cpu => FailureKind::Cpu,
            Cut::ClientGone => FailureKind::ClientGone,
            Cut::Killed => FailureKind::Killed,
            Cut::Drained => FailureKind::Drained,
        };
        return failure(kind, format_args!("{cut}{}", Frames(error)));
    }
    if let Some(full) = error.downcast_ref::<NoStack>() {
        return failure(FailureKind::Overload, format_args!("{full}"));
    }
    let reason = error.downcast_ref::<Trap>().map(Trap::to_string);
    let reason = reason.unwrap_or_else(|| shortened(error.root_cause(), DETAIL));
    let reason = reason.strip_prefix("wasm trap: ").unwrap_or(&reason);
    if let Some(all) = state.memory.refused_by_host() {
        let most = all >> 20;
        return failure(
            FailureKind::Overload,
            format_args!("all guests together may have {most} MiB, then: {reason}{}", Frames(error)),
        );
    }
    if limits::is_of_machine(error) || state.memory.refused_by_machine() {
        let text = format_args!("the machine has no more memory: {reason}{}", Frames(error));
        return failure(FailureKind::Overload, text);
    }
    if let Some(limit) = state.memory.refused() {
        let limit = limit >> 20;
        return failure(
            FailureKind::Memory,
            format_args!("asked for more than {limit} MiB, then: {reason}{}", Frames(error)),
        );
    }
    failure(FailureKind::Trap, format_args!("{reason}{}", Frames(error)))
}

/// The functions that a trap went through, innermost first, on one line; without those of Rust's that every panic ends in.
struct Frames<'a>(&'a wasmtime::Error);

impl fmt::Display for Frames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(trace) = self.0.downcast_ref::<WasmBacktrace>() else { return Ok(()) };
        let names = trace.frames().iter().map(|frame| match frame.func_name() {
            Some(name) => shortened(format_args!("{:#}", rustc_demangle::demangle(name)), NAME),
            None => format!("function {}", frame.func_index()),
        });
        let names: Vec<String> = names.collect();
        for (index, name) in worth_telling(&names).iter().take(FRAMES).enumerate() {
            write!(f, "{}{name}`", if index == 0 { " in `" } else { " < `" })?;
        }
        Ok(())
    }
}

/// From the guest's own innermost function on; everything if none is the guest's.
fn worth_telling(names: &[String]) -> &[String] {
    const CRATES: [&str; 7] = ["std::", "core::", "alloc::", "<std::", "<core::", "<alloc::", "__rust"];
    const FUNCTIONS: [&str; 3] = ["rust_begin_unwind", "rust_panic", "abort"];
    let is_machinery = |name: &str| CRATES.iter().any(|start| name.starts_with(start)) || FUNCTIONS.contains(&name);
    names.iter().position(|name| !is_machinery(name)).map_or(names, |own| &names[own..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_is_told_from_the_guests_own_function_on() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let panic = names(&[
            "abort",
            "std::process::abort",
            "__rustc::rust_panic",
            "rust_begin_unwind",
            "core::panicking::panic_fmt",
            "<core::option::Option<u8>>::expect",
            "guest::parse",
            "core::ops::function::FnOnce::call_once",
            "handle",
        ]);
        assert_eq!(worth_telling(&panic), &panic[6..]);
        let none = names(&["abort", "core::panicking::panic_fmt"]);
        assert_eq!(worth_telling(&none), none, "better than nothing");
        assert_eq!(worth_telling(&names(&["rust_app::abort"])), ["rust_app::abort"]);
    }
}
