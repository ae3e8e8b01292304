//! TLS on a listener: who is let in and by what protocol, bodies through records of every size, ends that can be told from cuts,
//! handshakes that hold up nobody. rustls is the client, and where the machine has it, curl (with OpenSSL).

mod support;

use std::future::{Future, pending};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use astra_server::{
    Body, Bytes, ConnectionInfo, Event, Exchange, Gone, Interrupted, Request, Response, ResponseBuilder, Server, wait,
};
use h2::client::SendRequest;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig};
use rustls::{StreamOwned, SupportedProtocolVersion};
use support::frames::{DATA, INITIAL_WINDOW_SIZE, PREFACE, get, settings, window_update};
use support::{Gate, HandlerFn, PATIENCE, Running, pattern, signals, start, start_handler};

type Client = support::Client<StreamOwned<ClientConnection, TcpStream>>;

/// For the name `test`, signed by itself.
static CERTIFICATE: LazyLock<rcgen::CertifiedKey<rcgen::KeyPair>> =
    LazyLock::new(|| rcgen::generate_simple_self_signed(["test".to_owned()]).expect("a certificate"));

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn config() -> ServerConfig {
    let key = PrivateKeyDer::try_from(CERTIFICATE.signing_key.serialize_der()).expect("a key");
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&BOTH)
        .expect("ring has both")
        .with_no_client_auth()
        .with_single_cert(vec![CERTIFICATE.cert.der().clone()], key)
        .expect("they match")
}

/// A server with default settings that speaks TLS on a free port.
fn server() -> Server {
    Server::default().and_bind_tls("127.0.0.1:0", config()).expect("a free port on 127.0.0.1")
}

fn client_config(versions: &[&'static SupportedProtocolVersion], protocols: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CERTIFICATE.cert.der().clone()).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("ring has both")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

fn over(stream: TcpStream, config: impl Into<Arc<ClientConfig>>) -> Client {
    stream.set_nodelay(true).expect("TCP has nodelay");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
    let name = ServerName::try_from("test").expect("a name");
    let session = ClientConnection::new(config.into(), name).expect("a client");
    Client::wrapping(StreamOwned::new(session, stream))
}

fn connect_with(addr: SocketAddr, config: impl Into<Arc<ClientConfig>>) -> Client {
    over(TcpStream::connect(addr).expect("the server accepts"), config)
}

/// A client of HTTP/1.1.
fn connect(server: &Running) -> Client {
    connect_with(server.addr, client_config(&BOTH, &["http/1.1"]))
}

/// A client whose socket takes little before somebody reads.
fn connect_narrow(server: &Running) -> Client {
    connect_narrow_with(server, client_config(&BOTH, &["http/1.1"]))
}

fn connect_narrow_with(server: &Running, config: ClientConfig) -> Client {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(server.addr), socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a small receive buffer");
    socket.connect(&server.addr.into()).expect("the server accepts");
    over(socket.into(), config)
}

/// The handshake alone.
fn shake(client: &mut Client) -> io::Result<()> {
    let stream = client.stream_mut();
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(())
}

/// The records that say `text`.
fn records(client: &mut Client, text: &[u8]) -> Vec<u8> {
    let session = &mut client.stream_mut().conn;
    session.writer().write_all(text).expect("within rustls' buffer");
    queued(session)
}

/// The records that rustls has ready.
fn queued(session: &mut ClientConnection) -> Vec<u8> {
    let mut records = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut records).expect("memory");
    }
    records
}

/// What comes until the end; an error if the server cuts it, which is an end without `close_notify`.
fn until_end(client: &mut Client) -> io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    client.stream_mut().read_to_end(&mut rest).map(|_| rest)
}

/// What went wrong in TLS.
fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref() {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of a service")]
fn tell(request: Request, info: ConnectionInfo) -> Response {
    let agreed = info.tls().map(|tls| (tls.server_name(), tls.protocol().map(String::from_utf8_lossy)));
    Response::new(Body::new(format!("{} {:?} {agreed:?}", request.uri().path(), request.version())))
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of a service")]
fn echo(mut request: Request, _info: ConnectionInfo) -> Response {
    Response::new(std::mem::take(request.body_mut()))
}

/// Runs a client; its connection moves on a thread of its own, so that the test may block.
fn run<F: Future>(client: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, client).await.expect("the server answers") })
}

async fn connect_http2(addr: SocketAddr, protocols: &[&str]) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(addr).await.expect("the server accepts");
    stream.set_nodelay(true).expect("TCP has nodelay");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(&BOTH, protocols)));
    let name = ServerName::try_from("test").expect("a name");
    let stream = connector.connect(name, stream).await.expect("a handshake");
    let (requests, connection) = h2::client::handshake(stream).await.expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    requests
}

/// Sends a request with `body`, and reads the answer meanwhile.
async fn post_http2(requests: &mut SendRequest<Bytes>, path: &str, body: Vec<u8>) -> Vec<u8> {
    let request = http::Request::post(format!("https://test{path}")).body(()).expect("a valid request");
    let mut ready = requests.clone().ready().await.expect("room for a stream");
    let (answer, mut sender) = ready.send_request(request, false).expect("a valid request");
    tokio::spawn(async move {
        let mut body = Bytes::from(body);
        while !body.is_empty() {
            sender.reserve_capacity(body.len());
            let capacity = std::future::poll_fn(|cx| sender.poll_capacity(cx)).await.expect("open").expect("open");
            sender.send_data(body.split_to(capacity.min(body.len())), false).expect("open");
        }
        sender.send_data(Bytes::new(), true).expect("open");
    });
    let mut answer = answer.await.expect("an answer").into_body();
    let mut whole = Vec::new();
    while let Some(data) = answer.data().await {
        let data = data.expect("a whole answer");
        answer.flow_control().release_capacity(data.len()).expect("it was received");
        whole.extend_from_slice(&data);
    }
    whole
}

#[test]
fn requests_follow_each_other_on_a_connection_and_know_of_tls() {
    let server = start(server(), tell);
    for version in BOTH {
        let mut client = connect_with(server.addr, client_config(&[version], &["http/1.1"]));
        for path in ["/a", "/b", "/c"] {
            assert_eq!(
                client.get(path).text(),
                format!(r#"{path} HTTP/1.1 Some((Some("test"), Some("http/1.1")))"#),
                "{version:?}"
            );
        }
    }
}

#[test]
fn a_client_that_prefers_http_2_gets_it() {
    let server = start(server(), tell);
    let addr = server.addr;
    run(async {
        let mut requests = connect_http2(addr, &["h2", "http/1.1"]).await;
        for path in ["/a", "/b"] {
            let told = post_http2(&mut requests, path, Vec::new()).await;
            let expected = format!(r#"{path} HTTP/2.0 Some((Some("test"), Some("h2")))"#);
            assert_eq!(String::from_utf8_lossy(&told), expected);
        }
    });
}

#[test]
fn a_client_that_names_no_protocol_is_understood_by_its_first_bytes() {
    let server = start(server(), tell);
    let addr = server.addr;
    let mut client = connect_with(addr, client_config(&BOTH, &[]));
    assert_eq!(client.get("/").text(), r#"/ HTTP/1.1 Some((Some("test"), None))"#);
    let told = run(async { post_http2(&mut connect_http2(addr, &[]).await, "/", Vec::new()).await });
    assert_eq!(String::from_utf8_lossy(&told), r#"/ HTTP/2.0 Some((Some("test"), None))"#);
}

#[test]
fn a_client_of_other_protocols_is_refused() {
    let refusal = |server: &Running, protocol| {
        let mut client = connect_with(server.addr, client_config(&BOTH, &[protocol]));
        alert(&shake(&mut client).expect_err("a refusal"))
    };
    let none = Some(AlertDescription::NoApplicationProtocol);
    assert_eq!(refusal(&start(server(), tell), "smtp"), none);
    assert_eq!(refusal(&start(server().http1_only(), tell), "h2"), none);
    assert_eq!(refusal(&start(server().http2_only(), tell), "http/1.1"), none);
}

#[test]
fn listeners_with_and_without_tls_are_served_at_once() {
    let bound = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (plain, tls) = (bound(), bound());
    let addrs = [plain.local_addr().expect("bound"), tls.local_addr().expect("bound")];
    let server = server().and_listen(plain).and_then(|server| server.and_listen_tls(tls, config()));
    let server = start(server.expect("sockets"), tell);
    assert_eq!(connect(&server).get("/").text(), r#"/ HTTP/1.1 Some((Some("test"), Some("http/1.1")))"#);
    assert_eq!(support::Client::connect(addrs[0]).get("/").text(), "/ HTTP/1.1 None");
    let mut client = connect_with(addrs[1], client_config(&BOTH, &[]));
    assert_eq!(client.get("/").text(), r#"/ HTTP/1.1 Some((Some("test"), None))"#);
}

#[test]
fn a_client_that_speaks_plain_http_is_told_so() {
    let server = start(server(), tell);
    let answer = server.connect().get("/");
    assert_eq!((answer.status, answer.text()), (400, "400 Bad Request: this port speaks HTTPS\n"));
    assert!(answer.header("date").is_some());
    let mut client = server.connect();
    client.send("P");
    client.try_send("OST / HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\nabc").expect("it lingers");
    assert_eq!(client.answer().status, 400);
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn noise_is_answered_with_an_alert() {
    let server = start(server(), tell);
    let mut client = server.connect();
    client.send([0x7f, 3, 1, 0, 5, 1, 2, 3, 4, 5]);
    let answer = client.until_closed();
    assert_eq!(answer[..3], [0x15, 3, 3], "an alert");
    assert_eq!(connect(&server).get("/").status, 200);
    assert_eq!(server.into_handle().counts().of(Event::HandshakeFailed), 1);
}

#[test]
fn a_handshake_that_comes_byte_by_byte_succeeds() {
    let server = start(server(), tell);
    let mut client = connect(&server);
    let stream = client.stream_mut();
    while stream.conn.is_handshaking() {
        for byte in queued(&mut stream.conn) {
            stream.sock.write_all(&[byte]).expect("the server reads");
        }
        if stream.conn.is_handshaking() {
            stream.conn.read_tls(&mut stream.sock).expect("the server answers");
            stream.conn.process_new_packets().expect("a good server");
        }
    }
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn handshakes_that_never_end_hold_up_nobody() {
    let server = start(server().max_workers(1).seats(1), tell);
    let mut hello = connect(&server);
    let hello = queued(&mut hello.stream_mut().conn);
    let stuck: Vec<_> = (0..50)
        .map(|n| {
            let mut stream = TcpStream::connect(server.addr).expect("the server accepts");
            stream.write_all(&hello[..n * hello.len() / 50]).expect("the server accepts");
            stream
        })
        .collect();
    assert_eq!(connect(&server).get("/").status, 200);
    drop(stuck);
}

#[test]
fn a_handshake_has_a_time_of_its_own() {
    let server = start(server().tls_handshake_timeout(Duration::from_millis(100)), tell);
    let mut silent = server.connect();
    let mut trickling = server.connect();
    let mut hello = connect(&server);
    let hello = queued(&mut hello.stream_mut().conn);
    let mut bytes = hello[..hello.len() - 1].iter().cycle();
    support::until("the server ends a handshake that trickles", || {
        // Slower than the deadline, were it begun again by each byte.
        std::thread::sleep(Duration::from_millis(5));
        trickling.try_send([*bytes.next().expect("a cycle")]).is_err()
    });
    silent.until_closed();
    let counts = server.into_handle().counts();
    assert!(counts.of(Event::HandshakeTimeout) >= 2 && counts.of(Event::HandshakeFailed) == 0, "{counts:?}");
}

#[test]
fn large_bodies_go_up_and_down() {
    let body = pattern(3 << 20);
    let sent = body.clone();
    let server = start(server(), move |mut req: Request, _info| {
        let received: Vec<u8> = req.body_mut().flat_map(|chunk| chunk.expect("a whole body")).collect();
        assert!(received == sent);
        Response::new(Body::new(received))
    });
    let addr = server.addr;
    for version in BOTH {
        let mut client = connect_with(addr, client_config(&[version], &["http/1.1"]));
        for _ in 0..2 {
            assert!(client.post("/", &body).body == body);
        }
    }
    run(async {
        let mut requests = connect_http2(addr, &["h2"]).await;
        for _ in 0..2 {
            assert!(post_http2(&mut requests, "/", body.clone()).await == body);
        }
    });
}

#[test]
fn an_echo_moves_both_ways_at_once() {
    let body = pattern(3 << 20);
    let server = start(server(), echo);
    let addr = server.addr;
    let mut client = connect(&server);
    client.send(format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", body.len()));
    let mut pieces = body.chunks(10_000);
    client.send(pieces.next().expect("the first"));
    assert_eq!(client.head().status, 200);
    let mut echoed = Vec::new();
    for piece in pieces {
        echoed.extend(client.chunk().expect("a chunk").expect("not the last"));
        client.send(piece);
    }
    while let Some(chunk) = client.chunk().expect("a whole answer") {
        echoed.extend(chunk);
    }
    assert!(echoed == body);
    run(async {
        let mut requests = connect_http2(addr, &["h2"]).await;
        assert!(post_http2(&mut requests, "/", body.clone()).await == body);
    });
}

#[test]
fn many_connections_lose_nothing() {
    let server = start(server(), echo);
    let clients: Vec<_> = (0..16)
        .map(|n| {
            let mut client = connect(&server);
            std::thread::spawn(move || {
                for size in [1, 4_096, 16_384, 16_385, 70_000, 300_000] {
                    let body = pattern(size + n);
                    assert!(client.post("/", &body).body == body, "{size}");
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("whole answers");
    }
}

#[test]
fn a_slow_reader_gets_all() {
    let body = pattern(6 << 20);
    let sent = Bytes::from(body.clone());
    // Less than it takes to read a third of what the system would hold.
    let timeout = Duration::from_millis(400);
    let server = start(server().write_timeout(timeout), move |_req, _info| Response::new(Body::new(sent.clone())));
    let pause = || std::thread::sleep(Duration::from_millis(30)); // the slowness is what is tested

    let mut client = connect_narrow_with(&server, client_config(&BOTH, &["h2"]));
    client.send(
        [PREFACE, &settings(&[(INITIAL_WINDOW_SIZE, 1 << 24)]), &window_update(0, 1 << 24), &get(1, "/")].concat(),
    );
    let mut read = Vec::new();
    while read.len() < body.len() {
        read.extend(client.frame_of(DATA, 1).payload);
        if read.len() % (64 << 10) < 16 << 10 {
            pause();
        }
    }
    assert!(read == body);

    let mut client = connect_narrow(&server);
    client.ask("/");
    assert_eq!(client.head().status, 200);
    let mut read = Vec::new();
    while read.len() < body.len() {
        pause();
        read.extend(client.exactly((64 << 10).min(body.len() - read.len())).expect("the whole body"));
    }
    assert!(read == body);
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_reader_that_stops_is_cut_and_can_tell() {
    let (told, tells) = signals();
    let server = start_handler(
        server().write_timeout(Duration::from_millis(100)),
        HandlerFn(move |exchange: Exchange| {
            let told = told.clone();
            let body = http_body_util::Full::new(Bytes::from(pattern(16 << 20)));
            exchange.responder.send_and_tell(http::Response::new(body), move |became| {
                told.send(became).expect("the test listens");
            });
        }),
    );
    let mut client = connect_narrow(&server);
    client.ask("/");
    assert_eq!(client.head().status, 200);
    let sent = tells.next().expect_err("it was cut");
    let mut rest = Vec::new();
    let error = client.stream_mut().read_to_end(&mut rest).expect_err("an end without close_notify");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(rest.len() < 16 << 20);
    assert!(sent.bytes < 16 << 20 && sent.why == Gone::TooSlow, "{sent:?}");
}

#[test]
fn a_handler_that_reads_late_finds_all_that_was_sent() {
    let gate = Gate::default();
    let held = gate.clone();
    let (called, calls) = signals();
    let server = start(server(), move |mut req: Request, _info| {
        let mut start = [0; 10];
        req.body_mut().reader().read_exact(&mut start).expect("the start");
        called.send(()).expect("the test listens");
        held.wait();
        let rest: Vec<u8> = req.body_mut().flat_map(|chunk| chunk.expect("a whole body")).collect();
        Response::new(Body::new([&start[..], &rest].concat()))
    });
    // Within what rustls and hyper hold, and far beyond.
    for size in [1 << 10, 20 << 10, 60 << 10, 3 << 20] {
        let body = pattern(size);
        let mut client = connect(&server);
        let sent = body.clone();
        let client = std::thread::spawn(move || client.post("/", &sent).body);
        calls.next();
        gate.open();
        assert!(client.join().expect("an answer") == body, "{size}");
    }
}

#[test]
fn a_request_may_come_in_records_of_one_byte_and_records_byte_by_byte() {
    let server = start(server(), echo);
    let mut client = connect(&server);
    shake(&mut client).expect("a handshake");
    let text = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello";
    for byte in text {
        client.send([*byte]);
    }
    assert_eq!(client.answer().text(), "hello");
    for byte in records(&mut client, text) {
        client.stream_mut().sock.write_all(&[byte]).expect("the server reads");
    }
    assert_eq!(client.answer().text(), "hello");
    // All those small records in one segment: more than a run of the connection may read.
    let small: Vec<u8> = text.iter().flat_map(|byte| records(&mut client, &[*byte])).collect();
    client.stream_mut().sock.write_all(&small).expect("the server reads");
    assert_eq!(client.answer().text(), "hello");
}

#[test]
fn requests_that_share_a_record_are_all_answered() {
    let server = start(server(), |req: Request, _info| Response::new(Body::new(req.uri().path().to_owned())));
    let mut client = connect(&server);
    for _ in 0..2 {
        let together: String = (0..300).map(|n| format!("GET /{n} HTTP/1.1\r\nhost: test\r\n\r\n")).collect();
        assert!(together.len() < 16 << 10, "one record");
        client.send(together);
        for n in 0..300 {
            assert_eq!(client.answer().text(), format!("/{n}"));
        }
        // Longer than it takes an idle connection to give its buffers back.
        std::thread::sleep(Duration::from_millis(600));
    }
}

#[test]
fn a_client_may_change_its_keys_but_not_all_the_time() {
    let server = start(server(), echo);
    let mut client = connect_with(server.addr, client_config(&[&TLS13], &["http/1.1"]));
    for n in 0..100 {
        let body = pattern(10_000 + n);
        assert!(client.post("/", &body).body == body);
        client.stream_mut().conn.refresh_traffic_keys().expect("TLS 1.3");
    }
    for _ in 0..100 {
        client.stream_mut().conn.refresh_traffic_keys().expect("TLS 1.3");
    }
    let flood = queued(&mut client.stream_mut().conn);
    client.stream_mut().sock.write_all(&flood).expect("it lingers");
    let error = until_end(&mut client).expect_err("an end without close_notify");
    assert!(support::client::is_end(&error), "{error}");
}

#[test]
fn a_client_that_has_said_all_gets_its_answer() {
    let (asked, asks) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = start(server(), move |req, info| {
        asked.send(()).expect("the test listens");
        held.wait();
        echo(req, info)
    });
    for says_goodbye in [true, false] {
        let mut client = connect(&server);
        client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello");
        if says_goodbye {
            client.stream_mut().conn.send_close_notify();
            client.stream_mut().flush().expect("the server reads");
        } else {
            client.stream().sock.shutdown(Shutdown::Write).expect("connected");
        }
        asks.next();
        gate.open();
        assert_eq!(client.answer().text(), "hello");
        assert_eq!(until_end(&mut client).expect("close_notify"), b"");
    }
}

#[test]
fn a_body_that_is_cut_is_an_error_however_it_ends() {
    let (read, reads) = signals();
    let server = start(server(), move |mut req: Request, _info| {
        read.send(req.body_mut().try_for_each(|chunk| chunk.map(drop))).expect("the test listens");
        Response::new(Body::empty())
    });
    for framing in ["content-length: 10", "transfer-encoding: chunked"] {
        for says_goodbye in [true, false] {
            let mut client = connect(&server);
            client.send(format!("POST / HTTP/1.1\r\nhost: test\r\n{framing}\r\n\r\n5\r\nhe"));
            if says_goodbye {
                client.stream_mut().conn.send_close_notify();
                client.stream_mut().flush().expect("the server reads");
            } else {
                client.stream().sock.shutdown(Shutdown::Write).expect("connected");
            }
            let error = reads.next().expect_err("half a body");
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{framing} {says_goodbye}");
        }
    }
}

#[test]
fn a_record_that_was_tampered_with_is_an_error_to_the_handler() {
    let (read, reads) = signals();
    let server = start(server(), move |mut req: Request, _info| {
        read.send(req.body_mut().try_for_each(|chunk| chunk.map(drop))).expect("the test listens");
        Response::new(Body::empty())
    });
    let mut client = connect(&server);
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhello");
    let mut record = records(&mut client, b"world");
    *record.last_mut().expect("a record") ^= 1;
    client.stream_mut().sock.write_all(&record).expect("the server reads");
    assert_eq!(reads.next().expect_err("half a body").kind(), ErrorKind::ConnectionAborted);
    let error = until_end(&mut client).expect_err("an alert");
    assert_eq!(alert(&error), Some(AlertDescription::BadRecordMac));
}

#[test]
fn what_ends_as_it_should_ends_with_close_notify() {
    let short = Duration::from_millis(50);
    let limits = server().idle_timeout(short).header_read_timeout(short).max_body(10);
    let server = start(limits, tell);

    let mut client = connect(&server);
    client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    assert_eq!(until_end(&mut client).expect("after the last answer"), b"");

    let mut client = connect(&server);
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    assert_eq!(until_end(&mut client).expect("after an answer of HTTP/1.0"), b"");

    let mut client = connect(&server);
    client.get("/");
    assert_eq!(until_end(&mut client).expect("idle"), b"");

    let mut client = connect(&server);
    shake(&mut client).expect("a handshake");
    assert_eq!(until_end(&mut client).expect("idle from the start"), b"");

    let mut client = connect(&server);
    client.send("GET / HTTP/1.1\r\nho");
    assert_eq!(client.answer().status, 408);
    assert_eq!(until_end(&mut client).expect("after 408"), b"");

    let mut client = connect(&server);
    client.send("GET / HTTP/1.1\r\nbad header\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    assert_eq!(until_end(&mut client).expect("after 400"), b"");

    // What still comes is thrown away, lest a reset destroy the answer.
    let mut client = connect(&server);
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 200000\r\n\r\n");
    client.send(pattern(200_000));
    assert_eq!(client.answer().status, 413);
    assert_eq!(until_end(&mut client).expect("after 413"), b"");
}

#[test]
fn an_idle_connection_of_http_2_ends_with_goaway_and_close_notify() {
    let server = start(server().idle_timeout(Duration::from_millis(50)), tell);
    let mut client = connect_with(server.addr, client_config(&BOTH, &["h2"]));
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.send([0, 0, 0, 4, 0, 0, 0, 0, 0]); // empty SETTINGS
    let mut frames = Vec::new();
    let all = until_end(&mut client).expect("close_notify");
    let mut rest = &all[..];
    while let Some((head, after)) = rest.split_at_checked(9) {
        frames.push(head[3]);
        rest = &after[usize::from(head[1]) << 8 | usize::from(head[2])..];
    }
    assert_eq!(frames.first(), Some(&4), "SETTINGS");
    assert!(frames.contains(&7), "GOAWAY: {frames:?}");
}

#[test]
fn an_answer_that_is_cut_ends_without_close_notify() {
    let server = start(server(), |_req, _info| {
        let half = |writer: &mut astra_server::BodyWriter| {
            writer.write_all(b"half")?;
            writer.flush()?;
            Err(io::Error::other("the other half is lost"))
        };
        Response::new(Body::stream(half))
    });
    for version in ["1.1", "1.0"] {
        let mut client = connect(&server);
        client.send(format!("GET / HTTP/{version}\r\nhost: test\r\n\r\n"));
        let error = until_end(&mut client).expect_err("a cut");
        assert!(support::client::is_end(&error), "HTTP/{version}: {error}");
    }
}

#[test]
fn sessions_are_resumed_but_nothing_is_taken_before_the_handshake() {
    let with_tickets = || {
        let mut config = config();
        config.ticketer = ring::Ticketer::new().expect("random numbers");
        config.max_early_data_size = 1_000;
        config
    };
    for version in BOTH {
        // Without tickets the server remembers the sessions.
        for config in [with_tickets(), config()] {
            let server = Server::default().and_bind_tls("127.0.0.1:0", config).expect("a free port");
            let server = start(server, tell);
            let mut config = client_config(&[version], &["http/1.1"]);
            config.enable_early_data = true;
            let config = Arc::new(config);
            let mut kinds = Vec::new();
            for _ in 0..3 {
                let mut client = connect_with(server.addr, config.clone());
                assert!(client.stream_mut().conn.early_data().is_none());
                assert_eq!(client.get("/").status, 200);
                kinds.push(client.stream().conn.handshake_kind());
            }
            let resumed = Some(HandshakeKind::Resumed);
            assert_eq!(kinds, [Some(HandshakeKind::Full), resumed, resumed], "{version:?}");
        }
    }
}

#[test]
fn shutdown_finishes_an_answer_and_ends_what_is_idle_with_close_notify() {
    let (asked, asks) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = start(server(), move |req: Request, _info| {
        if req.uri().path() == "/hold" {
            asked.send(()).expect("the test listens");
            held.wait();
        }
        Response::new(Body::new("whole"))
    });
    let (mut busy, mut idle, mut new) = (connect(&server), connect(&server), connect(&server));
    shake(&mut new).expect("a handshake");
    assert_eq!(idle.get("/").text(), "whole");
    busy.ask("/hold");
    asks.next();
    let addr = server.addr;
    let handle = server.into_handle();
    let stopping = std::thread::spawn(move || handle.shutdown(PATIENCE));
    support::until("new connections are refused", || TcpStream::connect(addr).is_err());
    gate.open();
    assert_eq!(busy.answer().text(), "whole");
    assert_eq!(until_end(&mut busy).expect("close_notify"), b"");
    drop(busy);
    assert_eq!(until_end(&mut idle).expect("close_notify"), b"");
    assert_eq!(until_end(&mut new).expect("close_notify"), b"");
    drop((idle, new));
    assert!(stopping.join().expect("shutdown returns").is_none(), "nothing had to be cut");
}

#[test]
fn shutdown_cuts_a_handshake() {
    let server = start(server(), tell);
    let mut client = server.connect();
    client.send([0x16]);
    assert!(server.into_handle().shutdown(PATIENCE).is_none());
    client.until_closed();
}

#[test]
fn a_client_that_resets_its_connection_interrupts_its_handler() {
    let (called, calls) = signals();
    let (interrupted, interrupts) = signals();
    let server = start(server(), move |_req, _info| {
        called.send(()).expect("the test listens");
        interrupted.send(wait(pending::<()>(), None)).expect("the test listens");
        ResponseBuilder::new().body(Body::empty()).expect("valid")
    });
    let mut client = connect(&server);
    client.ask("/");
    calls.next();
    socket2::SockRef::from(&client.stream().sock).set_linger(Some(Duration::ZERO)).expect("TCP lingers");
    drop(client);
    assert_eq!(interrupts.next(), Err(Interrupted::ClientGone));
}

#[test]
#[allow(clippy::print_stderr, reason = "what was not tested is told")]
fn curl_is_served_by_both_versions_of_both() {
    let server = start(server(), echo);
    let folder = std::env::temp_dir().join(format!("astra-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (root, body, answer) = (folder.join("root.pem"), folder.join("body"), folder.join("answer"));
    std::fs::write(&root, CERTIFICATE.cert.pem()).expect("a file");
    std::fs::write(&body, pattern(3 << 20)).expect("a file");
    for tls in ["1.2", "1.3"] {
        for (version, name) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let curl = Command::new("curl")
                .args(["--silent", "--show-error", "--fail", "--max-time", "20", "--noproxy", "*", version])
                .args(["--tlsv1.2", "--tls-max", tls, "--write-out", "%{http_version} %{ssl_verify_result}"])
                .arg("--cacert")
                .arg(&root)
                .args(["--resolve", &format!("test:{}:127.0.0.1", server.addr.port())])
                .arg("--data-binary")
                .arg(format!("@{}", body.display()))
                .arg("--output")
                .arg(&answer)
                .arg(format!("https://test:{}/", server.addr.port()))
                .output();
            let curl = match curl {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return eprintln!("not tested: there is no curl here");
                }
                curl => curl.expect("curl runs"),
            };
            assert!(curl.status.success(), "{tls} {version}: {curl:?}");
            assert_eq!(String::from_utf8_lossy(&curl.stdout), format!("{name} 0"));
            assert!(std::fs::read(&answer).expect("an answer") == pattern(3 << 20));
        }
    }
    std::fs::remove_dir_all(&folder).expect("it is ours");
}
