//! CGI programs (RFC 3875): components that export `wasi:cli/run`, and core modules with `_start`.

use std::collections::HashMap;

use crate::harness::{BOTH, Host, Http, Scratch, Setup, guest};

#[test]
fn a_program_prints_its_answer() {
    let host = Host::of("cgi");
    host.stdout_with("CGI program, a component that exports `wasi:cli/run` 0.2.");
    for version in BOTH {
        let answer = host.get(version, "/");
        assert_eq!((answer.status, answer.text()), (200, "Hello World!"));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(host.access(&answer)["outcome"], "ok");
        assert_eq!(host.get(version, "/bytes").body, [0xff, 0, 0xfe]);
    }
}

#[test]
fn a_core_module_is_a_program_too() {
    let text = "Content-Type: text/plain\\n\\nHello World!";
    let module = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\26\00\00\00")
            (data (i32.const 16) "{text}")
            (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    );
    let dir = Scratch::new();
    let module = dir.file("hello.wasm", wat::parse_str(module).expect("valid text"));
    let host = Setup::run(&module).start();
    host.stdout_with("CGI program, a core module that exports `_start`");
    for version in BOTH {
        assert_eq!(host.get(version, "/").text(), "Hello World!");
    }
    let compiled = dir.path().join("hello.cwasm");
    let made = Setup::bare().arg("compile").arg(&module).flag("--output", &compiled).end();
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let host = Setup::run(&compiled).arg("--trust-precompiled").start();
    assert_eq!(host.get(Http::One, "/").text(), "Hello World!");
}

fn variables(host: &Host, version: Http, path: &str, headers: &[(&str, &str)]) -> HashMap<String, String> {
    let answer = host.ask(version, "GET", path, headers, None).expect("a whole answer");
    let pairs = answer.text().lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn arguments_follow_the_name_of_the_program() {
    let with = |setup: Setup| setup.flag("--arg", "app.py").flag("--arg", "--flag").flag("--arg", "").start();
    let host = with(Host::with("cgi"));
    for version in BOTH {
        assert_eq!(host.get(version, "/arguments").text(), r#"["cgi", "app.py", "--flag", ""]"#);
    }
    assert_eq!(Host::of("cgi").get(Http::One, "/arguments").text(), r#"["cgi"]"#);

    let module = r#"(module
        (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "args_get" (func $get (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (; to be printed: the head, and the arguments, whose length is to come at 12 ;)
        (data (i32.const 0) "\40\00\00\00\1a\00\00\00\00\04\00\00")
        (data (i32.const 64) "Content-Type: text/plain\n\n")
        (func (export "_start")
            (drop (call $sizes (i32.const 32) (i32.const 12)))
            (drop (call $get (i32.const 512) (i32.const 1024)))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 40)))
            (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 40)))))"#;
    let dir = Scratch::new();
    let host = with(Setup::run(dir.file("core.wasm", wat::parse_str(module).expect("valid text"))));
    assert_eq!(host.get(Http::One, "/").text(), "core\0app.py\0--flag\0\0");
}

#[test]
fn what_was_granted_goes_before_what_a_request_says() {
    let host = Host::with("cgi")
        .flag("--env", "HTTP_X_USER=granted")
        .flag("--env", "HTTPS=on")
        .flag("--env", "SERVER_NAME=example.com")
        .flag("--env", "SERVER_PORT=0")
        .flag("--env", "SERVER_PORT=443")
        .start();
    for version in BOTH {
        let answer = host.ask(version, "GET", "/env", &[("x-user", "forged"), ("x-other", "1")], None);
        let answer = answer.expect("a whole answer");
        let of = |name: &str| answer.text().lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
        assert_eq!(of("HTTP_X_USER="), ["HTTP_X_USER=granted"]);
        assert_eq!((of("HTTPS="), of("SERVER_NAME=")), (vec!["HTTPS=on"], vec!["SERVER_NAME=example.com"]));
        assert_eq!((of("SERVER_PORT="), of("HTTP_X_OTHER=")), (vec!["SERVER_PORT=443"], vec!["HTTP_X_OTHER=1"]));
    }
}

#[test]
fn a_program_finds_its_request_in_the_environment() {
    let host = Host::with("cgi").flag("--env", "GRANTED=yes").start();
    let port = host.addr().port().to_string();
    for version in BOTH {
        let headers = [
            ("x-two", "1"),
            ("x-two", "2"),
            ("cookie", "a=1"),
            ("proxy", "http://evil.example"),
            ("x_two", "forged"),
            ("authorization", "Basic abc"),
        ];
        let found = variables(&host, version, "/env?a=b&c=%20", &headers);
        let expected = [
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("REQUEST_METHOD", "GET"),
            ("REQUEST_URI", "/env?a=b&c=%20"),
            ("QUERY_STRING", "a=b&c=%20"),
            ("SCRIPT_NAME", ""),
            ("PATH_INFO", "/env"),
            ("SERVER_NAME", "test"),
            ("SERVER_PORT", &port),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("HTTP_HOST", "test"),
            ("HTTP_X_TWO", "1, 2"),
            ("HTTP_COOKIE", "a=1"),
            ("HTTP_AUTHORIZATION", "Basic abc"),
            ("GRANTED", "yes"),
        ];
        for (name, value) in expected {
            assert_eq!(found.get(name).map(String::as_str), Some(value), "{version:?} {name}");
        }
        assert!(found["SERVER_PROTOCOL"].starts_with("HTTP/") && found["SERVER_SOFTWARE"].starts_with("astra-host/"));
        for absent in ["HTTP_PROXY", "CONTENT_LENGTH", "CONTENT_TYPE", "HTTPS", "PATH", "HTTP_CONTENT_LENGTH"] {
            assert_eq!(found.get(absent), None, "{version:?}");
        }
    }
}

#[test]
fn the_authority_of_the_target_goes_before_host() {
    let host = Host::of("cgi");
    let mut client = host.connect();
    client.send("GET http://target.example:81/env HTTP/1.1\r\nhost: other.example\r\n\r\n");
    let answer = client.answer();
    let lines: Vec<_> = answer.text().lines().collect();
    for line in ["HTTP_HOST=target.example:81", "SERVER_NAME=target.example", "REQUEST_URI=/env"] {
        assert!(lines.contains(&line), "{line} is not in {lines:?}");
    }
}

#[test]
fn a_route_with_a_rest_names_the_script() {
    let dir = Scratch::new();
    let config = format!(
        "[[handler]]\nname = \"cgi\"\nmodule = {:?}\nroute = [\"/app/*\", \"/env\"]\n",
        guest("cgi").display().to_string()
    );
    let host = Setup::run(dir.file("astra.toml", config)).start();
    let found = variables(&host, Http::One, "/app/env", &[]);
    assert_eq!((found["SCRIPT_NAME"].as_str(), found["PATH_INFO"].as_str()), ("/app", "/env"));
    assert_eq!(
        host.get(Http::One, "/env").text(),
        "Hello World!",
        "the whole path is the script's, so there is no rest"
    );
}

#[test]
fn what_is_sent_to_a_program_comes_back() {
    Host::of("cgi").expect_echo();
}

#[test]
fn the_head_says_status_and_fields() {
    let host = Host::of("cgi");
    for version in BOTH {
        let answer = host.get(version, "/status");
        assert_eq!((answer.status, answer.text()), (404, "no such thing"));
        let redirect = host.get(version, "/redirect");
        assert_eq!((redirect.status, redirect.header("location")), (302, Some("https://example.com/")));
        let answer = host.get(version, "/hop-by-hop");
        assert_eq!((answer.text(), answer.header("x-stays"), answer.header("connection")), ("body", Some("1"), None));
        assert_eq!(answer.header("x-hop"), None, "what the program's `connection` names");
        assert_eq!(host.get(version, "/exits-well").text(), "all of it");
    }
}

#[test]
fn what_is_no_answer_is_500_and_the_log_says_why() {
    let host = Host::of("cgi");
    host.expect("/nothing", 500, "no_answer");
    for (path, reason) in [
        ("/no-head", "expected fields such as `Content-Type: text/plain`"),
        ("/half-a-head", "it ends in the middle of the head"),
        ("/nph", "print `Status: 200` instead"),
        ("/long-head", "longer than 64 KiB"),
    ] {
        host.expect(path, 500, "guest_error");
        host.stderr_with(reason);
    }
    for (path, outcome) in [("/exits-badly", "exit"), ("/too-short", "unfinished")] {
        for version in BOTH {
            // On a slow machine a tick may pass between its head and its end, and the head goes out: then it is asked again.
            let answer = (0..20).find_map(|_| host.ask(version, "GET", path, &[], None).ok()).expect("a whole answer");
            assert_eq!(answer.status, 500, "{path} over {version:?}");
            let access = host.access(&answer);
            assert_eq!(access["outcome"], outcome, "{version:?}: {access}");
            assert_eq!(access["status"], 500, "{version:?}: {access}");
        }
    }
    host.stderr_with("has nothing to say");
}

#[test]
fn a_program_that_fails_later_cuts_its_answer() {
    Host::of("cgi").expect_cut("/panics-later", "half of it", "trap");
}

#[test]
fn a_program_answers_before_it_has_ended() {
    let host = Host::of("cgi");
    for version in BOTH {
        let (mut client, mut connection);
        match version {
            Http::One => {
                client = host.connect();
                client.ask("/slowly");
                assert_eq!(client.head().status, 200);
            }
            Http::Two => {
                connection = host.http2();
                let mut stream = connection.open("GET", "/slowly", &[], true);
                assert_eq!(stream.head().expect("a head").status, 200);
            }
        }
    }
}

#[test]
fn a_program_is_cut_by_its_limits_and_by_its_client() {
    let host = Host::with("cgi").flag("--stream-deadline", "100ms").start();
    host.expect_cut("/slowly", "first", "deadline");
    let host = Host::of("cgi");
    let mut client = host.connect();
    client.ask("/without-end");
    let head = client.head();
    drop(client);
    host.expect_outcome(head.header("x-request-id"), "client_gone");
}
