//! Outgoing HTTP: a guest asks whom it was granted, over connections that are kept, and is told what goes wrong.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use http::{Version, header};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use crate::harness::{
    BOTH, Host, Http, PATIENCE, Scratch, Setup, guest,
    origin::{Full, Origin, echoing, head, raw, silent, stalling, telling_heads, text},
};

/// A host whose guests may ask `rule`.
fn host(rule: impl Into<String>) -> Host {
    Host::with("fetches").flag("--outbound", rule.into()).start()
}

fn any_of_ours() -> Host {
    host("http://127.0.0.1:*")
}

/// What the guest answers with that asks `address`.
fn asked(host: &Host, how: &str, address: SocketAddr) -> String {
    host.get(Http::One, &format!("/{how}?http://{address}/")).text().to_owned()
}

#[test]
fn what_was_granted_is_asked_over_one_connection() {
    let origin = Origin::http(|request| text(format!("{} {}", request.method(), request.uri())));
    let host = any_of_ours();
    for version in BOTH {
        for n in 0..10 {
            let answer = host.get(version, &format!("/get?http://{}/a?n={n}", origin.address));
            assert_eq!((answer.status, answer.text()), (200, format!("GET /a?n={n}").as_str()));
        }
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_origin_is_the_same_however_it_is_spelled() {
    let origin = Origin::http(|request| text(request.headers()[header::HOST].to_str().expect("text")));
    let port = origin.address.port();
    let host = host(format!("http://127.0.0.1:{port}"));
    for spelled in [format!("127.0.0.1:{port}"), format!("127.0.0.1:0{port}"), format!("127.0.0.1.:000{port}")] {
        let answer = host.get(Http::One, &format!("/get?http://{spelled}/"));
        assert_eq!(answer.text(), format!("127.0.0.1:{port}"), "{spelled}");
    }
    assert_eq!(origin.connections(), 1);
    let answer = host.get(Http::One, &format!("/get?http://127.0.0.1:+{port}/"));
    assert_ne!(answer.status, 200, "RFC 3986 section 3.2.3: {}", answer.text());
}

#[test]
fn connections_outlive_a_swap() {
    let origin = Origin::http(|_| text("here"));
    let scratch = Scratch::short();
    let config = format!(
        "[[handler]]\nname = \"app\"\nmodule = \"{}\"\noutbound = [\"http://{}\"]\n",
        guest("fetches").display(),
        origin.address
    );
    let host = Setup::run(scratch.file("astra.toml", config))
        .flag("--control", scratch.join("control"))
        .arg("--no-state")
        .start();
    assert_eq!(asked(&host, "get", origin.address), "here");
    let swap = Setup::bare().arg("swap").arg("app").arg(guest("calls_out"));
    let swap = swap.flag("--control", scratch.join("control")).end();
    assert_eq!(swap.code, Some(0), "{swap:?}");
    assert_eq!(asked(&host, "", origin.address), "here");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn what_was_not_granted_is_denied_and_the_log_says_what_would_grant_it() {
    let origin = Origin::http(|_| text("never"));
    let port = origin.address.port();
    for (granted, url, what, rule) in [
        ("http://127.0.0.1:1", format!("http://127.0.0.1:{port}/"), "a request to", format!("http://127.0.0.1:{port}")),
        (
            &*format!("https://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{port}/"),
            "a request to",
            format!("http://127.0.0.1:{port}"),
        ),
        (
            "http://*:*",
            format!("http://127.0.0.1:{port}/"),
            "not public (127.0.0.1)",
            "outbound = [\"http://127.0.0.1:PORT\"], before `http://*:*`".to_owned(),
        ),
        (
            &*format!("http://localhost:{port}"),
            format!("http://localhost:{port}/"),
            "not public",
            format!("{{ url = \"http://localhost:{port}\", private = true }}"),
        ),
        // An address in one of its odd forms is a name, and where it leads is looked at.
        (
            "http://*:*",
            format!("http://127.1:{port}/"),
            "not public (127.0.0.1)",
            "{ url = \"http://*:*\", private = true }".to_owned(),
        ),
    ] {
        let host = host(granted);
        for version in BOTH {
            let answer = host.get(version, &format!("/get?{url}"));
            assert_eq!((answer.status, &answer.text()[..8]), (500, "Denied: "), "{url}");
        }
        assert!(host.denial(what).contains(&rule), "{}", host.denial(what));
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn no_rule_is_suggested_that_would_be_refused() {
    let host = any_of_ours();
    for name in ["2130706433", "127.1", ".internal", "*"] {
        let answer = host.get(Http::One, &format!("/get?http://{name}:7/"));
        assert_eq!((answer.status, &answer.text()[..8]), (500, "Denied: "), "{name}");
        let told = host.denial(&format!("a request to http://{name}:7"));
        assert!(told.ends_with("; no rule but `*` can name such a host"), "{told}");
    }
}

#[test]
fn another_scheme_is_the_uris_fault() {
    let answer = any_of_ours().get(Http::One, "/get?ftp://127.0.0.1/");
    assert!(answer.status == 500 && answer.text().contains("neither `http` nor `https`"), "{}", answer.text());
}

#[test]
fn a_private_rule_leads_where_its_name_leads() {
    let origin = Origin::http(|_| text("here"));
    let url = format!("http://localhost:{}", origin.address.port());
    let host = Host::with("fetches").flag("--outbound-private", &url).start();
    assert_eq!(host.get(Http::One, &format!("/get?{url}/")).text(), "here");
}

#[test]
fn a_redirect_is_the_guests_to_follow() {
    let origin = Origin::http(|_| {
        let mut redirect = text("");
        *redirect.status_mut() = http::StatusCode::FOUND;
        redirect.headers_mut().insert(header::LOCATION, "http://169.254.169.254/".parse().expect("a value"));
        redirect
    });
    let answer = any_of_ours().get(Http::One, &format!("/get?http://{}/", origin.address));
    assert_eq!((answer.status, answer.header("location")), (302, Some("http://169.254.169.254/")));
}

#[test]
fn a_head_goes_out_as_the_guest_means_it() {
    let (origin, told) = telling_heads();
    let host = any_of_ours();
    let answer = host.get(Http::One, &format!("/get?http://{origin}"));
    assert_eq!((answer.text(), answer.header("x-public")), ("ok", Some("1")));
    assert_eq!((answer.header("x-private"), answer.header("keep-alive")), (None, None), "between those two only");
    let head = told.recv_timeout(PATIENCE).expect("a request has come");
    assert_eq!(head, format!("GET / HTTP/1.1\r\nhost: {origin}\r\n\r\n"), "no body, and nobody's chunks");
}

#[test]
fn what_is_started_at_once_is_asked_at_once() {
    let all = Arc::new(Barrier::new(8));
    let origin = Origin::http(move |_| {
        all.wait();
        text("x")
    });
    assert_eq!(asked(&any_of_ours(), "eight", origin.address), "x".repeat(8));
    assert_eq!(origin.connections(), 8);
}

#[test]
fn bodies_stream_both_ways_at_once() {
    let origin = echoing();
    let host = any_of_ours();
    let streamed = asked(&host, "stream", origin);
    assert!(streamed.matches('s').count() == 1 << 20 && streamed.ends_with("\r\n0\r\n\r\n"));
}

#[test]
fn uploads_arrive_whole_however_they_are_made() {
    let origin = Origin::http(|request| {
        let length = request.headers().get(header::CONTENT_LENGTH).map(|length| length.to_str().expect("digits"));
        text(format!("{} {length:?}", request.body().len()))
    });
    let host = any_of_ours();
    assert_eq!(asked(&host, "stream", origin.address), "1048576 None");
    assert_eq!(asked(&host, "reader", origin.address), "1048576 None");
    assert_eq!(asked(&host, "memory", origin.address), "1048576 Some(\"1048576\")");
    let body = vec![b'p'; 3 << 20];
    for version in BOTH {
        let proxied = host.post(version, &format!("/proxy?http://{}/", origin.address), &body);
        assert!(proxied.text().starts_with("3145728 "), "{}", proxied.text());
    }
}

#[test]
fn an_upload_that_reaches_nobody_fails_for_that() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    let host = any_of_ours();
    for how in ["get", "stream", "reader", "memory"] {
        let answer = host.get(Http::One, &format!("/{how}?http://{closed}/"));
        assert!(answer.status == 502 && answer.text().starts_with("Refused: "), "{how}: {}", answer.text());
    }
}

#[test]
fn an_upload_in_chunks_is_whole_behind_an_answer_of_http_1_0() {
    let connections = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&connections);
    let origin = raw(move |mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        loop {
            let head = head(&mut stream)?;
            let mut bytes = 0;
            if head.contains("transfer-encoding: chunked") {
                let mut seen = Vec::new();
                let mut buffer = [0; 4096];
                while !seen.ends_with(b"\r\n0\r\n\r\n") {
                    let length = stream.read(&mut buffer)?;
                    seen.extend_from_slice(&buffer[..length]);
                    bytes += buffer[..length].iter().filter(|byte| **byte == b's').count();
                }
            }
            let told = bytes.to_string();
            let length = told.len();
            write!(stream, "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: {length}\r\n\r\n{told}")?;
        }
    });
    let host = any_of_ours();
    assert_eq!(asked(&host, "get", origin), "0");
    for _ in 0..3 {
        assert_eq!(asked(&host, "stream", origin), "1048576");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 4, "none of its connections is used again");
}

#[test]
fn an_upload_that_breaks_off_never_looks_whole() {
    let (tell, told) = mpsc::channel();
    let origin = raw(move |mut stream| {
        head(&mut stream)?;
        let mut half = [0; 9];
        stream.read_exact(&mut half)?;
        tell.send(half.to_vec()).expect("is waited for");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        tell.send(rest).expect("is waited for");
        Ok(())
    });
    let host = any_of_ours();
    let mut client = host.connect();
    client.send(format!(
        "POST /proxy?http://{origin}/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    ));
    assert_eq!(told.recv_timeout(PATIENCE).expect("it streams"), b"4\r\nhalf\r\n");
    client.reset();
    assert_eq!(told.recv_timeout(PATIENCE).expect("it ends"), b"", "no last chunk");
}

#[test]
fn trailers_arrive() {
    let origin = raw(|mut stream| {
        head(&mut stream)?;
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nconnection: x-named\r\n\r\n2\r\nab\r\n0\r\n\
              x-sum: 3\r\ncontent-length: 99\r\nx-named: 1\r\nkeep-alive: 1\r\n\r\n",
        )
    });
    let text = asked(&any_of_ours(), "collect", origin);
    assert!(text.starts_with("2 bytes") && text.contains("x-sum"), "{text}");
    for of_head in ["content-length", "x-named", "keep-alive"] {
        assert!(!text.contains(of_head), "RFC 9110 section 6.5.1: {text}");
    }
}

#[test]
fn time_is_up_when_the_guest_says_so() {
    let full = Full::new();
    let host = any_of_ours();
    for (address, waited_for) in [(silent(), "FirstByte"), (stalling(), "NextBytes"), (full.address, "Connection")] {
        let answer = host.get(Http::One, &format!("/timeouts?http://{address}/"));
        assert!(answer.text().contains(&format!("TimedOut({waited_for})")), "{}", answer.text());
    }
}

#[test]
fn a_guest_that_waits_for_its_upstream_is_cut_at_its_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let host = Host::with("fetches")
        .flag("--outbound", format!("http://{address}"))
        .flag("--deadline", "300ms")
        .flag("--max-workers", "1")
        .start();
    for version in BOTH {
        let answer = host.get(version, &format!("/get?http://{address}/"));
        assert_eq!((answer.status, &host.access(&answer)["outcome"]), (504, &"deadline".into()));
        let (mut stream, _) = silent.accept().expect("the guest has connected");
        // The request, and then the end or a reset: it is gone with its guest.
        let _ = stream.read_to_end(&mut Vec::new());
        assert_eq!(host.get(version, "/get?http://127.0.0.1:1/").status, 500, "the worker is free");
    }
}

#[test]
fn an_upstream_is_left_when_the_client_is_gone_and_until_then_it_is_what_is_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let scratch = Scratch::short();
    let host = Host::with("fetches")
        .flag("--outbound", format!("http://{address}"))
        .flag("--control", scratch.join("control"))
        .start();
    let mut client = host.connect();
    let peer = client.local_addr().to_string();
    client.ask(&format!("/get?http://{address}/"));
    let (mut stream, _) = silent.accept().expect("the guest has connected");
    head(&mut stream).expect("a request");
    let waits_for = || {
        let listed = Setup::bare().arg("ps").arg("--json").flag("--control", scratch.join("control")).end();
        assert_eq!(listed.code, Some(0), "{listed:?}");
        listed.stdout
    };
    // It may be about to wait.
    while !waits_for().contains("\"outgoing\"") {}
    client.reset();
    let access = host.json("that the client left", |line| line["kind"] == "access" && line["peer"] == peer);
    assert_eq!(access["outcome"], "client_gone", "{access}");
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn what_a_guest_drops_is_ended_and_disturbs_no_other() {
    let origin = Origin::http(|_| text("x".repeat(1 << 20)));
    assert_eq!(asked(&any_of_ours(), "drops", origin.address).len(), 1 << 20);
}

#[test]
fn a_guest_has_so_many_requests_under_way_and_no_more() {
    let origin = raw(|mut stream| stream.read_to_end(&mut Vec::new()).map(drop));
    let text = asked(&any_of_ours(), "hoards", origin);
    assert!(text.starts_with("128, then Limit(\"connections\")"), "{text}");
}

/// Certificates of our own.
struct Certificates {
    scratch: Scratch,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "root of a test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a root");
        let scratch = Scratch::new();
        scratch.file("roots.pem", issuer.pem());
        Self { scratch, issuer }
    }

    fn roots(&self) -> PathBuf {
        self.scratch.join("roots.pem")
    }

    /// A rule for a server with a certificate of ours, and what else it says.
    fn rule(&self, url: &str, rest: &str) -> String {
        format!("{{ url = \"{url}\", private = true, roots = \"{}\"{rest} }}", self.roots().display())
    }

    /// Files with a certificate for `name` and its key.
    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (
            self.scratch.file(&format!("{name}.pem"), certificate.pem()),
            self.scratch.file(&format!("{name}.key"), key.serialize_pem()),
        )
    }

    /// A server that is `name`, and wants its clients to have a certificate of ours.
    fn server(&self, name: &str, wants_clients: bool) -> ServerConfig {
        let (certificate, key) = self.issue(name);
        let chain = CertificateDer::pem_file_iter(certificate).expect("a file").collect::<Result<_, _>>().expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match wants_clients {
            false => builder.with_no_client_auth(),
            true => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(self.roots()).expect("PEM")).expect("a root");
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
                builder.with_client_cert_verifier(verifier.expect("a verifier"))
            }
        };
        builder.with_single_cert(chain, PrivateKeyDer::from_pem_file(key).expect("PEM")).expect("a certificate")
    }
}

/// A host with one rule, in the way that says more.
fn configured(scratch: &Scratch, rule: &str) -> Setup {
    let module = guest("fetches");
    let text = format!("[[handler]]\nname = \"app\"\nmodule = \"{}\"\noutbound = [{rule}]\n", module.display());
    Setup::run(scratch.file("astra.toml", text)).arg("--no-state")
}

#[test]
fn tls_trusts_the_roots_of_its_rule_and_speaks_http2_where_the_server_does() {
    let certificates = Certificates::new();
    let origin = Origin::https(certificates.server("localhost", false), |request| {
        let is_told_twice = request.version() == Version::HTTP_2 && request.headers().contains_key(header::HOST);
        text(format!("{:?} {} {is_told_twice}", request.version(), request.uri().authority().expect("is told")))
    });
    let url = format!("https://localhost:{}", origin.address.port());
    let rule = certificates.rule(&url, "");
    let host = configured(&certificates.scratch, &rule).start();
    let answer = host.get(Http::One, &format!("/get?{url}/"));
    assert_eq!(answer.text(), format!("HTTP/2.0 localhost:{} false", origin.address.port()));
    assert_eq!(host.get(Http::One, &format!("/eight?{url}/")).status, 200);
    assert_eq!(origin.connections(), 1, "one is enough in HTTP/2");

    let by_flag = Host::with("fetches").flag("--outbound", &rule).start();
    assert_eq!(by_flag.get(Http::One, &format!("/get?{url}/")).status, 200, "the same by a flag");

    let untrusting = Host::with("fetches").flag("--outbound-private", &url).start();
    let answer = untrusting.get(Http::One, &format!("/get?{url}/"));
    assert!(answer.status == 502 && answer.text().starts_with("Tls("), "{}", answer.text());

    let other = Origin::https(certificates.server("other.test", false), |_| text("never"));
    let url = format!("https://localhost:{}", other.address.port());
    let rule = certificates.rule(&url, "");
    let host = configured(&certificates.scratch, &rule).start();
    let answer = host.get(Http::One, &format!("/get?{url}/"));
    assert!(answer.status == 502 && answer.text().starts_with("Tls("), "another's certificate: {}", answer.text());
}

#[test]
fn a_body_is_whole_over_http2_however_it_is_made() {
    let certificates = Certificates::new();
    let origin = Origin::https(certificates.server("localhost", false), |request| {
        let length =
            request.headers().get(header::CONTENT_LENGTH).map_or("-", |length| length.to_str().expect("digits"));
        text(format!("{:?} {length} {}", request.version(), String::from_utf8_lossy(request.body())))
    });
    let url = format!("https://localhost:{}", origin.address.port());
    let rule = certificates.rule(&url, "");
    Host::with("frames_its_bodies").flag("--outbound", &rule).start().expect_lines(
        &format!("/?{url}"),
        &[
            "Method::Post none: 200 HTTP/2.0 0 ",
            "Method::Post empty, before: 200 HTTP/2.0 0 ",
            "Method::Post before: 200 HTTP/2.0 4 some",
            "Method::Post empty, after: 200 HTTP/2.0 - ",
            "Method::Post after: 200 HTTP/2.0 - some",
            "Method::Get none: 200 HTTP/2.0 - ",
            "Method::Get empty, before: 200 HTTP/2.0 - ",
            "Method::Get before: 200 HTTP/2.0 4 some",
            "Method::Get empty, after: 200 HTTP/2.0 - ",
            "Method::Get after: 200 HTTP/2.0 - some",
        ],
    );
}

#[test]
fn a_client_certificate_is_shown_to_those_who_want_one() {
    let certificates = Certificates::new();
    let origin = Origin::https(certificates.server("localhost", true), |_| text("known"));
    let url = format!("https://localhost:{}", origin.address.port());
    let (certificate, key) = certificates.issue("client");
    let of_client = format!(", certificate = \"{}\", key = \"{}\"", certificate.display(), key.display());
    let rule = certificates.rule(&url, &of_client);
    let host = configured(&certificates.scratch, &rule).start();
    assert_eq!(host.get(Http::One, &format!("/get?{url}/")).text(), "known");
    let host = configured(&certificates.scratch, &certificates.rule(&url, "")).start();
    let answer = host.get(Http::One, &format!("/get?{url}/"));
    assert!(answer.text().contains("CertificateRequired"), "the server's alert: {}", answer.text());
}

#[test]
fn files_that_are_no_certificates_are_told_before_anything_is_served() {
    let certificates = Certificates::new();
    let scratch = &certificates.scratch;
    let (certificate, key) = certificates.issue("client");
    let (_, other) = certificates.issue("other");
    let rule = |more: &str| format!("{{ url = \"https://localhost:1\", {more} }}");
    let roots = |path: PathBuf| rule(&format!("roots = \"{}\"", path.display()));
    let client = |certificate: &PathBuf, key: &PathBuf| {
        rule(&format!("certificate = \"{}\", key = \"{}\"", certificate.display(), key.display()))
    };
    for (rule, words) in [
        (roots(scratch.join("missing.pem")), ["missing.pem` cannot be read", "No such file"]),
        (roots(scratch.file("text.pem", "not PEM")), ["text.pem` must be a PEM file with certificates", "no items"]),
        (client(&certificate, &certificate), ["client.pem` must be a PEM file with a private key", "no items"]),
        (client(&certificate, &other), ["cannot be used with the key `", "other.key"]),
    ] {
        configured(scratch, &rule)
            .end()
            .expect_complaint(1, &[&words[..], &["requests to `https://localhost:1`"]].concat());
    }
    assert_eq!(configured(scratch, &client(&certificate, &key)).start().get(Http::One, "/none").status, 404);
}

#[test]
fn a_response_that_says_it_switches_protocols_is_none() {
    let origin = raw(|mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
    });
    let text = asked(&any_of_ours(), "get", origin);
    assert!(text.contains("HttpUpgradeFailed") || text.starts_with("Protocol"), "{text}");
}
