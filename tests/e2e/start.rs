//! Starting: what is printed, what is refused and in which words. Exit codes: 1 failed, 2 wrong usage.

use std::{env, ffi::OsString, fs, iter, os::unix::fs::PermissionsExt, path::PathBuf};

use crate::harness::{Client, Ended, Host, Http, Scratch, Setup, guest};

/// `run` with a module made from text.
fn run_text(dir: &Scratch, wat: &str) -> Ended {
    let module = wat::parse_str(wat).expect("valid text");
    Setup::run(dir.file("app.wasm", module)).end()
}

/// `run` with a flag that is wrong.
fn run_flag(name: &str, value: &str) -> Ended {
    Host::with("hello").flag(name, value).end()
}

#[test]
fn starting_prints_the_file_its_kind_its_size_and_the_address() {
    let host = Host::of("hello");
    let line = host.stdout_with("hello.wasm: ");
    assert!(line.contains("component, WASI HTTP 0.2."), "{line}");
    assert!(line.contains("KiB"), "{line}");
    assert!(line.ends_with("cached") || line.contains("compiled in "), "{line}");
    assert_ne!(host.addr().port(), 0);
}

#[test]
fn the_second_start_finds_the_module_in_the_cache() {
    let dir = Scratch::new();
    let start = || Host::with("hello").environment("XDG_CACHE_HOME", dir.path()).start();
    let first = start().stdout_with("hello.wasm: ");
    assert!(first.contains("compiled in "), "{first}");
    let second = start().stdout_with("hello.wasm: ");
    assert!(second.ends_with(", cached"), "{second}");
    let third = Host::with("hello").environment("XDG_CACHE_HOME", dir.path()).arg("--no-cache").start();
    assert!(third.stdout_with("hello.wasm: ").contains("compiled in "));
    let mode = fs::metadata(dir.join("astra-host")).expect("the cache").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "machine code is nobody else's business");
}

#[test]
fn a_cache_that_others_can_write_to_is_not_used_and_a_warning_says_so() {
    let dir = Scratch::new();
    for base in ["xdg", "home/.cache", "tmp"] {
        let user = rustix::process::geteuid().as_raw();
        let name = if base == "tmp" { format!("astra-host-{user}") } else { "astra-host".to_owned() };
        let cache = dir.join(base).join(name);
        fs::create_dir_all(&cache).expect("can be made");
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).expect("ours");
    }
    let host = Host::with("hello")
        .environment("XDG_CACHE_HOME", dir.join("xdg"))
        .environment("HOME", dir.join("home"))
        .environment("TMPDIR", dir.join("tmp"))
        .start();
    host.stderr_with("chmod 700");
    assert_eq!(host.get(Http::One, "/").text(), "Hello World!");
}

#[test]
fn a_cache_that_is_not_the_one_that_was_asked_for_is_told() {
    let dir = Scratch::new();
    let asked = dir.join("xdg/astra-host");
    fs::create_dir_all(&asked).expect("can be made");
    fs::set_permissions(&asked, fs::Permissions::from_mode(0o777)).expect("ours");
    let host = Host::with("hello")
        .environment("XDG_CACHE_HOME", dir.join("xdg"))
        .environment("HOME", dir.join("home"))
        .start();
    let line = host.stderr_with("compiled modules are kept in `");
    assert!(line.contains("home/.cache/astra-host`: `") && line.contains("chmod 700"), "{line}");
}

#[test]
fn connections_that_can_never_be_are_warned_of() {
    let dir = Scratch::new();
    let module = guest("hello").display().to_string();
    let handler = format!("[[handler]]\nname = 'hello'\nmodule = '{module}'\n");
    let file = dir.file("astra.toml", format!("[server]\nmax_connections = 5000\n{handler}"));
    let host =
        Setup::run(file).arg("--no-control").arg("--no-state").through_shell(r#"ulimit -n 200; exec "$@""#).start();
    host.stderr_with("`max_connections` is 5000, and this process may have 200 files open");
}

#[test]
fn a_host_can_listen_on_several_addresses() {
    let host = Host::with("hello").flag("--listen", "127.0.0.1:0").start();
    let second = second_address(&host);
    for addr in [host.addr(), second] {
        assert_eq!(Client::connect(addr).get("/").text(), "Hello World!");
    }
}

/// The second line about where a host listens.
fn second_address(host: &Host) -> std::net::SocketAddr {
    let first = format!("http://{}", host.addr());
    let line =
        host.stdout_where("a second address", |line| line.starts_with("listening on ") && !line.ends_with(&first));
    line.strip_prefix("listening on http://").and_then(|addr| addr.parse().ok()).expect("an address")
}

#[test]
fn localhost_is_both_families() {
    let host = Host::with("hello").no_listen().flag("--listen", "localhost:0").start();
    assert!(host.addr().ip().is_loopback());
    assert_eq!(host.get(Http::One, "/").text(), "Hello World!");
    // A machine without IPv6 has one address only.
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        let second = second_address(&host);
        assert!(second.ip().is_loopback() && second.is_ipv4() != host.addr().is_ipv4());
        assert_eq!(Client::connect(second).get("/").text(), "Hello World!");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_soft_limit_on_open_files_is_raised_to_the_hard_one() {
    let host = Host::with("hello").through_shell(r#"ulimit -S -n 256; exec "$@""#).start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", host.pid())).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("Linux has it");
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
}

#[test]
fn a_missing_file_is_named() {
    Setup::run("no-such.wasm").end().expect_complaint(1, &["`no-such.wasm`", "No such file", "give a .wasm file"]);
}

#[test]
fn a_directory_without_cargo_toml_is_told_what_to_give() {
    let dir = Scratch::new();
    Setup::run(dir.path()).end().expect_complaint(1, &[&dir.path().display().to_string(), "Cargo.toml", ".wasm"]);
}

#[test]
fn a_package_that_builds_no_guest_is_told_what_it_lacks() {
    let dir = Scratch::new();
    dir.file("Cargo.toml", "[package]\nname = \"none\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n");
    dir.file("src/lib.rs", "");
    let ended = Setup::run(dir.path()).end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for words in ["astra-host: error: ", "builds no guest", "crate-type = [\"cdylib\"]"] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[test]
fn a_package_that_does_not_compile_is_not_served() {
    let dir = Scratch::new();
    dir.file(
        "Cargo.toml",
        "[package]\nname = \"broken\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\n\
         [workspace]\n",
    );
    dir.file("src/lib.rs", "this is not Rust");
    let ended = Setup::run(dir.path()).end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("cargo could not build"), "{}", ended.stderr);
}

/// A PATH that begins with programs of ours: a `rustc` that has no target but its own, and a `rustup` that ends with `code`.
fn path_without_target(dir: &Scratch, code: u8) -> OsString {
    let path = env::var_os("PATH").expect("cargo was found");
    let rustc = r#"case "$*" in *target-libdir*) echo /does/not/exist;; *) PATH="$REAL_PATH" exec rustc "$@";; esac"#;
    for (name, script) in [("rustc", rustc), ("rustup", &format!("exit {code}"))] {
        let program = dir.file(name, format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    let all = iter::once(dir.path().to_owned()).chain(env::split_paths(&path));
    env::join_paths(all).expect("no colons")
}

#[test]
fn a_missing_target_is_added_and_that_is_said() {
    guest("hello"); // which builds for the target in earnest
    let dir = Scratch::new();
    let host = Setup::run("examples/hello")
        .environment("PATH", path_without_target(&dir, 0))
        .environment("REAL_PATH", env::var_os("PATH").expect("cargo was found"))
        .start();
    host.stderr_with("adding the Rust target wasm32-wasip2 (rustup target add wasm32-wasip2)");
    assert_eq!(host.get(Http::One, "/").text(), "Hello World!");
}

#[test]
fn a_target_that_cannot_be_added_is_one_error_with_the_command_to_type() {
    let dir = Scratch::new();
    let expect_error = |path: OsString| {
        let ended = Setup::run("examples/hello").environment("PATH", path).end();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.ends_with("run `rustup target add wasm32-wasip2`\n"), "{}", ended.stderr);
        assert_eq!(ended.stderr.matches("error: ").count(), 1, "{}", ended.stderr);
    };
    expect_error(path_without_target(&dir, 1));
    fs::remove_file(dir.join("rustup")).expect("ours");
    expect_error(dir.path().into()); // where there is a `rustc` and no rustup at all
}

#[test]
fn without_rust_a_package_cannot_be_built_and_a_module_can_be_served() {
    let dir = Scratch::new();
    let ended = Setup::run("examples/hello").environment("PATH", dir.path()).end();
    ended.expect_complaint(1, &["https://rustup.rs"]);
    let host = Host::with("hello").environment("PATH", dir.path()).start();
    assert_eq!(host.get(Http::One, "/").text(), "Hello World!");
}

#[test]
fn files_that_are_not_wasm_are_called_what_they_are() {
    let dir = Scratch::new();
    for (content, found) in [
        (&b"hello"[..], "a text file"),
        (b"", "empty"),
        (b"(module)", "is WebAssembly text (`wasm-tools parse` makes it binary), not binary WebAssembly"),
        (b"\x7fELF\x02\x01\x01", "a native program"),
        (b"\x1f\x8b\x08\x00", "a compressed file"),
    ] {
        let path = dir.file("app.wasm", content);
        let ended = Setup::run(&path).end();
        ended.expect_complaint(1, &[&path.display().to_string(), found, "wasi:http/incoming-handler"]);
    }
}

#[test]
fn a_truncated_file_is_called_truncated() {
    let dir = Scratch::new();
    let whole = fs::read(guest("hello")).expect("it is built");
    for length in [3, 8, 100, whole.len() / 2, whole.len() - 1] {
        let path = dir.file("app.wasm", &whole[..length]);
        let ended = Setup::run(&path).end();
        assert_eq!(ended.code, Some(1), "{length}: {ended:?}");
        assert!(ended.stderr.contains(&path.display().to_string()), "{length}: {}", ended.stderr);
        let told = ["truncated", "not valid", "exports nothing"].iter().any(|words| ended.stderr.contains(words));
        assert!(told, "{length}: {}", ended.stderr);
    }
}

#[test]
fn a_core_module_is_told_how_to_become_a_component() {
    let dir = Scratch::new();
    run_text(&dir, "(module)").expect_complaint(1, &["core module", "wasm32-wasip2", "wasi:http/incoming-handler"]);
}

#[test]
fn a_core_module_that_could_never_run_is_told_what_it_lacks() {
    let dir = Scratch::new();
    let yields = r#"(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))"#;
    for (module, lacks) in [
        (r#"(module (global (export "_start") i32 (i32.const 0)))"#, "without a function `_start`"),
        (r#"(module (func (export "_start") (param i32)))"#, "without a `_start` that takes and returns nothing"),
        (&format!(r#"(module {yields} (func (export "_start")))"#), "without a memory exported as `memory`"),
    ] {
        run_text(&dir, module).expect_complaint(1, &["core module", lacks, "wasm32-wasip2"]);
        let compiled = Setup::bare().arg("compile").arg(dir.join("app.wasm")).end();
        compiled.expect_complaint(1, &[lacks]);
    }
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let dir = Scratch::new();
    let fifo = dir.join("app.wasm");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("a Unix").success());
    let named = fifo.display().to_string();
    Setup::run(&fifo).end().expect_complaint(1, &[&named, "is a pipe"]);
    for command in ["inspect", "compile"] {
        Setup::bare().arg(command).arg(&fifo).end().expect_complaint(1, &[&named, "is a pipe"]);
    }
    Setup::bare().arg("compile").arg(dir.path()).end().expect_complaint(1, &["is a directory"]);
}

#[test]
fn a_component_without_the_export_is_told_what_it_exports() {
    let dir = Scratch::new();
    run_text(&dir, "(component)").expect_complaint(1, &["exports nothing", "wasi:http/incoming-handler@0.2"]);
    let other = r#"(component (instance $query) (export "acme:db/query@0.2.3" (instance $query)))"#;
    run_text(&dir, other).expect_complaint(1, &["`acme:db/query@0.2.3`", "wasi:http/handler@0.3", "wasi:cli/run"]);
}

#[test]
fn an_older_draft_of_wasi_0_3_is_told_what_is_accepted() {
    let dir = Scratch::new();
    let draft = r#"(component (instance $i) (export "wasi:http/handler@0.3.0-rc-2026-01-06" (instance $i)))"#;
    run_text(&dir, draft).expect_complaint(1, &["wasi:http/handler@0.3.0-rc-2026-01-06", "accepted is"]);
}

const HANDLER: &str = r#"(instance $handler) (export "wasi:http/incoming-handler@0.2.3" (instance $handler))"#;

#[test]
fn an_import_that_is_not_provided_is_named() {
    let dir = Scratch::new();
    let import = r#"(import "acme:weather/forecast@1.0.0" (instance))"#;
    let text = format!("(component {import} {HANDLER})");
    run_text(&dir, &text).expect_complaint(1, &["`acme:weather/forecast@1.0.0`", "does not provide"]);
}

#[test]
fn an_export_of_the_right_name_and_the_wrong_type_is_refused() {
    let dir = Scratch::new();
    run_text(&dir, &format!("(component {HANDLER})")).expect_complaint(1, &["cannot be linked", "handle"]);
}

#[test]
fn a_module_that_wants_more_memory_than_it_may_have_is_told_which_flag_to_raise() {
    let dir = Scratch::new();
    let text = r#"(module (memory (export "memory") 1024) (func (export "_start")))"#;
    let path = dir.file("app.wasm", wat::parse_str(text).expect("valid text"));
    Setup::run(path).flag("--max-memory", "1MiB").end().expect_complaint(1, &["max-memory"]);
}

#[test]
fn a_module_whose_instances_would_take_too_much_beside_their_memory_is_refused() {
    let elements = "0 ".repeat((16 << 20) / 16);
    let text = format!(r#"(module (memory (export "memory") 1) (func (export "_start")) (elem func {elements}))"#);
    let dir = Scratch::new();
    let path = dir.file("app.wasm", wat::parse_str(text).expect("valid text"));
    for ended in [Setup::run(&path).end(), Setup::bare().arg("compile").arg(&path).end()] {
        ended.expect_complaint(1, &["app.wasm", "16 MiB", "segments"]);
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let ended = Host::with("hello").no_listen().flag("--listen", &address).end();
    ended.expect_complaint(1, &[&address, "in use", "--listen 127.0.0.1:0"]);
}

#[test]
fn an_address_that_is_not_ours_is_named() {
    let ended = Host::with("hello").no_listen().flag("--listen", "192.0.2.1:8080").end();
    ended.expect_complaint(1, &["192.0.2.1:8080", "address of this machine"]);
}

#[test]
fn a_directory_that_does_not_exist_is_named() {
    run_flag("--dir", "/does/not/exist::/data").expect_complaint(1, &["`/does/not/exist`", "--dir"]);
    run_flag("--dir", "Cargo.toml::/data").expect_complaint(1, &["`Cargo.toml`", "not a directory", "--dir"]);
}

#[test]
fn two_directories_of_one_name_are_refused() {
    let ended = Host::with("hello").flag("--dir", "examples::/data").flag("--dir", "tests::/data").end();
    ended.expect_complaint(1, &["`/data`", "twice"]);
}

#[test]
fn wrong_values_name_the_flag_the_value_and_what_is_allowed() {
    for (name, value, allowed) in [
        ("--listen", "8080", "an address and a port"),
        ("--deadline", "soon", "between 1ms and 1day"),
        ("--deadline", "0s", "between 1ms and 1day"),
        ("--stream-deadline", "-1s", "such as `30s`"),
        ("--cpu", "30", "such as `30s`"),
        ("--drain", "x", "such as `30s`"),
        ("--max-memory", "9TiB", "between 1MiB and 4GiB"),
        ("--max-memory", "lots", "between 1MiB and 4GiB"),
        ("--max-body", "1XB", "such as `128MiB`"),
        ("--max-workers", "0", "between 1 and 10000"),
        ("--max-workers", "many", "between 1 and 10000"),
        ("--env", "=x", "`K=V`"),
        ("--env", "ASTRA_HOST_E2E_NOT_SET", "`ASTRA_HOST_E2E_NOT_SET=VALUE`"),
        ("--dir", "", "`HOST[::GUEST][:rw]`"),
        ("--outbound", "api.example.com", "`https://api.example.com`"),
        ("--outbound-private", "https://a/path", "a URL without a path"),
        ("--outbound", "{ url }", "a URL, or a table such as `{ url = "),
        ("--tcp", "db.internal", "`db.internal:5432`"),
        ("--tcp", "fd00::/8:80", "`[::1]:80`"),
        ("--dns", "10.0.0.1", "`*.example.com`"),
        ("--config-var", "ASTRA_HOST_E2E_NOT_SET", "`ASTRA_HOST_E2E_NOT_SET=VALUE`"),
        ("--trusted-proxy", "10.0.0.0/33", "`10.0.0.0/8`"),
    ] {
        // With `=`, since a value may begin with a dash.
        let ended = Host::with("hello").no_listen().arg(format!("{name}={value}")).end();
        ended.expect_complaint(2, &[name, value, allowed]);
    }
}

#[test]
fn a_table_that_is_wrong_is_told_key_by_key() {
    let ended = run_flag("--outbound", "{ url = \"https://a\", privat = true, key = \"k\" }");
    ended.expect_complaint(2, &["--outbound: ", "did you mean `outbound.private`?", "needs `outbound.certificate`"]);
}

#[test]
fn wrong_choices_name_the_flag_the_value_and_what_is_allowed() {
    for (name, value, allowed) in [("--reset", "never", "copy, scan"), ("--access-log", "xml", "text, json, off")] {
        let ended = Host::with("hello").no_log().flag(name, value).end();
        ended.expect_complaint(2, &[name, value, allowed]);
    }
}

#[test]
fn an_env_file_that_is_wrong_names_its_line() {
    let dir = Scratch::new();
    let path = dir.file("vars", "A=1\n=2\n");
    let named = format!("{}:2", path.display());
    Host::with("hello").flag("--env-file", path).end().expect_complaint(2, &["--env-file", &named]);
    let missing: PathBuf = dir.join("missing");
    let named = missing.display().to_string();
    Host::with("hello").flag("--env-file", missing).end().expect_complaint(2, &["--env-file", &named]);
}

#[test]
fn an_unknown_flag_is_wrong_usage() {
    Host::with("hello").arg("--fast").end().expect_complaint(2, &["--fast"]);
    let ended = Setup::bare().end();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("Usage"), "{ended:?}");
}

#[test]
fn help_and_version_are_no_failure() {
    let help = Setup::bare().arg("run").arg("--help").end();
    assert_eq!(help.code, Some(0));
    for flag in [
        "--listen",
        "--env",
        "--dir",
        "--deadline",
        "--max-memory",
        "--max-body",
        "--max-workers",
        "--env-file",
        "--reset",
        "--no-cache",
        "--access-log",
        "--quiet",
        "--cpu",
        "--stream-deadline",
        "--drain",
        "--trusted-proxy",
        "--trust-precompiled",
    ] {
        assert!(help.stdout.contains(flag), "{flag} is not in the help");
    }
    let version = Setup::bare().arg("--version").end();
    assert_eq!((version.code, version.stdout.starts_with("astra-host 0.")), (Some(0), true));
}
