//! Guests that do their worst: each is cut, by whatever it is that bounds it, and the host is after it what it was before.
//!
//! What a guest can do is one guest here, `does_its_worst`. Other files have more of it:
//!
//! - time: `limits.rs` (loops, sleeps and streams, at each limit; who goes on after the answer), `wasip3.rs` (the same for WASI 0.3),
//!   `core_modules.rs` and `wasip3_cgi.rs` (programs), `swaps.rs` (cut by a drain), `operating.rs` (killed);
//! - waiting: `limits.rs` (bodies that never come, clients that never read), `network.rs` and `outgoing.rs` (black holes, servers
//!   that stall), `bodies.rs` and `wasip3_bodies.rs` (clients that leave);
//! - what is bounded by number: `limits.rs` (memory, handles, random bytes, responses that are hoarded), `outgoing.rs` (requests), and
//!   `failures.rs` (the stack);
//! - descriptors: `core_modules.rs` and `wasip3_grants.rs` (how many there are for programs, and for WASI 0.3);
//! - the log: `logs.rs` (floods, a log that nobody reads, lines that are forged for machines, people and terminals);
//! - what is left in memory for the next: `isolation.rs`.

use std::{net::SocketAddr, path::Path};

use crate::harness::{BOTH, FEW_DESCRIPTORS, Host, Http, Scratch, Setup, all_waiting, guest, hostility, origin};

/// One that may do a little of everything.
fn hostile() -> Setup {
    Host::with("does_its_worst").flag("--tcp", "127.0.0.1:*").flag("--outbound-private", "http://127.0.0.1:*")
}

/// Asserts that a good request is served, and that nothing is left of others.
fn expect_well(host: &Host, control: &Path) {
    for version in BOTH {
        // On a machine that is busy with others even these may be cut at the deadline, but not each time.
        let mut answers = std::iter::repeat_with(|| host.get(version, "/")).take(20);
        assert_eq!(answers.find(|answer| answer.status != 504).expect("it is quick").text(), "well\n");
    }
    all_waiting(control, "", 0);
}

/// Starts the guest with `flag`, and asserts how each of these ends.
fn expect_all<'a>(flag: (&str, &str), paths: impl IntoIterator<Item = &'a str>, status: u16, outcome: &str) {
    let scratch = Scratch::short();
    let control = scratch.join("control");
    let host = hostile().flag(flag.0, flag.1).flag("--control", &control).start();
    for path in paths {
        host.expect(path, status, outcome);
        expect_well(&host, &control);
    }
}

#[test]
fn what_computes_is_cut_by_the_clock_of_its_thread() {
    expect_all(("--cpu", "100ms"), hostility::COMPUTING, 503, "cpu");
}

#[test]
fn what_computes_is_cut_at_its_deadline() {
    expect_all(("--deadline", "300ms"), hostility::COMPUTING, 504, "deadline");
}

#[test]
fn what_waits_is_cut_at_its_deadline() {
    let silent = origin::silent();
    let full = origin::Full::new();
    let elsewhere = [format!("/asks?http://{silent}/"), format!("/connects?{}", full.address)];
    let paths = hostility::WAITING.into_iter().chain(elsewhere.iter().map(String::as_str));
    expect_all(("--deadline", "300ms"), paths, 504, "deadline");
}

#[test]
fn what_is_bounded_by_number_ends_there() {
    expect_all(("--deadline", "20s"), hostility::REFUSED, 500, "trap");
}

#[test]
fn trailers_are_headers_too() {
    hostile().start().expect_cut("/trailers", "first", "trap");
}

#[test]
fn a_flood_of_lines_that_is_cut_is_counted() {
    let host = hostile().flag("--deadline", "1s").start();
    let answer = host.get(Http::One, "/prints");
    assert_eq!(answer.status, 504);
    let id = answer.header("x-request-id").expect("every answer has an id");
    let told = host.stderr_with("lines dropped after the 1 MiB that a request may print: ");
    assert!(told.contains(id), "{told}");
}

#[test]
fn what_a_guest_blames_is_cut_before_it_is_logged() {
    let host = hostile().start();
    for version in BOTH {
        let answer = host.get(version, "/blames");
        assert_eq!((answer.status, &host.access(&answer)["outcome"]), (500, &"guest_error".into()));
        let message = host_message(&host, answer.header("x-request-id").expect("every answer has an id"));
        assert!(
            message.contains(r#"guest_error: the guest answered with InternalError(Some("\u{1}\u{1}"#),
            "{message}"
        );
        assert!(message.len() < 2048 && message.ends_with('…'), "{} bytes", message.len());
    }
}

#[test]
fn names_of_functions_are_cut_before_they_are_logged() {
    let name = |n: usize| format!("${n}-{}", "f".repeat(99_000));
    let calls: String = (0..8).map(|n| format!("(func {} (call {}))", name(n), name(n + 1))).collect();
    let text = format!(
        r#"(module (memory (export "memory") 1) {calls} (func {} unreachable)
        (func (export "_start") (call {})))"#,
        name(8),
        name(0)
    );
    let scratch = Scratch::new();
    let host = Setup::run(scratch.file("names.wasm", wat::parse_str(text).expect("valid text"))).start();
    for version in BOTH {
        let answer = host.get(version, "/");
        assert_eq!((answer.status, &host.access(&answer)["outcome"]), (500, &"trap".into()));
        let message = host_message(&host, answer.header("x-request-id").expect("every answer has an id"));
        assert!(
            message.contains("`unreachable` instruction executed in `8-ff") && message.contains("…` < `7-ff"),
            "{message}"
        );
        assert!(message.len() < 2048, "{} bytes", message.len());
    }
}

/// What the host says about the request with this id.
fn host_message(host: &Host, id: &str) -> String {
    let about = |line: &serde_json::Value| line["message"].as_str().is_some_and(|message| message.contains(id));
    let line = host.json(id, |line| line["kind"] == "host" && about(line));
    line["message"].as_str().expect("a text").to_owned()
}

#[test]
fn who_takes_all_descriptors_takes_them_from_its_own_handler_only() {
    let scratch = Scratch::short();
    scratch.file("data/one.txt", "content");
    let (control, data) = (scratch.join("control"), scratch.join("data"));
    let handler = |name: &str, route: &str| {
        format!(
            "[[handler]]\nname = {name:?}\nmodule = {:?}\nroute = {route:?}\ndirs = {{ \"/data\" = {data:?} }}\n\
             network = {{ tcp = [\"127.0.0.1:1\"] }}\n",
            guest(name)
        )
    };
    let handlers = handler("does_its_worst", "/*") + &handler("opens_dir", "/data/*");
    let config = scratch.file("astra.toml", format!("[server]\nlisten = \"127.0.0.1:0\"\n{handlers}"));
    let host = Setup::run(config).flag("--control", &control).through_shell(FEW_DESCRIPTORS).start();
    for (first, told) in
        [("/opens?/data/one.txt", "48, then OutOfMemory\n"), ("/sockets", "48, then \"new-socket-limit\"\n")]
    {
        let mut greedy = host.connect();
        greedy.ask(first);
        assert_eq!(greedy.head().status, 200);
        assert_eq!(greedy.chunk().expect("it goes on").as_deref(), Some(told.as_bytes()));
        for path in ["/opens?/data/one.txt", "/sockets"] {
            let mut late = host.connect();
            late.ask(path);
            assert_eq!(late.head().status, 200);
            assert!(late.chunk().expect("it goes on").is_some_and(|told| told.starts_with(b"0, then ")), "{path}");
            late.reset();
        }
        host.denial("one more file or socket");
        for version in BOTH {
            assert_eq!(host.get(version, "/data/one.txt").text(), "content");
        }
        greedy.reset();
        expect_well(&host, &control);
        let answer = host.get(Http::One, "/reopens?/data/one.txt");
        assert_eq!(answer.text(), "that was all\n");
        // Its guest has ended, which may be after its answer.
        host.access(&answer);
    }
}

#[test]
fn tables_grow_no_further_than_they_may() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (table $one 1 funcref)
        (table $two 1 funcref)
        (func (export "_start")
            (loop $more
                (drop (table.grow $one (ref.null func) (i32.const 1000)))
                (drop (table.grow $two (ref.null func) (i32.const 1000)))
                (if (i32.gt_u (i32.add (table.size $one) (table.size $two)) (i32.const 1000000)) (then (call $exit (i32.const 9))))
                (br $more))))"#;
    let scratch = Scratch::new();
    let module = scratch.file("tables.wasm", wat::parse_str(text).expect("valid text"));
    Setup::run(&module).flag("--cpu", "100ms").start().expect("/", 503, "cpu");
    Setup::run(&module).flag("--deadline", "300ms").start().expect("/", 504, "deadline");
}

#[cfg(target_os = "linux")]
#[test]
fn a_host_of_hostile_guests_is_after_many_of_them_what_it_was_after_a_few() {
    const CLIENTS: usize = 6;
    let scratch = Scratch::short();
    let control = scratch.join("control");
    // A free memory keeps up to 16 MiB of what its guests had. Each has that once it was used for one that grows, which takes its time.
    let host = hostile()
        .flag("--max-memory", "4MiB")
        .no_log()
        .through_shell(r#"exec "$@" 2>/dev/null"#)
        .flag("--deadline", "400ms")
        .flag("--stream-deadline", "400ms")
        .flag("--cpu", "40ms")
        .flag("--control", &control)
        .start();
    let silent: SocketAddr = origin::silent();
    let third = || hostility::round(host.addr(), silent, CLIENTS).expect("all good requests are served");
    third();
    let (settled, threads) = (host.memory("VmRSS"), host.threads());
    third();
    third();
    let grown = host.memory("VmRSS");
    let bound = settled + settled / 5 + (32 << 20);
    assert!(grown <= bound, "the host grew from {} MiB to {} MiB", settled >> 20, grown >> 20);
    assert!(host.threads() <= threads.max(CLIENTS + 16), "{} threads, after {threads}", host.threads());
    expect_well(&host, &control);
}

/// Leaves a host so many bytes more than it has; `None`: as many as there are.
#[cfg(target_os = "linux")]
fn leave(host: &Host, more: Option<u64>) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};

    let current = more.map(|more| host.memory("VmData") + more);
    let pid = Pid::from_raw(host.pid().cast_signed()).expect("a process");
    prlimit(Some(pid), Resource::Data, Rlimit { current, maximum: None }).expect("it is ours");
}

/// A program of so many pages, which has the host send the rest of its request first, and grows.
#[cfg(target_os = "linux")]
fn large(scratch: &Scratch, pages: u32, more: u32) -> Setup {
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") {pages})
        (; 1 byte at 32, and 27 at 128 ;)
        (data (i32.const 0) "\20\00\00\00\01\00\00\00\80\00\00\00\1b\00\00\00")
        (data (i32.const 128) "Content-Type: text/plain\n\nx")
        (func (export "_start")
            (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
            (if (i32.eq (memory.grow (i32.const {more})) (i32.const -1)) (then unreachable))
            (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))))"#
    );
    Setup::run(scratch.file("large.wasm", wat::parse_str(text).expect("valid text"))).flag("--max-memory", "1GiB")
}

#[cfg(target_os = "linux")]
#[test]
fn a_guest_for_which_the_machine_has_no_memory_is_told_to_come_again() {
    let host = large(&Scratch::new(), 1, 8192).start();
    leave(&host, Some(64 << 20));
    for _ in 0..10 {
        host.expect("/", 503, "overload");
    }
    assert!(host.get(Http::One, "/").header("retry-after").is_some());
    leave(&host, None);
    host.expect("/", 200, "ok");
}

#[cfg(target_os = "linux")]
#[test]
fn a_guest_that_cannot_even_start_for_want_of_memory_is_told_to_come_again() {
    let scratch = Scratch::short();
    let control = scratch.join("control");
    let host = large(&scratch, 2048, 0).flag("--control", &control).start();
    // These have the memories that are there already.
    let mut first: Vec<_> = (0..4).map(|_| host.connect()).collect();
    for client in &mut first {
        client.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n");
    }
    all_waiting(&control, "body", first.len());
    leave(&host, Some(64 << 20));
    host.expect("/", 503, "overload");
    for client in &mut first {
        client.send("y");
        assert_eq!(client.answer().text(), "x");
    }
    host.expect("/", 200, "ok");
}
