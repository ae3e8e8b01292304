//! A host that is replaced by a new process of itself: nobody notices, or it serves on and says why.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt as _,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::harness::{
    Answer, Client, Ended, HeldBuild, Host, Http, PATIENCE, Scratch, Setup, guest, root, version, version_bytes,
    version_file,
};

/// A host that can be replaced. Whatever processes have taken its place are ended with the test.
struct Replaced {
    scratch: Scratch,
    first: Host,
    later: Vec<Pid>,
}

impl Replaced {
    /// Serves version 1 as handler `app`.
    fn start() -> Self {
        Self::start_with(|setup| setup)
    }

    fn start_with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let scratch = Scratch::short();
        let module = scratch.file("app.wasm", version_bytes(1));
        let setup = Setup::run(module).flag("--control", scratch.join("control"));
        let first = change(setup.flag("--state", scratch.join("state"))).start();
        Self { scratch, first, later: Vec::new() }
    }

    fn operate(&self, arguments: &[&str]) -> Ended {
        let setup = arguments.iter().fold(Setup::bare(), |setup, argument| setup.arg(*argument));
        setup.flag("--control", self.scratch.join("control")).end()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.operate(&[arguments, &["--json"]].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str(&ended.stdout).expect("it is JSON")
    }

    /// Serves version 1 as handler `app`, and `more` of a configuration file.
    fn start_file(more: &str) -> (Self, HeldBuild) {
        let scratch = Scratch::short();
        scratch.file("app.wasm", version_bytes(1));
        let build = HeldBuild::new(&scratch);
        let setup = Setup::run(scratch.file("astra.toml", toml(more))).no_listen();
        let setup = setup.flag("--control", scratch.join("control")).flag("--state", scratch.join("state"));
        let first = build.holds(setup).start();
        (Self { scratch, first, later: Vec::new() }, build)
    }

    fn configure(&self, more: &str) {
        self.scratch.file("astra.toml", toml(more));
    }

    /// What a restart will serve.
    fn recorded(&self) -> String {
        fs::read_to_string(self.scratch.join("state/recorded.json")).unwrap_or_default()
    }

    /// Waits until this is recorded: a new host does so once the one before it has let go.
    fn until_recorded(&self, expected: &str) {
        let started = Instant::now();
        while self.recorded() != expected {
            assert!(started.elapsed() < PATIENCE, "{} is recorded", self.recorded());
            thread::yield_now();
        }
    }

    /// Waits until so many modules are on their way in.
    fn until_uploads(&self, count: usize) {
        let started = Instant::now();
        while fs::read_dir(self.scratch.join("state/uploads")).expect("is there").count() < count {
            assert!(started.elapsed() < PATIENCE, "nothing arrives");
            thread::yield_now();
        }
    }

    /// Returns the new process.
    fn upgrade(&mut self) -> u64 {
        let upgraded = self.json(&["upgrade"]);
        self.has_upgraded(&upgraded)
    }

    fn has_upgraded(&mut self, upgraded: &Value) -> u64 {
        let pid = upgraded["pid"].as_u64().expect("a number");
        self.later.push(Pid::from_raw(i32::try_from(pid).expect("is one")).expect("is not 0"));
        pid
    }

    fn script(&self, text: &str) -> PathBuf {
        let path = self.scratch.file("new-host", format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        path
    }

    fn get(&self) -> String {
        self.first.get(Http::One, "/").text().to_owned()
    }

    /// Ends the host that serves now, and waits until it is gone with all that it had.
    fn stop(&self) {
        assert_eq!(self.operate(&["stop"]).code, Some(0));
        let left: Vec<_> =
            fs::read_dir(self.scratch.path()).expect("is there").map(|entry| entry.expect("is").file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("control")), "{left:?}");
    }
}

fn toml(more: &str) -> String {
    format!(
        "[server]\nlisten = '127.0.0.1:0'\n[[handler]]\nname = 'app'\nmodule = 'app.wasm'\nroute = '/*'\ndrain = '1h'\n{more}"
    )
}

/// One more handler.
fn handler(name: &str, module: &Path) -> String {
    format!("[[handler]]\nname = '{name}'\nmodule = '{}'\nroute = '/{name}'\n", module.display())
}

/// A module half of which has arrived at the host that serves when this is made.
struct Upload {
    client: Client<UnixStream>,
    rest: Vec<u8>,
}

impl Upload {
    fn begin(to: &Replaced, n: usize) -> Self {
        let mut half = version_bytes(n);
        let rest = half.split_off(half.len() / 2);
        let mut client = Client::connect_unix(&to.scratch.join("control"));
        let length = half.len() + rest.len();
        client.send(format!(
            "POST /v1/handlers/app/swap?no_wait=true HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n"
        ));
        client.send(half);
        to.until_uploads(1);
        Self { client, rest }
    }

    fn end(mut self) -> Answer {
        self.client.send(self.rest);
        self.client.answer()
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        for pid in &self.later {
            let _ = kill_process(*pid, Signal::KILL);
        }
    }
}

#[test]
fn under_load_a_host_is_replaced_again_and_again_and_no_request_fails() {
    let mut replaced = Replaced::start();
    let addr = replaced.first.addr();
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let pids = thread::scope(|scope| {
        for is_kept_alive in [true, true, false] {
            let (is_over, answered) = (&is_over, &answered);
            scope.spawn(move || {
                let mut client = Client::connect(addr);
                while !is_over.load(Ordering::Relaxed) {
                    let answer = client.get("/");
                    assert_eq!((answer.status, answer.text()), (200, &*version(1)));
                    answered.fetch_add(1, Ordering::Relaxed);
                    if !is_kept_alive || answer.header("connection") == Some("close") {
                        client = Client::connect(addr);
                    }
                }
            });
        }
        let _over = Over(&is_over);
        let mut pids = vec![u64::from(replaced.first.pid())];
        for _ in 0..3 {
            pids.push(replaced.upgrade());
            let before = answered.load(Ordering::Relaxed);
            while answered.load(Ordering::Relaxed) < before + 50 {
                thread::yield_now();
            }
        }
        pids
    });
    assert_eq!(replaced.first.exit_code(), Some(0));
    assert_eq!(replaced.json(&["status"])["pid"], *pids.last().expect("there are four"));
    pids.iter().enumerate().for_each(|(at, pid)| assert!(!pids[..at].contains(pid), "{pids:?}"));
    replaced.stop();
}

/// Ends the load, also when something fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_was_swapped_in_is_what_the_new_host_serves_and_it_can_swap_as_well() {
    let mut replaced = Replaced::start();
    let swap = |replaced: &Replaced, n| {
        let file = version_file(&replaced.scratch, n).display().to_string();
        assert_eq!(replaced.json(&["swap", "app", &file])["outlives_restart"], true);
    };
    swap(&replaced, 2);
    replaced.upgrade();
    assert_eq!(replaced.get(), version(2));
    swap(&replaced, 3);
    replaced.upgrade();
    assert_eq!(replaced.get(), version(3));
    replaced.stop();
}

#[test]
fn a_new_host_that_does_not_get_ready_leaves_the_old_one_serving_and_says_why() {
    let mut replaced = Replaced::start();
    let exits = replaced.script("exit 3").display().to_string();
    replaced.operate(&["upgrade", "--exe", &exits]).expect_complaint(1, &["serves on", "exit status: 3"]);
    let hangs = replaced.script("echo begun $$; exec sleep 1000").display().to_string();
    let late = replaced.operate(&["upgrade", "--exe", &hangs, "--within", "1s"]);
    late.expect_complaint(1, &["serves on", "not ready within 1s"]);
    assert!(test_kill_process(begun(&replaced.first)).is_err(), "nothing is left of it");
    replaced.operate(&["upgrade", "--exe", "/nowhere"]).expect_complaint(1, &["`/nowhere` cannot be started"]);
    fs::write(replaced.scratch.join("app.wasm"), "no module").expect("ours");
    replaced.operate(&["upgrade"]).expect_complaint(1, &["serves on", "app.wasm"]);
    assert_eq!(replaced.get(), version(1));
    assert_eq!(replaced.json(&["status"])["pid"], replaced.first.pid());

    let two = version_file(&replaced.scratch, 2).display().to_string();
    replaced.json(&["swap", "app", &two]);
    assert_eq!(replaced.get(), version(2));
    fs::write(replaced.scratch.join("app.wasm"), version_bytes(3)).expect("ours");
    replaced.upgrade();
    assert_eq!(replaced.get(), version(3));
    replaced.stop();
}

/// The process that says that it has begun.
fn begun(host: &Host) -> Pid {
    let line = host.stdout_with("begun ");
    Pid::from_raw(line["begun ".len()..].parse().expect("a number")).expect("is not 0")
}

#[test]
fn a_new_host_that_fails_leaves_what_the_old_one_has_and_is_doing() {
    let (mut replaced, _) = Replaced::start_file("");
    let two = version_file(&replaced.scratch, 2).display().to_string();
    replaced.json(&["swap", "app", &two]);
    let (upload, recorded) = (Upload::begin(&replaced, 4), replaced.recorded());
    // What it would serve is newer than what was swapped in, which it forgets.
    replaced.scratch.file("app.wasm", version_bytes(3));
    replaced.configure(&handler("other", &replaced.scratch.file("other.wasm", "no module")));
    replaced.operate(&["upgrade"]).expect_complaint(1, &["serves on", "other.wasm"]);
    assert_eq!(replaced.recorded(), recorded);
    let answer = upload.end();
    assert_eq!((answer.status, replaced.get()), (200, version(4)), "{}", answer.text());

    replaced.scratch.file("other.wasm", version_bytes(5));
    replaced.upgrade();
    assert_eq!(replaced.get(), version(3));
    replaced.until_recorded("{}");
    replaced.stop();
}

#[test]
fn an_old_host_removes_nothing_that_the_new_one_has_recorded() {
    let mut replaced = Replaced::start();
    let mut client = replaced.first.connect();
    client.ask("/stream?count=1000000&ms=20");
    assert_eq!(client.head().status, 200);
    let upload = Upload::begin(&replaced, 3);
    replaced.upgrade();
    let two = version_file(&replaced.scratch, 2).display().to_string();
    assert_eq!(replaced.json(&["swap", "app", &two])["outlives_restart"], true);
    let answer = upload.end();
    assert_eq!(answer.status, 503, "{}", answer.text());
    drop(client);
    assert_eq!(replaced.first.exit_code(), Some(0));
    replaced.stop();

    let setup = Setup::run(replaced.scratch.join("app.wasm")).flag("--control", replaced.scratch.join("control"));
    let again = setup.flag("--state", replaced.scratch.join("state")).start();
    assert_eq!(again.get(Http::One, "/").text(), version(2));
}

#[test]
fn a_swap_to_what_is_live_already_is_refused_by_a_host_that_has_been_replaced_meanwhile() {
    let (mut replaced, build) = Replaced::start_file("");
    let two = version_file(&replaced.scratch, 2).display().to_string();
    replaced.json(&["swap", "app", &two, "--until-restart"]);
    replaced.configure(&handler("built", &root().join("examples/hello")));
    let (upgraded, swapped) = thread::scope(|scope| {
        let upgrade = scope.spawn(|| replaced.json(&["upgrade"]));
        build.begun(&replaced.first);
        // It waits for what becomes of the upgrade.
        let swap = scope.spawn(|| replaced.operate(&["swap", "app", &two]));
        replaced.until_uploads(1);
        build.release();
        (upgrade.join().expect("does not panic"), swap.join().expect("does not panic"))
    });
    replaced.has_upgraded(&upgraded);
    swapped.expect_complaint(1, &["the host was replaced meanwhile by process", "try again"]);
    assert_eq!((replaced.get(), replaced.recorded()), (version(1), String::new()));
    replaced.stop();
}

#[test]
fn while_a_new_host_gets_ready_drains_end_and_what_fails_is_taken_back_when_it_has_failed() {
    let guard = "guard = { window = '1h', min_requests = 1 }\n";
    let (replaced, build) = Replaced::start_file(guard);
    let mut running = replaced.first.connect();
    running.ask("/stream?count=1000000&ms=5");
    assert_eq!(running.head().status, 200);
    let two = version_file(&replaced.scratch, 2).display().to_string();
    replaced.json(&["swap", "app", &two, "--no-wait"]);
    replaced.configure(&(guard.to_owned() + &handler("broken", &build.broken)));
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| replaced.operate(&["upgrade", "--force"]));
        build.begun(&replaced.first);
        assert_eq!(replaced.first.get(Http::One, "/trap").status, 500);
        drop(running);
        replaced.first.stderr_with("drained: r1 drained in");
        assert_eq!(replaced.get(), version(2), "nothing is swapped meanwhile");
        build.release();
        upgrade.join().expect("does not panic").expect_complaint(1, &["serves on", "broken"]);
    });
    replaced.first.stderr_with("rolled back, r1 serves");
    assert_eq!(replaced.get(), version(1));
    replaced.stop();
}

#[test]
fn what_is_on_trial_is_not_set_free_by_an_upgrade() {
    let (mut replaced, _) = Replaced::start_file("guard = { window = '1h', min_requests = 1000 }\n");
    let two = version_file(&replaced.scratch, 2).display().to_string();
    let refused = |replaced: &Replaced, what: &str| {
        replaced.operate(&["upgrade"]).expect_complaint(1, &["serves on", "handler `app`", what, "--force"]);
        // Nor by a process that was not asked for.
        let asks = Setup::run(replaced.scratch.join("astra.toml")).no_listen();
        let asks = asks.flag("--take-over", replaced.scratch.join("control")).end();
        asks.expect_complaint(1, &["serves on", "handler `app`", what]);
    };
    replaced.json(&["swap", "app", &two, "--canary", "1%"]);
    refused(&replaced, "has a canary, r2");
    replaced.json(&["promote", "app"]);
    refused(&replaced, "has a guard that watches r2 for another 3");
    assert_eq!(replaced.get(), version(2));

    let upgraded = replaced.json(&["upgrade", "--force"]);
    replaced.has_upgraded(&upgraded);
    assert_eq!(replaced.get(), version(2), "it is recorded");
    replaced.stop();
}

#[test]
fn a_new_host_that_is_given_up_is_asked_to_end_before_it_is_killed() {
    let (mut replaced, build) = Replaced::start_file("");
    replaced.configure(&handler("broken", &build.broken));
    let building = thread::scope(|scope| {
        let upgrade = scope.spawn(|| replaced.operate(&["upgrade"]));
        let building = build.begun(&replaced.first);
        replaced.first.signal(Signal::TERM);
        upgrade.join().expect("does not panic").expect_complaint(1, &[]);
        building
    });
    let ended = replaced.first.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("stopped: the build of `"), "{ended:?}");
    assert!(test_kill_process(building).is_err(), "nothing is left of what it began");
}

#[test]
fn of_two_upgrades_at_once_one_is_made_and_the_other_refused() {
    let mut replaced = Replaced::start();
    let hangs = replaced.script("echo begun $$; exec sleep 1000").display().to_string();
    thread::scope(|scope| {
        let first = scope.spawn(|| replaced.operate(&["upgrade", "--exe", &hangs]));
        let pid = begun(&replaced.first);
        let under_way = format!("an upgrade is under way (process {})", pid.as_raw_pid());
        replaced.operate(&["upgrade"]).expect_complaint(1, &[&under_way]);
        #[cfg(target_os = "linux")]
        {
            let module = replaced.scratch.join("app.wasm");
            let stranger = Setup::run(module).flag("--take-over", replaced.scratch.join("control")).end();
            stranger.expect_complaint(1, &[&under_way, "is not it"]);
        }
        assert_eq!(replaced.get(), version(1));
        kill_process(pid, Signal::KILL).expect("it hangs");
        first.join().expect("does not panic").expect_complaint(1, &["serves on", "signal: 9"]);
    });
    let pid = replaced.upgrade();
    assert_eq!(replaced.json(&["status"])["pid"], pid);
    replaced.stop();
}

#[test]
fn an_upgrade_takes_what_a_reload_cannot_but_never_another_place() {
    let scratch = Scratch::short();
    let module = guest("hello");
    let text = |server: &str| {
        format!("[server]\nstate = false\n{server}\n[[handler]]\nname = 'app'\nmodule = '{}'\n", module.display())
    };
    let signed = rcgen::generate_simple_self_signed(["test".to_owned()]).expect("a name");
    scratch.file("cert.pem", signed.cert.pem());
    let key = scratch.file("key.pem", signed.signing_key.serialize_pem());
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("ours");
    let before = "control = 'control'\nlisten = '127.0.0.1:0'";
    let file = scratch.file("astra.toml", text(before));
    let first = Setup::run(&file).no_listen().start();
    let mut replaced = Replaced { scratch, first, later: Vec::new() };
    let change = |server: &str| fs::write(&file, text(server)).expect("ours");
    let tls = "tls = { cert = 'cert.pem', key = 'key.pem' }";
    for (server, key, difference) in [
        (
            format!("control = 'control'\nlisten = 'https://127.0.0.1:0'\n{tls}"),
            "`server.listen`",
            "`listen` was `127.0.0.1:0` and is `https://127.0.0.1:0` now",
        ),
        ("control = 'control'\nlisten = '127.0.0.1:1'".to_owned(), "`server.listen`", "is `127.0.0.1:1` now"),
        ("control = 'elsewhere'\nlisten = '127.0.0.1:0'".to_owned(), "`server.control`", "elsewhere` now"),
    ] {
        change(&server);
        replaced.operate(&["reload"]).expect_complaint(1, &["astra.toml: a restart is needed to change ", key]);
        replaced.operate(&["upgrade"]).expect_complaint(1, &["serves on", difference, "stop it and start it again"]);
        assert_eq!(replaced.get(), "Hello World!");
    }
    change("nonsense");
    replaced.operate(&["upgrade"]).expect_complaint(1, &["serves on", "astra.toml:3:"]);

    change(&format!("{before}\nmax_workers = 7"));
    let reload = replaced.operate(&["reload"]);
    reload.expect_complaint(1, &["an upgrade (`astra-host upgrade`", "is needed to change `server.max_workers`"]);
    replaced.upgrade();
    assert_eq!(replaced.get(), "Hello World!");
    assert_eq!(replaced.operate(&["reload"]).code, Some(0));
    replaced.stop();
}

#[test]
fn what_runs_finishes_on_the_old_host() {
    let mut replaced = Replaced::start();
    let mut client = replaced.first.connect();
    client.ask("/stream?count=40&ms=25");
    assert_eq!(client.head().status, 200);
    client.chunk().expect("a part").expect("not the end");
    replaced.upgrade();
    while client.chunk().expect("a whole body").is_some() {}
    assert_eq!(replaced.get(), version(1));
    drop(client);
    assert_eq!(replaced.first.exit_code(), Some(0));
    replaced.stop();
}

#[test]
fn a_host_that_is_stopped_while_a_new_one_starts_ends() {
    let mut replaced = Replaced::start();
    let hangs = replaced.script("echo begun; exec sleep 1000").display().to_string();
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| replaced.operate(&["upgrade", "--exe", &hangs]));
        replaced.first.stdout_with("begun");
        replaced.first.signal(Signal::TERM);
        upgrade.join().expect("does not panic").expect_complaint(1, &[]);
    });
    assert_eq!(replaced.first.ended().code, Some(0));
}

#[test]
fn systemd_is_told_which_process_is_the_main_one() {
    let scratch = Scratch::short();
    let socket = UnixDatagram::bind(scratch.join("notify")).expect("binds");
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let mut replaced = Replaced::start_with(|setup| setup.environment("NOTIFY_SOCKET", scratch.join("notify")));
    let told = || {
        let mut text = [0; 4096];
        let length = socket.recv(&mut text).expect("somebody says something");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    assert_eq!(told(), format!("READY=1\nMAINPID={}", replaced.first.pid()));
    let pid = replaced.upgrade();
    let mut both = [told(), told()];
    both.sort();
    assert_eq!(both, [format!("MAINPID={pid}"), format!("READY=1\nMAINPID={pid}")]);
    assert_eq!(replaced.first.exit_code(), Some(0));
    replaced.stop();
    assert_eq!(told(), "STOPPING=1");
}

#[test]
fn operators_on_tcp_and_clients_of_a_unix_socket_are_handed_on_too() {
    let scratch = Scratch::short();
    let token = scratch.file("token", "0123456789abcdef");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("ours");
    let module = guest("hello");
    let text = "[server]\ncontrol_tcp = '127.0.0.1:0'\ncontrol_token_file = 'token'\nstate = false\n[[handler]]\nname = 'hello'\n";
    let file = scratch.file("astra.toml", format!("{text}module = '{}'\n", module.display()));
    let path = scratch.join("http");
    let listener = UnixListener::bind(&path).expect("binds");
    let passed = r#"exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@""#;
    let setup = Setup::run(file).no_listen().flag("--control", scratch.join("control")).through_shell(passed);
    let mut replaced = Replaced { scratch, first: setup.stdin(OwnedFd::from(listener)).begin(), later: Vec::new() };
    let line = replaced.first.stdout_with("control on http://");
    let operators = line.trim_start_matches("control on http://").parse().expect("an address");
    replaced.first.stdout_with("listening on unix:");
    replaced.upgrade();
    assert_eq!(replaced.first.exit_code(), Some(0));
    assert_eq!(Client::connect(operators).get("/readyz").status, 200);
    assert_eq!(Client::connect_unix(&path).get("/").text(), "Hello World!");
    replaced.stop();
}

#[test]
fn a_unix_socket_is_handed_on_with_its_file_which_goes_with_the_last_host() {
    let scratch = Scratch::short();
    let path = scratch.join("app.sock");
    let mut replaced = Replaced::start_with(|setup| setup.flag("--listen", format!("unix:{}", path.display())));
    let exits = replaced.script("exit 3").display().to_string();
    replaced.operate(&["upgrade", "--exe", &exits]).expect_complaint(1, &["serves on"]);
    let mut kept = Client::connect_unix(&path);
    assert_eq!(kept.get("/").text(), version(1));
    replaced.upgrade();
    // The old one may answer a few more before it knows that it ends.
    while kept.get("/").header("connection") != Some("close") {}
    drop(kept);
    assert_eq!(replaced.first.exit_code(), Some(0));
    assert_eq!(Client::connect_unix(&path).get("/").text(), version(1));
    replaced.upgrade();
    assert_eq!(Client::connect_unix(&path).get("/").text(), version(1));
    replaced.stop();
    assert!(!path.exists());
}

#[test]
fn there_must_be_a_host_to_take_the_place_of() {
    let scratch = Scratch::short();
    let run = Setup::run(guest("hello")).flag("--take-over", scratch.join("nobody")).end();
    run.expect_complaint(1, &["cannot take over", "there is no control socket"]);
    let without = Setup::bare().arg("upgrade").flag("--control", scratch.join("nobody")).end();
    without.expect_complaint(1, &["there is no control socket"]);
}
