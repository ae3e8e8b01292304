//! The control server over real connections, before a host that only remembers what it was asked.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use astra_server::{Handle, Server};
use serde_json::Value;

use super::{
    operate::Operate,
    server::{Access, SWAPS, Settings, start},
    token::Token,
};
use crate::{
    events::{Events, Urgency},
    operator::{SwapOptions, UpgradeOptions},
    operator_error::OperatorError,
    receipt::{Action, Receipt},
    status::{RequestStatus, Status, Traffic},
};

const MAX_MODULE: u64 = 1000;

#[derive(Default)]
struct Fake {
    /// What it was asked, in order.
    asked: Mutex<Vec<String>>,
    events: Events,
    /// Swaps of `slow` wait here, in and out.
    slow: Option<(Barrier, Barrier)>,
    is_stopping: bool,
}

impl Fake {
    fn note(&self, what: String) {
        self.asked.lock().expect("no panic").push(what);
    }

    fn result(&self, handler: &str) -> Result<Receipt, OperatorError> {
        let name = handler.to_owned();
        match handler {
            "unknown" => Err(OperatorError::UnknownHandler { name, known: "`hello`".to_owned() }),
            "busy" => Err(OperatorError::Busy { name }),
            "bad" => Err(OperatorError::Probe { name, reason: "500".to_owned() }),
            "stopping" => Err(OperatorError::Stopping),
            "broken" => Err(OperatorError::State(std::io::Error::other("disk full"))),
            _ => Ok(receipt(handler)),
        }
    }
}

fn receipt(handler: &str) -> Receipt {
    Receipt {
        handler: handler.to_owned(),
        action: Action::Swap,
        from: Some(7),
        to: 8,
        sha256: "41d3".repeat(16),
        code: "cached".to_owned(),
        probe: None,
        live: "2026-01-01T12:03:07.113Z".to_owned(),
        saved_ms: None,
        share: None,
        new_imports: Vec::new(),
        outlives_restart: true,
        drained: None,
        freed: Vec::new(),
        notes: Vec::new(),
    }
}

impl Operate for Arc<Fake> {
    fn status(&self) -> Status {
        Status {
            version: "0.1.0".to_owned(),
            pid: 1,
            started: String::new(),
            listen: Vec::new(),
            config: None,
            traffic: Traffic::default(),
            handlers: Vec::new(),
        }
    }

    fn requests(&self) -> Vec<RequestStatus> {
        Vec::new()
    }

    fn kill(&self, id: &str) -> Result<RequestStatus, OperatorError> {
        Err(OperatorError::UnknownRequest { id: id.to_owned() })
    }

    fn swap(&self, handler: &str, module: &Path, source: &str, how: &SwapOptions) -> Result<Receipt, OperatorError> {
        let module = fs::read_to_string(module).expect("was uploaded");
        self.note(format!("swap {handler} {module} {source} {how:?}"));
        if let ("slow", Some((arrived, go))) = (handler, &self.slow) {
            arrived.wait();
            go.wait();
        }
        self.result(handler)
    }

    fn rollback(&self, handler: &str, to: Option<u32>) -> Result<Receipt, OperatorError> {
        self.note(format!("rollback {handler} {to:?}"));
        self.result(handler)
    }

    fn wait_for_drain(&self, receipt: Receipt) -> Receipt {
        self.note("wait".to_owned());
        receipt
    }

    fn promote(&self, handler: &str) -> Result<Receipt, OperatorError> {
        self.note(format!("promote {handler}"));
        self.result(handler)
    }

    fn abort(&self, handler: &str) -> Result<Receipt, OperatorError> {
        self.note(format!("abort {handler}"));
        self.result(handler)
    }

    fn reload(&self) -> Result<Vec<Receipt>, OperatorError> {
        Ok(vec![receipt("hello")])
    }

    fn stop(&self) {
        self.note("stop".to_owned());
    }

    fn upgrade(&self, options: &UpgradeOptions) -> Result<u32, OperatorError> {
        let UpgradeOptions { program, within, force } = options;
        self.note(format!("upgrade {program:?} {within:?} {force}"));
        Ok(8)
    }

    fn hand_over(&self) -> Result<u32, OperatorError> {
        Err(OperatorError::Upgrade { reason: "it is a test".to_owned() })
    }

    fn is_ready(&self) -> bool {
        !self.is_stopping
    }

    fn events(&self) -> &Events {
        &self.events
    }
}

/// A running control server, with a directory for uploads that is gone with it.
struct Control {
    fake: Arc<Fake>,
    handle: Option<Handle>,
    uploads: PathBuf,
}

impl Control {
    fn start() -> Self {
        Self::of(Fake::default(), Access::Owner)
    }

    fn of(fake: Fake, access: Access) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let uploads = std::env::temp_dir().join(format!("astra-control-{}-{number}", std::process::id()));
        fs::create_dir(&uploads).expect("is new");
        let fake = Arc::new(fake);
        let settings = Settings {
            worker_stack: 1 << 20,
            around_worker: Box::new(|work| work()),
            max_module: MAX_MODULE,
            uploads: uploads.clone(),
        };
        let bound = Server::try_bind("127.0.0.1:0").expect("binds");
        let handle = start(bound, access, Arc::clone(&fake), settings).expect("starts");
        Self { fake, handle: Some(handle), uploads }
    }

    fn connect(&self) -> TcpStream {
        let address = self.handle.as_ref().expect("is running").local_addrs()[0];
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("is set");
        stream
    }

    /// Sends a request with these further lines of head and this body, and reads the whole answer.
    fn ask(&self, line: &str, head: &str, body: &str) -> Answer {
        let mut stream = self.connect();
        let length = body.len();
        let head =
            format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{head}");
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).expect("writes");
        Answer::read(stream)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.fake.asked.lock().expect("no panic"))
    }

    fn has_no_uploads(&self) -> bool {
        fs::read_dir(&self.uploads).expect("lists").next().is_none()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.fake.events.end();
        if let Some(handle) = self.handle.take() {
            handle.shutdown(Duration::from_secs(30));
        }
        let _ = fs::remove_dir_all(&self.uploads);
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(mut stream: TcpStream) -> Self {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("reads");
        let (head, body) = text.split_once("\r\n\r\n").expect("is an answer");
        let status = head[9..12].parse().expect("is a status");
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("is JSON")
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().expect("is an error").to_owned()
    }
}

#[test]
fn a_swap_gets_its_module_and_its_options() {
    let control = Control::start();
    let options = "canary=10%25&no_new_imports=true&until_restart=true&no_wait=true&source=new.wasm";
    let answer = control.ask(&format!("POST /v1/handlers/hello/swap?{options}"), "", "module");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let receipt: Receipt = serde_json::from_value(answer.json()).expect("is a receipt");
    assert_eq!((receipt.handler.as_str(), receipt.to), ("hello", 8));
    let how = SwapOptions {
        canary: Some(crate::config::Share::of_ten_thousand(1000)),
        no_new_imports: true,
        until_restart: true,
    };
    assert_eq!(control.asked(), [format!("swap hello module new.wasm {how:?}")]);
    assert!(control.has_no_uploads());

    control.ask("POST /v1/handlers/my%20app/swap", "", "module");
    assert_eq!(control.asked(), [&*format!("swap my app module upload {:?}", SwapOptions::default()), "wait"]);
}

#[test]
fn the_other_verbs_arrive() {
    let control = Control::start();
    for (path, asked) in [
        ("rollback", &["rollback hello None", "wait"][..]),
        ("rollback?revision=7&no_wait=true", &["rollback hello Some(7)"]),
        ("promote", &["promote hello", "wait"]),
        ("abort?no_wait=true", &["abort hello"]),
    ] {
        assert_eq!(control.ask(&format!("POST /v1/handlers/hello/{path}"), "", "").status, 200);
        assert_eq!(control.asked(), asked);
    }
    assert_eq!(control.ask("GET /v1/status", "", "").json()["version"], "0.1.0");
    assert_eq!(control.ask("GET /v1/requests", "", "").json(), Value::Array(Vec::new()));
    assert_eq!(control.ask("POST /v1/reload", "", "").json()[0]["handler"], "hello");
    assert_eq!(control.ask("POST /v1/stop", "", "").status, 202);
    assert_eq!(control.asked(), ["stop"]);
    let index = control.ask("GET /", "", "");
    assert!(index.body.contains("/v1/handlers/{name}/swap"), "{}", index.body);
    assert!(index.head.contains("content-type: application/json"), "{}", index.head);
}

#[test]
fn a_refusal_has_the_status_of_its_reason() {
    let control = Control::start();
    for (handler, status) in [("unknown", 404), ("busy", 409), ("bad", 422), ("stopping", 503), ("broken", 500)] {
        let answer = control.ask(&format!("POST /v1/handlers/{handler}/swap"), "", "module");
        assert_eq!(answer.status, status, "{handler}: {}", answer.body);
        assert!(control.has_no_uploads());
    }
    let with_cause = control.ask("POST /v1/handlers/broken/promote", "", "").error();
    assert!(with_cause.ends_with(": disk full"), "{with_cause}");
    let unknown = control.ask("DELETE /v1/requests/a%1bb", "", "");
    assert_eq!((unknown.status, unknown.error().contains("`a\u{1b}b`")), (404, true));
    assert_eq!(control.ask("GET /v2", "", "").status, 404);
    let wrong_method = control.ask("GET /v1/stop", "", "");
    assert_eq!((wrong_method.status, wrong_method.head.contains("allow: post")), (405, true));
    control.asked();
    let bad = control.ask("POST /v1/handlers/hello/swap?canary=110%25", "", "module");
    assert_eq!((bad.status, bad.error().contains("`canary`")), (400, true));
    assert!(control.asked().is_empty());
}

#[test]
fn a_module_that_is_missing_too_large_or_cut_changes_nothing() {
    let control = Control::start();
    let large = "x".repeat(MAX_MODULE as usize + 1);
    let swap = "POST /v1/handlers/hello/swap";
    assert_eq!(control.ask(swap, "", "").status, 400);
    let too_large = control.ask(swap, "", &large);
    assert_eq!((too_large.status, too_large.error().contains("max_module")), (413, true));

    let head = format!("{swap} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    let mut chunked = control.connect();
    let chunks = format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    chunked.write_all(chunks.as_bytes()).expect("writes");
    assert_eq!(Answer::read(chunked).status, 413);

    for cut in ["content-length: 100\r\n\r\nmodule", "transfer-encoding: chunked\r\n\r\n6\r\nmodule\r\n"] {
        let mut stream = control.connect();
        stream.write_all(format!("{head}{cut}").as_bytes()).expect("writes");
        stream.shutdown(Shutdown::Write).expect("half-closes");
        // It may be answered or not: nobody waits for it any more.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(control.asked().is_empty());
    assert!(control.has_no_uploads());
}

#[test]
fn more_swaps_than_places_are_refused_and_the_rest_still_answers() {
    let slow = Some((Barrier::new(SWAPS + 1), Barrier::new(SWAPS + 1)));
    let control = Control::of(Fake { slow, ..Fake::default() }, Access::Owner);
    let (arrived, go) = control.fake.slow.as_ref().expect("is slow");
    std::thread::scope(|scope| {
        let swaps: Vec<_> = (0..SWAPS)
            .map(|_| scope.spawn(|| control.ask("POST /v1/handlers/slow/swap", "", "module").status))
            .collect();
        arrived.wait();
        let refused = control.ask("POST /v1/handlers/hello/swap", "", "module");
        assert_eq!((refused.status, refused.head.contains("retry-after: 1")), (503, true));
        assert_eq!(control.ask("GET /v1/status", "", "").status, 200);
        go.wait();
        for swap in swaps {
            assert_eq!(swap.join().expect("does not panic"), 200);
        }
    });
    assert_eq!(control.ask("POST /v1/handlers/hello/swap", "", "module").status, 200);
}

#[test]
fn web_pages_are_refused() {
    let control = Control::start();
    let answer = control.ask("POST /v1/stop", "origin: http://localhost\r\n", "");
    assert_eq!((answer.status, control.asked()), (403, Vec::new()));
}

#[test]
fn over_tcp_only_who_has_the_token_is_answered() {
    let path = std::env::temp_dir().join(format!("astra-control-token-{}", std::process::id()));
    fs::write(&path, "0123456789abcdef\n").expect("writes");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
    let token = Token::read(&path).expect("is a token");
    fs::remove_file(&path).expect("removes");
    let control = Control::of(Fake::default(), Access::Bearer(token));
    for head in ["", "authorization: Bearer 0123456789abcdeF\r\n"] {
        for line in ["POST /v1/stop", "GET /", "GET /nothing"] {
            let answer = control.ask(line, head, "");
            assert_eq!((answer.status, answer.head.contains("www-authenticate: bearer")), (401, true), "{line}");
        }
    }
    assert!(control.asked().is_empty());
    assert_eq!(control.ask("GET /healthz", "", "").status, 200);
    assert_eq!(control.ask("POST /readyz", "", "").status, 401);
    let with_token = |line: &str| control.ask(line, "authorization: Bearer 0123456789abcdef\r\n", "").status;
    assert_eq!(with_token("POST /v1/stop"), 202);
    assert_eq!(with_token("POST /v1/upgrade"), 200);
    assert_eq!((with_token("POST /v1/upgrade?exe=%2Fbin%2Fnew"), with_token("POST /v1/take-over")), (403, 403));
    assert_eq!(control.asked(), ["stop", "upgrade None 300s false"]);
}

#[test]
fn whoever_asks_is_told_whether_it_lives_and_serves() {
    for (is_stopping, status) in [(false, 200), (true, 503)] {
        let control = Control::of(Fake { is_stopping, ..Fake::default() }, Access::Owner);
        assert_eq!(control.ask("GET /healthz", "", "").status, 200);
        assert_eq!(control.ask("GET /readyz", "", "").status, status);
    }
}

/// Those of one address, and more.
#[test]
fn clients_that_say_nothing_keep_nobody_out_for_long() {
    let control = Control::start();
    let silent: Vec<_> = (0..70).map(|_| control.connect()).collect();
    for mut stream in silent {
        assert_eq!(stream.read_to_end(&mut Vec::new()).expect("it is closed"), 0);
    }
    assert_eq!(control.ask("GET /healthz", "", "").status, 200);
}

#[test]
fn an_upgrade_is_asked_for_and_answered_with_the_new_process() {
    let control = Control::start();
    let answer = control.ask("POST /v1/upgrade", "", "");
    assert_eq!((answer.status, answer.body.trim()), (200, r#"{"pid":8}"#));
    control.ask("POST /v1/upgrade?exe=%2Fbin%2Fnew&within=1m&force=true", "", "");
    assert_eq!(control.asked(), ["upgrade None 300s false", "upgrade Some(\"/bin/new\") 60s true"]);
    for (bad, key) in [("exe=new", "`exe`"), ("within=2days", "`within`"), ("exe=", "`exe`"), ("force=2", "`force`")] {
        let refused = control.ask(&format!("POST /v1/upgrade?{bad}"), "", "");
        assert_eq!((refused.status, refused.error().contains(key)), (400, true));
    }
    assert_eq!(control.ask("POST /v1/take-over", "", "").status, 409);
}

#[test]
fn events_are_followed_from_where_the_client_was_until_the_host_ends() {
    let control = Control::start();
    let tell = |text: &str| control.fake.events.tell(Urgency::Normal, "swap", Some("hello"), text.to_owned(), None);
    tell("one");
    tell("two");
    let mut stream = control.connect();
    let request = "GET /v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nlast-event-id: 1\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("writes");
    let mut reader = BufReader::new(stream);
    let mut until = |what: &str| {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            assert!(reader.read_line(&mut line).expect("reads") > 0, "ended before {what}");
            assert!(!line.contains("\"one\""), "{line}");
        }
    };
    until("content-type: text/event-stream");
    until("id: 2");
    until("\"two\"");
    tell("three");
    until("\"three\"");
    control.fake.events.end();
    // The last chunk: it has not just been cut.
    until("0\r\n");
    assert_eq!(control.ask("GET /v1/events", "last-event-id: x\r\n", "").status, 400);
}
