//! `inspect` and `compile`.

use std::fs;

use crate::harness::{BOTH, Scratch, Setup, guest};

fn inspect(path: impl Into<std::ffi::OsString>) -> Setup {
    Setup::bare().arg("inspect").arg(path)
}

#[test]
fn inspect_says_what_a_module_is_and_what_it_needs() {
    let ended = inspect(guest("opens_dir")).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let size = fs::metadata(guest("opens_dir")).expect("it is built").len();
    for part in [
        "kind     component, WASI HTTP 0.2.",
        "world    wasi:http/proxy and wasi:",
        &format!("({size} bytes)"),
        "wasi:http/incoming-handler@0.2.",
        "wasi:filesystem/types@0.2.",
        "files (`--dir`)",
    ] {
        assert!(ended.stdout.contains(part), "{part:?} is not in {}", ended.stdout);
    }
    let digest = ended.stdout.lines().find_map(|line| line.strip_prefix("sha256   ")).expect("a digest");
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
}

#[test]
fn inspect_says_so_when_a_module_needs_nothing() {
    let ended = inspect(guest("raw_hello")).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stdout.contains("files (`--dir`)") || ended.stdout.contains("wasi:filesystem"), "{}", ended.stdout);
}

#[test]
fn inspect_says_by_which_flags_a_need_is_granted() {
    let ended = inspect(guest("talks_tcp")).end();
    assert!(ended.stdout.contains("network (`--tcp`, `--dns`)"), "{}", ended.stdout);
    let ended = inspect(guest("calls_out")).end();
    assert!(ended.stdout.contains("outgoing HTTP (`--outbound`)"), "{}", ended.stdout);
}

#[test]
fn inspect_builds_a_package_as_run_does() {
    guest("hello"); // so that there is little left to build
    let ended = inspect("examples/hello").end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("hello.wasm\nkind     component, WASI HTTP 0.2."), "{}", ended.stdout);
    for unused in ["terminal", "filesystem", "stdin", "clocks", "random", "outgoing-handler", "wasi:config"] {
        assert!(!ended.stdout.contains(unused), "hello imports {unused}: {}", ended.stdout);
    }
    inspect(Scratch::new().path()).end().expect_complaint(1, &["Cargo.toml", ".wasm file"]);
}

#[test]
fn inspect_hints_at_what_a_core_module_may_need_and_lists_each_import_once() {
    let module = r#"(module
        (import "wasi_snapshot_preview1" "path_open" (func))
        (import "wasi_snapshot_preview1" "environ_get" (func))
        (import "wasi_snapshot_preview1" "path_open" (func))
        (memory (export "memory") 1)
        (func (export "_start")))"#;
    let dir = Scratch::new();
    let ended = inspect(dir.file("app.wasm", wat::parse_str(module).expect("valid text"))).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout.matches("wasi_snapshot_preview1::path_open").count(), 1, "{}", ended.stdout);
    let needs = "may need\n  files (`--dir`)\n  environment variables (`--env`)\n";
    assert!(ended.stdout.ends_with(needs), "{}", ended.stdout);
}

#[test]
fn inspect_describes_what_cannot_be_served_and_says_why_not() {
    let dir = Scratch::new();
    let weather = r#"(component (import "acme:weather/forecast@1.0.0" (instance)) (instance $handler)
        (export "wasi:http/incoming-handler@0.2.3" (instance $handler)))"#;
    for (wat, kind, reason) in [
        ("(module)", "core module without a function `_start`", "accepted is a component"),
        ("(component)", "component without an HTTP handler", "exports nothing, accepted is a component"),
        (
            weather,
            "component, WASI HTTP 0.2.3",
            "imports `acme:weather/forecast@1.0.0`, which this host does not provide",
        ),
    ] {
        let ended = inspect(dir.file("app.wasm", wat::parse_str(wat).expect("valid text"))).end();
        ended.expect_complaint(1, &["app.wasm", reason]);
        assert!(ended.stdout.contains(&format!("kind     {kind}\n")), "{}", ended.stdout);
        assert!(ended.stdout.contains("\nmay need\n"), "all of it: {}", ended.stdout);
    }
    inspect(dir.file("app.wasm", "text")).end().expect_complaint(1, &["a text file"]);
    inspect(dir.join("missing.wasm")).end().expect_complaint(1, &["missing.wasm"]);
}

#[test]
fn a_compiled_module_is_served_only_when_it_is_trusted() {
    let dir = Scratch::new();
    let compiled = dir.join("hello.cwasm");
    let ended = Setup::bare().arg("compile").arg(guest("hello")).arg("-o").arg(&compiled).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("--trust-precompiled"), "{ended:?}");

    let named = compiled.display().to_string();
    Setup::run(&compiled).end().expect_complaint(1, &[&named, "--trust-precompiled"]);
    let host = Setup::run(&compiled).arg("--trust-precompiled").start();
    assert!(host.stdout_with("hello.cwasm: ").ends_with("precompiled"));
    for version in BOTH {
        assert_eq!(host.get(version, "/").text(), "Hello World!");
    }
    let ended = inspect(&compiled).end();
    assert!(ended.stdout.contains("kind     precompiled module"), "{ended:?}");
}

#[test]
fn a_compiled_module_lies_beside_its_source_unless_told_otherwise() {
    let dir = Scratch::new();
    let module = dir.join("hello.wasm");
    fs::copy(guest("hello"), &module).expect("can be copied");
    let ended = Setup::bare().arg("compile").arg(&module).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(dir.join("hello.cwasm").is_file());
}

#[test]
fn a_compiled_module_that_was_damaged_is_refused() {
    let dir = Scratch::new();
    let compiled = dir.join("hello.cwasm");
    Setup::bare().arg("compile").arg(guest("hello")).arg("-o").arg(&compiled).end();
    let whole = fs::read(&compiled).expect("it is there");
    fs::write(&compiled, &whole[..whole.len() / 2]).expect("ours");
    Setup::run(&compiled).arg("--trust-precompiled").end().expect_complaint(1, &["hello.cwasm"]);
    // Its memory's data stands at the end, its length and a mark behind it.
    for missing in [1, 16, 40] {
        fs::write(&compiled, &whole[..whole.len() - missing]).expect("ours");
        let ended = Setup::run(&compiled).arg("--trust-precompiled").end();
        ended.expect_complaint(1, &["hello.cwasm", "astra-host compile"]);
    }
    for changed in [whole.len() / 3, whole.len() - 55, whole.len() - 30] {
        let mut other = whole.clone();
        other[changed] ^= 1;
        fs::write(&compiled, other).expect("ours");
        let ended = Setup::run(&compiled).arg("--trust-precompiled").end();
        ended.expect_complaint(1, &["hello.cwasm", "astra-host compile"]);
    }
}

#[test]
fn what_cannot_be_served_is_not_compiled() {
    let dir = Scratch::new();
    let core = dir.file("core.wasm", wat::parse_str("(module)").expect("valid text"));
    let ended = Setup::bare().arg("compile").arg(core).end();
    ended.expect_complaint(1, &["core module"]);
    let unknown = r#"(component (import "acme:weather/forecast@1.0.0" (instance)) (instance $handler)
        (export "wasi:http/incoming-handler@0.2.3" (instance $handler)))"#;
    let unknown = dir.file("unknown.wasm", wat::parse_str(unknown).expect("valid text"));
    Setup::bare().arg("compile").arg(unknown).end().expect_complaint(1, &["`acme:weather/forecast@1.0.0`"]);
    assert!(!dir.join("core.cwasm").exists() && !dir.join("unknown.cwasm").exists());
}

#[test]
fn a_compiled_module_that_cannot_be_written_is_named() {
    let ended = Setup::bare().arg("compile").arg(guest("hello")).flag("-o", "/does/not/exist/hello.cwasm").end();
    ended.expect_complaint(1, &["/does/not/exist/hello.cwasm"]);
}
