//! CGI programs that are core modules (WASI 0.1): how they wait, and what they read, write and open.

use std::process::Command;

use rustix::process::Signal;

use crate::harness::{BOTH, FEW_DESCRIPTORS, Host, Scratch, Setup, all_waiting, pattern, waiting};

/// A program for WASI 0.1 that does `start`, and its `data`.
fn program(scratch: &Scratch, data: &str, start: &str) -> Setup {
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "clock_time_get" (func $now (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_filestat_set_times"
            (func $touch (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 220)
        {data}
        (func $must (param i32) (if (local.get 0) (then unreachable)))
        (; Reads as much as fits between these two, and says how much that was: through 0 to 12 ;)
        (func $reads (param $at i32) (param $end i32) (result i32)
            (i32.store (i32.const 0) (local.get $at))
            (i32.store (i32.const 4) (i32.sub (local.get $end) (local.get $at)))
            (call $must (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (i32.load (i32.const 8)))
        (; Writes what is between them: through 0 to 12 ;)
        (func $writes (param $at i32) (param $end i32)
            (loop $more
                (i32.store (i32.const 0) (local.get $at))
                (i32.store (i32.const 4) (i32.sub (local.get $end) (local.get $at)))
                (call $must (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
                (br_if $more (i32.lt_u (local.get $at) (local.get $end)))))
        (; Sleeps so many nanoseconds, or until then: through 16 to 64, and the event is at 64 ;)
        (func $sleeps (param $clock i32) (param $time i64) (param $is_absolute i32) (result i32)
            (i64.store (i32.const 16) (i64.const 42))
            (i32.store (i32.const 32) (local.get $clock))
            (i64.store (i32.const 40) (local.get $time))
            (i32.store (i32.const 56) (local.get $is_absolute))
            (call $poll (i32.const 16) (i32.const 64) (i32.const 1) (i32.const 96)))
        (func (export "_start") (local $at i32) {start}))"#
    );
    Setup::run(scratch.file("program.wasm", wat::parse_str(text).expect("valid text")))
}

/// Sleeps for an hour if it is sent something.
fn sleeper(scratch: &Scratch) -> Setup {
    program(
        scratch,
        r#"(data (i32.const 128) "Content-Type: text/plain\n\nawake")"#,
        "(if (call $reads (i32.const 1024) (i32.const 2048))
            (then (call $must (call $sleeps (i32.const 1) (i64.const 3600000000000) (i32.const 0)))))
        (call $writes (i32.const 128) (i32.const 159))",
    )
}

const SLEEP: &str = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\n.";

#[test]
fn a_program_that_sleeps_is_cut_at_its_deadline() {
    let scratch = Scratch::new();
    let host = sleeper(&scratch).flag("--deadline", "200ms").start();
    for version in BOTH {
        let answer = host.post(version, "/", b".");
        assert_eq!((answer.status, &host.access(&answer)["outcome"]), (504, &"deadline".into()), "{version:?}");
        assert_eq!(host.get(version, "/").text(), "awake");
    }
}

#[test]
fn an_operator_ends_a_program_that_sleeps() {
    let scratch = Scratch::short();
    let control = scratch.join("control");
    let host = sleeper(&scratch).flag("--control", &control).start();
    let mut client = host.connect();
    client.send(SLEEP);
    let id = waiting(&control, "sleep");
    let killed = Setup::bare().arg("kill").arg(id).flag("--control", &control).end();
    assert_eq!(killed.code, Some(0), "{killed:?}");
    let answer = client.answer();
    assert_eq!((answer.status, &host.access(&answer)["outcome"]), (503, &"killed".into()));
}

#[test]
fn the_worker_of_a_program_that_sleeps_is_free_when_its_client_leaves() {
    let scratch = Scratch::short();
    let control = scratch.join("control");
    let host = sleeper(&scratch).flag("--control", &control).flag("--max-workers", "1").start();
    for version in BOTH {
        let mut client = host.connect();
        client.send(SLEEP);
        let id = waiting(&control, "sleep");
        client.reset();
        assert_eq!(host.get(version, "/").text(), "awake");
        host.expect_outcome(Some(&id), "client_gone");
    }
}

#[test]
fn programs_that_sleep_hold_up_nobody() {
    let scratch = Scratch::short();
    let control = scratch.join("control");
    let mut host = sleeper(&scratch)
        .flag("--control", &control)
        .flag("--deadline", "1h")
        .flag("--drain", "100ms")
        .flag("--max-workers", "33")
        .start();
    let mut clients: Vec<_> = (0..32).map(|_| host.connect()).collect();
    for client in &mut clients {
        client.send(SLEEP);
    }
    all_waiting(&control, "sleep", clients.len());
    for version in BOTH {
        assert_eq!(host.get(version, "/").text(), "awake");
    }
    host.signal(Signal::TERM);
    let ended = host.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr.matches("\"outcome\":\"drained\"").count(), 32, "{}", ended.stderr);
}

#[test]
fn a_program_is_told_when_it_has_slept() {
    let scratch = Scratch::new();
    let host = program(
        &scratch,
        r#"(data (i32.const 128) "Content-Type: text/plain\n\n")"#,
        "(call $writes (i32.const 128) (i32.const 154))
        (call $must (call $sleeps (i32.const 1) (i64.const 1000000) (i32.const 0)))
        (call $writes (i32.const 64) (i32.const 100))
        (call $must (call $now (i32.const 0) (i64.const 1) (i32.const 112)))
        (call $must (call $sleeps (i32.const 0) (i64.add (i64.const 1000000) (i64.load (i32.const 112))) (i32.const 1)))
        (call $writes (i32.const 64) (i32.const 100))
        (i32.store (i32.const 120) (call $sleeps (i32.const 7) (i64.const 1000000) (i32.const 0)))
        (call $writes (i32.const 120) (i32.const 124))",
    );
    let host = host.start();
    let mut event = [0; 36];
    (event[0], event[32]) = (42, 1); // what was subscribed to, without an error; one event
    let no_such_clock = [28, 0, 0, 0];
    for version in BOTH {
        assert_eq!(host.get(version, "/").body, [&event[..], &event, &no_such_clock].concat(), "{version:?}");
    }
}

#[test]
fn a_program_reads_and_writes_as_much_at_once_as_it_likes() {
    let scratch = Scratch::new();
    // Buffers of up to 13 MiB.
    let host = program(
        &scratch,
        r#"(data (i32.const 65510) "Content-Type: text/plain\n\n")"#,
        "(local.set $at (i32.const 65536))
        (loop $more
            (local.set $at (i32.add (local.get $at) (call $reads (local.get $at) (i32.const 14000000))))
            (br_if $more (i32.load (i32.const 8))))
        (call $writes (i32.const 65510) (local.get $at))",
    );
    let host = host.start();
    let body = pattern(9_000_000);
    for version in BOTH {
        let answer = host.post(version, "/", &body);
        assert!(answer.body == body, "{version:?}: {} bytes came back", answer.body.len());
    }
}

#[test]
fn what_is_neither_file_nor_directory_is_refused_and_holds_up_nobody() {
    let scratch = Scratch::new();
    let dir = Scratch::new();
    assert!(Command::new("mkfifo").arg(dir.join("fifo")).status().expect("a Unix").success());
    let rights = "(i64.const 2)"; // to read
    let host = program(
        &scratch,
        r#"(data (i32.const 128) "Content-Type: text/plain\n\nfifo")"#,
        &format!(
            "(call $writes (i32.const 128) (i32.const 154))
            (i32.store8 (i32.const 200) (call $open (i32.const 3) (i32.const 1) (i32.const 154) (i32.const 4)
                (i32.const 0) {rights} {rights} (i32.const 0) (i32.const 208)))
            (i32.store8 (i32.const 201)
                (call $touch (i32.const 3) (i32.const 1) (i32.const 154) (i32.const 4)
                    (i64.const 0) (i64.const 0) (i32.const 10)))
            (call $writes (i32.const 200) (i32.const 202))"
        ),
    );
    let host: Host = host.flag("--dir", format!("{}::/data:rw", dir.path().display())).start();
    for version in BOTH {
        assert_eq!(host.get(version, "/").body, [63, 63], "not permitted, both times");
    }
}

#[test]
fn a_program_has_its_share_of_the_descriptors_and_gives_it_back() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_renumber" (func $renumber (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (; 34 bytes at 128 ;)
        (data (i32.const 0) "\80\00\00\00\22\00\00\00")
        (data (i32.const 128) "Content-Type: text/plain\n\nall well")
        (data (i32.const 256) "one.txt")
        (func $must (param i32) (if (i32.eqz (local.get 0)) (then unreachable)))
        (; Opens the file for reading, and its number is at 64 ;)
        (func $opens (result i32)
            (call $open (i32.const 3) (i32.const 0) (i32.const 256) (i32.const 7) (i32.const 0) (i64.const 2) (i64.const 0)
                (i32.const 0) (i32.const 64)))
        (; One more can be opened, and then there are too many, which is 33 ;)
        (func $opens_one
            (call $must (i32.eqz (call $opens)))
            (call $must (i32.eq (call $opens) (i32.const 33))))
        (func (export "_start") (local $count i32) (local $result i32)
            (loop $more
                (local.set $result (call $opens))
                (if (i32.eqz (local.get $result))
                    (then (local.set $count (i32.add (local.get $count) (i32.const 1))) (br $more))))
            (call $must (i32.eq (local.get $result) (i32.const 33)))
            (call $must (i32.eq (local.get $count) (i32.const 48)))
            (call $must (i32.eqz (call $close (i32.const 7))))
            (call $opens_one)
            (call $must (i32.eqz (call $renumber (i32.const 4) (i32.const 5))))
            (call $opens_one)
            (call $must (i32.eqz (call $renumber (i32.const 5) (i32.const 5))))
            (call $must (i32.eq (call $opens) (i32.const 33)))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"#;
    let scratch = Scratch::new();
    scratch.file("data/one.txt", "content");
    let host = Setup::run(scratch.file("opens.wasm", wat::parse_str(text).expect("valid text")))
        .flag("--dir", format!("{}::/data", scratch.join("data").display()))
        .through_shell(FEW_DESCRIPTORS)
        .start();
    for version in BOTH {
        let answer = host.get(version, "/");
        assert_eq!(answer.text(), "all well");
        // It has ended, which may be after its answer.
        host.access(&answer);
    }
}
