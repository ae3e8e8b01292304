//! Guests written against other people's crates, and guests of other versions of WASI 0.2.

use crate::harness::{BOTH, Host, Scratch, Setup, guest, pattern};

#[test]
fn guests_of_other_sdks_say_hello() {
    for name in ["raw_hello", "wstd-hello", "waki_hello"] {
        let host = Host::of(name);
        for version in BOTH {
            let answer = host.get(version, "/");
            assert_eq!((answer.status, answer.text()), (200, "Hello World!"), "{name} {version:?}");
            assert_eq!(host.access(&answer)["outcome"], "ok", "{name}");
        }
    }
}

#[test]
fn guests_of_other_sdks_read_bodies() {
    let body = pattern(300_000);
    for name in ["waki_echo", "wstd-sleep"] {
        let host = Host::of(name);
        for version in BOTH {
            let answer = host.post(version, "/", &body);
            assert_eq!(answer.status, 200, "{name} {version:?}");
            assert!(answer.body == body, "{name} {version:?}: {} bytes came back", answer.body.len());
        }
        let mut client = host.connect();
        client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
        for byte in b"Hello" {
            client.send([*byte]);
        }
        assert_eq!(client.answer().text(), "Hello", "{name}");
    }
}

#[test]
fn guests_of_every_0_2_are_served() {
    let text = wasmprinter::print_file(guest("raw_hello")).expect("a component");
    let own = text.split("wasi:http/types@").nth(1).and_then(|rest| rest.split('"').next()).expect("it imports that");
    let own = own.to_owned();
    assert!(own.starts_with("0.2."), "{own}");
    let dir = Scratch::new();
    for patch in [0, 1, 2, 3, 4, 6, 8, 10, 12] {
        let version = format!("0.2.{patch}");
        let module = wat::parse_str(text.replace(&own, &version)).expect("as valid as before");
        let host = Setup::run(dir.file(&format!("v{patch}.wasm"), module)).start();
        host.stdout_with(&format!("component, WASI HTTP {version}"));
        for http in BOTH {
            assert_eq!(host.get(http, "/").text(), "Hello World!", "{version}");
        }
    }
}
