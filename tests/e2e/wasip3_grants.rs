//! What a guest of WASI 0.3 finds around it: what was granted and no more, as those of 0.2 do.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::harness::{BOTH, FEW_DESCRIPTORS, Host, Http, Scratch, Setup, origin::raw, pattern};

const GUEST: &str = "wasip3_guest";

fn granted(dir: &Scratch, more: &str) -> Host {
    Host::with(GUEST).flag("--dir", format!("{}::/data{more}", dir.path().display())).start()
}

fn with_tcp(rule: impl Into<String>) -> Setup {
    Host::with(GUEST).flag("--tcp", rule.into())
}

/// A server that answers with what it is sent.
fn echo() -> SocketAddr {
    raw(|stream| io::copy(&mut &stream, &mut &stream).map(drop))
}

#[test]
fn the_environment_is_what_was_granted() {
    let host = Host::with(GUEST).environment("SECRET", "of the host").start();
    assert_eq!(host.get(Http::One, "/system/environment").text(), "");
    let host = Host::with(GUEST).flag("--env", "A=b=c").flag("--env", "EMPTY=").start();
    for version in BOTH {
        assert_eq!(host.get(version, "/system/environment").text(), "A=b=c\nEMPTY=\n");
        assert_eq!(host.get(version, "/system/arguments").text(), "[] None");
    }
}

#[test]
fn what_a_guest_prints_is_logged_line_by_line_whichever_way_it_prints() {
    let host = Host::of(GUEST);
    for version in BOTH {
        let answer = host.get(version, "/system/prints");
        let id = answer.header("x-request-id").expect("every answer has an id");
        for (stream, text) in [
            ("stdout", "of 0.3"),
            ("stdout", "last of 0.3of std"),
            ("stderr", "complaint of 0.3"),
            ("stderr", "complaint of std"),
        ] {
            let line = host.json(text, |line| line["kind"] == "guest" && line["id"] == id && line["text"] == text);
            assert_eq!((&line["stream"], &line["handler"]), (&stream.into(), &GUEST.into()));
        }
        assert_eq!(host.get(version, "/system/input").text(), "0 bytes, Ok(())");
    }
}

#[test]
fn clocks_go_forward_and_wait() {
    let host = Host::of(GUEST);
    for version in BOTH {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs();
        let answer = host.get(version, "/system/clocks");
        let (seconds, rest) = answer.text().split_once(' ').expect("two parts");
        assert!(seconds.parse::<u64>().expect("a number") >= before, "{seconds}");
        assert_eq!(rest, "true true");
    }
}

#[test]
fn random_bytes_come_as_many_as_one_call_may_have() {
    let host = Host::of(GUEST);
    for (asked, given) in [("64", 64), ("65536", 65_536), ("100000000", 1 << 20)] {
        let answer = host.get(Http::One, &format!("/system/random?{asked}"));
        assert_eq!(answer.text(), format!("{given} and {given} bytes, differ: true"));
    }
}

#[test]
fn configuration_values_are_read() {
    let host = Host::with(GUEST).flag("--config-var", "feature_x=on").flag("--config-var", "second=").start();
    let answer = host.get(Http::One, "/system/config?feature_x");
    assert_eq!(answer.text(), r#"Some("on") [("feature_x", "on"), ("second", "")]"#);
    assert!(host.get(Http::Two, "/system/config?missing").text().starts_with("None ["));
}

#[test]
fn without_a_grant_there_are_no_files() {
    let host = Host::of(GUEST);
    for version in BOTH {
        assert_eq!(host.get(version, "/files/").text(), "");
        assert_eq!(host.get(version, "/files/reads?/etc/passwd").text(), "ErrorCode::NoEntry");
    }
}

#[test]
fn a_granted_directory_can_be_read_and_not_written() {
    let dir = Scratch::new();
    dir.file("one.txt", "content");
    dir.file("sub/two.txt", "deeper");
    dir.file("large", pattern(3 << 20));
    dir.file("../outside.txt", "secret");
    std::os::unix::fs::symlink("../outside.txt", dir.join("link")).expect("can be made");
    let host = granted(&dir, "");
    for version in BOTH {
        assert_eq!(host.get(version, "/files/").text(), "/data\n");
        assert_eq!(host.get(version, "/files/lists?/data").text(), "large\nlink\none.txt\nsub\n");
        assert_eq!(host.get(version, "/files/lists?/data/sub").text(), "two.txt\n");
        assert_eq!(host.get(version, "/files/reads?/data/one.txt").text(), "content");
        assert!(host.get(version, "/files/streams?/data/large").body == pattern(3 << 20));
        assert_eq!(host.get(version, "/files/reads?/data/missing").text(), "ErrorCode::NoEntry");
        for path in ["/data/../outside.txt", "/data/link", "/data/sub/../../outside.txt"] {
            assert_eq!(host.get(version, &format!("/files/reads?{path}")).text(), "ErrorCode::NotPermitted", "{path}");
        }
        for (what, code) in [
            ("writes?/data/new.txt", "ErrorCode::NotPermitted"),
            ("writes?/data/one.txt", "ErrorCode::NotPermitted"),
            ("truncates?/data/one.txt", "ErrorCode::NotPermitted"),
            ("appends?/data/one.txt", "ErrorCode::NotPermitted"),
            ("removes?/data/one.txt", "ErrorCode::NotPermitted"),
        ] {
            assert_eq!(host.get(version, &format!("/files/{what}")).text(), code, "{what}");
        }
    }
    assert_eq!(fs::read_to_string(dir.join("one.txt")).expect("is there"), "content");
    assert!(!dir.join("new.txt").exists());
}

#[test]
fn a_guest_has_its_share_of_the_descriptors_and_gives_it_back() {
    let dir = Scratch::new();
    dir.file("one.txt", "content");
    dir.file("two.txt", "content");
    let host = with_tcp("127.0.0.1:1").flag("--dir", format!("{}::/data", dir.path().display()));
    let host = host.through_shell(FEW_DESCRIPTORS).start();
    for version in BOTH {
        for (path, told) in [
            ("/files/hoards?/data/one.txt", "48, then ErrorCode::InsufficientMemory"),
            ("/files/hoards-lists?/data", "48, then ErrorCode::InsufficientMemory"),
            ("/files/rereads?/data/one.txt", "done"),
            ("/sockets/hoards", "48, then ErrorCode::OutOfMemory"),
        ] {
            let answer = host.get(version, path);
            assert_eq!(answer.text(), told, "{path}");
            // Its guest has ended, which may be after its answer.
            host.access(&answer);
        }
    }
}

#[test]
fn a_directory_that_is_granted_for_writing_can_be_written() {
    let dir = Scratch::new();
    let host = granted(&dir, ":rw");
    let content = || fs::read_to_string(dir.join("new.txt")).expect("is there");
    for version in BOTH {
        assert_eq!(host.get(version, "/files/writes?/data/new.txt").text(), "done");
        assert_eq!(content(), "written");
        assert_eq!(host.get(version, "/files/appends?/data/new.txt").text(), "done");
        assert_eq!(content(), "written, and more");
        assert_eq!(host.get(version, "/files/truncates?/data/new.txt").text(), "done");
        assert_eq!(content(), "written");
        assert_eq!(host.get(version, "/files/touches?/data/new.txt").text(), "done");
        let modified = fs::metadata(dir.join("new.txt")).expect("is there").modified().expect("a time");
        assert_eq!(modified, UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        assert_eq!(host.get(version, "/files/removes?/data/new.txt").text(), "done");
        assert!(!dir.join("new.txt").exists());
    }
}

#[test]
fn what_is_neither_file_nor_directory_is_refused_and_holds_up_nobody() {
    let dir = Scratch::new();
    assert!(Command::new("mkfifo").arg(dir.join("fifo")).status().expect("a Unix").success());
    let host = granted(&dir, ":rw");
    for version in BOTH {
        assert_eq!(host.get(version, "/files/reads?/data/fifo").text(), "ErrorCode::NotPermitted");
        assert_eq!(host.get(version, "/files/writes?/data/fifo").text(), "ErrorCode::NotPermitted");
        assert_eq!(host.get(version, "/files/touches?/data/fifo").text(), "ErrorCode::NotPermitted");
    }
}

#[test]
fn names_are_looked_up_where_that_was_granted() {
    let host = Host::with(GUEST).flag("--dns", "localhost").flag("--dns", "*.invalid").start();
    for version in BOTH {
        let found = host.get(version, "/sockets/looks-up?localhost");
        assert!(found.text().contains("IpAddress::Ipv4((127, 0, 0, 1))"), "{}", found.text());
        for (name, answer) in [
            ("127.0.0.1", "Ok([IpAddress::Ipv4((127, 0, 0, 1))])"),
            ("example.com", "Err(ErrorCode::AccessDenied)"),
            ("a:1", "Err(ErrorCode::InvalidArgument)"),
        ] {
            assert_eq!(host.get(version, &format!("/sockets/looks-up?{name}")).text(), answer, "{name}");
        }
        // Without a network nobody can be asked; with one, there is no such name.
        let missing = host.get(version, "/sockets/looks-up?a.invalid");
        let codes = ["Err(ErrorCode::NameUnresolvable)", "Err(ErrorCode::TemporaryResolverFailure)"];
        assert!(codes.contains(&missing.text()), "{}", missing.text());
    }
    assert!(host.denial("looking up example.com").ends_with("network = { dns = [\"example.com\"] }"));
}

#[test]
fn a_granted_address_can_be_talked_to_and_another_cannot() {
    let (echo, other) = (echo(), echo());
    let host = with_tcp(echo.to_string()).start();
    for version in BOTH {
        assert_eq!(host.get(version, &format!("/sockets/talks?{echo}")).text(), "ping\n");
        for to in [other.to_string(), format!("127.0.0.2:{}", echo.port()), format!("[::1]:{}", echo.port())] {
            assert_eq!(host.get(version, &format!("/sockets/talks?{to}")).text(), "ErrorCode::AccessDenied", "{to}");
        }
    }
    let denied = host.denial(&format!("a connection to {other}"));
    assert!(denied.ends_with(&format!("network = {{ tcp = [\"{other}\"] }}")), "{denied}");
}

#[test]
fn nobody_is_where_nobody_listens() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    let host = with_tcp("127.0.0.1:*").start();
    assert_eq!(host.get(Http::One, &format!("/sockets/talks?{closed}")).text(), "ErrorCode::ConnectionRefused");
}

#[test]
fn without_a_rule_there_is_no_socket_and_the_log_says_what_to_grant() {
    let host = Host::of(GUEST);
    for version in BOTH {
        assert_eq!(host.get(version, "/sockets/talks?127.0.0.1:1").text(), "ErrorCode::AccessDenied");
    }
    assert!(host.denial("a TCP socket").ends_with("network = { tcp = [\"HOST:PORT\"] }"));
}

#[test]
fn nobody_can_be_listened_to_whatever_is_granted() {
    let host = with_tcp("0.0.0.0/0:*").flag("--tcp", "*:*").start();
    for what in [
        "binds?127.0.0.1:0",
        "binds?0.0.0.0:1",
        "listens",
        "listens?0.0.0.0:0",
        "listens?127.0.0.1:0",
        "listens?[::]:0",
        "udp?127.0.0.1:0",
        "udp?0.0.0.0:0",
    ] {
        assert_eq!(host.get(Http::One, &format!("/sockets/{what}")).text(), "ErrorCode::AccessDenied", "{what}");
    }
    for what in ["binding a socket to 127.0.0.1:0", "listening", "a UDP socket"] {
        assert!(host.denial(&format!("{what}\"")).ends_with("; this cannot be granted"), "{what}");
    }
}

#[test]
fn a_guest_that_reads_from_a_silent_server_is_cut_and_so_is_its_connection() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let host = with_tcp(address.to_string()).flag("--deadline", "300ms").flag("--max-workers", "1").start();
    for version in BOTH {
        let answer = host.get(version, &format!("/sockets/talks?{address}"));
        assert_eq!((answer.status, &host.access(&answer)["outcome"]), (504, &"deadline".into()));
        let (mut stream, _) = silent.accept().expect("the guest has connected");
        // What has been sent, and then the end or a reset: the socket is gone with its request.
        let _ = stream.read_to_end(&mut Vec::new());
        assert_eq!(host.get(version, "/").status, 200, "the worker is free");
    }
}

#[test]
fn what_a_server_sends_arrives_whole_in_pieces_of_any_size() {
    let single = raw(|mut stream| {
        stream.read_to_end(&mut Vec::new())?;
        (0..200).try_for_each(|_| stream.write_all(b"y"))
    });
    let large = raw(|mut stream| {
        stream.read_to_end(&mut Vec::new())?;
        stream.write_all(&vec![b'x'; 4 << 20])
    });
    let host = with_tcp("127.0.0.1:*").start();
    for version in BOTH {
        assert_eq!(host.get(version, &format!("/sockets/talks?{single}")).text(), "y".repeat(200));
        assert!(host.get(version, &format!("/sockets/talks?{large}")).body == vec![b'x'; 4 << 20]);
    }
}
