//! Raw sockets and name look-up: a guest can do what was granted, and no more.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::harness::{BOTH, Host, Http, Scratch, Setup, guest, origin::Full};

/// A server on the loopback that does this with each connection, one after the other.
fn serve(answer: impl Fn(TcpStream) -> io::Result<()> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            // Whoever is served tells what went wrong.
            let _ = stream.and_then(&answer);
        }
    });
    address
}

/// A server that answers with what it is sent.
fn echo() -> SocketAddr {
    serve(|stream| io::copy(&mut &stream, &mut &stream).map(drop))
}

fn with(name: &str, flag: &str, value: impl Into<String>) -> Host {
    Host::with(name).flag(flag, value.into()).start()
}

#[test]
fn a_granted_address_can_be_talked_to() {
    let echo = echo();
    for rule in [echo.to_string(), format!("127.0.0.0/8:{}", echo.port()), "127.0.0.1:*".to_owned()] {
        let host = with("talks_tcp", "--tcp", &rule);
        for version in BOTH {
            assert_eq!(host.get(version, &format!("/?{echo}")).text(), "ping\n", "{rule}");
        }
    }
}

#[test]
fn a_granted_name_can_be_looked_up_and_talked_to() {
    let echo = echo();
    let host = with("talks_tcp", "--tcp", format!("localhost:{}", echo.port()));
    for version in BOTH {
        assert_eq!(host.get(version, &format!("/?localhost:{}", echo.port())).text(), "ping\n");
    }
}

#[test]
fn what_a_server_sends_arrives_whole_in_pieces_of_any_size() {
    let large = serve(|mut stream| {
        stream.read_to_end(&mut Vec::new())?;
        stream.write_all(&[b'x'; 4 << 20])
    });
    let single = serve(|mut stream| {
        stream.set_nodelay(true)?;
        stream.read_to_end(&mut Vec::new())?;
        (0..200).try_for_each(|_| stream.write_all(b"y"))
    });
    let host = with("talks_tcp", "--tcp", "127.0.0.1:*");
    for version in BOTH {
        assert!(host.get(version, &format!("/?{large}")).body == vec![b'x'; 4 << 20]);
        assert_eq!(host.get(version, &format!("/?{single}")).text(), "y".repeat(200));
    }
}

#[test]
fn another_port_another_address_and_an_address_that_was_not_looked_up_are_refused() {
    let (echo, other) = (echo(), echo());
    let host = with("talks_tcp", "--tcp", format!("localhost:{}", echo.port()));
    for to in [format!("localhost:{}", other.port()), echo.to_string(), format!("127.0.0.2:{}", echo.port())] {
        assert_eq!(host.get(Http::One, &format!("/?{to}")).text(), "error: PermissionDenied\n", "{to}");
    }
    let allows = |rule: String| format!("this would allow it: network = {{ tcp = [\"{rule}\"] }}");
    let literal = host.denial(&format!("a connection to {echo}"));
    assert!(literal.ends_with(&allows(echo.to_string())), "{literal}");
    let named = host.denial(&format!(":{}\"", other.port()));
    assert!(named.ends_with(&allows(format!("localhost:{}", other.port()))), "{named}");
}

#[test]
fn a_private_address_needs_more_than_a_pattern() {
    let echo = echo();
    let host = with("talks_tcp", "--tcp", format!("*:{}", echo.port()));
    for to in [echo.to_string(), format!("localhost:{}", echo.port())] {
        assert_eq!(host.get(Http::One, &format!("/?{to}")).text(), "error: PermissionDenied\n", "{to}");
    }
}

#[test]
fn without_a_rule_there_is_no_socket_and_the_log_says_what_to_grant() {
    let host = Host::of("talks_tcp");
    assert_eq!(host.get(Http::One, "/?127.0.0.1:1").text(), "error: PermissionDenied\n");
    assert!(host.denial("a TCP socket").ends_with("network = { tcp = [\"HOST:PORT\"] }"));
}

#[test]
fn nobody_can_be_listened_to_whatever_is_granted() {
    let host = Host::with("opens_for_others").flag("--tcp", "0.0.0.0/0:*").flag("--tcp", "*:*").start();
    for path in ["/tcp?127.0.0.1:0", "/tcp?0.0.0.0:0", "/tcp?[::]:0", "/udp?127.0.0.1:0", "/udp?0.0.0.0:0"] {
        assert_eq!(host.get(Http::One, path).text(), "error: PermissionDenied\n", "{path}");
    }
    for what in ["binding a socket to 127.0.0.1:0", "listening", "a UDP socket"] {
        assert!(host.denial(&format!("{what}\"")).ends_with("; this cannot be granted"), "{what}");
    }
}

#[test]
fn an_address_is_suggested_and_not_a_name_that_happens_to_lead_there() {
    let echo = echo();
    let host = Host::with("talks_tcp").flag("--dns", "localhost").flag("--tcp", "named.invalid:1").start();
    let answer = host.get(Http::One, &format!("/?localhost:{}", echo.port()));
    assert_eq!(answer.text(), "error: PermissionDenied\n");
    let told = host.denial(&format!("a connection to {echo}"));
    assert!(told.ends_with(&format!("network = {{ tcp = [\"{echo}\"] }}")), "{told}");
}

#[test]
fn names_are_looked_up_that_were_granted_and_others_get_their_code() {
    let host = Host::with("asks_resolver")
        .flag("--dns", "localhost")
        .flag("--dns", "*.invalid")
        .flag("--tcp", "named.invalid:1")
        .start();
    for version in BOTH {
        let answer = host.get(version, "/?name=localhost");
        assert!(answer.text().contains("IpAddress::Ipv4((127, 0, 0, 1))"), "{}", answer.text());
        for (name, answer) in [
            ("127.0.0.1", "IpAddress::Ipv4((127, 0, 0, 1))\n"),
            ("::ffff:127.0.0.1", "IpAddress::Ipv4((127, 0, 0, 1))\n"),
            ("example.com", "error: access-denied\n"),
            ("a:1", "error: invalid-argument\n"),
            ("", "error: invalid-argument\n"),
        ] {
            assert_eq!(host.get(version, &format!("/?name={name}")).text(), answer, "{name}");
        }
        // Without a network nobody can be asked; with one, there is no such name.
        for name in ["a.invalid", "named.invalid"] {
            let answer = host.get(version, &format!("/?name={name}"));
            let codes = ["error: name-unresolvable\n", "error: temporary-resolver-failure\n"];
            assert!(codes.contains(&answer.text()), "{}", answer.text());
        }
    }
    assert!(host.denial("looking up example.com").ends_with("network = { dns = [\"example.com\"] }"));
    for name in [".internal", "*", "-a.b"] {
        assert_eq!(host.get(Http::One, &format!("/?name={name}")).text(), "error: access-denied\n", "{name}");
        let told = host.denial(&format!("looking up {name}\""));
        assert!(told.ends_with("; no rule but `*` can name such a host"), "{told}");
    }
}

#[test]
fn the_standard_library_looks_names_up_too() {
    let host = with("looks_up_name", "--dns", "localhost");
    assert!(host.get(Http::One, "/?localhost").text().contains("127.0.0.1\n"));
    assert!(host.get(Http::One, "/?example.com").text().starts_with("error: "));
}

#[test]
fn a_guest_that_reads_from_a_silent_server_is_cut_at_its_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let host = Host::with("talks_tcp")
        .flag("--tcp", address.to_string())
        .flag("--deadline", "300ms")
        .flag("--max-workers", "1")
        .start();
    for version in BOTH {
        let answer = host.get(version, &format!("/?{address}"));
        assert_eq!((answer.status, &host.access(&answer)["outcome"]), (504, &"deadline".into()));
        let (mut stream, _) = silent.accept().expect("the guest has connected");
        // What has been sent, and then the end or a reset: the socket is gone with its request.
        let _ = stream.read_to_end(&mut Vec::new());
        assert_eq!(host.get(version, "/?127.0.0.1:1").text(), "error: PermissionDenied\n", "the worker is free");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_guest_that_connects_to_nowhere_is_cut_at_its_deadline() {
    let full = Full::new();
    let address = full.address;
    let host = Host::with("talks_tcp").flag("--tcp", address.to_string()).flag("--deadline", "300ms").start();
    host.expect(&format!("/?{address}"), 504, "deadline");
}

#[test]
fn a_guest_that_waits_for_a_server_is_cancelled_when_its_client_goes_away() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let host = with("talks_tcp", "--tcp", address.to_string());
    let mut client = host.connect();
    let peer = client.local_addr().to_string();
    client.ask(&format!("/?{address}"));
    let (mut stream, _) = silent.accept().expect("the guest has connected");
    stream.read_exact(&mut [0; 5]).expect("the guest has begun");
    client.reset();
    let access = host.json("that the client left", |line| line["kind"] == "access" && line["peer"] == peer);
    assert_eq!(access["outcome"], "client_gone", "{access}");
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn what_a_guest_has_not_got_rid_of_does_not_keep_its_worker() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let dir = Scratch::new();
    let host = Host::with("floods_tcp")
        .flag("--tcp", address.to_string())
        .flag("--dir", format!("{}::/data", dir.path().display()))
        .flag("--max-workers", "1")
        .start();
    for version in BOTH {
        let answer = host.get(version, &format!("/?{address}"));
        assert!(answer.text().starts_with("sent "), "{}", answer.text());
    }
}

#[test]
fn a_reload_grants_more() {
    let (echo, scratch) = (echo(), Scratch::short());
    let configure = |lines: &str| {
        let module = guest("talks_tcp");
        let text = format!("[[handler]]\nname = \"app\"\nmodule = \"{}\"\n{lines}\n", module.display());
        scratch.file("astra.toml", text)
    };
    let host = Setup::run(configure("")).flag("--control", scratch.join("control")).arg("--no-state").start();
    assert_eq!(host.get(Http::One, &format!("/?{echo}")).text(), "error: PermissionDenied\n");
    configure(&format!("network = {{ tcp = [\"{echo}\"] }}"));
    let reload = Setup::bare().arg("reload").flag("--control", scratch.join("control")).end();
    assert_eq!(reload.code, Some(0), "{reload:?}");
    assert_eq!(host.get(Http::One, &format!("/?{echo}")).text(), "ping\n");
}
