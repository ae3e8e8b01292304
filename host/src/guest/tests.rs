//! Small hand-written guests through a whole [`run`]: what a handler does, and what becomes of its request.
//!
//! Each guest is one core function, in WebAssembly text, put into a component that has what it needs of WASI.

mod faults;
mod wrapped;

use std::{
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    task::{Context, Waker},
    time::{Duration, Instant},
};

use astra_server::Executor;
use http::{Method, Request, Response, uri::Scheme};
use http_body::Body as _;

use self::wrapped::{request_both_ways, unwrapped, wrapped};
use super::{
    CacheMode, CutBy, Engine, EngineOptions, Exchange, Gateway, Granted, Grants, GuestBody, GuestOutput, Limits,
    LoadError, LoadedModule, ModuleFile, Report, Stream, Watch, blocking::WAITS, program::Program, run,
};
use crate::failure::{FailureKind, Outcome};

/// What all of them import.
const IMPORTS: &str = r#"
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.3" (instance $clock
    (alias outer 1 $pollable (type $p))
    (export "pollable" (type $pollable (eq $p)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
  (import "wasi:cli/exit@0.2.0" (instance $exit
    (export "exit" (func (param "status" (result))))))
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $io-error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "input-stream" (type $input (sub resource)))
    (export "output-stream" (type $output (sub resource)))
    (alias outer 1 $io-error (type $e))
    (export "error" (type $error (eq $e)))
    (type $failed (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $failed)))
    (export "[method]input-stream.blocking-read"
      (func (param "self" (borrow $input)) (param "len" u64) (result (result (list u8) (error $stream-error)))))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $output)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
  (alias export $streams "input-stream" (type $input))
  (alias export $streams "output-stream" (type $output))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output (type $o))
    (export "output-stream" (type $output (eq $o)))
    (export "get-stdout" (func (result (own $output))))))
  (import "wasi:http/types@0.2.4" (instance $types
    (alias outer 1 $input (type $i))
    (export "input-stream" (type $input (eq $i)))
    (alias outer 1 $output (type $o))
    (export "output-stream" (type $output (eq $o)))
    (export "incoming-body" (type $incoming-body (sub resource)))
    (export "fields" (type $fields (sub resource)))
    (export "incoming-request" (type $request (sub resource)))
    (export "response-outparam" (type $outparam (sub resource)))
    (export "outgoing-response" (type $response (sub resource)))
    (export "outgoing-body" (type $body (sub resource)))
    (type $dns (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns-error (eq $dns)))
    (type $alert (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls-alert (eq $alert)))
    (type $field (record (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $field-size (eq $field)))
    (type $code (variant
      (case "DNS-timeout") (case "DNS-error" $dns-error) (case "destination-not-found") (case "destination-unavailable")
      (case "destination-IP-prohibited") (case "destination-IP-unroutable") (case "connection-refused")
      (case "connection-terminated") (case "connection-timeout") (case "connection-read-timeout")
      (case "connection-write-timeout") (case "connection-limit-reached") (case "TLS-protocol-error")
      (case "TLS-certificate-error") (case "TLS-alert-received" $tls-alert) (case "HTTP-request-denied")
      (case "HTTP-request-length-required") (case "HTTP-request-body-size" (option u64))
      (case "HTTP-request-method-invalid") (case "HTTP-request-URI-invalid") (case "HTTP-request-URI-too-long")
      (case "HTTP-request-header-section-size" (option u32)) (case "HTTP-request-header-size" (option $field-size))
      (case "HTTP-request-trailer-section-size" (option u32)) (case "HTTP-request-trailer-size" $field-size)
      (case "HTTP-response-incomplete") (case "HTTP-response-header-section-size" (option u32))
      (case "HTTP-response-header-size" $field-size) (case "HTTP-response-body-size" (option u64))
      (case "HTTP-response-trailer-section-size" (option u32)) (case "HTTP-response-trailer-size" $field-size)
      (case "HTTP-response-transfer-coding" (option string)) (case "HTTP-response-content-coding" (option string))
      (case "HTTP-response-timeout") (case "HTTP-upgrade-failed") (case "HTTP-protocol-error") (case "loop-detected")
      (case "configuration-error") (case "internal-error" (option string))))
    (export "error-code" (type $error-code (eq $code)))
    (export "[method]incoming-request.consume" (func (param "self" (borrow $request)) (result (result (own $incoming-body)))))
    (export "[method]incoming-body.stream" (func (param "self" (borrow $incoming-body)) (result (result (own $input)))))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[constructor]outgoing-response" (func (param "headers" (own $fields)) (result (own $response))))
    (export "[method]outgoing-response.body" (func (param "self" (borrow $response)) (result (result (own $body)))))
    (export "[method]outgoing-body.write" (func (param "self" (borrow $body)) (result (result (own $output)))))
    (export "[static]outgoing-body.finish" (func (param "this" (own $body)) (param "trailers" (option (own $fields)))
      (result (result (error $error-code)))))
    (export "[static]response-outparam.set" (func (param "param" (own $outparam))
      (param "response" (result (own $response) (error $error-code)))))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))"#;

/// A core function and its helpers; `BODY` is the function's, `$out` its response-outparam.
const GUEST: &str = r#"
    (global $the-body (mut i32) (i32.const 0))
    (global $the-stream (mut i32) (i32.const 0))
    ;; Answers 200 and opens the body.
    (func $answer (param $out i32) (local $response i32)
      (local.set $response (call $response (call $fields)))
      (call $body (local.get $response) (i32.const 0))
      (global.set $the-body (i32.load (i32.const 4)))
      (call $write (global.get $the-body) (i32.const 0))
      (global.set $the-stream (i32.load (i32.const 4)))
      (call $set (local.get $out) (i32.const 0) (local.get $response) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
    (func $say (call $print (global.get $the-stream) (i32.const 64) (i32.const 13) (i32.const 16)))
    (func $done (call $drop-output (global.get $the-stream)) (call $finish (global.get $the-body) (i32.const 0) (i32.const 0) (i32.const 16)))
    (func $nap (param $ms i64) (call $block (call $sleep (i64.mul (local.get $ms) (i64.const 1000000)))))
    (func $deep (call $deep) (call $deep))
    ;; Reads something of the request's body.
    (func $take (param $request i32)
      (call $consume (local.get $request) (i32.const 0))
      (call $upload (i32.load (i32.const 4)) (i32.const 0))
      (call $read (i32.load (i32.const 4)) (i64.const 1) (i32.const 16)))
    (func $handle (export "HANDLE") (param $request i32) (param $out i32) BODY)"#;

/// Its memory, with a text at 64, and who allocates in it.
const MEMORY: &str = r#"
    (memory (export "memory") 1)
    (data (i32.const 64) "Hello World!\n")
    (global $top (mut i32) (i32.const 4096))
    (func (export "REALLOC") (param i32 i32 i32 i32) (result i32)
      (global.get $top) (global.set $top (i32.add (global.get $top) (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8)))))"#;

/// The plumbing around it.
const COMPONENT: &str = r#"(component
  IMPORTS
  (core module $memory-module MEMORY)
  (core instance $memory (instantiate $memory-module))
  (alias core export $memory "memory" (core memory $mem))
  (alias core export $memory "realloc" (core func $realloc))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $sleep (canon lower (func $clock "subscribe-duration")))
  (core func $exit (canon lower (func $exit "exit")))
  (core func $print (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $mem) (realloc $realloc)))
  (core func $read (canon lower (func $streams "[method]input-stream.blocking-read") (memory $mem) (realloc $realloc)))
  (core func $stdout (canon lower (func $stdout "get-stdout")))
  (core func $consume (canon lower (func $types "[method]incoming-request.consume") (memory $mem)))
  (core func $upload (canon lower (func $types "[method]incoming-body.stream") (memory $mem)))
  (core func $fields (canon lower (func $types "[constructor]fields")))
  (core func $response (canon lower (func $types "[constructor]outgoing-response")))
  (core func $body (canon lower (func $types "[method]outgoing-response.body") (memory $mem)))
  (core func $write (canon lower (func $types "[method]outgoing-body.write") (memory $mem)))
  (core func $finish (canon lower (func $types "[static]outgoing-body.finish") (memory $mem) (realloc $realloc)))
  (core func $set (canon lower (func $types "[static]response-outparam.set") (memory $mem)))
  (core func $drop-output (canon resource.drop $output))
  (core module $main
    (import "m" "memory" (memory 1))
    (import "f" "block" (func $block (param i32)))
    (import "f" "sleep" (func $sleep (param i64) (result i32)))
    (import "f" "exit" (func $exit (param i32)))
    (import "f" "print" (func $print (param i32 i32 i32 i32)))
    (import "f" "read" (func $read (param i32 i64 i32)))
    (import "f" "stdout" (func $stdout (result i32)))
    (import "f" "consume" (func $consume (param i32 i32)))
    (import "f" "upload" (func $upload (param i32 i32)))
    (import "f" "fields" (func $fields (result i32)))
    (import "f" "response" (func $response (param i32) (result i32)))
    (import "f" "body" (func $body (param i32 i32)))
    (import "f" "write" (func $write (param i32 i32)))
    (import "f" "finish" (func $finish (param i32 i32 i32 i32)))
    (import "f" "set" (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
    (import "f" "drop-output" (func $drop-output (param i32)))
    GUEST)
  (core instance $guest (instantiate $main
    (with "m" (instance (export "memory" (memory $mem))))
    (with "f" (instance
      (export "block" (func $block)) (export "sleep" (func $sleep)) (export "exit" (func $exit))
      (export "print" (func $print)) (export "stdout" (func $stdout)) (export "fields" (func $fields))
      (export "read" (func $read)) (export "consume" (func $consume)) (export "upload" (func $upload))
      (export "response" (func $response)) (export "body" (func $body)) (export "write" (func $write))
      (export "finish" (func $finish)) (export "set" (func $set)) (export "drop-output" (func $drop-output))))))
  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $guest "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.4" (instance $handler)))"#;

/// One engine for all tests, with a thread that ticks.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let options = EngineOptions { cache: CacheMode::Off, ..EngineOptions::default() };
        let engine = Engine::new(&options).expect("an engine");
        let ticking = engine.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::park_timeout(Duration::from_millis(1));
                ticking.tick();
            }
        });
        engine
    })
}

fn load_wat(wat: &str) -> Result<LoadedModule, LoadError> {
    load_into(engine(), wat)
}

fn load_into(engine: &Engine, wat: &str) -> Result<LoadedModule, LoadError> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path: PathBuf = std::env::temp_dir().join(format!("astra-guest-test-{}-{number}.wasm", std::process::id()));
    std::fs::write(&path, wat::parse_str(wat).expect("valid text")).expect("written");
    let module = ModuleFile::read(&path).and_then(|file| LoadedModule::load(engine, file, false, None));
    std::fs::remove_file(path).expect("ours");
    module
}

/// A guest whose memory is in another module than the function: no component that only wraps one.
fn component(body: &str) -> String {
    let guest = GUEST.replace("HANDLE", "handle").replace("BODY", body);
    COMPONENT
        .replace("IMPORTS", IMPORTS)
        .replace("MEMORY", &MEMORY.replace("REALLOC", "realloc"))
        .replace("GUEST", &guest)
}

fn guest(body: &str) -> LoadedModule {
    load_wat(&component(body)).expect("a handler")
}

#[derive(Default)]
struct Printed(Mutex<Vec<String>>);

impl GuestOutput for Printed {
    fn line(&self, _stream: Stream, line: &str) {
        self.0.lock().expect("not poisoned").push(line.to_owned());
    }

    fn dropped(&self, _lines: u64, _bytes: u64) {}
}

struct Ended {
    report: Report,
    response: Option<Response<GuestBody>>,
    printed: Vec<String>,
}

impl Ended {
    fn kind(&self) -> Option<FailureKind> {
        self.report.outcome.failure().map(crate::failure::Failure::kind)
    }
}

fn request(method: &Method, limits: &Limits, body: &str) -> Ended {
    request_both_ways(method, limits, &wrapped(body))
}

fn run_in(engine: &Engine, module: &LoadedModule, method: Method, limits: &Limits) -> Ended {
    run_watched(engine, module, method, astra_server::Body::empty(), limits, Arc::default())
}

fn run_watched(
    engine: &Engine,
    module: &LoadedModule,
    method: Method,
    body: astra_server::Body,
    limits: &Limits,
    watch: Arc<Watch>,
) -> Ended {
    let _runtime = engine.runtime().enter();
    let printed = Arc::new(Printed::default());
    let exchange = Exchange {
        request: Request::builder().method(method).uri("http://localhost/").body(body).expect("valid"),
        scheme: Scheme::HTTP,
        gateway: Gateway::default(),
        client: None,
        output: printed.clone(),
        watch,
    };
    let (sender, receiver) = mpsc::channel();
    let report = run(
        module,
        &Arc::new(Granted::new(&"test".into(), Grants::default(), &Executor::default())),
        limits,
        exchange,
        move |response| {
            sender.send(response).expect("received below");
        },
    );
    let printed = std::mem::take(&mut *printed.0.lock().expect("not poisoned"));
    Ended { report, response: receiver.try_recv().ok(), printed }
}

fn get(body: &str) -> Ended {
    request(&Method::GET, &Limits::default(), body)
}

fn short(body: &str) -> Ended {
    request(&Method::GET, &Limits { deadline: Duration::from_millis(50), ..Limits::default() }, body)
}

/// What the server would send, and whether it ends in order.
fn read(response: Response<GuestBody>) -> (String, bool) {
    let (mut body, mut text) = (response.into_body(), Vec::new());
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            std::task::Poll::Ready(Some(Ok(frame))) => {
                text.extend_from_slice(&frame.into_data().expect("no trailers in these tests"));
            }
            std::task::Poll::Ready(end) => return (String::from_utf8(text).expect("text"), end.is_none()),
            std::task::Poll::Pending => panic!("the guest has ended and its body has not"),
        }
    }
}

#[test]
fn what_only_wraps_a_module_is_called_directly_and_all_else_as_a_component() {
    let is_direct = |wat: &str| matches!(load_wat(wat).expect("a handler").program(), Program::Direct(_));
    assert!(is_direct(&wrapped("")));
    assert!(!is_direct(&component("")));
    assert!(!is_direct(&unwrapped(&wrapped(""))));
    // What it imports has to be what there is.
    let other = wrapped("").replace("get-stdout", "get-the-stdout");
    assert!(matches!(load_wat(&other).expect_err("there is none"), LoadError::Link { .. }));
}

#[test]
fn a_hello_guest_answers_with_a_known_length() {
    let ended = get("(call $answer (local.get $out)) (call $say) (call $done)");
    assert!(matches!(ended.report.outcome, Outcome::Ok), "{:?}", ended.report);
    assert_eq!(ended.report.peak_memory, 65536);
    let response = ended.response.expect("answered");
    assert_eq!(response.status(), 200);
    assert_eq!(response.body().size_hint().exact(), Some(13));
    assert_eq!(read(response), ("Hello World!\n".to_owned(), true));
}

#[test]
fn a_guest_that_traps_before_it_is_finished_sends_nothing() {
    let ended = get("(call $answer (local.get $out)) (call $say) unreachable");
    assert_eq!(ended.kind(), Some(FailureKind::Trap));
    assert!(ended.response.is_none());
    let text = ended.report.outcome.failure().expect("failed").to_string();
    assert!(text.contains("unreachable") && text.contains("in `handle`"), "{text}");
}

#[test]
fn a_guest_that_traps_after_its_head_went_out_leaves_a_broken_body() {
    let ended = get("(call $answer (local.get $out)) (call $say) (call $nap (i64.const 1)) unreachable");
    assert_eq!(ended.kind(), Some(FailureKind::Trap));
    assert_eq!(read(ended.response.expect("the head went out")), ("Hello World!\n".to_owned(), false));
}

#[test]
fn a_guest_that_traps_after_its_response_is_complete_has_answered() {
    let ended = get("(call $answer (local.get $out)) (call $say) (call $done) unreachable");
    assert_eq!(ended.kind(), Some(FailureKind::Trap));
    assert_eq!(read(ended.response.expect("complete")), ("Hello World!\n".to_owned(), true));
}

#[test]
fn a_guest_that_returns_without_finishing_its_body_has_failed() {
    let ended = get("(call $answer (local.get $out)) (call $say)");
    assert_eq!(ended.kind(), Some(FailureKind::Unfinished));
    // None, unless it has computed through a tick, as it may on a busy machine.
    assert!(ended.response.is_none_or(|response| !read(response).1));
    let ended = get("(call $answer (local.get $out)) (call $say) (call $nap (i64.const 1))");
    assert_eq!(ended.kind(), Some(FailureKind::Unfinished));
    assert_eq!(read(ended.response.expect("the head went out")), ("Hello World!\n".to_owned(), false));
}

#[test]
fn a_guest_that_never_answers_has_failed() {
    assert_eq!(get("").kind(), Some(FailureKind::NoAnswer));
}

#[test]
fn a_guest_that_answers_with_an_error_has_failed() {
    let set = |code: u32| {
        format!(
            "(call $set (local.get $out) (i32.const 1) (i32.const {code}) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))"
        )
    };
    assert_eq!(get(&set(38)).kind(), Some(FailureKind::GuestError));
    assert_eq!(get(&set(6)).kind(), Some(FailureKind::BadGateway));
    assert_eq!(get(&set(0)).kind(), Some(FailureKind::GatewayTimeout));
}

#[test]
fn a_guest_that_loops_for_ever_is_cut_at_its_deadline() {
    let ended = short("(loop $again (br $again))");
    assert_eq!(ended.kind(), Some(FailureKind::Deadline));
}

#[test]
fn a_guest_that_sleeps_for_ever_is_cut_at_its_deadline() {
    let started = Instant::now();
    let ended = short("(call $nap (i64.const 3600000))");
    assert_eq!(ended.kind(), Some(FailureKind::Deadline));
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_guest_that_streams_outlives_its_deadline_and_not_its_stream_deadline() {
    let ended =
        short("(call $answer (local.get $out)) (call $say) (call $nap (i64.const 100)) (call $say) (call $done)");
    assert!(matches!(ended.report.outcome, Outcome::Ok), "{:?}", ended.report);
    assert_eq!(read(ended.response.expect("streamed")).0.len(), 26);
    let limits = Limits { stream_deadline: Some(Duration::from_millis(50)), ..Limits::default() };
    let ended = request(&Method::GET, &limits, "(call $answer (local.get $out)) (call $nap (i64.const 3600000))");
    assert_eq!(ended.kind(), Some(FailureKind::Deadline));
    assert_eq!(read(ended.response.expect("the head went out")), (String::new(), false));
}

#[test]
fn a_guest_that_burns_cpu_is_cut_at_its_limit() {
    let limits = Limits { cpu: Some(Duration::from_millis(20)), ..Limits::default() };
    let ended = request(&Method::GET, &limits, "(loop $again (br $again))");
    assert_eq!(ended.kind(), Some(FailureKind::Cpu));
    assert!(ended.report.cpu >= Duration::from_millis(20));
}

#[test]
fn a_guest_that_computes_lets_its_output_go_out() {
    let limits = Limits { cpu: Some(Duration::from_millis(50)), ..Limits::default() };
    let ended = request(&Method::GET, &limits, "(call $answer (local.get $out)) (call $say) (loop $again (br $again))");
    assert_eq!(ended.kind(), Some(FailureKind::Cpu));
    assert_eq!(read(ended.response.expect("went out with a tick")), ("Hello World!\n".to_owned(), false));
}

#[test]
fn a_guest_that_is_refused_memory_and_traps_went_over_its_memory() {
    let limits = Limits { memory: 1 << 20, ..Limits::default() };
    let grow = "(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then unreachable))";
    assert_eq!(request(&Method::GET, &limits, grow).kind(), Some(FailureKind::Memory));
}

#[test]
fn a_guest_for_which_the_host_has_no_memory_is_told_to_come_again() {
    let grow = "(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then unreachable))";
    let options = EngineOptions { memory_budget: Some(2 << 20), cache: CacheMode::Off, ..EngineOptions::default() };
    let engine = Engine::new(&options).expect("an engine");
    let module = load_into(&engine, &component(grow)).expect("a handler");
    let expect_refusal = || {
        let ended = run_in(&engine, &module, Method::GET, &Limits::default());
        assert_eq!(ended.kind(), Some(FailureKind::Overload), "{:?}", ended.report);
        let failure = ended.report.outcome.failure().expect("failed");
        assert_eq!((failure.status().as_u16(), failure.retry_after().is_some()), (503, true));
    };
    expect_refusal(); // when it grows
    assert!(engine.memory().take(2 << 20), "what guests had is free again");
    expect_refusal(); // when it starts
}

#[test]
fn a_guest_that_reads_past_its_memory_traps() {
    let module = guest(
        "(drop (memory.grow (i32.const 1))) (drop (i32.load (i32.const 131068))) (drop (i32.load (i32.const 131069)))",
    );
    // The second has the memory of the first, which had grown.
    for _ in 0..2 {
        let ended = run_in(engine(), &module, Method::GET, &Limits::default());
        let failure = ended.report.outcome.failure().expect("failed");
        assert_eq!(failure.kind(), FailureKind::Trap);
        assert!(failure.to_string().contains("out of bounds memory access"), "{failure}");
    }
    assert!(get("(drop (i32.load (i32.const 65533)))").kind() == Some(FailureKind::Trap));
}

#[test]
fn a_guest_that_recurses_for_ever_traps() {
    let ended = get("(call $deep)");
    assert_eq!(ended.kind(), Some(FailureKind::Trap));
    assert!(ended.report.outcome.failure().expect("failed").to_string().contains("call stack exhausted"));
}

#[test]
fn a_guest_may_exit_well_once_it_has_answered() {
    let ended = get("(call $answer (local.get $out)) (call $done) (call $exit (i32.const 0))");
    assert!(matches!(ended.report.outcome, Outcome::Ok), "{:?}", ended.report);
    assert_eq!(get("(call $exit (i32.const 0))").kind(), Some(FailureKind::Exit));
    let ended = get("(call $answer (local.get $out)) (call $done) (call $exit (i32.const 1))");
    assert_eq!(ended.kind(), Some(FailureKind::Exit));
    assert!(ended.response.is_some());
}

#[test]
fn a_response_to_head_has_its_length_and_no_bytes() {
    let ended = request(&Method::HEAD, &Limits::default(), "(call $answer (local.get $out)) (call $say) (call $done)");
    let response = ended.response.expect("answered");
    assert_eq!(response.body().size_hint().exact(), Some(13));
    assert_eq!(read(response), (String::new(), true));
}

#[test]
fn what_a_guest_prints_comes_out_as_lines() {
    let ended = get(
        "(call $print (call $stdout) (i32.const 64) (i32.const 13) (i32.const 16)) (call $print (call $stdout) (i32.const 64) (i32.const 5) (i32.const 16))",
    );
    assert_eq!(ended.printed, ["Hello World!", "Hello"]);
}

#[test]
fn a_guest_cannot_have_handles_without_end() {
    let ended = get("(loop $again (drop (call $fields)) (br $again))");
    assert_eq!(ended.kind(), Some(FailureKind::Trap));
}

#[test]
fn a_guest_waits_while_nobody_reads() {
    let limits = Limits { stream_deadline: Some(Duration::from_millis(200)), ..Limits::default() };
    let ended = request(
        &Method::GET,
        &limits,
        "(call $answer (local.get $out)) (loop $again (call $print (global.get $the-stream) (i32.const 0) (i32.const 4096) (i32.const 16)) (br $again))",
    );
    assert_eq!(ended.kind(), Some(FailureKind::Deadline));
    let (text, whole) = read(ended.response.expect("the head went out"));
    assert!(text.len() <= 128 * 1024 && !whole);
}

/// A body that begins and never comes.
struct Stalled;

impl http_body::Body for Stalled {
    type Data = bytes::Bytes;
    type Error = astra_server::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

/// Runs a guest that would not end for a minute, and cuts it once it is seen doing `what`.
fn cut_while(what: &str, by: CutBy, body: &str) -> Ended {
    let (module, watch) = (guest(body), Arc::<Watch>::default());
    let minute = Duration::from_secs(60);
    let limits = Limits { deadline: minute, stream_deadline: Some(minute), ..Limits::default() };
    std::thread::scope(|scope| {
        let watched = Arc::clone(&watch);
        let running = scope.spawn(move || {
            let body = astra_server::Body::wrap(Stalled);
            run_watched(engine(), &module, Method::POST, body, &limits, watched)
        });
        // CPU time is known once it is on its thread.
        while !running.is_finished() && (watch.cpu().is_none() || watch.waits_for() != what) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        watch.cut(by);
        let ended = running.join().expect("does not panic");
        assert_eq!((watch.waits_for().as_str(), watch.cpu()), ("running", None), "nothing is told of who comes next");
        ended
    })
}

#[test]
fn a_guest_that_waits_is_seen_waiting_and_cut_at_once() {
    let flood = "(call $answer (local.get $out)) (loop $again (call $print (global.get $the-stream) (i32.const 0) (i32.const 4096) (i32.const 16)) (br $again))";
    for (what, body) in
        [("sleep", "(call $nap (i64.const 3600000))"), ("body", "(call $take (local.get $request))"), ("client", flood)]
    {
        assert_eq!(cut_while(what, CutBy::Operator, body).kind(), Some(FailureKind::Killed), "{what}");
        assert_eq!(cut_while(what, CutBy::Drain, body).kind(), Some(FailureKind::Drained), "{what}");
    }
}

#[test]
fn a_guest_that_computes_is_cut_at_its_next_tick() {
    let ended = cut_while("running", CutBy::Operator, "(loop $again (br $again))");
    assert_eq!(ended.kind(), Some(FailureKind::Killed));
    assert!(ended.response.is_none());
}

#[test]
fn a_response_that_is_cut_never_looks_complete() {
    let ended =
        cut_while("sleep", CutBy::Drain, "(call $answer (local.get $out)) (call $say) (call $nap (i64.const 3600000))");
    assert_eq!(ended.kind(), Some(FailureKind::Drained));
    assert_eq!(read(ended.response.expect("the head went out")), ("Hello World!\n".to_owned(), false));
}

/// All calls of `wasi:io` that may block, each once: `$timer`, `$in` and `$out` are what they are called on.
const BLOCKING_CALLS: [&str; 11] = [
    "(call $poll (i32.const 0) (i32.const 1) (i32.const 16))", // a list of one, the timer
    "(drop (call $ready (local.get $timer)))",
    "(call $block (local.get $timer))",
    "(call $read (local.get $in) (i64.const 1) (i32.const 16))",
    "(call $skip (local.get $in) (i64.const 1) (i32.const 16))",
    "(call $write (local.get $out) (i32.const 64) (i32.const 1) (i32.const 16))",
    "(call $write-zeroes (local.get $out) (i64.const 1) (i32.const 16))",
    "(call $flush (local.get $out) (i32.const 16))",
    "(call $splice (local.get $out) (local.get $in) (i64.const 1) (i32.const 16))",
    "(call $drop-input (local.get $in))",
    "(call $drop-output (local.get $out))",
];

/// A guest that makes the calls in `BODY`, all of WASI `VERSION`. It answers nothing.
const BLOCKING_COMPONENT: &str = r#"(component
  (import "wasi:io/error@VERSION" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $io-error))
  (import "wasi:io/poll@VERSION" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))
    (export "[method]pollable.ready" (func (param "self" (borrow $pollable)) (result bool)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@VERSION" (instance $clock
    (alias outer 1 $pollable (type $p))
    (export "pollable" (type $pollable (eq $p)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
  (import "wasi:io/streams@VERSION" (instance $streams
    (alias outer 1 $io-error (type $e))
    (export "error" (type $error (eq $e)))
    (type $failed (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $failed)))
    (export "input-stream" (type $input (sub resource)))
    (export "output-stream" (type $output (sub resource)))
    (export "[method]input-stream.blocking-read"
      (func (param "self" (borrow $input)) (param "len" u64) (result (result (list u8) (error $stream-error)))))
    (export "[method]input-stream.blocking-skip"
      (func (param "self" (borrow $input)) (param "len" u64) (result (result u64 (error $stream-error)))))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $output)) (param "contents" (list u8)) (result (result (error $stream-error)))))
    (export "[method]output-stream.blocking-write-zeroes-and-flush"
      (func (param "self" (borrow $output)) (param "len" u64) (result (result (error $stream-error)))))
    (export "[method]output-stream.blocking-flush"
      (func (param "self" (borrow $output)) (result (result (error $stream-error)))))
    (export "[method]output-stream.blocking-splice" (func (param "self" (borrow $output)) (param "src" (borrow $input))
      (param "len" u64) (result (result u64 (error $stream-error)))))))
  (alias export $streams "input-stream" (type $input))
  (alias export $streams "output-stream" (type $output))
  (import "wasi:cli/stdin@VERSION" (instance $stdin
    (alias outer 1 $input (type $i))
    (export "input-stream" (type $input (eq $i)))
    (export "get-stdin" (func (result (own $input))))))
  (import "wasi:cli/stdout@VERSION" (instance $stdout
    (alias outer 1 $output (type $o))
    (export "output-stream" (type $output (eq $o)))
    (export "get-stdout" (func (result (own $output))))))
  (import "wasi:http/types@VERSION" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))

  (core module $memory-module
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $memory (instantiate $memory-module))
  (alias core export $memory "memory" (core memory $mem))
  (alias core export $memory "realloc" (core func $realloc))
  (core func $poll (canon lower (func $poll "poll") (memory $mem) (realloc $realloc)))
  (core func $ready (canon lower (func $poll "[method]pollable.ready")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $sleep (canon lower (func $clock "subscribe-duration")))
  (core func $read (canon lower (func $streams "[method]input-stream.blocking-read") (memory $mem) (realloc $realloc)))
  (core func $skip (canon lower (func $streams "[method]input-stream.blocking-skip") (memory $mem)))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $mem)))
  (core func $write-zeroes
    (canon lower (func $streams "[method]output-stream.blocking-write-zeroes-and-flush") (memory $mem)))
  (core func $flush (canon lower (func $streams "[method]output-stream.blocking-flush") (memory $mem)))
  (core func $splice (canon lower (func $streams "[method]output-stream.blocking-splice") (memory $mem)))
  (core func $stdin (canon lower (func $stdin "get-stdin")))
  (core func $stdout (canon lower (func $stdout "get-stdout")))
  (core func $drop-input (canon resource.drop $input))
  (core func $drop-output (canon resource.drop $output))
  (core module $main
    (import "m" "memory" (memory 1))
    (import "f" "poll" (func $poll (param i32 i32 i32)))
    (import "f" "ready" (func $ready (param i32) (result i32)))
    (import "f" "block" (func $block (param i32)))
    (import "f" "sleep" (func $sleep (param i64) (result i32)))
    (import "f" "read" (func $read (param i32 i64 i32)))
    (import "f" "skip" (func $skip (param i32 i64 i32)))
    (import "f" "write" (func $write (param i32 i32 i32 i32)))
    (import "f" "write-zeroes" (func $write-zeroes (param i32 i64 i32)))
    (import "f" "flush" (func $flush (param i32 i32)))
    (import "f" "splice" (func $splice (param i32 i32 i64 i32)))
    (import "f" "stdin" (func $stdin (result i32)))
    (import "f" "stdout" (func $stdout (result i32)))
    (import "f" "drop-input" (func $drop-input (param i32)))
    (import "f" "drop-output" (func $drop-output (param i32)))
    (func (export "handle") (param $request i32) (param $outparam i32)
      (local $timer i32) (local $in i32) (local $out i32)
      (local.set $timer (call $sleep (i64.const 1000000)))
      (local.set $in (call $stdin))
      (local.set $out (call $stdout))
      (i32.store (i32.const 0) (local.get $timer))
      BODY))
  (core instance $guest (instantiate $main
    (with "m" (instance (export "memory" (memory $mem))))
    (with "f" (instance
      (export "poll" (func $poll)) (export "ready" (func $ready)) (export "block" (func $block))
      (export "sleep" (func $sleep)) (export "read" (func $read)) (export "skip" (func $skip))
      (export "write" (func $write)) (export "write-zeroes" (func $write-zeroes)) (export "flush" (func $flush))
      (export "splice" (func $splice)) (export "stdin" (func $stdin)) (export "stdout" (func $stdout))
      (export "drop-input" (func $drop-input)) (export "drop-output" (func $drop-output))))))
  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $guest "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@VERSION" (instance $handler)))"#;

#[test]
fn every_blocking_call_of_a_guest_of_any_0_2_waits_in_the_one_place() {
    for version in ["0.2.0", "0.2.3", "0.2.4", "0.2.6", "0.2.10", "0.2.12"] {
        let component = BLOCKING_COMPONENT.replace("VERSION", version);
        let waits = |calls: &str| {
            let module = load_wat(&component.replace("BODY", calls)).expect("a handler");
            WAITS.set(0);
            let ended = run_in(engine(), &module, Method::GET, &Limits::default());
            assert_eq!(ended.kind(), Some(FailureKind::NoAnswer), "{version} {calls}: {:?}", ended.report);
            WAITS.get()
        };
        assert_eq!(waits(""), 0, "{version}");
        for call in BLOCKING_CALLS {
            assert_eq!(waits(call), 1, "{version} {call}");
        }
        assert_eq!(waits(&BLOCKING_CALLS.concat()), BLOCKING_CALLS.len(), "{version}");
    }
}

#[test]
fn a_module_with_an_unknown_import_is_refused_by_name() {
    let wat = component("").replace("(component\n", "(component\n(import \"acme:db/query@1.0.0\" (instance))\n");
    let error = load_wat(&wat).expect_err("unknown");
    assert!(error.to_string().contains("imports `acme:db/query@1.0.0`"), "{error}");
}

#[test]
fn a_module_that_does_not_fit_is_told_the_key() {
    let wat = component("").replace("(memory (export \"memory\") 1)", "(memory (export \"memory\") 40000)");
    let error = load_wat(&wat).expect_err("too large");
    assert!(matches!(error, LoadError::DoesNotFit { key: "max-memory", .. }), "{error}");
}

#[test]
fn a_module_with_the_wrong_types_is_refused_at_load() {
    let wat = component("")
        .replace(
            "(export \"[constructor]fields\" (func (result (own $fields))))",
            "(export \"[constructor]fields\" (func (param \"x\" u32) (result (own $fields))))",
        )
        .replace(
            "(import \"f\" \"fields\" (func $fields (result i32)))",
            "(import \"f\" \"fields\" (func $fields (param i32) (result i32)))",
        )
        .replace("(call $response (call $fields))", "(call $response (call $fields (i32.const 0)))");
    assert!(matches!(load_wat(&wat).expect_err("wrong types"), LoadError::Link { .. }));
}
