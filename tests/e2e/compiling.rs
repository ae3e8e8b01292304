//! `compile --for-host`: what a host that serves starts, to compile a module that it is given.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    thread,
    time::Instant,
};

use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use crate::harness::{PATIENCE, Scratch, Setup, guest};

/// What becomes of `module` in a process with so many bytes of memory.
fn compile(module: &[u8], memory: u64) -> Output {
    let mut process = Command::new(env!("CARGO_BIN_EXE_astra-host"))
        .args(["compile", "--for-host", &memory.to_string(), "--no-cache"])
        .env("RUST_BACKTRACE", "0") // as a host does
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = process.stdin.take().expect("is piped");
    // One that fails early does not read all of it.
    let _ = stdin.write_all(module);
    drop(stdin);
    process.wait_with_output().expect("ends")
}

/// A component that is work to compile, and has this too.
fn large_component(more: &str) -> Vec<u8> {
    let body = "(i64.mul (local.get 0) (i64.add (local.get 0) (i64.const 7)))";
    let lines = format!("(local.set 0 {body})").repeat(100);
    let functions = format!("(func (param i64) (result i64) {lines} (local.get 0))").repeat(2000);
    wat::parse_str(format!("(component (core module {functions}) {more})")).expect("valid text")
}

#[test]
fn machine_code_made_for_a_host_fits_hosts_with_any_settings() {
    let made = compile(&std::fs::read(guest("hello")).expect("it is built"), 1 << 30);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let code = made.stdout.strip_prefix(b"compiled\n").expect("says that it was not cached");
    let dir = Scratch::new();
    // As files end that `astra-host compile` has written, without data of its memory's behind the code.
    let whole = [code, &[0; 8]].concat();
    let path = dir.file("hello.cwasm", [&whole, &Sha256::digest(&whole)[..], b"astra-host:data"].concat());
    let host =
        Setup::run(&path).arg("--trust-precompiled").flag("--max-memory", "64MiB").flag("--max-workers", "7").start();
    assert_eq!(host.get(crate::harness::Http::One, "/").text(), "Hello World!");
}

#[test]
fn a_module_that_cannot_be_compiled_says_why_on_the_last_line() {
    let failed = compile(b"\0asm\x0d\0\x01\0\xff", 1 << 30);
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8(failed.stderr).expect("text");
    assert!(said.lines().next_back().expect("a line").starts_with("astra-host: error: "), "{said}");
    assert!(failed.stdout.is_empty());
}

#[test]
fn compiling_takes_no_more_memory_than_it_may() {
    let module = large_component("");
    let made = compile(&module, 1 << 30);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let failed = compile(&module, 24 << 20);
    let said = String::from_utf8(failed.stderr).expect("text");
    assert!(!failed.status.success() && failed.stdout.is_empty(), "{said}");
    // What `compiler.rs` takes for a lack of memory.
    let words = ["memory allocation of", "annot allocate memory", "out of memory"];
    assert!(words.iter().any(|words| said.contains(words)), "{said}");
}

#[test]
fn a_host_that_is_told_to_stop_while_it_compiles_ends() {
    let scratch = Scratch::short();
    let export = r#"(instance $handler) (export "wasi:http/incoming-handler@0.2.3" (instance $handler))"#;
    let module = scratch.file("large.wasm", large_component(export));
    let control = scratch.join("control");
    let mut host = Setup::run(module).arg("--no-cache").arg("--no-state").flag("--control", &control).begin();
    let started = Instant::now();
    while !control.exists() {
        assert!(started.elapsed() < PATIENCE, "it does not start");
        thread::yield_now();
    }
    host.signal(Signal::TERM);
    let ended = host.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("stopped: it was told to stop before it served"), "{ended:?}");
    assert!(!control.exists());
}
