//! Unix sockets that a host is told to listen on: who can connect, what guests are told of that, and what becomes of the file.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use crate::harness::{Client, Host, Scratch, Setup, guest};

/// A host that serves a guest at `app.sock` in that directory, and nowhere else.
fn serve(scratch: &Scratch, name: &str) -> (Host, PathBuf) {
    let path = scratch.join("app.sock");
    let host = listening(name, &path).begin();
    host.stdout_with(&line(&path));
    (host, path)
}

fn listening(name: &str, path: &Path) -> Setup {
    Host::with(name).no_listen().flag("--listen", format!("unix:{}", path.display())).arg("--no-state")
}

fn line(path: &Path) -> String {
    format!("listening on unix:{}", path.display())
}

fn stop(mut host: Host) {
    host.signal(Signal::TERM);
    assert_eq!(host.ended().code, Some(0));
}

#[test]
fn curl_is_served_over_the_socket_beside_clients_of_an_address() {
    let scratch = Scratch::short();
    let module = guest("hello");
    let text =
        format!("[server]\nlisten = ['127.0.0.1:0', 'unix:app.sock']\n[[handler]]\nname = 'a'\nmodule = {module:?}\n");
    let path = scratch.join("app.sock");
    let host = Setup::run(scratch.file("astra.toml", text)).no_listen().arg("--no-state").start();
    host.stdout_with(&line(&path));
    assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o666);
    assert_eq!(fs::read_dir(scratch.path()).expect("lists").count(), 2, "the file and the socket");
    assert_eq!(host.connect().get("/").text(), "Hello World!");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--max-time", "30", version, "--unix-socket"]).arg(&path).arg("http://localhost/");
        let output = curl.output().expect("curl is there");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello World!", "{output:?}");
    }
    stop(host);
    assert!(!path.exists());
}

#[test]
fn a_client_has_no_address_and_whoever_is_trusted_says_whose_it_is() {
    let scratch = Scratch::short();
    let claims =
        "GET / HTTP/1.1\r\nhost: app.example:81\r\nforwarded: for=192.0.2.1\r\nx-forwarded-for: 192.0.2.1\r\n\r\n";
    let (host, path) = serve(&scratch, "reads_request_head");
    let mut client = Client::connect_unix(&path);
    client.send(claims);
    let answer = client.answer();
    assert!(answer.text().contains("forwarded: for=unknown;proto=http\n"), "{}", answer.text());
    assert!(!answer.text().contains("192.0.2.1"), "{}", answer.text());
    assert!(host.access(&answer)["peer"].is_null());
    stop(host);

    let host = listening("reads_request_head", &path).flag("--trusted-proxy", "unix:").begin();
    host.stdout_with(&line(&path));
    let mut client = Client::connect_unix(&path);
    client.send(claims);
    let answer = client.answer();
    for line in ["forwarded: for=192.0.2.1, for=unknown;proto=http\n", "x-forwarded-for: 192.0.2.1\n"] {
        assert!(answer.text().contains(line), "{}", answer.text());
    }
    drop(host);

    let (_host, path) = serve(&scratch, "cgi");
    let mut client = Client::connect_unix(&path);
    client.send(claims.replace("GET /", "GET /env"));
    let answer = client.answer();
    let lines: Vec<_> = answer.text().lines().collect();
    assert!(lines.contains(&"SERVER_NAME=app.example") && lines.contains(&"SERVER_PORT=81"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("REMOTE_")), "{lines:?}");
}

#[test]
fn what_a_dead_host_left_is_replaced_and_a_live_one_is_left_alone() {
    let scratch = Scratch::short();
    let (mut killed, path) = serve(&scratch, "hello");
    let second = || listening("hello", &path).end();
    second().expect_complaint(1, &["unix:", "a process listens there already", "choose another path"]);
    assert_eq!(Client::connect_unix(&path).get("/").text(), "Hello World!");
    killed.signal(Signal::KILL);
    assert_eq!(killed.ended().code, None);
    assert!(path.exists());

    let (host, _) = serve(&scratch, "hello");
    assert_eq!(Client::connect_unix(&path).get("/").text(), "Hello World!");
    // Another program has taken the path: it is not the host's to remove.
    fs::remove_file(&path).expect("ours");
    let other = UnixListener::bind(&path).expect("binds");
    stop(host);
    assert!(path.exists());
    second().expect_complaint(1, &["a process listens there already"]);
    drop(other);
}

#[test]
fn a_path_that_cannot_be_a_socket_is_refused_and_left_as_it_is() {
    let scratch = Scratch::short();
    let file = scratch.file("notes", "mine");
    let refused = |path: &Path, words: &[&str]| listening("hello", path).end().expect_complaint(1, words);
    refused(&file, &["notes` is not the file of a socket, so it was left alone", "choose a path"]);
    assert_eq!(fs::read(&file).expect("reads"), b"mine");
    refused(&scratch.join("none/app.sock"), &["No such file", "a directory that exists"]);

    let flag = |listen: &str| Host::with("hello").no_listen().flag("--listen", listen).end();
    let long = format!("unix:{}", scratch.join(&"x".repeat(108)).display());
    flag(&long).expect_complaint(2, &["`--listen` must be `unix:` and a path that is", "no longer than 107 bytes"]);
    flag("https://unix:/run/app.sock")
        .expect_complaint(2, &["`--listen` must be an address", "on a Unix socket it is not"]);
    let module = guest("hello");
    let text = format!("[server]\nlisten = '{long}'\n[[handler]]\nname = 'hello'\nmodule = {module:?}\n");
    let check = Setup::bare().arg("check").arg(scratch.file("astra.toml", text)).end();
    check.expect_complaint(1, &["[server]: `listen[0]` must be `unix:` and a path"]);
}

#[test]
fn the_file_goes_before_the_requests_that_still_run_have_ended() {
    let scratch = Scratch::short();
    let (mut host, path) = serve(&scratch, "sse");
    let mut client = Client::connect_unix(&path);
    client.ask("/?ms=10&count=1000000");
    assert_eq!(client.head().status, 200);
    host.signal(Signal::TERM);
    while path.exists() {
        client.chunk().expect("it is not cut").expect("it goes on");
    }
    client.chunk().expect("it is not cut").expect("it goes on");
    drop(client);
    assert_eq!(host.ended().code, Some(0));
}
