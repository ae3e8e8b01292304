//! Swapping modules in a host inside of this program: what an operator is told must be what happened.

use std::{
    fs,
    ops::Deref,
    path::Path,
    sync::{Barrier, Mutex, PoisonError, RwLockReadGuard},
    thread,
    time::{Duration, Instant},
};

use astra_host::{
    Host, HostBuilder, RunningHost,
    config::{Config, GuardConfig, HandlerConfig, NewImports, ProbeConfig, Share},
    guest::CacheMode,
    operator::{Operator, SwapOptions},
    operator_error::{OperatorError, Refusal},
    receipt::{Action, Receipt},
    status::HandlerStatus,
};

use crate::harness::{Client, HOSTS_HERE, PATIENCE, Scratch, guest, version, version_file};

/// A host of this process, while which nobody counts the process's threads.
struct Served {
    // Dropped in this order.
    host: RunningHost,
    _here: RwLockReadGuard<'static, ()>,
}

impl Served {
    fn start(builder: HostBuilder) -> Self {
        let here = HOSTS_HERE.read().unwrap_or_else(PoisonError::into_inner);
        Self { host: builder.start().expect("it can be served"), _here: here }
    }
}

impl Deref for Served {
    type Target = RunningHost;

    fn deref(&self) -> &RunningHost {
        &self.host
    }
}

/// A host that serves version 1 as handler `app`, changed by `change`.
fn host(scratch: &Scratch, change: impl FnOnce(&mut HandlerConfig)) -> Served {
    Served::start(builder(scratch, change))
}

fn builder(scratch: &Scratch, change: impl FnOnce(&mut HandlerConfig)) -> HostBuilder {
    let mut config = Config::new(version_file(scratch, 1));
    config.handlers[0].name = "app".to_owned();
    config.server.cache = CacheMode::Off; // the user's own is left alone
    change(&mut config.handlers[0]);
    Host::from_config(config).listen("127.0.0.1:0")
}

fn get(host: &RunningHost, path: &str) -> String {
    connect(host).get(path).text().to_owned()
}

fn connect(host: &RunningHost) -> Client {
    Client::connect(host.local_addrs()[0])
}

/// The receipt when all has drained.
fn swap(operator: &Operator, module: &Path) -> Result<Receipt, OperatorError> {
    let swapped = operator.swap("app", module, "test", &SwapOptions::default());
    swapped.map(|receipt| operator.wait_for_drain(receipt))
}

fn promote(operator: &Operator) -> Receipt {
    operator.wait_for_drain(operator.promote("app").expect("there is a canary"))
}

fn status(host: &RunningHost) -> HandlerStatus {
    host.operator().status().handlers.remove(0)
}

/// Asks for a stream that outlives what comes next, which compiles nothing, and reads its head.
fn stream(host: &RunningHost) -> Client {
    let mut client = connect(host);
    client.ask("/stream?count=40&ms=5");
    assert_eq!(client.head().status, 200);
    client
}

/// The rest of it, which must be all of it.
fn rest(client: &mut Client) -> String {
    let mut body = Vec::new();
    while let Some(chunk) = client.chunk().expect("it is not cut") {
        body.extend(chunk);
    }
    String::from_utf8(body).expect("it is text")
}

/// Asks, and waits until the request has ended: its guest may go on for a moment after its answer.
fn ask(host: &RunningHost, client: &mut Client, path: &str) -> u16 {
    let status = client.get(path).status;
    until("it has ended", || host.operator().status().handlers[0].in_flight == 0);
    status
}

/// Loads a version that gets no requests yet.
fn load(operator: &Operator, module: &Path) {
    let mut options = SwapOptions::default();
    options.canary = Some(Share::of_ten_thousand(1));
    operator.swap("app", module, "test", &options).expect("it can be served");
}

/// Waits until `is_so`, which must come to be.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        thread::yield_now();
    }
}

#[test]
fn a_swap_is_live_when_it_says_so_and_its_receipt_tells_what_happened() {
    let scratch = Scratch::new();
    let host = host(&scratch, |_| {});
    assert_eq!(get(&host, "/"), version(1));
    let receipt = swap(host.operator(), &version_file(&scratch, 2)).expect("it can be served");
    assert_eq!(get(&host, "/"), version(2));
    assert_eq!((receipt.action, receipt.from, receipt.to), (Action::Swap, Some(1), 2));
    let drained = receipt.drained.as_ref().expect("it waits for the drain");
    assert_eq!((drained.revision, drained.finished, drained.cut, drained.kept), (1, 0, 0, true));
    let text = receipt.to_string();
    assert!(text.starts_with(&format!("app  r1 -> r2  sha256:{}…", &receipt.sha256[..12])), "{text}");
    assert!(text.ends_with("0 finished, 0 cut, kept for rollback"), "{text}");

    let status = status(&host);
    assert_eq!((status.revision.number, status.requests, status.failures), (2, 2, 0));
    assert_eq!(status.kept[0].number, 1);
    assert_eq!(status.differs.as_deref(), Some("differs from version-1.wasm"));
    let kinds: Vec<_> = host.operator().events().after(0, Duration::ZERO).expect("it serves");
    assert_eq!(kinds.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["swap", "drained"]);
}

#[test]
fn the_same_module_again_is_unchanged() {
    let scratch = Scratch::new();
    let host = host(&scratch, |_| {});
    let receipt = swap(host.operator(), &version_file(&scratch, 1)).expect("nothing to do");
    assert_eq!((receipt.action, receipt.to), (Action::Unchanged, 1));
    assert_eq!(receipt.to_string(), "app  r1 unchanged");
    assert_eq!(status(&host).revision.number, 1);
}

#[test]
fn what_runs_finishes_on_its_revision() {
    let scratch = Scratch::new();
    let host = host(&scratch, |_| {});
    load(host.operator(), &version_file(&scratch, 2));
    let mut stream = stream(&host);
    let receipt = promote(host.operator());
    let drained = receipt.drained.expect("it waits for the drain");
    assert_eq!((drained.finished, drained.cut), (1, 0));
    assert_eq!(rest(&mut stream), version(1).repeat(40));
}

#[test]
fn what_does_not_finish_in_time_is_cut_and_counted() {
    let scratch = Scratch::new();
    let host = host(&scratch, |handler| handler.drain = Duration::from_millis(50));
    let mut sleeper = connect(&host);
    sleeper.ask("/sleep?ms=3600000");
    let mut stream = connect(&host);
    stream.ask("/stream?count=1000000&ms=10");
    assert_eq!(stream.head().status, 200);
    until("both run", || host.operator().requests().len() == 2);
    let receipt = swap(host.operator(), &version_file(&scratch, 2)).expect("it can be served");
    let drained = receipt.drained.expect("it waits for the drain");
    assert_eq!((drained.finished, drained.cut), (0, 2));
    assert_eq!(sleeper.answer().status, 504);
    assert!(!String::from_utf8_lossy(&stream.until_closed()).ends_with("0\r\n\r\n"), "it does not look complete");
}

#[test]
fn without_keep_a_drained_revision_is_freed() {
    let scratch = Scratch::new();
    let host = host(&scratch, |handler| handler.keep = 0);
    load(host.operator(), &version_file(&scratch, 2));
    let _stream = stream(&host);
    let receipt = promote(host.operator());
    // Told when no reference is left.
    assert_eq!(receipt.freed.iter().map(|freed| freed.revision).collect::<Vec<_>>(), [1]);
    assert!(receipt.freed[0].bytes > 10_000, "{receipt}");
    assert!(receipt.drained.is_some_and(|drained| !drained.kept && drained.finished == 1));
    let error = host.operator().rollback("app", None).expect_err("nothing is kept");
    assert_eq!(error.to_string(), "handler `app` has nothing to roll back to: no earlier revision is kept");
    assert_eq!(error.refusal(), Refusal::Conflict);
    assert_eq!(status(&host).requests, 1, "what it has answered still counts");
}

#[test]
fn the_last_revisions_are_kept_and_rolled_back_to() {
    let scratch = Scratch::new();
    let host = host(&scratch, |handler| handler.keep = 2);
    let operator = host.operator();
    for n in 2..=4 {
        let receipt = swap(operator, &version_file(&scratch, n)).expect("it can be served");
        let freed: Vec<_> = receipt.freed.iter().map(|freed| freed.revision).collect();
        assert_eq!(freed, if n == 4 { vec![1] } else { vec![] }, "{receipt}");
    }
    assert_eq!(status(&host).kept.iter().map(|kept| kept.number).collect::<Vec<_>>(), [3, 2]);

    let receipt = operator.rollback("app", None).expect("r3 is kept");
    assert_eq!((receipt.action, receipt.from, receipt.to), (Action::Rollback, Some(4), 3));
    assert_eq!(get(&host, "/"), version(3));
    // Back again means further back, not to what one has just left.
    operator.rollback("app", None).expect("r2 is kept");
    assert_eq!(get(&host, "/"), version(2));
    let error = operator.rollback("app", Some(1)).expect_err("r1 was freed");
    assert_eq!(error.to_string(), "handler `app` does not keep r1; it keeps r4, r3");
    operator.rollback("app", Some(4)).expect("forward is allowed");
    assert_eq!(get(&host, "/"), version(4));
    assert_eq!(status(&host).revision.number, 4);
}

#[test]
fn a_revision_that_is_live_again_before_it_has_drained_is_not_cut() {
    let scratch = Scratch::new();
    let host = host(&scratch, |handler| handler.drain = Duration::from_secs(3600));
    let operator = host.operator();
    load(operator, &version_file(&scratch, 2));
    let mut stream = stream(&host);
    let receipt = operator.promote("app").expect("there is a canary");
    assert_eq!(receipt.drained, None, "it does not wait");
    operator.rollback("app", None).expect("r1 is kept");
    assert_eq!(get(&host, "/"), version(1));
    assert_eq!(rest(&mut stream), version(1).repeat(40));
}

#[test]
fn a_canary_gets_exactly_its_share() {
    let scratch = Scratch::new();
    let host = host(&scratch, |_| {});
    let operator = host.operator();
    let mut options = SwapOptions::default();
    options.canary = Some(Share::of_ten_thousand(1_000));
    let receipt = operator.swap("app", &version_file(&scratch, 2), "test", &options).expect("it can be served");
    assert_eq!((receipt.action, receipt.share.as_deref()), (Action::Canary, Some("10%")));
    let taken = |count: usize| {
        let mut client = connect(&host);
        (0..count).filter(|_| client.get("/").text() == version(2)).count()
    };
    assert_eq!(taken(1_000), 100);
    assert_eq!(taken(130), 13);

    let error = operator.swap("app", &version_file(&scratch, 3), "test", &options).expect_err("there is one");
    assert_eq!(error.to_string(), "handler `app` has a canary, r2: promote or abort it first");
    assert!(operator.rollback("app", None).is_err());
    let receipt = promote(operator);
    assert_eq!((receipt.action, receipt.from, receipt.to), (Action::Promote, Some(1), 2));
    assert_eq!(taken(20), 20);
    let error = operator.abort("app").expect_err("it is live now");
    assert_eq!(error.to_string(), "handler `app` has no canary");
}

#[test]
fn an_aborted_canary_drains_and_is_freed() {
    let scratch = Scratch::new();
    let host = host(&scratch, |_| {});
    let operator = host.operator();
    let mut options = SwapOptions::default();
    options.canary = Some(Share::ALL);
    operator.swap("app", &version_file(&scratch, 2), "test", &options).expect("it can be served");
    let mut stream = stream(&host);
    let receipt = operator.wait_for_drain(operator.abort("app").expect("there is one"));
    assert_eq!((receipt.action, receipt.from, receipt.to), (Action::Abort, Some(2), 1));
    assert_eq!(receipt.freed.len(), 1, "{receipt}");
    assert!(receipt.drained.is_some_and(|drained| drained.finished == 1 && drained.cut == 0));
    assert_eq!(get(&host, "/"), version(1));
    assert_eq!(rest(&mut stream), version(2).repeat(40));
}

fn guard(min_requests: u64) -> Option<GuardConfig> {
    let max_failures = Share::of_ten_thousand(500);
    Some(GuardConfig { window: Duration::from_secs(3600), max_failures, min_requests, count_5xx: false })
}

#[test]
fn a_guard_rolls_back_what_fails() {
    let scratch = Scratch::new();
    let host = host(&scratch, |handler| handler.guard = guard(10));
    swap(host.operator(), &version_file(&scratch, 2)).expect("it can be served");
    assert!(status(&host).guard.is_some_and(|guard| guard.starts_with("watches r2")));
    let mut client = connect(&host);
    for _ in 0..9 {
        assert_eq!(ask(&host, &mut client, "/"), 200);
    }
    assert_eq!(ask(&host, &mut client, "/500"), 500, "which the guest has chosen");
    assert_eq!(status(&host).revision.number, 2);
    assert_eq!(ask(&host, &mut client, "/trap"), 500);
    until("it is rolled back and told", || {
        host.operator()
            .events()
            .after(0, Duration::ZERO)
            .is_some_and(|events| events.iter().any(|event| event.kind == "guard"))
    });
    assert_eq!((status(&host).revision.number, get(&host, "/")), (1, version(1)));
    let events = host.operator().events().after(0, Duration::ZERO).expect("it serves");
    let guard = events.iter().find(|event| event.kind == "guard").expect("it says so");
    assert_eq!(guard.text, "1 of 11 requests on r2 failed, allowed is 5.0 %: rolled back, r1 serves");
}

#[test]
fn a_guard_never_goes_back_to_what_was_taken_back_before() {
    let scratch = Scratch::new();
    let host = host(&scratch, |handler| handler.guard = guard(1));
    let mut client = connect(&host);
    for n in [2, 3] {
        swap(host.operator(), &version_file(&scratch, n)).expect("it can be served");
        assert_eq!(ask(&host, &mut client, "/trap"), 500);
        until("it is rolled back", || status(&host).revision.number == 1);
        assert_eq!(client.get("/").text(), version(1));
    }
    let kept = status(&host).kept;
    assert!(kept.iter().all(|kept| kept.withdrawn), "{kept:?}");
    assert!(host.operator().rollback("app", None).is_err(), "there is nothing good before r1");
    // Named, it is what is wanted.
    host.operator().rollback("app", Some(2)).expect("r2 is kept");
    assert_eq!(client.get("/").text(), version(2));
}

#[test]
fn a_canary_beside_a_guarded_revision_does_not_end_its_guard() {
    let scratch = Scratch::new();
    let host = host(&scratch, |handler| handler.guard = guard(1));
    let operator = host.operator();
    swap(operator, &version_file(&scratch, 2)).expect("it can be served");
    load(operator, &version_file(&scratch, 3));
    let mut client = connect(&host);
    assert_eq!(ask(&host, &mut client, "/trap"), 500);
    until("both are taken back", || status(&host).revision.number == 1);
    assert!(status(&host).canary.is_none());
}

#[test]
fn a_guard_allows_what_failed_before() {
    let scratch = Scratch::new();
    let host = host(&scratch, |handler| handler.guard = guard(10));
    let mut client = connect(&host);
    for _ in 0..10 {
        assert_eq!(ask(&host, &mut client, "/trap"), 500);
        assert_eq!(ask(&host, &mut client, "/"), 200);
    }
    swap(host.operator(), &version_file(&scratch, 2)).expect("it can be served");
    for _ in 0..10 {
        assert_eq!(ask(&host, &mut client, "/trap"), 500);
        assert_eq!(ask(&host, &mut client, "/"), 200);
    }
    assert_eq!(client.get("/").text(), version(2), "half of it failed before, too");
}

#[test]
fn a_guard_aborts_a_canary_and_leaves_the_rest_alone() {
    let scratch = Scratch::new();
    let host = host(&scratch, |handler| {
        handler.guard = guard(2).map(|guard| GuardConfig { count_5xx: true, ..guard });
    });
    let mut options = SwapOptions::default();
    options.canary = Some(Share::of_ten_thousand(5_000));
    host.operator().swap("app", &version_file(&scratch, 2), "test", &options).expect("it can be served");
    let mut client = connect(&host);
    // Every other request is the canary's: it fails, the other side does not.
    for _ in 0..3 {
        let path = |canary: bool| if canary { "/500" } else { "/" };
        assert_eq!(ask(&host, &mut client, path(false)), 200);
        if status(&host).canary.is_some() {
            assert_eq!(ask(&host, &mut client, path(true)), 500);
        }
    }
    until("it is aborted", || status(&host).canary.is_none());
    assert_eq!(status(&host).revision.number, 1);
    assert_eq!(get(&host, "/"), version(1));
}

fn probe(path: &str, within: Duration) -> Option<ProbeConfig> {
    Some(ProbeConfig { path: path.to_owned(), status: http::StatusCode::OK, within })
}

#[test]
fn a_module_that_does_not_answer_its_probe_takes_no_traffic() {
    let soon = Duration::from_millis(500);
    for (path, within, reasons) in [
        ("/500?secret", PATIENCE, &["`/500` was answered 500, expected is 200"][..]),
        ("/trap", PATIENCE, &["trap: "]),
        ("/sleep?ms=3600000", soon, &["deadline: "]),
        ("/stream?count=1000000&ms=100", soon, &["deadline: ", "its answer did not end in time"]),
    ] {
        let scratch = Scratch::new();
        let host = host(&scratch, |handler| handler.probe = probe(path, within));
        let error = swap(host.operator(), &version_file(&scratch, 2)).expect_err("the probe fails");
        let error_text = error.to_string();
        let reason = error_text.strip_prefix("the probe of handler `app` failed: ").expect("it is said");
        assert!(reasons.iter().any(|expected| reason.starts_with(expected)), "{reason}");
        assert_eq!(error.refusal(), Refusal::Unusable);
        assert_eq!(get(&host, "/"), version(1));
        assert_eq!(status(&host).revision.number, 1);
    }
}

#[test]
fn a_probe_that_passes_is_in_the_receipt() {
    let scratch = Scratch::new();
    let host = host(&scratch, |handler| handler.probe = probe("/big", PATIENCE));
    let receipt = swap(host.operator(), &version_file(&scratch, 2)).expect("it passes");
    assert_eq!(receipt.probe.map(|probed| probed.status), Some(200));
}

#[test]
fn a_module_that_cannot_be_served_leaves_everything_as_it_was() {
    let scratch = Scratch::new();
    let host = host(&scratch, |_| {});
    let whole = fs::read(version_file(&scratch, 2)).expect("it was written");
    let wat = |text: &str| wat::parse_str(text).expect("valid text");
    for (name, bytes, reason) in [
        ("garbage.wasm", b"garbage".to_vec(), "is a text file"),
        ("empty.wasm", Vec::new(), "is empty"),
        ("truncated.wasm", whole[..whole.len() / 2].to_vec(), "is truncated"),
        ("core.wasm", wat("(module)"), "is a core module"),
        ("exports.wasm", wat("(component)"), "exports nothing"),
    ] {
        let error = swap(host.operator(), &scratch.file(name, bytes)).expect_err("it cannot be served");
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert_eq!(error.refusal(), Refusal::Unusable);
    }
    assert!(swap(host.operator(), &scratch.join("nowhere.wasm")).is_err());
    assert_eq!(get(&host, "/"), version(1));
    assert_eq!(status(&host).revision.number, 1);
    let events = host.operator().events().after(0, Duration::ZERO).expect("it serves");
    assert_eq!(events.iter().filter(|event| event.kind == "failed").count(), 6);
}

#[test]
fn new_imports_are_shown_and_can_be_refused() {
    let scratch = Scratch::new();
    let module = guest("opens_dir");
    let host = host(&scratch, |_| {});
    let mut options = SwapOptions::default();
    options.no_new_imports = true;
    let error = host.operator().swap("app", &module, "test", &options).expect_err("it imports more");
    let error = error.to_string();
    assert!(
        error.starts_with("the module imports what r1 does not: ") && error.contains("wasi:filesystem/"),
        "{error}"
    );
    assert_eq!(get(&host, "/"), version(1));
    let receipt = swap(host.operator(), &module).expect("it is not refused");
    assert!(receipt.new_imports.iter().any(|import| import.starts_with("wasi:filesystem/types@")), "{receipt}");

    drop(host);
    let refusing = self::host(&scratch, |handler| {
        handler.new_imports = NewImports::Refuse;
        // Nobody asks it: of what is refused nothing runs.
        handler.probe = probe("/sleep?ms=3600000", Duration::from_millis(1));
    });
    assert!(matches!(swap(refusing.operator(), &module), Err(OperatorError::NewImports { from: 1, .. })));
}

#[test]
fn one_swap_of_a_handler_at_a_time() {
    let scratch = Scratch::new();
    let host = host(&scratch, |handler| {
        handler.probe = probe("/sleep?ms=2000", PATIENCE);
    });
    let (second, third) = (version_file(&scratch, 2), version_file(&scratch, 3));
    let both = Barrier::new(2);
    let results = thread::scope(|scope| {
        let swapping = [&second, &third].map(|module| {
            let (both, host) = (&both, &host);
            scope.spawn(move || {
                both.wait();
                swap(host.operator(), module)
            })
        });
        swapping.map(|swapping| swapping.join().expect("no panic"))
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let refused = results.into_iter().find_map(Result::err).expect("one was refused");
    assert_eq!(refused.to_string(), "handler `app` is being swapped just now; try again when that is done");
    assert_eq!(refused.refusal(), Refusal::Conflict);
}

#[test]
fn an_unknown_handler_is_told_which_there_are() {
    let scratch = Scratch::new();
    let host = host(&scratch, |_| {});
    let module = version_file(&scratch, 2);
    let error = host.operator().swap("other", &module, "test", &SwapOptions::default()).expect_err("there is none");
    assert_eq!(error.to_string(), "there is no handler `other`; there is `app`");
    assert_eq!(error.refusal(), Refusal::Unknown);
}

#[test]
fn requests_are_listed_and_killed() {
    let scratch = Scratch::new();
    let host = host(&scratch, |_| {});
    let mut sleeper = connect(&host);
    sleeper.ask("/sleep?ms=3600000&secret");
    until("it sleeps", || host.operator().requests().iter().any(|request| request.waits_for == "sleep"));
    let request = host.operator().requests().remove(0);
    assert_eq!((request.handler.as_str(), request.revision, request.path.as_str()), ("app", 1, "/sleep"));
    assert_eq!((request.method.as_str(), request.peer), ("GET", Some(sleeper.local_addr().to_string())));
    host.operator().kill(&request.id).expect("it runs");
    assert_eq!(sleeper.answer().status, 503);
    until("it is gone", || host.operator().requests().is_empty());
    let error = host.operator().kill(&request.id).expect_err("it has ended");
    assert_eq!(error.refusal(), Refusal::Unknown);
}

#[test]
fn nothing_is_swapped_in_a_host_that_stops() {
    let scratch = Scratch::new();
    let host = host(&scratch, |_| {});
    let operator = host.operator().clone();
    assert!(host.host.shutdown(PATIENCE).is_none());
    assert!(matches!(swap(&operator, &version_file(&scratch, 2)), Err(OperatorError::Stopping)));
    assert_eq!(operator.events().after(u64::MAX, PATIENCE).map(|events| events.len()), None, "no more events");
}

/// A host whose configuration is read anew from the first of `configs` at each reload.
fn reloading(first: Config, configs: Vec<Result<Config, String>>) -> Served {
    let configs = Mutex::new(configs.into_iter());
    let next = move || configs.lock().expect("not poisoned").next().expect("one for each reload");
    Served::start(Host::from_config(first).reload_with(next))
}

fn config(handlers: &[(&str, &Path, &str)]) -> Config {
    let mut config = Config::new("");
    config.server.cache = CacheMode::Off;
    config.server.listen.push("127.0.0.1:0".to_owned());
    config.handlers.clear();
    for (name, module, route) in handlers {
        let mut handler = HandlerConfig::new(*module);
        handler.name = (*name).to_owned();
        handler.routes = vec![astra_host::router::Route::parse(None, route).expect("a route")];
        config.handlers.push(handler);
    }
    config
}

#[test]
fn a_reload_does_what_differs() {
    let scratch = Scratch::new();
    let (one, two, three) = (version_file(&scratch, 1), version_file(&scratch, 2), version_file(&scratch, 3));
    let first = config(&[("a", &one, "/a/*"), ("b", &two, "/b"), ("c", &three, "/c")]);
    let mut second = config(&[("d", &three, "/d"), ("a", &one, "/a/*"), ("b", &two, "/b/moved")]);
    second.handlers[1].limits.deadline = Duration::from_secs(7);
    let host = reloading(first, vec![Ok(second.clone()), Ok(second)]);
    assert_eq!(get(&host, "/a/x"), version(1));
    assert_eq!(get(&host, "/c"), version(3));
    assert_eq!(connect(&host).get("/d").status, 404);

    let receipts = host.operator().reload().expect("it can be done");
    let did: Vec<_> = receipts.iter().map(|one| (one.handler.as_str(), one.action, one.to)).collect();
    let expected = [("d", Action::Add, 1), ("a", Action::Swap, 2), ("b", Action::Adjust, 1), ("c", Action::Remove, 1)];
    assert_eq!(did, expected);
    assert_eq!(get(&host, "/a/x"), version(1));
    assert_eq!(get(&host, "/b/moved"), version(2));
    assert_eq!(get(&host, "/d"), version(3));
    for gone in ["/b", "/c"] {
        assert_eq!(connect(&host).get(gone).status, 404, "{gone}");
    }
    assert_eq!(host.operator().reload().expect("nothing differs"), []);
    // Of a handler that is gone nothing is kept.
    let removed = host.operator().wait_for_drain(receipts[3].clone());
    assert!(removed.drained.as_ref().is_some_and(|drained| !drained.kept) && removed.freed.len() == 1, "{removed}");
}

#[test]
fn a_reload_is_all_or_nothing() {
    let scratch = Scratch::new();
    let (one, two) = (version_file(&scratch, 1), version_file(&scratch, 2));
    let garbage = scratch.file("garbage.wasm", "garbage");
    let first = config(&[("a", &one, "/a"), ("b", &two, "/b")]);
    let broken = config(&[("a", &two, "/a"), ("b", &garbage, "/b")]);
    let mut restart = config(&[("a", &two, "/a"), ("b", &two, "/b")]);
    restart.server.max_workers = 7;
    let mut large = config(&[("a", &two, "/a"), ("b", &two, "/b")]);
    large.handlers[0].limits.memory = 1 << 30;
    let overlap = config(&[("a", &two, "/a"), ("b", &two, "/a")]);
    let wrong = Err("no such file".to_owned());
    let host = reloading(first, vec![Ok(broken), Ok(restart), Ok(large), Ok(overlap), wrong]);
    for reason in [
        "garbage.wasm` is a text file",
        "a restart is needed to change `server.max_workers`",
        "a restart is needed to change `limits.memory` of handler `a`",
        "`b`",
        "the configuration cannot be used: no such file",
    ] {
        let error = host.operator().reload().expect_err("it cannot be done").to_string();
        assert!(error.contains(reason), "{reason}: {error}");
        assert_eq!(get(&host, "/a"), version(1));
        assert_eq!(get(&host, "/b"), version(2));
    }
}

#[test]
fn a_reload_refuses_new_imports_too() {
    let scratch = Scratch::new();
    let one = version_file(&scratch, 1);
    let mut first = config(&[("app", &one, "/*")]);
    first.handlers[0].new_imports = NewImports::Refuse;
    let host = reloading(first.clone(), vec![Ok(first)]);
    fs::copy(guest("opens_dir"), &one).expect("can be written");
    assert!(matches!(host.operator().reload(), Err(OperatorError::NewImports { from: 1, .. })));
    assert_eq!(get(&host, "/"), version(1));
}

#[test]
fn fewer_kept_revisions_are_let_go_at_the_reload() {
    let scratch = Scratch::new();
    let first = config(&[("app", &version_file(&scratch, 1), "/*")]);
    let mut second = first.clone();
    second.handlers[0].keep = 0;
    let host = reloading(first, vec![Ok(second)]);
    swap(host.operator(), &version_file(&scratch, 2)).expect("it can be served");
    assert_eq!(status(&host).kept.len(), 1);
    assert_eq!(host.operator().reload().expect("it can be done")[0].action, Action::Adjust);
    assert!(status(&host).kept.is_empty());
}

#[test]
fn what_was_swapped_in_stays_at_a_reload_unless_its_file_has_changed() {
    let scratch = Scratch::new();
    let (one, other) = (version_file(&scratch, 1), version_file(&scratch, 2));
    let first = config(&[("app", &one, "/*")]);
    let mut settings = first.clone();
    settings.handlers[0].limits.deadline = Duration::from_secs(7);
    let host = reloading(first, vec![Ok(settings.clone()), Ok(settings)]);
    swap(host.operator(), &other).expect("it can be served");
    host.operator().reload().expect("the settings differ");
    assert_eq!((status(&host).revision.number, get(&host, "/")), (3, version(2)));
    fs::copy(version_file(&scratch, 4), &one).expect("can be written");
    host.operator().reload().expect("the file differs");
    assert_eq!((status(&host).revision.number, get(&host, "/")), (4, version(4)));
    assert_eq!(status(&host).differs, None);
}
