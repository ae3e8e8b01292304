//! Guests of other versions of WASI 0.2.

use crate::harness::{BOTH, Scratch, Setup, guest};

/// A component as text, whose imports and exports are of another version. What is inside of it keeps its names.
fn with_version(text: &str, from: &str, to: &str) -> String {
    let of_the_component = |line: &str| line.starts_with("  (import \"wasi:") || line.starts_with("  (export ");
    let (from, to) = (format!("@{from}\" ("), format!("@{to}\" ("));
    let line = |line: &str| if of_the_component(line) { line.replace(&from, &to) } else { line.to_owned() };
    text.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn guests_of_every_0_2_are_served() {
    let text = wasmprinter::print_file(guest("raw_hello")).expect("a component");
    let (_, rest) = text.split_once("wasi:http/types@0.2.").expect("it imports that");
    let patch: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let own = format!("0.2.{patch}");
    let dir = Scratch::new();
    for patch in [0, 1, 2, 3, 4, 6, 8, 10, 12] {
        let version = format!("0.2.{patch}");
        let module = wat::parse_str(with_version(&text, &own, &version)).expect("as valid as before");
        let host = Setup::run(dir.file(&format!("v{patch}.wasm"), module)).start();
        host.stdout_with(&format!("component, WASI HTTP {version}"));
        for http in BOTH {
            assert_eq!(host.get(http, "/").text(), "Hello World!", "{version}");
        }
    }
}
