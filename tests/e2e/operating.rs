//! The commands that operate a running host, and what starts swaps by itself: files that change, signals, restarts.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Client, Ended, Host, Http, Http2, PATIENCE, Scratch, Setup, guest, version, version_bytes, version_file,
};

/// A host with a control socket and a state directory of its own.
struct Operated {
    scratch: Scratch,
    host: Option<Host>,
}

impl Operated {
    /// Serves version 1 as handler `app`.
    fn start() -> Self {
        Self::start_with(|setup| setup)
    }

    fn start_with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let scratch = Scratch::short();
        scratch.file("app.wasm", version_bytes(1));
        let mut operated = Self { scratch, host: None };
        operated.host = Some(change(operated.setup("app.wasm")).start());
        operated
    }

    fn setup(&self, file: &str) -> Setup {
        let setup = Setup::run(self.scratch.join(file));
        setup.flag("--control", self.control()).flag("--state", self.scratch.join("state"))
    }

    /// Ends the host and starts another one on the same files.
    fn restart(&mut self, signal: Signal) {
        let mut host = self.host.take().expect("it runs");
        host.signal(signal);
        host.ended();
        self.host = Some(self.setup("app.wasm").start());
    }

    fn host(&self) -> &Host {
        self.host.as_ref().expect("it runs")
    }

    fn control(&self) -> PathBuf {
        self.scratch.join("control")
    }

    fn version(&self, n: usize) -> PathBuf {
        version_file(&self.scratch, n)
    }

    /// Runs a command on it.
    fn operate(&self, arguments: &[&str]) -> Ended {
        let setup = arguments.iter().fold(Setup::bare(), |setup, argument| setup.arg(*argument));
        setup.flag("--control", self.control()).end()
    }

    /// The same, which must succeed and print JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.operate(&[arguments, &["--json"]].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str(&ended.stdout).expect("it is JSON")
    }

    fn swap(&self, n: usize) -> Value {
        self.json(&["swap", "app", &self.version(n).display().to_string()])
    }

    fn status(&self) -> Value {
        self.json(&["status"])["handlers"][0].clone()
    }

    fn get(&self) -> String {
        self.host().get(Http::One, "/").text().to_owned()
    }

    /// Waits until version `n` is served.
    fn until(&self, n: usize) {
        let started = Instant::now();
        while self.get() != version(n) {
            assert!(started.elapsed() < PATIENCE, "version {n} is not served, but {}", self.get());
            thread::yield_now();
        }
    }
}

/// Moves a finished file to its place, as those do who are careful.
fn replace(path: &Path, bytes: &[u8]) {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, bytes).expect("can be written");
    fs::rename(unfinished, path).expect("can be moved");
}

#[test]
fn a_handler_is_swapped_for_one_of_another_kind() {
    let operated = Operated::start();
    for name in ["wasip3_guest", "cgi", "hello"] {
        let receipt = operated.json(&["swap", "app", &guest(name).display().to_string()]);
        assert_eq!(receipt["action"], "swap", "{receipt}");
        assert_eq!(operated.get(), "Hello World!", "{name}");
    }
    operated.json(&["rollback", "app", "2"]);
    assert_eq!(operated.get(), "Hello World!");
}

#[test]
fn a_swap_prints_its_receipt() {
    let operated = Operated::start();
    assert_eq!(operated.get(), version(1));
    let file = operated.version(2).display().to_string();
    let ended = operated.operate(&["swap", "app", &file]);
    assert_eq!((ended.code, operated.get()), (Some(0), version(2)), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines[0].starts_with("app  r1 -> r2  sha256:") && lines[0].contains("  live "), "{lines:?}");
    assert!(
        lines[1].starts_with("       r1 drained in ") && lines[1].ends_with("0 cut, kept for rollback"),
        "{lines:?}"
    );

    assert_eq!(operated.operate(&["swap", "app", &file]).stdout, "app  r2 unchanged\n");
    let back = operated.operate(&["rollback", "app"]);
    assert!(back.stdout.starts_with("app  r2 -> r1  rolled back"), "{back:?}");
    assert_eq!(operated.get(), version(1));
    let ended = operated.operate(&["rollback", "app"]);
    ended.expect_complaint(1, &["handler `app` was rolled back from every revision that is kept", "r2"]);
    let status = operated.operate(&["status"]);
    assert!(status.stdout.contains("app") && status.stdout.contains("r1"), "{status:?}");
}

#[test]
fn what_cannot_be_swapped_in_fails_the_command_and_changes_nothing() {
    let operated = Operated::start();
    let file = |name: &str, bytes: &[u8]| operated.scratch.file(name, bytes).display().to_string();
    let whole = version_bytes(2);
    let core = wat::parse_str("(module)").expect("valid text");
    let traps = wat::parse_str("(module (func unreachable) (start 0))").expect("valid text");
    for (path, reason) in [
        (file("garbage.wasm", b"garbage"), "garbage.wasm` is a text file, not binary WebAssembly"),
        (file("half.wasm", &whole[..whole.len() / 2]), "half.wasm` is truncated"),
        (file("core.wasm", &core), "core.wasm` is a core module"),
        (file("traps.wasm", &traps), "traps.wasm` is a core module"),
        (operated.scratch.join("nowhere.wasm").display().to_string(), "nowhere.wasm`"),
    ] {
        let ended = operated.operate(&["swap", "app", &path]);
        ended.expect_complaint(1, &[reason]);
        assert_eq!(operated.get(), version(1), "{path}");
    }
    let other = operated.version(2).display().to_string();
    operated.operate(&["swap", "other", &other]).expect_complaint(1, &["there is no handler `other`; there is `app`"]);
    operated.operate(&["promote", "app"]).expect_complaint(1, &["handler `app` has no canary"]);
    operated.operate(&["kill", "0-0-0"]).expect_complaint(1, &["no request `0-0-0` is running"]);
    assert_eq!(operated.status()["revision"]["number"], 1);
}

#[test]
fn an_upload_that_is_cut_in_the_middle_is_forgotten() {
    let operated = Operated::start();
    let module = version_bytes(2);
    let mut socket = UnixStream::connect(operated.control()).expect("it listens");
    let head =
        format!("POST /v1/handlers/app/swap HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", module.len());
    socket.write_all(head.as_bytes()).expect("it reads");
    socket.write_all(&module[..module.len() / 2]).expect("it reads");
    drop(socket);
    // Another one does not wait for it.
    assert_eq!(operated.swap(3)["to"], 2);
    assert_eq!(operated.get(), version(3));
    let started = Instant::now();
    while fs::read_dir(operated.scratch.join("state/uploads")).expect("is there").count() > 0 {
        assert!(started.elapsed() < PATIENCE, "it is still there");
        thread::yield_now();
    }
}

#[test]
fn a_canary_is_promoted_or_aborted() {
    let operated = Operated::start();
    let file = operated.version(2).display().to_string();
    let receipt = operated.json(&["swap", "app", &file, "--canary", "50%"]);
    assert_eq!((&receipt["action"], &receipt["share"]), (&"canary".into(), &"50%".into()), "{receipt}");
    let mut client = operated.host().connect();
    let taken = (0..10).filter(|_| client.get("/").text() == version(2)).count();
    assert_eq!(taken, 5);
    operated.operate(&["swap", "app", &file, "--canary", "50%"]).expect_complaint(1, &["has a canary, r2"]);
    assert_eq!(operated.status()["canary"]["revision"]["number"], 2);
    assert_eq!(operated.json(&["abort", "app"])["freed"][0]["revision"], 2);
    operated.json(&["swap", "app", &file, "--canary", "1%"]);
    assert_eq!(operated.json(&["promote", "app"])["to"], 3);
    assert_eq!(operated.get(), version(2));
}

#[test]
fn requests_are_listed_and_killed() {
    let operated = Operated::start();
    let mut client = operated.host().connect();
    client.ask("/sleep?ms=3600000");
    let started = Instant::now();
    let request = loop {
        let requests = operated.json(&["ps"]);
        match requests.as_array().expect("a list").iter().find(|request| request["waits_for"] == "sleep") {
            Some(request) => break request.clone(),
            None => assert!(started.elapsed() < PATIENCE, "{requests}"),
        }
    };
    assert_eq!((&request["handler"], &request["path"]), (&"app".into(), &"/sleep".into()));
    let table = operated.operate(&["ps"]).stdout;
    let id = request["id"].as_str().expect("a text");
    let short = id.rsplit('-').next().expect("it has parts");
    assert!(table.contains("sleep") && table.contains(short), "{table}");
    assert_eq!(operated.operate(&["kill", short]).code, Some(0));
    let answer = client.answer();
    assert_eq!(answer.status, 503);
    assert_eq!(operated.host().access(&answer)["outcome"], "killed");
}

#[test]
fn stop_returns_when_the_host_is_gone() {
    let mut operated = Operated::start();
    assert_eq!(operated.operate(&["stop"]).code, Some(0));
    assert_eq!(operated.host.as_mut().expect("it ran").ended().code, Some(0));
    operated.operate(&["status"]).expect_complaint(1, &["control"]);
}

#[test]
fn two_hosts_do_not_share_a_control_socket() {
    let mut operated = Operated::start();
    let second = Setup::run(operated.scratch.join("app.wasm")).flag("--control", operated.control()).arg("--no-state");
    second.end().expect_complaint(1, &["in use"]);
    assert_eq!(operated.get(), version(1), "the first one is none the worse");
    // One that was killed leaves its socket behind, which the next one takes over.
    operated.restart(Signal::KILL);
    assert_eq!(operated.status()["revision"]["number"], 1);
}

#[test]
fn a_swap_outlives_a_restart_unless_told_otherwise() {
    let mut operated = Operated::start();
    let receipt = operated.swap(2);
    assert_eq!(receipt["outlives_restart"], true, "{receipt}");
    for signal in [Signal::TERM, Signal::KILL] {
        operated.restart(signal);
        assert_eq!(operated.get(), version(2), "{signal:?}");
        assert_eq!(operated.status()["differs"], "differs from app.wasm");
    }
    let file = operated.version(3).display().to_string();
    let receipt = operated.json(&["swap", "app", &file, "--until-restart"]);
    assert_eq!((operated.get(), &receipt["outlives_restart"]), (version(3), &false.into()));
    operated.restart(Signal::TERM);
    assert_eq!(operated.get(), version(1), "what is configured");
    // Back to what the configuration says: there is nothing to record any more.
    operated.swap(2);
    operated.swap(1);
    assert_eq!(operated.status()["differs"], Value::Null);
    operated.restart(Signal::TERM);
    assert_eq!(operated.get(), version(1));
}

#[test]
fn a_file_that_has_changed_since_is_newer_than_a_swap() {
    let mut operated = Operated::start();
    operated.swap(2);
    replace(&operated.scratch.join("app.wasm"), &version_bytes(3));
    operated.restart(Signal::TERM);
    assert_eq!(operated.get(), version(3));
    assert_eq!(operated.status()["differs"], Value::Null);
}

#[test]
fn a_rollback_outlives_a_restart() {
    let mut operated = Operated::start();
    operated.swap(2);
    operated.swap(3);
    assert_eq!(operated.json(&["rollback", "app"])["outlives_restart"], true);
    operated.restart(Signal::TERM);
    assert_eq!(operated.get(), version(2));
}

#[test]
fn a_rollback_does_not_need_the_disk() {
    let operated = Operated::start();
    operated.swap(2);
    let record = operated.scratch.join("state/recorded.json");
    fs::remove_file(&record).expect("it was recorded");
    fs::create_dir(&record).expect("ours"); // which nobody can write a file over
    let receipt = operated.json(&["rollback", "app", "--no-wait"]);
    assert_eq!(operated.get(), version(1), "{receipt}");
    // A swap that cannot be recorded is refused, since it says that it outlives a restart.
    let file = operated.version(3).display().to_string();
    operated.operate(&["swap", "app", &file]).expect_complaint(1, &["state directory", "--until-restart"]);
    assert_eq!(operated.get(), version(1));
}

#[test]
fn a_reload_to_the_configured_module_is_what_a_restart_serves() {
    let mut operated = Operated::start();
    let path = operated.scratch.join("app.wasm");
    operated.swap(2);
    replace(&path, &version_bytes(3));
    assert_eq!(operated.json(&["reload"])[0]["to"], 3);
    replace(&path, &version_bytes(1));
    operated.json(&["reload"]);
    assert_eq!(operated.get(), version(1));
    operated.restart(Signal::TERM);
    assert_eq!(operated.get(), version(1));
}

#[test]
fn who_waits_for_a_drain_keeps_nobody_else_from_swapping() {
    let operated = Operated::start();
    let mut streams = Vec::new();
    thread::scope(|scope| {
        let mut swaps = Vec::new();
        for n in 2..12 {
            let mut client = operated.host().connect();
            client.ask("/stream?count=1000000&ms=20");
            assert_eq!(client.head().status, 200);
            streams.push(client);
            let file = operated.version(n).display().to_string();
            let operated = &operated;
            swaps.push(scope.spawn(move || operated.operate(&["swap", "app", &file])));
            operated.until(n);
        }
        // All ten wait; their streams' clients leave.
        streams.clear();
        for swap in swaps {
            let ended = swap.join().expect("no panic");
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
    });
    assert_eq!(operated.status()["revision"]["number"], 11);
}

#[test]
fn a_swap_that_was_until_restart_can_be_made_to_outlive_it() {
    let mut operated = Operated::start();
    let file = operated.version(2).display().to_string();
    operated.json(&["swap", "app", &file, "--until-restart"]);
    let receipt = operated.swap(2);
    assert_eq!((&receipt["action"], &receipt["outlives_restart"]), (&"unchanged".into(), &true.into()), "{receipt}");
    operated.restart(Signal::TERM);
    assert_eq!(operated.get(), version(2));
}

#[test]
fn a_watched_file_is_swapped_in_however_it_is_written() {
    let operated = Operated::start_with(|setup| setup.arg("--watch"));
    let path = operated.scratch.join("app.wasm");
    replace(&path, &version_bytes(2));
    operated.until(2);
    fs::write(&path, version_bytes(3)).expect("can be written");
    operated.until(3);
    fs::remove_file(&path).expect("can be removed");
    fs::write(&path, version_bytes(4)).expect("can be written");
    operated.until(4);
    // A little at a time, with pauses in which half of it stands still.
    let bytes = version_bytes(5);
    let mut file = File::create(&path).expect("can be written");
    for part in bytes.chunks(bytes.len() / 4 + 1) {
        file.write_all(part).expect("can be written");
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            assert!([version(4), version(5)].contains(&operated.get()));
        }
    }
    drop(file);
    operated.until(5);
    let status = operated.status();
    assert_eq!(
        (&status["revision"]["number"], &status["differs"]),
        (&5.into(), &Value::Null),
        "nothing else was loaded"
    );
    assert!(status["last"]["saved_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{status}");
}

#[test]
fn a_watched_file_that_cannot_be_served_is_reported_once_and_the_last_good_one_serves() {
    let operated = Operated::start_with(|setup| setup.arg("--watch"));
    let path = operated.scratch.join("app.wasm");
    fs::write(&path, "garbage").expect("can be written");
    let line = operated.host().json("why it failed", |line| {
        line["message"].as_str().is_some_and(|message| message.contains("app.wasm` is a text file"))
    });
    assert_eq!(line["level"], "warn");
    assert_eq!(operated.get(), version(1));
    fs::write(&path, version_bytes(2)).expect("can be written");
    operated.until(2);
}

/// `astra.toml` with a handler for each module.
fn toml(handlers: &[(&str, &str)]) -> String {
    let mut text = "[server]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for (name, more) in handlers {
        text += &format!("[[handler]]\nname = \"{name}\"\n{more}\n");
    }
    text
}

#[test]
fn sighup_applies_what_has_changed_in_the_configuration() {
    let scratch = Scratch::short();
    version_file(&scratch, 1);
    version_file(&scratch, 2);
    let file = scratch.file("astra.toml", toml(&[("a", "module = 'version-1.wasm'\nroute = '/a/*'")]));
    let host = Setup::run(&file).no_listen().flag("--control", scratch.join("control")).arg("--no-state").start();
    assert_eq!(host.get(Http::One, "/a").text(), version(1));
    assert_eq!(host.get(Http::Two, "/b").status, 404);

    let both = [("a", "module = 'version-1.wasm'\nroute = '/a/*'"), ("b", "module = 'version-2.wasm'\nroute = '/b'")];
    fs::write(&file, toml(&both)).expect("can be written");
    host.signal(Signal::HUP);
    host.json("that it has reloaded", |line| {
        line["message"].as_str().is_some_and(|message| message.starts_with("reload: "))
    });
    assert_eq!(host.get(Http::Two, "/b").text(), version(2));

    fs::write(&file, toml(&both).replace("route", "rout")).expect("can be written");
    host.signal(Signal::HUP);
    let line = host.json("what is wrong", |line| {
        line["message"].as_str().is_some_and(|message| message.contains("did you mean `route`?"))
    });
    assert_eq!(line["level"], "warn");
    assert_eq!(host.get(Http::One, "/b").text(), version(2));
}

#[test]
fn routes_are_told_to_guests_and_cannot_be_forged() {
    let scratch = Scratch::short();
    let module = guest("reads_request_head").display().to_string();
    let file = scratch.file(
        "astra.toml",
        toml(&[
            ("users", &format!("module = '{module}'\nroute = '/users/:id/*'")),
            ("rest", &format!("module = '{module}'\nroute = '/*'")),
        ]),
    );
    let host = Setup::run(&file).no_listen().arg("--no-control").arg("--no-state").start();
    for version in [Http::One, Http::Two] {
        let forged = [("x-route", "/admin"), ("x-route-param-id", "1"), ("x-router", "kept")];
        let answer = host.ask(version, "GET", "/users/4%202/posts/7", &forged, None).expect("a whole answer");
        let text = answer.text();
        for line in ["x-route: /users/:id/*", "x-route-param-id: 4%202", "x-route-rest: posts/7", "x-router: kept"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("/admin"), "{text}");
        let answer = host.ask(version, "GET", "/other", &forged, None).expect("a whole answer");
        assert!(!answer.text().contains("x-route:") && !answer.text().contains("x-route-param"), "{}", answer.text());
        assert_eq!(host.access(&answer)["handler"], "rest");
    }
    let names = "x-route, x-route-rest, x-route-param-id, x-hop";
    let hidden = [("connection", names), ("x-hop", "1")];
    let answer = host.ask(Http::One, "GET", "/users/1/posts", &hidden, None).expect("a whole answer");
    let text = answer.text();
    for line in ["x-route: /users/:id/*", "x-route-param-id: 1", "x-route-rest: posts"] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(!text.contains("x-hop"), "{text}");
}

#[test]
fn secrets_are_in_no_output() {
    let scratch = Scratch::short();
    let secret = "hunter2-and-more";
    let module = guest("reads_env").display().to_string();
    let handler = format!("module = '{module}'\nenv = {{ TOKEN = \"${{env:ASTRA_TEST_TOKEN}}\" }}");
    let file = scratch.file("astra.toml", toml(&[("app", &handler)]));
    let control = scratch.join("control");
    let mut host = Setup::run(&file)
        .no_listen()
        .flag("--control", &control)
        .arg("--no-state")
        .environment("ASTRA_TEST_TOKEN", secret)
        .start();
    assert!(host.get(Http::One, "/").text().contains(secret), "the guest is given it");
    for command in [["status", "--json"], ["reload", "--json"]] {
        let setup = command.iter().fold(Setup::bare(), |setup, argument| setup.arg(*argument));
        let ended = setup.flag("--control", &control).end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "{ended:?}");
    }
    host.signal(Signal::TERM);
    let ended = host.ended();
    assert!(!ended.stderr.contains(secret), "{ended:?}");
}

#[test]
fn under_full_load_no_request_fails_and_none_is_of_two_revisions() {
    const SWAPS: usize = 40;
    let operated = Operated::start();
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let check = |text: &str| {
        let version = &text[..version(0).len()];
        assert!(text.as_bytes().chunks(version.len()).all(|part| part == version.as_bytes()), "of two revisions");
        answered.fetch_add(1, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        for path in ["/", "/big", "/stream?count=5"] {
            let (host, is_over, check) = (operated.host(), &is_over, &check);
            scope.spawn(move || {
                let mut client = host.connect();
                while !is_over.load(Ordering::Relaxed) {
                    let answer = client.get(path);
                    assert_eq!(answer.status, 200);
                    check(answer.text());
                }
            });
            scope.spawn(move || {
                let mut client = Http2::connect(host.addr());
                while !is_over.load(Ordering::Relaxed) {
                    let answer = client.get(path);
                    assert_eq!(answer.status, 200);
                    check(answer.text());
                }
            });
        }
        let _over = Over(&is_over);
        for n in 1..=SWAPS {
            let receipt = operated.swap(1 + n % 6);
            assert_eq!(receipt["drained"]["cut"], 0, "{receipt}");
        }
    });
    assert!(answered.into_inner() > SWAPS);
    let status = operated.status();
    assert_eq!((&status["failures"], &status["revision"]["number"]), (&0.into(), &(SWAPS + 1).into()), "{status}");
}

/// Ends the load, also when a swap fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn after_two_hundred_swaps_memory_is_what_it_was() {
    let scratch = Scratch::short();
    for n in 1..=4 {
        version_file(&scratch, n);
    }
    let file = scratch.file("astra.toml", toml(&[("app", "module = 'version-1.wasm'\nkeep = 0")]));
    let host = Setup::run(&file).no_listen().flag("--control", scratch.join("control")).arg("--no-state").start();
    let operated = Operated { scratch, host: Some(host) };
    let swaps = |count: usize| {
        for n in 0..count {
            let receipt = operated.swap(2 + n % 3);
            assert_eq!(receipt["freed"][0]["revision"], receipt["from"], "no reference is left: {receipt}");
            operated.get();
        }
    };
    // What is allocated once is allocated.
    swaps(20);
    let before = operated.host().memory("VmRSS");
    swaps(200);
    let after = operated.host().memory("VmRSS");
    assert!(after < before + before / 10, "{before} bytes before, {after} after");
}

#[test]
fn a_host_that_is_killed_in_the_middle_of_a_swap_leaves_whole_files() {
    let mut operated = Operated::start();
    let configured = fs::read(operated.scratch.join("app.wasm")).expect("is there");
    for n in 2..12 {
        let file = operated.version(n).display().to_string();
        let before = operated.get();
        thread::scope(|scope| {
            let swapping = scope.spawn(|| operated.operate(&["swap", "app", &file, "--no-wait"]));
            // At another moment each time: when its module has come, or is kept, or recorded, or is live.
            let started = Instant::now();
            let has_come = |dir: &str| fs::read_dir(operated.scratch.join(dir)).expect("is there").count() > 0;
            let is_there = |n: usize| match n % 4 {
                0 => has_come("state/uploads"),
                1 => has_come("state/modules"),
                2 => operated.scratch.join("state/recorded.json").exists(),
                _ => operated.get() != before,
            };
            while !is_there(n) && !swapping.is_finished() && started.elapsed() < PATIENCE {
                thread::yield_now();
            }
            operated.host().signal(Signal::KILL);
            let _ = swapping.join();
        });
        operated.restart(Signal::KILL);
        let served = operated.get();
        assert!([before, version(n)].contains(&served), "{served}");
        assert_eq!(fs::read(operated.scratch.join("app.wasm")).expect("is there"), configured);
    }
}

#[test]
fn events_are_followed() {
    let operated = Operated::start();
    let mut client = UnixStream::connect(operated.control()).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    client.write_all(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\nlast-event-id: 0\r\n\r\n").expect("it reads");
    operated.swap(2);
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !(text.contains("event: swap") && text.contains("event: drained")) {
        let read = std::io::Read::read(&mut client, &mut buffer).expect("there is more");
        assert!(read > 0, "{text}");
        text += &String::from_utf8_lossy(&buffer[..read]);
    }
    assert!(text.contains("text/event-stream") && text.contains("id: 1"), "{text}");
}

#[test]
fn the_control_socket_is_for_its_owner_and_not_for_web_pages() {
    use std::os::unix::fs::PermissionsExt as _;
    let operated = Operated::start();
    let mode = fs::metadata(operated.control()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Client::connect_unix(&operated.control());
    client.send("GET /v1/status HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.example\r\n\r\n");
    assert_eq!(client.answer().status, 403);
}

#[test]
fn over_tcp_operators_need_the_token() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::short();
    version_file(&scratch, 1);
    let text = toml(&[("app", "module = 'version-1.wasm'")]);
    let tcp = "[server]\ncontrol_tcp = '127.0.0.1:0'\ncontrol_token_file = 'token'\n";
    let file = scratch.file("astra.toml", text.replacen("[server]\n", tcp, 1));
    let setup = || Setup::run(&file).no_listen().flag("--control", scratch.join("control")).arg("--no-state");
    let token = |content: &str, mode: u32| {
        let path = scratch.file("token", content);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    };
    setup().end().expect_complaint(1, &["token"]);
    token("short", 0o600);
    setup().end().expect_complaint(1, &["token", "characters"]);
    token("0123456789abcdef0123456789abcdef", 0o644);
    setup().end().expect_complaint(1, &["token", "chmod 600"]);

    token("0123456789abcdef0123456789abcdef\n", 0o600);
    let host = setup().start();
    let line = host.stdout_with("control on http://");
    let addr = line.trim_start_matches("control on http://").parse().expect("an address");
    let ask = |authorization: &str| {
        let mut client = Client::connect(addr);
        client.send(format!("GET /v1/status HTTP/1.1\r\nhost: localhost\r\n{authorization}\r\n"));
        client.answer()
    };
    assert_eq!(ask("").status, 401);
    assert_eq!(ask("authorization: Bearer 0123456789abcdef0123456789abcdee\r\n").status, 401);
    let answer = ask("authorization: Bearer 0123456789abcdef0123456789abcdef\r\n");
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("\"name\":\"app\""), "{}", answer.text());
}

#[test]
fn what_machine_code_imports_is_known_too() {
    let scratch = Scratch::short();
    let setup = Setup::run(guest("hello")).flag("--control", scratch.join("control")).arg("--trust-precompiled");
    let host = setup.flag("--state", scratch.join("state")).start();
    let module = guest("opens_dir").display().to_string();
    let compiled = scratch.join("compiled.cwasm").display().to_string();
    assert_eq!(Setup::bare().arg("compile").arg(&module).flag("-o", &compiled).end().code, Some(0));
    let swap = |module: &str, how: &str| {
        Setup::bare().arg("swap").arg("hello").arg(module).arg(how).flag("--control", scratch.join("control")).end()
    };
    let refused = swap(&compiled, "--no-new-imports");
    refused.expect_complaint(1, &["the module imports what r1 does not: ", "wasi:filesystem/"]);
    assert_eq!(host.get(Http::One, "/").text(), "Hello World!");
    let receipt = swap(&compiled, "--json");
    assert!(receipt.stdout.contains("wasi:filesystem/types@"), "{receipt:?}");
    let same = swap(&module, "--no-new-imports");
    assert_eq!(same.code, Some(0), "{same:?}");
}
