//! `check`: what it says of configuration files, right and wrong ones.

use crate::harness::{Ended, Scratch, Setup, guest};

fn check(dir: &Scratch, text: &str, flags: &[&str]) -> Ended {
    let file = dir.file("astra.toml", text);
    let setup = Setup::bare().environment("TOKEN", "hunter2").arg("check").arg(file);
    flags.iter().fold(setup, |setup, flag| setup.arg(*flag)).end()
}

/// A folder with a module and a Cargo package beside the configuration.
fn folder() -> Scratch {
    let dir = Scratch::new();
    std::fs::copy(guest("hello"), dir.join("hello.wasm")).expect("can be copied");
    dir.file("package/Cargo.toml", "");
    dir.file("secret", "s3cret\n");
    dir
}

const GOOD: &str = r#"
[server]
listen = "127.0.0.1:0"

[[handler]]
name = "hello"
module = "hello.wasm"
route = ["/hello/*", "/hi"]
probe = { path = "/hello/healthz?token=${env:TOKEN}" }
env = { TOKEN = "Bearer ${env:TOKEN}", FILE = "${file:secret}" }
dirs = { "/data" = "." }
args = ["app.py", "--flag"]

[[handler]]
name = "package"
module = "package"
route = "/*"
host = "*.example.com"
"#;

#[test]
fn a_good_file_is_ok_and_its_handlers_are_told() {
    let dir = folder();
    let ended = check(&dir, GOOD, &[]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let [ok, hello, package] = lines[..] else { panic!("{ended:?}") };
    assert!(ok.ends_with("astra.toml: ok, 2 handlers"), "{ok}");
    assert!(hello.starts_with("hello  /hello/*, /hi  hello.wasm  component, WASI HTTP 0.2."), "{hello}");
    assert!(hello.ends_with("KiB"), "{hello}");
    assert_eq!(package, "package  *.example.com/*  package  Cargo package, not built");
}

#[test]
fn a_file_may_be_named_without_its_folder() {
    let dir = folder();
    dir.file("astra.toml", GOOD);
    let script = format!("cd '{}' && exec \"$@\"", dir.path().display());
    let setup = Setup::bare().environment("TOKEN", "hunter2").arg("check").arg("astra.toml");
    let ended = setup.through_shell(&script).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("astra.toml: ok, 2 handlers\nhello  /hello/*, /hi  hello.wasm  "), "{ended:?}");
}

#[test]
fn what_is_printed_is_a_whole_file_without_secrets() {
    let dir = folder();
    let ended = check(&dir, GOOD, &["--print"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for secret in ["hunter2", "s3cret"] {
        assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "{ended:?}");
    }
    for line in [
        "listen = [\"127.0.0.1:0\"]",
        "max_body = \"10MiB\"",
        "limits.deadline = \"30s\"",
        "env.\"TOKEN\" = \"Bearer ${env:TOKEN}\"",
        "env.\"FILE\" = \"${file:secret}\"",
        "probe.path = \"/hello/healthz?token=${env:TOKEN}\"",
        "host = \"*.example.com\"",
        "args = [\"app.py\", \"--flag\"]",
        "# args: none",
    ] {
        assert!(ended.stdout.lines().any(|printed| printed == line), "{line}: {}", ended.stdout);
    }
    let again = check(&dir, &ended.stdout, &["--print"]);
    assert_eq!((again.code, again.stdout), (Some(0), ended.stdout));
}

#[test]
fn a_typo_at_any_level_is_named_with_what_was_meant() {
    let dir = folder();
    for (right, wrong, complaint) in [
        ("[server]", "[sever]", "astra.toml: unknown key `sever`; did you mean `server`?"),
        ("listen =", "lisen =", "astra.toml: [server]: unknown key `lisen`; did you mean `listen`?"),
        ("route = [", "rout = [", "astra.toml: handler `hello`: unknown key `rout`; did you mean `route`?"),
        ("{ path =", "{ pth =", "astra.toml: handler `hello`: unknown key `probe.pth`; did you mean `probe.path`?"),
        ("host =", "hots =", "astra.toml: handler `package`: unknown key `hots`; did you mean `host`?"),
    ] {
        let ended = check(&dir, &GOOD.replacen(right, wrong, 1), &["--print"]);
        ended.expect_complaint(1, &[complaint]);
        assert_eq!(ended.stdout, "");
    }
    check(&dir, "[server]\nlisten = 1 2\n", &[]).expect_complaint(1, &["astra.toml:2:10: "]);
    Setup::bare().arg("check").arg(dir.join("no.toml")).end().expect_complaint(1, &["no.toml", "No such file"]);
    assert_eq!(Setup::bare().arg("check").end().code, Some(2), "the file is missing on the command line");
}

#[test]
fn routes_that_overlap_are_refused_with_both_handlers() {
    let dir = folder();
    let text = "[[handler]]\nname = \"one\"\nmodule = \"hello.wasm\"\nroute = \"/users/:id\"\n\
                [[handler]]\nname = \"two\"\nmodule = \"hello.wasm\"\nroute = \"/users/:name\"\n";
    let both = "route `/users/:id` of handler `one` and route `/users/:name` of handler `two`";
    check(&dir, text, &[]).expect_complaint(1, &[both]);
    assert_eq!(check(&dir, &text.replace("/:name", "/me"), &[]).code, Some(0));
}

#[test]
fn handlers_that_cannot_be_served_are_all_named() {
    let dir = folder();
    dir.file("core.wasm", wat::parse_str("(module)").expect("valid text"));
    dir.file("empty/nothing", "");
    let handler = |name: &str, module: &str, more: &str| {
        format!("[[handler]]\nname = \"{name}\"\nmodule = \"{module}\"\nroute = \"/{name}\"\n{more}\n")
    };
    let text = handler("fine", "hello.wasm", "")
        + &handler("core", "core.wasm", "")
        + &handler("gone", "gone.wasm", "")
        + &handler("empty", "empty", "")
        + &handler("dirs", "hello.wasm", "dirs = { \"/data\" = \"nowhere\" }");
    let ended = check(&dir, &text, &[]);
    let complaints = [
        "astra.toml: handler `core`: ",
        "is a core module",
        "astra.toml: handler `gone`: ",
        "gone.wasm` cannot be read: No such file",
        "astra.toml: handler `empty`: ",
        "has no Cargo.toml",
        "astra.toml: handler `dirs`: ",
        "nowhere` cannot be opened: No such file",
    ];
    ended.expect_complaint(1, &complaints);
    assert!(!ended.stderr.contains("`fine`") && ended.stdout.is_empty(), "{ended:?}");
}
