//! What a terminal is shown and nobody else: a sign of life while a start takes its time. `script` (Debian's bsdutils) makes
//! the terminal; the roots of a rule are in a FIFO, which takes until the test has written to it.
#![cfg(target_os = "linux")]

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::harness::{Host, PATIENCE, Scratch, guest};

/// A file that can be opened and has not come yet.
fn slow_file(dir: &Scratch, name: &str) -> (PathBuf, File) {
    let path = dir.join(name);
    assert!(Command::new("mkfifo").arg(&path).status().expect("a Unix").success());
    // Linux opens a FIFO at once for someone who is both of its ends.
    let fifo = OpenOptions::new().read(true).write(true).open(&path).expect("ours");
    (path, fifo)
}

/// A rule that trusts what is in the file.
fn rule(roots: &Path) -> String {
    format!("{{ url = \"https://a\", roots = \"{}\" }}", roots.display())
}

/// What `astra-host run MODULE --outbound RULE` shows on a terminal until it ends, where `shown` sees all that there is so far.
fn on_a_terminal(module: &Path, rule: &str, mut shown: impl FnMut(&str)) -> String {
    let (mut screen, output) = UnixStream::pair().expect("two sockets");
    screen.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let mut terminal = Command::new("script")
        .args(["--quiet", "--command", r#"exec "$PROGRAM" run "$MODULE" --outbound "$RULE""#, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("PROGRAM", env!("CARGO_BIN_EXE_astra-host"))
        .env("MODULE", module)
        .env("RULE", rule)
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(output))
        .spawn()
        .expect("`script` is installed");
    let (mut all, mut part) = (String::new(), [0; 1024]);
    while let length @ 1.. = screen.read(&mut part).expect("it goes on") {
        all += &String::from_utf8_lossy(&part[..length]);
        shown(&all);
    }
    terminal.wait().expect("it is ours");
    all
}

#[test]
fn a_start_that_takes_long_shows_a_spinner_on_a_terminal_and_nowhere_else() {
    let dir = Scratch::new();
    let (piped_roots, mut piped_end) = slow_file(&dir, "piped.pem");
    let (roots, end) = slow_file(&dir, "shown.pem");
    // Begun first, so that it has had its time when the other one shows something.
    let mut piped = Host::with("hello").flag("--outbound", rule(&piped_roots)).begin();

    let module = guest("hello");
    let spinning = format!("compiling {} ", module.display());
    let mut end = Some(end);
    let all = on_a_terminal(&module, &rule(&roots), |all| {
        if all.contains(&format!("\r| {spinning}\r/ {spinning}"))
            && let Some(mut end) = end.take()
        {
            end.write_all(b"hello").expect("there is room");
        }
    });
    let (turns, rest) = all.split_once("\x1b[K").expect("the line is cleared");
    assert!(turns.ends_with(&format!("{spinning}\r")) && !turns.contains('\n'), "{all:?}");
    assert!(rest.starts_with("astra-host: error: ") && rest.contains("must be a PEM file"), "{all:?}");
    assert!(!rest.contains("compiling"), "{all:?}");

    piped_end.write_all(b"hello").expect("there is room");
    drop(piped_end);
    let ended = piped.ended();
    ended.expect_complaint(1, &["must be a PEM file"]);
    assert!(!ended.stderr.contains("compiling") && ended.stdout.is_empty(), "{ended:?}");
}
