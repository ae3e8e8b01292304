//! TLS for clients: what guests are told of it, which certificate is shown to whom, and that it is exchanged while the host serves.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, net::UnixListener},
    },
    path::PathBuf,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd};
use rustix::process::Signal;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName},
};

use crate::harness::{Client, Ended, Host, Http2, PATIENCE, Scratch, Setup, field, guest, pattern};

type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

/// A folder with certificates and their keys.
struct Folder {
    scratch: Scratch,
    roots: RootCertStore,
}

impl Folder {
    fn new() -> Self {
        Self { scratch: Scratch::short(), roots: RootCertStore::empty() }
    }

    /// A certificate for `name` that clients trust from now on, and its key, in `FILE.pem` and `FILE.key`.
    fn certificate(&mut self, file: &str, name: &str) -> (PathBuf, PathBuf) {
        self.write(file, &rcgen::generate_simple_self_signed([name.to_owned()]).expect("a name"))
    }

    /// One that ends on the first day of that year.
    fn ending_in(&mut self, year: i32, file: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(["test".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, 1, 1));
        let signing_key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&signing_key).expect("a certificate");
        self.write(file, &CertifiedKey { cert, signing_key })
    }

    fn write(&mut self, file: &str, signed: &CertifiedKey<KeyPair>) -> (PathBuf, PathBuf) {
        self.roots.add(signed.cert.der().clone()).expect("a certificate");
        let key = self.scratch.file(&format!("{file}.key"), signed.signing_key.serialize_pem());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("ours");
        (self.scratch.file(&format!("{file}.pem"), signed.cert.pem()), key)
    }

    fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.into()
    }

    fn connect(&self, addr: SocketAddr, name: &str) -> TlsClient {
        let stream = TcpStream::connect(addr).expect("the host accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let session = ClientConnection::new(self.client(&["http/1.1"]), server_name(name)).expect("a client");
        Client::wrapping(StreamOwned::new(session, stream))
    }

    fn http2(&self, addr: SocketAddr, name: &str) -> Http2 {
        Http2::connect_tls(addr, server_name(name), self.client(&["h2", "http/1.1"]))
    }

    /// A configuration with the guest `hello` and these lines of `[server]`.
    fn config(&self, server: &str) -> PathBuf {
        let module = guest("hello");
        let text = format!("[server]\n{server}\n[[handler]]\nname = \"app\"\nmodule = \"{}\"\n", module.display());
        self.scratch.file("astra.toml", text)
    }

    fn check(&self, server: &str) -> Ended {
        Setup::bare().arg("check").arg(self.config(server)).end()
    }

    fn run(&self, server: &str) -> Setup {
        let setup = Setup::run(self.config(server)).no_listen();
        setup.flag("--control", self.scratch.join("control")).arg("--no-state")
    }
}

fn server_name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).expect("a name")
}

/// What the server has shown.
fn shown(client: &TlsClient) -> CertificateDer<'static> {
    let certificates = client.stream().conn.peer_certificates().expect("the handshake is over");
    certificates[0].clone().into_owned()
}

fn of(file: &PathBuf) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_file(file).expect("a certificate")
}

#[test]
fn guests_of_every_kind_are_told_of_https() {
    let mut folder = Folder::new();
    let (cert, key) = folder.certificate("test", "test");
    let serve = |name: &str| {
        let setup = Host::with(name).no_listen().flag("--listen", "https://127.0.0.1:0");
        let host = setup.flag("--tls-cert", &cert).flag("--tls-key", &key).start();
        host.stdout_with(&format!("listening on https://{}", host.addr()));
        host
    };
    let host = serve("reads_request_head");
    let mut client = folder.connect(host.addr(), "test");
    let peer = client.stream().sock.local_addr().expect("connected");
    for head in [client.get("/"), folder.http2(host.addr(), "test").get("/")] {
        assert!(head.text().contains("scheme Some(Scheme::Https)"), "{}", head.text());
        assert!(head.text().contains(";proto=https"), "{}", head.text());
    }
    assert!(client.get("/").text().contains(&peer.to_string()));

    let host = serve("wasip3_guest");
    let expected = r#"Method::Get Some(Scheme::Https) Some("test") /request"#;
    assert_eq!(folder.connect(host.addr(), "test").get("/request").text(), expected);

    let host = serve("cgi");
    let port = host.addr().port().to_string();
    for answer in [folder.connect(host.addr(), "test").get("/env"), folder.http2(host.addr(), "test").get("/env")] {
        let variables: Vec<_> = answer.text().lines().filter_map(|line| line.split_once('=')).collect();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(field(&variables, "HTTPS"), Some("on"));
        assert_eq!(field(&variables, "REQUEST_SCHEME"), Some("https"));
        assert_eq!(field(&variables, "SERVER_PORT"), Some(port.as_str()));
    }
}

#[test]
fn large_bodies_are_echoed_over_both_versions() {
    let mut folder = Folder::new();
    let (cert, key) = folder.certificate("test", "test");
    let setup = Host::with("echo").no_listen().flag("--listen", "https://127.0.0.1:0");
    let host = setup.flag("--tls-cert", cert).flag("--tls-key", key).start();
    let body = pattern(1_000_000);
    let mut client = folder.connect(host.addr(), "test");
    for _ in 0..2 {
        assert!(client.post("/echo", &body).body == body);
    }
    let mut connection = folder.http2(host.addr(), "test");
    let mut stream = connection.open("POST", "/echo", &[], false);
    stream.send(&body, true).expect("the host takes it");
    assert!(stream.answer().expect("a whole answer").body == body);
}

#[test]
fn a_client_is_shown_the_certificate_for_the_name_that_it_asks_for() {
    let mut folder = Folder::new();
    let one = folder.certificate("one", "one.example").0;
    let below = folder.certificate("below", "*.two.example").0;
    let two = folder.certificate("two", "two.example").0;
    let certificates = ["one", "below", "two"]
        .map(|name| format!("[[server.tls]]\ncert = \"{name}.pem\"\nkey = \"{name}.key\"\n"))
        .concat();
    let listen = "listen = [\"https://127.0.0.1:0\", \"127.0.0.1:0\"]";
    let host = folder.run(&format!("{listen}\n{certificates}")).start();
    for (name, file) in [("one.example", &one), ("a.two.example", &below), ("two.example", &two)] {
        let mut client = folder.connect(host.addr(), name);
        assert_eq!(client.get("/").text(), "Hello World!");
        assert_eq!(shown(&client), of(file), "{name}");
    }
    // Whoever asks for another name is shown the first, and may not like it.
    let mut stranger = folder.connect(host.addr(), "three.example");
    let error = stranger.try_send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").expect_err("it is of another name");
    assert!(error.to_string().contains("one.example"), "{error}");

    let is_plain = |line: &str| line.starts_with("listening on http://");
    let plain = host.stdout_where("the other address", is_plain).split_off("listening on http://".len());
    assert_eq!(Client::connect(plain.parse().expect("an address")).get("/").text(), "Hello World!");
    let status = Setup::bare().arg("status").flag("--control", folder.scratch.join("control")).end();
    assert!(status.stdout.contains(&format!("https://{} http://{plain}", host.addr())), "{status:?}");
    assert_eq!(Client::connect(host.addr()).get("/").status, 400, "plain HTTP where TLS is spoken");
}

#[test]
fn a_certificate_is_exchanged_while_the_host_serves() {
    let mut folder = Folder::new();
    let (cert, key) = folder.certificate("shown", "test");
    let host =
        folder.run("listen = \"https://127.0.0.1:0\"\ntls = { cert = \"shown.pem\", key = \"shown.key\" }").start();
    let mut before = folder.connect(host.addr(), "test");
    assert_eq!(before.get("/").text(), "Hello World!");
    assert_eq!(shown(&before), of(&cert));

    // Half of an exchange, and nonsense: what was there stays.
    let (new_cert, new_key) = folder.certificate("new", "test");
    fs::rename(&new_cert, &cert).expect("ours");
    host.stderr_with("is not that of the certificate");
    let mut client = folder.connect(host.addr(), "test");
    assert_eq!(client.get("/").text(), "Hello World!");
    assert_eq!(shown(&client).to_vec(), shown(&before).to_vec());
    fs::write(&key, "nonsense").expect("ours");
    host.stderr_with(
        "must be a PEM file with a private key, found no PEM at all; the certificate from before is still shown",
    );

    fs::rename(&new_key, &key).expect("ours");
    host.stderr_with("shown.pem` has changed and is shown from now on");
    let started = Instant::now();
    loop {
        let mut client = folder.connect(host.addr(), "test");
        assert_eq!(client.get("/").text(), "Hello World!");
        if shown(&client) == of(&cert) {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "the new certificate is never shown");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(before.get("/").text(), "Hello World!", "on the connection from before");
}

#[test]
fn files_that_are_gone_are_told_once_and_what_they_had_is_shown_on() {
    let mut folder = Folder::new();
    let (cert, key) = folder.certificate("shown", "test");
    let mut host =
        folder.run("listen = \"https://127.0.0.1:0\"\ntls = { cert = \"shown.pem\", key = \"shown.key\" }").start();
    let moved = folder.scratch.join("moved");
    fs::rename(&key, &moved).expect("ours");
    host.stderr_with("shown.key` is gone: what was read from it is still used");
    fs::remove_file(&cert).expect("ours");
    host.stderr_with("shown.pem` is gone");
    assert_eq!(folder.connect(host.addr(), "test").get("/").text(), "Hello World!");
    // What comes back is taken, if all of it does.
    folder.certificate("shown", "test");
    host.stderr_with("shown.pem` has changed and is shown from now on");
    host.signal(Signal::TERM);
    assert_eq!(host.ended().stderr.matches("is gone").count(), 2);
}

#[test]
fn certificates_that_clients_will_refuse_and_keys_that_all_may_read_are_warned_of() {
    let mut folder = Folder::new();
    let (cert, key) = folder.ending_in(2021, "old");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("ours");
    let server = "listen = \"https://127.0.0.1:0\"\ntls = { cert = \"old.pem\", key = \"old.key\" }";
    let checked = folder.check(server);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let warnings = ["old.pem` has ended on 2021-01-01T00:00:00Z", "everybody may read the key `"];
    for warning in warnings {
        assert!(checked.stderr.contains(warning), "{checked:?}");
    }
    let host = folder.run(server).start();
    for warning in warnings {
        host.stderr_with(warning);
    }
    let (new_cert, new_key) = folder.ending_in(2022, "new");
    fs::rename(new_key, key).and_then(|()| fs::rename(new_cert, cert)).expect("ours");
    host.stderr_with("old.pem` has ended on 2022-01-01T00:00:00Z");
    let (cert, key) = folder.ending_in(2200, "old");
    let checked = folder.check(server);
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{cert:?} {key:?}");
}

/// Runs the host with its standard input as the socket that was passed.
const PASSED: &str = r#"exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@""#;

#[test]
fn on_a_socket_that_is_passed_on_tls_is_spoken_if_it_is_configured() {
    let mut folder = Folder::new();
    folder.certificate("one", "test");
    let tls = "tls = { cert = \"one.pem\", key = \"one.key\" }";
    let passed = |folder: &Folder, listen: &str, socket: OwnedFd| {
        folder.run(&format!("listen = {listen}\n{tls}")).through_shell(PASSED).stdin(socket)
    };
    let tcp = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listener = tcp();
    let address = listener.local_addr().expect("is bound");
    // Another port than the configured one: a unit's goes before it.
    let host = passed(&folder, "\"https://127.0.0.1:1\"", listener.into()).begin();
    assert_eq!(host.stdout_with("listening on"), format!("listening on https://{address}"));
    assert_eq!(folder.connect(address, "test").get("/").text(), "Hello World!");
    assert_eq!(Client::connect(address).get("/").status, 400, "plain HTTP where TLS is spoken");

    // It is told what it is, by its new configuration too.
    folder.config("listen = \"127.0.0.1:1\"");
    let upgraded = Setup::bare().arg("upgrade").flag("--control", folder.scratch.join("control")).end();
    let would = format!("`https://{address}`, which was passed on, would be `http://{address}`");
    upgraded.expect_complaint(1, &["serves on", &would]);
    drop(host);

    let ended = passed(&folder, "[\"https://127.0.0.1:1\", \"127.0.0.1:2\"]", tcp().into()).end();
    ended.expect_complaint(1, &["which was passed on", "with TLS and without; add `http://127.0.0.1:"]);
    let path = folder.scratch.join("http");
    let unix = UnixListener::bind(&path).expect("binds");
    let ended = passed(&folder, "\"https://127.0.0.1:1\"", unix.into()).end();
    ended.expect_complaint(1, &["not spoken on Unix sockets; add `unix:", "to serve plain HTTP there"]);
}

#[test]
fn certificates_that_cannot_be_used_are_found_by_check_and_refused_at_start() {
    let mut folder = Folder::new();
    folder.certificate("one", "one.example");
    folder.certificate("two", "two.example");
    folder.scratch.file("empty", "");
    let made = Command::new("mkfifo").arg(folder.scratch.join("fifo")).status().expect("POSIX has it");
    assert!(made.success());
    let listen = "listen = \"https://127.0.0.1:0\"";
    let good = format!("{listen}\ntls = {{ cert = \"one.pem\", key = \"one.key\" }}");
    assert_eq!(folder.check(&good).code, Some(0));
    for (cert, key, words) in [
        ("one.pem", "two.key", ["one.pem`", "two.key` is not that of the certificate"]),
        (
            "one.key",
            "one.pem",
            ["one.key` must be a PEM file with a certificate", "are certificate and key exchanged?"],
        ),
        ("empty", "one.key", ["empty` must be a PEM file with a certificate", "it is empty"]),
        ("one.pem", "none", ["`tls[0].key`: `", "none` cannot be read: No such file"]),
        ("fifo", "one.key", ["`tls[0].cert`: `", "fifo` cannot be read: it is a pipe, a socket or a device"]),
        ("one.pem", ".", ["` cannot be read", "it is a directory"]),
    ] {
        let server = format!("{listen}\ntls = {{ cert = \"{cert}\", key = \"{key}\" }}");
        folder.check(&server).expect_complaint(1, &[&["astra.toml: [server]: "], &words[..]].concat());
        folder.run(&server).end().expect_complaint(1, &words);
    }
    folder.check(listen).expect_complaint(1, &["[server]: `listen` has an address", "`tls` is missing"]);
    folder
        .check("listen = \"127.0.0.1:0\"\ntls = { cert = \"one.pem\", key = \"one.key\" }")
        .expect_complaint(1, &["`tls` is for addresses in `listen` that begin with `https://`"]);

    let flags = |listen: &str| Host::with("hello").no_listen().flag("--listen", listen);
    flags("https://127.0.0.1:0").end().expect_complaint(1, &["without a certificate", "--tls-cert FILE"]);
    let cert = folder.scratch.join("one.pem");
    let key = folder.scratch.join("one.key");
    let only = flags("https://127.0.0.1:0").flag("--tls-cert", &cert).end();
    only.expect_complaint(2, &["`--tls-key` must be given once for each --tls-cert"]);
    let plain = flags("127.0.0.1:0").flag("--tls-cert", &cert).flag("--tls-key", &key).end();
    plain.expect_complaint(2, &["`--listen` must be an address that begins with `https://`"]);
}

#[test]
fn a_host_that_is_replaced_by_a_new_process_goes_on_speaking_tls() {
    /// Stops the new process, also when the test fails.
    struct Stopped(PathBuf);
    impl Drop for Stopped {
        fn drop(&mut self) {
            Setup::bare().arg("stop").arg("--no-wait").flag("--control", &self.0).end();
        }
    }

    let mut folder = Folder::new();
    folder.certificate("one", "test");
    let listen = "listen = [\"https://127.0.0.1:0\", \"127.0.0.1:0\"]";
    let mut host = folder.run(&format!("{listen}\ntls = {{ cert = \"one.pem\", key = \"one.key\" }}")).start();
    let plain = host.stdout_where("the other address", |line| line.starts_with("listening on http://"));
    let plain = plain["listening on http://".len()..].parse().expect("an address");
    let control = folder.scratch.join("control");
    let mut kept = folder.connect(host.addr(), "test");
    assert_eq!(kept.get("/").text(), "Hello World!");
    let upgraded = Setup::bare().arg("upgrade").flag("--control", &control).end();
    let _stopped = Stopped(control);
    assert_eq!(upgraded.code, Some(0), "{upgraded:?}");
    // The old one may answer a few more before it knows that it ends.
    while kept.get("/").header("connection") != Some("close") {}
    drop(kept);
    assert_eq!(host.exit_code(), Some(0));
    assert_eq!(folder.connect(host.addr(), "test").get("/").text(), "Hello World!");
    assert_eq!(folder.http2(host.addr(), "test").get("/").text(), "Hello World!");
    assert_eq!(Client::connect(plain).get("/").text(), "Hello World!");
}
