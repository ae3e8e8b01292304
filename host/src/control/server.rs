//! The control server: lets the right ones in and answers with JSON. It is an [`astra_server::Server`] of its own, with its own few
//! workers, so that a host whose guests have all threads can still be looked at and stopped.

use std::{
    io,
    ops::RangeInclusive,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use astra_server::{Body, ConnectionInfo, Handle, Request, Response, Server, Service, blocking};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use serde_json::json;

use super::{
    event_stream, metrics,
    operate::Operate,
    route::{Asked, Query, ROUTES, Refused, Task, json},
    token::Token,
    upload::Upload,
};
use crate::{
    config,
    operator::{SwapOptions, UpgradeOptions, chain},
    operator_error::{OperatorError, Refusal},
    receipt::Receipt,
};

const WORKERS: usize = 32;
const SEATS: usize = 2;
/// Connections, most of which are idle at any time; over TCP so many of one address, which cannot keep others out.
const CONNECTIONS: usize = 256;
const CONNECTIONS_PER_PEER: usize = 64;

/// How long a connection may be silent, and a head may take: who opens many makes others wait no longer.
const SILENCE: Duration = Duration::from_secs(2);
const HEAD: Duration = Duration::from_secs(5);

const QUEUE: usize = 16;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a new host may be given to get ready: it may have to compile every module anew.
const WITHIN: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Swaps at once, those of which the module is still arriving included.
pub(super) const SWAPS: usize = 8;

/// Clients that wait for a drain at once, likewise.
const WAITS: usize = 12;

/// Characters of what a module is called by who sends it.
const MAX_SOURCE: usize = 1024;

/// Clients that follow events at once, so that they leave workers for the others.
const FOLLOWERS: usize = 8;

/// Who may come in.
pub(crate) enum Access {
    /// Whoever can connect: a Unix socket that only its owner can open.
    Owner,
    /// Who knows the token.
    Bearer(Token),
}

/// What runs around the life of a worker thread; see [`Server::around_worker`].
type AroundWorker = Box<dyn Fn(&mut dyn FnMut()) + Send + Sync>;

/// What the caller knows.
pub(crate) struct Settings {
    /// Stack of its workers in bytes: guests are instantiated and probed on them.
    pub(crate) worker_stack: usize,
    /// What guests need around the threads they run on.
    pub(crate) around_worker: AroundWorker,
    /// Largest module that is taken, in bytes.
    pub(crate) max_module: u64,
    /// A directory that is ours alone, where modules are kept while they are swapped in.
    pub(crate) uploads: PathBuf,
}

/// Serves on `bound`, which listens on a Unix socket or on TCP, as `access` says, until the handle is shut down. End the events
/// before that: it waits for those who follow them.
///
/// # Errors
/// If the reactor or the first threads cannot be made.
pub(crate) fn start(bound: Server, access: Access, operator: impl Operate, settings: Settings) -> io::Result<Handle> {
    let Settings { worker_stack, around_worker, max_module, uploads } = settings;
    let control = Control {
        operator: Arc::new(operator),
        access,
        max_module,
        uploads,
        swaps: Places::new(SWAPS),
        followers: Places::new(FOLLOWERS),
        waits: Places::new(WAITS),
    };
    bound
        .max_workers(WORKERS)
        .seats(SEATS)
        .queue(QUEUE, QUEUE_TIMEOUT)
        .max_connections(CONNECTIONS)
        .max_connections_per_peer(CONNECTIONS_PER_PEER)
        .idle_timeout(SILENCE)
        .header_read_timeout(HEAD)
        .worker_stack(worker_stack)
        .around_worker(around_worker)
        .start_service(control)
}

struct Control<O> {
    operator: Arc<O>,
    access: Access,
    max_module: u64,
    uploads: PathBuf,
    swaps: Places,
    followers: Places,
    waits: Places,
}

impl<O: Operate> Service for Control<O> {
    fn call(&self, mut request: Request, _info: ConnectionInfo) -> Response {
        // Whatever is asked for waits for something: a lock, a file, a guest.
        let answer = |request: &mut Request| {
            let asked = Asked::of(request.method(), request.uri());
            if !asked.as_ref().is_ok_and(|asked| asked.task.is_for_all()) {
                self.admit(request.headers())?;
            }
            self.answer(asked?, request)
        };
        blocking(|| answer(&mut request)).unwrap_or_else(Refused::into_response)
    }
}

impl<O: Operate> Control<O> {
    /// Browsers say on whose behalf they ask. None does so on the operator's, whatever page is open.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refused> {
        if headers.contains_key(ORIGIN) {
            return Err(Refused::new(StatusCode::FORBIDDEN, "a request with `origin` is a web page's, and refused"));
        }
        match &self.access {
            Access::Owner => Ok(()),
            Access::Bearer(token) if headers.get(AUTHORIZATION).is_some_and(|value| token.is_in(value)) => Ok(()),
            Access::Bearer(_) => {
                let refused = Refused::new(StatusCode::UNAUTHORIZED, "send the token: `authorization: Bearer …`");
                Err(refused.with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
            }
        }
    }

    /// A token lets modules in, which are confined; programs of this machine, and its sockets, are its user's.
    fn need_owner(&self, what: &str) -> Result<(), Refused> {
        match self.access {
            Access::Owner => Ok(()),
            Access::Bearer(_) => {
                Err(Refused::new(StatusCode::FORBIDDEN, format!("{what} is for the control socket, not for TCP")))
            }
        }
    }

    fn answer(&self, asked: Asked, request: &mut Request) -> Result<Response, Refused> {
        let Asked { task, name, query } = asked;
        let no_wait = query.flag("no_wait")?;
        let operator = &self.operator;
        match task {
            Task::Index => Ok(json(StatusCode::OK, &ROUTES)),
            Task::Status => Ok(json(StatusCode::OK, &operator.status())),
            Task::Requests => Ok(json(StatusCode::OK, &operator.requests())),
            Task::Kill => done(operator.kill(&name)),
            Task::Swap => self.live(self.swap(&name, &query, request.body_mut())?, no_wait),
            Task::Rollback => self.live(operator.rollback(&name, query.number("revision")?), no_wait),
            Task::Promote => self.live(operator.promote(&name), no_wait),
            Task::Abort => self.live(operator.abort(&name), no_wait),
            Task::Reload => done(operator.reload()),
            Task::Stop => {
                operator.stop();
                Ok(json(StatusCode::ACCEPTED, &json!({ "stopping": true })))
            }
            Task::Upgrade => {
                let options = upgrade_options(&query)?;
                if options.program.is_some() {
                    self.need_owner("`exe`")?;
                }
                let upgraded = operator.upgrade(&options);
                done(upgraded.map(|pid| json!({ "pid": pid })))
            }
            Task::TakeOver => {
                self.need_owner("a take-over")?;
                done(operator.hand_over().map(|pid| json!({ "pid": pid })))
            }
            Task::Events => self.follow(request.headers()),
            Task::Metrics => Ok(metrics::response(&operator.status())),
            Task::Healthz => Ok(json(StatusCode::OK, &json!({ "alive": true }))),
            Task::Readyz => {
                let ready = operator.is_ready();
                let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                Ok(json(status, &json!({ "ready": ready })))
            }
        }
    }

    /// The answer to what is live now: when the revision before has drained, unless nobody wants to wait for that, or too many do.
    fn live(&self, result: Result<Receipt, OperatorError>, no_wait: bool) -> Result<Response, Refused> {
        let place = if no_wait { None } else { self.waits.take() };
        done(result.map(|receipt| if place.is_some() { self.operator.wait_for_drain(receipt) } else { receipt }))
    }

    fn swap(&self, handler: &str, query: &Query, body: &mut Body) -> Result<Result<Receipt, OperatorError>, Refused> {
        let canary = query.text("canary").map(|text| config::share("canary", text)).transpose();
        let how = SwapOptions {
            canary: canary.map_err(|error| Refused::bad(error.to_string()))?,
            no_new_imports: query.flag("no_new_imports")?,
            until_restart: query.flag("until_restart")?,
        };
        let _place = self.swaps.take().ok_or_else(|| busy("swaps are under way"))?;
        let module = Upload::receive(body, self.max_module, &self.uploads)?;
        let source: String = query.text("source").unwrap_or("upload").chars().take(MAX_SOURCE).collect();
        Ok(self.operator.swap(handler, module.path(), &source, &how))
    }

    fn follow(&self, headers: &HeaderMap) -> Result<Response, Refused> {
        let last_seen = match headers.get("last-event-id") {
            None => None,
            Some(id) => Some(
                id.to_str()
                    .ok()
                    .and_then(|id| id.parse().ok())
                    .ok_or_else(|| Refused::bad("`last-event-id` must be a number"))?,
            ),
        };
        let place = self.followers.take().ok_or_else(|| busy("clients follow events already"))?;
        let operator = Arc::clone(&self.operator);
        let last = event_stream::start(operator.events(), last_seen);
        let mut response = Response::new(Body::stream(move |writer| {
            let _place = place;
            event_stream::follow(operator.events(), last, writer)
        }));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

fn upgrade_options(query: &Query) -> Result<UpgradeOptions, Refused> {
    let program = query.text("exe").map(PathBuf::from);
    if program.as_ref().is_some_and(|path| !path.is_absolute()) {
        return Err(Refused::bad("`exe` must be an absolute path"));
    }
    let parse = |text| config::duration("within", text, WITHIN);
    let within = query.text("within").map(parse).transpose().map_err(|error| Refused::bad(error.to_string()))?;
    let within = within.unwrap_or(UpgradeOptions::default().within);
    Ok(UpgradeOptions { program, within, force: query.flag("force")? })
}

fn done(result: Result<impl Serialize, OperatorError>) -> Result<Response, Refused> {
    let error = match result {
        Ok(value) => return Ok(json(StatusCode::OK, &value)),
        Err(error) => error,
    };
    let status = match error.refusal() {
        Refusal::Unknown => StatusCode::NOT_FOUND,
        Refusal::Conflict => StatusCode::CONFLICT,
        Refusal::Unusable => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Err(Refused::new(status, chain(&error)))
}

fn busy(with: &str) -> Refused {
    let text = format!("as many {with} as are allowed at once; try again");
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, text).with(RETRY_AFTER, HeaderValue::from_static("1"))
}

/// So many may do something at once.
struct Places {
    free: Arc<AtomicUsize>,
}

struct Place(Arc<AtomicUsize>);

impl Places {
    fn new(places: usize) -> Self {
        Self { free: Arc::new(AtomicUsize::new(places)) }
    }

    fn take(&self) -> Option<Place> {
        let take = |free: usize| free.checked_sub(1);
        self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).ok()?;
        Some(Place(Arc::clone(&self.free)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
