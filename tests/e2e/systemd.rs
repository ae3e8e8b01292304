//! What systemd, or whatever speaks its protocols, passes to a host and is told by it.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr as IpAndPort, TcpListener},
    os::{
        fd::OwnedFd,
        unix::net::{SocketAddr, UnixDatagram, UnixListener},
    },
    path::PathBuf,
    process::Command,
};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::harness::{Client, HeldBuild, Host, Http, PATIENCE, Scratch, Setup, guest, skipped};

/// Runs the host with its standard input as the socket that was passed.
const PASSED: &str = r#"exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@""#;

/// What the host says next.
fn told(socket: &UnixDatagram) -> String {
    let mut text = [0; 4096];
    let length = socket.recv(&mut text).expect("the host says something");
    String::from_utf8(text[..length].to_vec()).expect("a text")
}

#[test]
fn systemd_is_told_when_a_host_is_ready_reloads_and_stops() {
    let scratch = Scratch::short();
    let by_path = SocketAddr::from_pathname(scratch.join("notify")).expect("is short");
    let mut sockets = vec![(by_path, scratch.join("notify").into_os_string())];
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("astra-e2e-{}", std::process::id());
        sockets.push((SocketAddr::from_abstract_name(&name).expect("is short"), format!("@{name}").into()));
    }
    for (address, name) in sockets {
        let socket = UnixDatagram::bind_addr(&address).expect("binds");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let mut host = Host::with("hello").environment("NOTIFY_SOCKET", name).start();
        let ready = format!("READY=1\nMAINPID={}", host.pid());
        assert_eq!(told(&socket), ready);
        host.signal(Signal::HUP);
        let reloading = told(&socket);
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("in one message");
        assert!(time.parse::<u64>().is_ok_and(|time| time > 0), "{reloading}");
        assert_eq!(told(&socket), ready);
        host.signal(Signal::TERM);
        assert_eq!(told(&socket), "STOPPING=1");
        assert_eq!(host.ended().code, Some(0));
    }
}

#[test]
fn systemd_is_told_nothing_after_the_end() {
    let scratch = Scratch::short();
    let build = HeldBuild::new(&scratch);
    let socket = UnixDatagram::bind(scratch.join("notify")).expect("binds");
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let handler = |name: &str, module: PathBuf| {
        format!("[[handler]]\nname = '{name}'\nmodule = '{}'\nroute = '/{name}'\n", module.display())
    };
    let text = format!("[server]\nlisten = '127.0.0.1:0'\n{}", handler("hello", guest("hello")));
    let file = scratch.file("astra.toml", &text);
    let setup = build.holds(Setup::run(&file)).no_listen().arg("--no-control").arg("--no-state");
    let mut host = setup.environment("NOTIFY_SOCKET", scratch.join("notify")).start();
    assert!(told(&socket).starts_with("READY=1"));
    fs::write(file, text + &handler("broken", build.broken.clone())).expect("ours");
    host.signal(Signal::HUP);
    assert!(told(&socket).starts_with("RELOADING=1"));
    build.begun(&host);
    // The reload is given up.
    host.signal(Signal::TERM);
    assert_eq!(told(&socket), "STOPPING=1");
    assert_eq!(host.ended().code, Some(0));
    socket.set_nonblocking(true).expect("a socket");
    assert_eq!(socket.recv(&mut [0; 64]).expect_err("nothing is said").kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_host_that_nobody_listens_to_serves_all_the_same() {
    for name in ["/nowhere/notify", "no path"] {
        let host = Host::with("hello").environment("NOTIFY_SOCKET", name).start();
        assert_eq!(host.get(Http::One, "/").status, 200);
        host.stderr_with("level\":\"warn");
    }
}

#[test]
fn a_host_listens_on_the_socket_that_it_is_passed_and_on_no_other() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = tcp.local_addr().expect("is bound");
    let scratch = Scratch::short();
    let path = scratch.join("http");
    let unix = UnixListener::bind(&path).expect("binds");

    let passed = |socket: OwnedFd| Host::with("hello").through_shell(PASSED).stdin(socket);
    let mut host = passed(tcp.into()).begin();
    assert_eq!(host.stdout_with("listening on"), format!("listening on http://{address}"));
    assert_eq!(Client::connect(address).get("/").text(), "Hello World!");
    host.signal(Signal::TERM);
    assert_eq!(host.ended().stdout.matches("listening").count(), 1);

    let mut host = passed(unix.into()).begin();
    assert_eq!(host.stdout_with("listening on"), format!("listening on unix:{}", path.display()));
    assert_eq!(Client::connect_unix(&path).get("/").text(), "Hello World!");
    host.signal(Signal::TERM);
    assert_eq!(host.ended().code, Some(0));
}

#[test]
fn what_is_passed_and_does_not_listen_is_refused() {
    let file = fs::File::open(guest("hello")).expect("is there");
    let (datagrams, _other) = UnixDatagram::pair().expect("a pair");
    let (stream, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    for (passed, words) in [
        (OwnedFd::from(file), &["number 1 is no stream socket", "ListenStream="][..]),
        (OwnedFd::from(datagrams), &["number 1 is no stream socket"]),
        (OwnedFd::from(stream), &["does not listen"]),
    ] {
        Host::with("hello").through_shell(PASSED).stdin(passed).end().expect_complaint(1, words);
    }
}

#[test]
fn sockets_that_were_passed_to_another_process_are_left_alone() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = tcp.local_addr().expect("is bound");
    let others = r#"exec 3<&0 </dev/null; export LISTEN_PID=1 LISTEN_FDS=1; exec "$@""#;
    let host = Setup::run(guest("hello")).through_shell(others).stdin(OwnedFd::from(tcp)).start();
    assert_ne!(host.addr(), address);
    assert_eq!(host.get(Http::Two, "/").text(), "Hello World!");
}

/// What systemd itself passes on: it starts the host when the first client comes.
#[test]
fn systemds_own_activation_starts_a_host_on_all_sockets_of_a_unit() {
    if let Err(error) = Command::new("systemd-socket-activate").arg("--version").output() {
        return skipped("`systemd-socket-activate`", &error.to_string());
    }
    let scratch = Scratch::short();
    let (one, two, notify) = (scratch.join("one"), scratch.join("two"), scratch.join("notify"));
    let told_to = UnixDatagram::bind(&notify).expect("binds");
    told_to.set_read_timeout(Some(PATIENCE)).expect("not zero");
    // It takes no port 0. This one is free until it is listened on, and kept for who says that others may have it too.
    let kept = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    kept.set_reuse_address(true).expect("a socket");
    kept.bind(&IpAndPort::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let tcp = kept.local_addr().ok().and_then(|address| address.as_socket()).expect("is bound");

    let unit = format!(
        "exec systemd-socket-activate -l {} -l {tcp} -l {} --fdname=web:port:api -E NOTIFY_SOCKET -E XDG_CACHE_HOME -E XDG_RUNTIME_DIR \"$@\"",
        one.display(),
        two.display()
    );
    let setup = Host::with("hello").no_listen().arg("--no-state").through_shell(&unit);
    let mut host = setup.environment("NOTIFY_SOCKET", &notify).begin();
    host.stderr_with("as 5");
    // What comes before the host is there waits for it.
    let mut client = Client::connect_unix(&two);
    client.ask("/");
    assert_eq!(told(&told_to), format!("READY=1\nMAINPID={}", host.pid()));
    assert_eq!(client.answer().text(), "Hello World!");
    for place in [format!("unix:{}", one.display()), format!("http://{tcp}"), format!("unix:{}", two.display())] {
        host.stdout_with(&format!("listening on {place}"));
    }
    assert_eq!(Client::connect(tcp).get("/").text(), "Hello World!");
    assert_eq!(Client::connect_unix(&one).get("/").text(), "Hello World!");
    drop(client);
    host.signal(Signal::TERM);
    assert_eq!(told(&told_to), "STOPPING=1");
    assert_eq!(host.ended().code, Some(0));
    assert!(one.exists() && two.exists(), "they are systemd's to remove");
}
