//! A host in a process of its own: started on a free port, its lines collected, stopped when the test is over.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    Answer, BOTH, Client, Http, Http2, PATIENCE, guest,
    guests::{root, target_dir},
    pattern,
};

/// How a host is started.
pub(crate) struct Setup {
    program: OsString,
    arguments: Vec<OsString>,
    /// The command and what it serves.
    command: &'static str,
    module: Option<OsString>,
    listen: bool,
    log: bool,
    one_core: bool,
    environment: Vec<(OsString, Option<OsString>)>,
    stdin: Stdio,
    stderr: Option<Stdio>,
}

/// A process that ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A host that serves.
pub(crate) struct Host {
    addr: Option<SocketAddr>,
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Setup {
    /// `astra-host` and nothing else.
    pub(crate) fn bare() -> Self {
        Self {
            program: env!("CARGO_BIN_EXE_astra-host").into(),
            arguments: Vec::new(),
            command: "run",
            module: None,
            listen: false,
            log: false,
            one_core: false,
            environment: vec![
                // Modules are compiled once for all tests, and the user's own cache is left alone.
                ("XDG_CACHE_HOME".into(), Some(target_dir().join("cache").into())),
                ("CARGO_TARGET_DIR".into(), Some(target_dir().into())),
                ("RUSTFLAGS".into(), None),
                ("XDG_RUNTIME_DIR".into(), Some(runtime_dir().into())),
                ("XDG_STATE_HOME".into(), Some(target_dir().join("state").into())),
            ],
            stdin: Stdio::null(),
            stderr: None,
        }
    }

    /// `astra-host run PATH` on a free port, with an access log in JSON.
    pub(crate) fn run(path: impl Into<OsString>) -> Self {
        Self { module: Some(path.into()), listen: true, log: true, ..Self::bare() }
    }

    /// `astra-host dev PATH`, the same way.
    pub(crate) fn dev(path: impl Into<OsString>) -> Self {
        Self { command: "dev", ..Self::run(path) }
    }

    pub(crate) fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn flag(self, name: &str, value: impl Into<OsString>) -> Self {
        self.arg(name).arg(value)
    }

    /// Without `--listen 127.0.0.1:0`.
    pub(crate) fn no_listen(mut self) -> Self {
        self.listen = false;
        self
    }

    /// Without `--access-log json`.
    pub(crate) fn no_log(mut self) -> Self {
        self.log = false;
        self
    }

    /// On one core there is one seat: guests that do not wait have the same thread, and the same memory, one after the other. On Linux.
    pub(crate) fn on_one_core(mut self) -> Self {
        self.one_core = true;
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), Some(value.into())));
        self
    }

    /// What it reads as its standard input; nothing otherwise.
    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Where its standard error goes instead of to the test, which then cannot read it.
    pub(crate) fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// Runs `script` first, which has to end in `exec "$@"`.
    pub(crate) fn through_shell(mut self, script: &str) -> Self {
        let program = std::mem::replace(&mut self.program, "sh".into());
        let arguments = std::mem::take(&mut self.arguments);
        let module: Vec<OsString> =
            self.module.take().map(|module| vec![self.command.into(), module]).unwrap_or_default();
        self.arguments = vec!["-c".into(), script.into(), "sh".into(), program];
        self.arguments.extend(module);
        self.arguments.extend(arguments);
        self
    }

    /// How long a start may take: a directory is a package, which cargo builds first.
    fn patience(&self) -> Duration {
        let builds = self.module.as_ref().is_some_and(|module| root().join(module).is_dir());
        if builds { PATIENCE * 10 } else { PATIENCE }
    }

    fn spawn(self) -> (Child, Lines, Lines) {
        let mut command = Command::new(&self.program);
        if let Some(module) = &self.module {
            command.arg(self.command).arg(module);
        }
        command.args(&self.arguments);
        if self.listen {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if self.log {
            command.args(["--access-log", "json"]);
        }
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let stderr = self.stderr.unwrap_or_else(Stdio::piped);
        command.current_dir(root()).stdin(self.stdin).stdout(Stdio::piped()).stderr(stderr);
        let mut start = || command.spawn().expect("astra-host can be started");
        let mut child = if self.one_core { on_one_core(start) } else { start() };
        let stdout = Lines::of(child.stdout.take().expect("piped"));
        let stderr = child.stderr.take().map_or_else(|| Lines::of(io::empty()), Lines::of);
        (child, stdout, stderr)
    }

    /// Starts it and waits for nothing.
    pub(crate) fn begin(self) -> Host {
        let (child, stdout, stderr) = self.spawn();
        Host { addr: None, child, stdout, stderr }
    }

    /// Starts it and reads from its lines where it listens.
    pub(crate) fn start(self) -> Host {
        let patience = self.patience();
        let mut host = self.begin();
        host.listens_within(patience);
        host
    }

    /// Runs it until it ends.
    pub(crate) fn end(self) -> Ended {
        let patience = self.patience();
        self.begin().ended_within(patience)
    }
}

/// Calls `start` on a thread that may use one core, which is passed on to what it starts.
#[cfg(target_os = "linux")]
fn on_one_core<T: Send>(start: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let pinned = || {
        let allowed = sched_getaffinity(None).expect("of this thread");
        let mut one = CpuSet::new();
        // Not the same for all tests.
        let which = std::process::id() % allowed.count();
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        one.set(allowed.nth(which as usize).expect("it runs on one"));
        sched_setaffinity(None, &one).expect("it may use that one");
        start()
    };
    thread::scope(|scope| scope.spawn(pinned).join().expect("starts"))
}

#[cfg(not(target_os = "linux"))]
fn on_one_core<T>(start: impl FnOnce() -> T) -> T {
    start()
}

/// Where control sockets are by default: a path that is short, as those of sockets have to be.
fn runtime_dir() -> PathBuf {
    let dir = env::temp_dir().join(format!("astra-e2e-{}", rustix::process::geteuid().as_raw()));
    fs::create_dir_all(&dir).expect("the temporary directory can be written to");
    dir
}

/// What a start-up line says about where the host listens, if it is about that.
fn listening(line: &str) -> Option<SocketAddr> {
    let url = line.strip_prefix("listening on ")?;
    url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?.parse().ok()
}

impl Host {
    /// A host that serves a guest, with nothing granted and nothing changed.
    pub(crate) fn of(name: &str) -> Self {
        Self::with(name).start()
    }

    /// The same, to be changed.
    pub(crate) fn with(name: &str) -> Setup {
        Setup::run(guest(name))
    }

    /// Waits until one that was only begun says where it listens; it may build a package first.
    pub(crate) fn listens(&mut self) {
        self.listens_within(PATIENCE * 10);
    }

    fn listens_within(&mut self, patience: Duration) {
        self.addr = Some(self.stdout.find(patience, "where it listens", listening));
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr.expect("it serves")
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.addr())
    }

    pub(crate) fn http2(&self) -> Http2 {
        Http2::connect(self.addr())
    }

    /// One request on a connection of its own.
    ///
    /// # Errors
    /// The answer is cut short or not one.
    pub(crate) fn ask(
        &self,
        version: Http,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, String> {
        match version {
            Http::One => {
                let mut client = self.connect();
                let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                if let Some(body) = body {
                    head += &format!("content-length: {}\r\n", body.len());
                }
                client.send(head + "\r\n");
                // A host that has answered early may not take the rest.
                let _ = client.try_send(body.unwrap_or_default());
                if method == "HEAD" {
                    return Ok(client.answer_without_body());
                }
                client.try_answer().map_err(|error| error.to_string())
            }
            Http::Two => {
                let mut connection = self.http2();
                let mut stream = connection.open(method, path, headers, body.is_none());
                if let Some(body) = body {
                    let _ = stream.send(body, true);
                }
                stream.answer().map_err(|error| error.to_string())
            }
        }
    }

    pub(crate) fn get(&self, version: Http, path: &str) -> Answer {
        self.ask(version, "GET", path, &[], None).expect("a whole answer")
    }

    pub(crate) fn post(&self, version: Http, path: &str, body: &[u8]) -> Answer {
        self.ask(version, "POST", path, &[], Some(body)).expect("a whole answer")
    }

    /// Asserts that `POST /echo` sends a large body back, over both versions of HTTP, and begins to before it has all of it.
    pub(crate) fn expect_echo(&self) {
        let body = pattern(1_000_000);
        for version in BOTH {
            let answer = self.post(version, "/echo", &body);
            assert!(answer.body == body, "{version:?}: {} bytes came back", answer.body.len());
        }
        let mut client = self.connect();
        client.send("POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nHello\r\n");
        assert_eq!(client.head().status, 200, "the answer begins before the request has ended");
        assert_eq!(client.chunk().expect("it comes back at once").as_deref(), Some(&b"Hello"[..]));
        client.send("0\r\n\r\n");
        assert_eq!(client.chunk().expect("the last chunk"), None);
    }

    /// Asserts what the guest has found out, line by line, over both versions of HTTP.
    pub(crate) fn expect_lines(&self, path: &str, expected: &[&str]) {
        for version in BOTH {
            let answer = self.get(version, path);
            assert_eq!(answer.status, 200, "{version:?} {path}");
            assert_eq!(answer.text().lines().collect::<Vec<_>>(), expected, "{version:?} {path}");
        }
    }

    /// Asserts status and outcome of `GET path` over both versions of HTTP; the outcome is what the access log says.
    pub(crate) fn expect(&self, path: &str, status: u16, outcome: &str) {
        for version in BOTH {
            let answer = self.get(version, path);
            assert_eq!(answer.status, status, "{version:?}: {:?}", String::from_utf8_lossy(&answer.body));
            let access = self.access(&answer);
            assert_eq!(access["outcome"], outcome, "{version:?}: {access}");
            assert_eq!(access["status"], status, "{version:?}: {access}");
        }
    }

    /// Asserts that `GET path` begins with `start` and is then cut, over both versions of HTTP, and the outcome.
    pub(crate) fn expect_cut(&self, path: &str, start: &str, outcome: &str) {
        let mut client = self.connect();
        client.ask(path);
        let head = client.head();
        assert_eq!(head.status, 200);
        let rest = client.until_closed();
        let rest = String::from_utf8_lossy(&rest);
        assert!(rest.contains(start), "{rest:?}");
        assert!(!rest.contains("\r\n0\r\n"), "a last chunk is for bodies that are complete: {rest:?}");
        self.expect_outcome(head.header("x-request-id"), outcome);

        let mut connection = self.http2();
        let mut stream = connection.open("GET", path, &[], true);
        let head = stream.head().expect("a head");
        assert_eq!(head.status, 200);
        let mut body = Vec::new();
        let end = loop {
            match stream.chunk() {
                Ok(Some(chunk)) => body.extend(chunk),
                end => break end,
            }
        };
        assert!(body.starts_with(start.as_bytes()), "{:?}", String::from_utf8_lossy(&body));
        let reset = end.expect_err("END_STREAM is for bodies that are complete");
        assert!(reset.is_reset() && reset.is_remote(), "{reset}");
        self.expect_outcome(head.header("x-request-id"), outcome);
    }

    /// Asks over HTTP/2, takes nothing of the answer but its head, and gives the request up when `is_complete` has returned, which waits
    /// until the guest has written it. Returns the request's id, which that is told too.
    pub(crate) fn left_with_the_head(&self, path: &str, is_complete: impl FnOnce(&str)) -> String {
        let mut connection = Http2::connect_without_window(self.addr());
        let mut stream = connection.open("GET", path, &[], true);
        let head = stream.head().expect("a head");
        let id = head.header("x-request-id").expect("every answer has an id");
        is_complete(id);
        stream.cancel();
        // The connection stays until the host has read that.
        assert_eq!(connection.open("HEAD", "/", &[], true).head().expect("a head").status, 200);
        id.to_owned()
    }

    /// Waits until the guest of the request with this id prints `line`.
    pub(crate) fn printed(&self, id: &str, line: &str) {
        self.json(line, |found| found["kind"] == "guest" && found["id"] == id && found["text"] == line);
    }

    /// Asserts what the access log says of the request with this id.
    pub(crate) fn expect_outcome(&self, id: Option<&str>, outcome: &str) {
        let access = self.access_of(id.expect("every answer has an id"));
        assert_eq!(access["outcome"], outcome, "{access}");
    }

    /// The access line of the request that has this answer.
    pub(crate) fn access(&self, answer: &Answer) -> Value {
        self.access_of(answer.header("x-request-id").expect("every answer has an id"))
    }

    /// The access line of the request with this id.
    pub(crate) fn access_of(&self, id: &str) -> Value {
        self.json(&format!("the access line of {id}"), |line| line["kind"] == "access" && line["id"] == id)
    }

    /// The first line of the log for which `is_it` holds.
    pub(crate) fn json(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.stderr.find(PATIENCE, what, |line| serde_json::from_str(line).ok().filter(|line| is_it(line)))
    }

    /// What is logged about a denial of which it says `what`.
    pub(crate) fn denial(&self, what: &str) -> String {
        let line = self.json(what, |line| {
            line["message"].as_str().is_some_and(|message| message.contains("was denied") && message.contains(what))
        });
        line["message"].as_str().expect("a text").to_owned()
    }

    /// The first line on the standard error with `text` in it.
    pub(crate) fn stderr_with(&self, text: &str) -> String {
        self.stderr.find(PATIENCE, text, |line| line.contains(text).then(|| line.to_owned()))
    }

    /// The first line on the standard output with `text` in it.
    pub(crate) fn stdout_with(&self, text: &str) -> String {
        self.stdout_where(text, |line| line.contains(text))
    }

    /// The first line on the standard output for which `is_it` holds.
    pub(crate) fn stdout_where(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        self.stdout.find(PATIENCE, what, |line| is_it(line).then(|| line.to_owned()))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits until it ends by itself, whoever else still has its outputs; its exit code.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "the process does not end");
            thread::yield_now();
        }
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(&mut self) -> Ended {
        self.ended_within(PATIENCE)
    }

    fn ended_within(&mut self, patience: Duration) -> Ended {
        // Its outputs end when it does, and can be waited for with patience.
        let (stdout, stderr) = (self.stdout.all(patience), self.stderr.all(patience));
        let status: ExitStatus = self.child.wait().expect("it is ours");
        Ended { code: status.code(), stdout, stderr }
    }

    /// A number of bytes from `/proc/PID/status`.
    #[cfg(target_os = "linux")]
    pub(crate) fn memory(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect("Linux has it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// How many threads it has.
    #[cfg(target_os = "linux")]
    pub(crate) fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs").count()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            self.stdout.show("stdout");
            self.stderr.show("stderr");
        }
    }
}

/// What a process has written to one of its outputs, collected by a thread that ends with it.
struct Lines(Arc<(Mutex<Written>, Condvar)>);

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    has_ended: bool,
}

impl Lines {
    fn of(output: impl Read + Send + 'static) -> Self {
        let shared: Arc<(Mutex<Written>, Condvar)> = Arc::default();
        let lines = Self(Arc::clone(&shared));
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let end = line.strip_suffix(b"\n").unwrap_or(&line);
                let text = String::from_utf8_lossy(end).into_owned();
                shared.0.lock().unwrap_or_else(PoisonError::into_inner).lines.push(text);
                shared.1.notify_all();
                line.clear();
            }
            shared.0.lock().unwrap_or_else(PoisonError::into_inner).has_ended = true;
            shared.1.notify_all();
        });
        lines
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a line that `read` makes something of.
    fn find<T>(&self, patience: Duration, what: &str, mut read: impl FnMut(&str) -> Option<T>) -> T {
        let mut written = self.lock();
        let mut seen = 0;
        loop {
            if let Some(found) = written.lines[seen..].iter().find_map(|line| read(line)) {
                return found;
            }
            seen = written.lines.len();
            assert!(!written.has_ended, "the host has ended without saying: {what}");
            let (next, waited) = self.0.1.wait_timeout(written, patience).unwrap_or_else(PoisonError::into_inner);
            assert!(!waited.timed_out(), "the host does not say: {what}");
            written = next;
        }
    }

    /// Everything, when it has ended.
    fn all(&self, patience: Duration) -> String {
        let (written, waited) = (self.0.1)
            .wait_timeout_while(self.lock(), patience, |written| !written.has_ended)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "the process does not end");
        written.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    fn show(&self, name: &str) {
        let written = self.lock();
        eprintln!("--- {name} of the host, last lines of {} ---", written.lines.len());
        let start = written.lines.len().saturating_sub(200);
        for line in &written.lines[start..] {
            eprintln!("{line}");
        }
    }
}

/// `ps`, until all of so many requests wait for `what`; their ids.
pub(crate) fn all_waiting(control: &Path, what: &str, count: usize) -> Vec<String> {
    let started = Instant::now();
    loop {
        let listed = Setup::bare().arg("ps").arg("--json").flag("--control", control).end();
        let requests: Vec<Value> = serde_json::from_str(&listed.stdout).expect("it is a list in JSON");
        if requests.len() == count && requests.iter().all(|request| request["waits_for"] == what) {
            return requests.iter().map(|request| request["id"].as_str().expect("a text").to_owned()).collect();
        }
        assert!(started.elapsed() < PATIENCE, "{requests:?}");
    }
}

/// The same for a single request.
pub(crate) fn waiting(control: &Path, what: &str) -> String {
    all_waiting(control, what, 1).remove(0)
}

impl Ended {
    /// Asserts that it failed with `code` and that its complaint names all of `words`.
    pub(crate) fn expect_complaint(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.starts_with("astra-host: error: "), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.stderr);
        }
        assert_eq!(self.stderr.matches("error:").count(), 1, "printed once: {self:?}");
    }
}
