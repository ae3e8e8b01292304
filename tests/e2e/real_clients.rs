//! Clients that people really use do what they do, over HTTP/1.1 and HTTP/2: none of them may find a fault.
//!
//! Where a client is missing its test passes and says what was skipped, on the standard error, past the capture of tests' output. Those
//! of Python and Node are in `tests/clients`.

use std::{
    fs, io,
    path::Path,
    process::{Command, Output},
};

use crate::harness::{Host, Scratch, Setup, guest, pattern, root, skipped};

/// A host that says hello at `/` and echoes at `/echo`.
fn host(scratch: &Scratch) -> Host {
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[[handler]]\nname = \"hello\"\nmodule = {:?}\nroute = \"/*\"\n[[handler]]\nname = \
         \"echo\"\nmodule = {:?}\nroute = \"/echo\"\n",
        guest("hello"),
        guest("echo"),
    );
    Setup::run(scratch.file("astra.toml", config)).start()
}

/// What `command` has said, once it has ended well; none, and a line that says so, if it is not there.
fn output(command: &mut Command) -> Option<Output> {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            skipped(&format!("the client `{}`", command.get_program().display()), "it is not installed");
            return None;
        }
        Err(error) => panic!("{command:?}: {error}"),
    };
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    Some(output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn url(host: &Host) -> String {
    format!("http://{}", host.addr())
}

/// A file with so many bytes.
fn upload(scratch: &Scratch, length: usize) -> (std::path::PathBuf, Vec<u8>) {
    let body = pattern(length);
    (scratch.file("upload", &body), body)
}

#[test]
fn curl_finds_no_fault() {
    let scratch = Scratch::new();
    let host = host(&scratch);
    let (file, body) = upload(&scratch, 3 << 20);
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge", "--http2"] {
        let curl = |arguments: &[&str]| {
            let mut command = Command::new("curl");
            output(command.args(["-sS", "--fail", "--max-time", "30", version]).args(arguments))
        };
        let (hello, echo) = (url(&host), format!("{}/echo", url(&host)));
        // With prior knowledge curl 7.88, which is Debian 12's, breaks its own second request, to whomever.
        let times = if version == "--http2-prior-knowledge" { 1 } else { 3 };
        let Some(answers) = curl(&vec![hello.as_str(); times]) else { return };
        assert_eq!(text(&answers.stdout), "Hello World!".repeat(times), "{version}");
        let head = curl(&["--head", &hello]).expect("it is installed");
        assert!(text(&head.stdout).to_lowercase().contains("content-length: 12"), "{version}: {}", text(&head.stdout));
        // With a length and `Expect: 100-continue`; then without a length.
        let sent = format!("@{}", file.display());
        for upload in [&["--data-binary", &sent][..], &["-H", "transfer-encoding: chunked", "--data-binary", &sent][..]]
        {
            // HTTP/1.0 knows no chunks.
            if version == "--http1.0" && upload.len() > 2 {
                continue;
            }
            let echoed = curl(&[upload, &[echo.as_str()]].concat()).expect("it is installed");
            assert!(echoed.stdout == body, "{version}: {} bytes came back", echoed.stdout.len());
        }
    }
}

#[test]
fn nghttp_finds_no_fault() {
    let scratch = Scratch::new();
    let host = host(&scratch);
    let (file, body) = upload(&scratch, 3 << 20);
    let echo = format!("{}/echo", url(&host));
    let Some(echoed) = output(Command::new("nghttp").arg("-d").arg(&file).arg(&echo)) else { return };
    assert!(echoed.stdout == body, "{} bytes came back", echoed.stdout.len());
    let many = output(Command::new("nghttp").args(["-m", "50", "--no-dep"]).arg(url(&host))).expect("it is installed");
    assert_eq!(text(&many.stdout), "Hello World!".repeat(50));
}

#[test]
fn load_generators_find_no_fault() {
    let scratch = Scratch::new();
    let host = host(&scratch);
    let url = format!("{}/", url(&host));
    for flags in [&["-n", "4000", "-c", "20", "-m", "10"][..], &["--h1", "-n", "4000", "-c", "20"][..]] {
        if let Some(output) = output(Command::new("h2load").args(flags).arg(&url)) {
            let said = text(&output.stdout);
            assert!(said.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"), "{flags:?}: {said}");
        }
    }
    for flags in [&["-n", "4000", "-c", "20"][..], &["-n", "4000", "-c", "20", "-k"][..]] {
        if let Some(output) = output(Command::new("ab").args(flags).arg(&url)) {
            let said = text(&output.stdout);
            assert!(said.contains("Complete requests:      4000"), "{flags:?}: {said}");
            assert!(said.contains("Failed requests:        0") && !said.contains("Non-2xx"), "{flags:?}: {said}");
        }
    }
    for flags in [&["-n", "4000", "-c", "20"][..], &["-n", "4000", "-c", "20", "-disable-keepalive"][..]] {
        hey(flags, &url);
    }
    if let Some(output) = output(Command::new("wrk").args(["-t1", "-c50", "-d1s"]).arg(&url)) {
        let said = text(&output.stdout);
        assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
    }
}

/// It has no answers but 200, and no errors.
fn hey(flags: &[&str], url: &str) {
    if let Some(output) = output(Command::new("hey").args(flags).arg(url)) {
        let said = text(&output.stdout);
        assert!(said.contains("[200]\t4000 responses") && !said.contains("Error distribution"), "{flags:?}: {said}");
    }
}

/// It asks for no proof of who the host is. Without `-host` it calls it by address and port, which is no name (RFC 6066 section 3), and rustls
/// refuses that.
#[test]
fn hey_finds_no_fault_with_http2_over_tls() {
    let scratch = Scratch::new();
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a name");
    let cert = scratch.file("cert.pem", signed.cert.pem());
    let key = scratch.file("key.pem", signed.signing_key.serialize_pem());
    let setup = Host::with("hello").no_listen().flag("--listen", "https://127.0.0.1:0");
    let host = setup.flag("--tls-cert", cert).flag("--tls-key", key).start();
    let flags = ["-host", "localhost", "-n", "4000", "-c", "20"];
    for flags in [&flags[..], &[&flags[..], &["-h2"]].concat()] {
        hey(flags, &format!("https://{}/", host.addr()));
    }
}

#[test]
fn clients_of_python_find_no_fault() {
    let python = root().join("tests/clients/.venv/bin/python");
    finds_no_fault(&python, "clients.py");
}

/// It makes requests from what the guest says of itself, right and wrong ones, the same each time, and looks whether the answers are what it says.
#[test]
fn schemathesis_finds_no_fault() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("notes")).expect("ours");
    let dir = format!("{}::/notes:rw", scratch.join("notes").display());
    let host = Host::with("notes").flag("--dir", dir).start();
    let program = root().join("tests/clients/.venv/bin/schemathesis");
    let mut schemathesis = Command::new(program);
    schemathesis.args(["run", "--checks", "all", "--max-examples", "50", "--generation-deterministic"]);
    schemathesis.args(["--no-color", "--request-timeout", "30", "--warnings", "off"]);
    schemathesis.arg(format!("{}/openapi.json", url(&host))).current_dir(scratch.path());
    if let Some(output) = output(&mut schemathesis) {
        let said = text(&output.stdout);
        assert!(said.contains("No issues found"), "{said}");
    }
}

#[test]
fn clients_of_node_find_no_fault() {
    if root().join("tests/clients/node_modules").is_dir() {
        finds_no_fault(Path::new("node"), "clients.mjs");
    } else {
        skipped("the client `clients.mjs`", "`npm ci` was not run in `tests/clients`");
    }
}

fn finds_no_fault(interpreter: &Path, script: &str) {
    let scratch = Scratch::new();
    let host = host(&scratch);
    let script = root().join("tests/clients").join(script);
    if let Some(output) = output(Command::new(interpreter).arg(script).arg(url(&host))) {
        assert_eq!(text(&output.stdout).lines().last(), Some("ok"));
    }
}
