//! What a terminal is shown and nobody else: a sign of life while a start takes its time, here two seconds for a state directory that another
//! host has. `script` (Debian's bsdutils) makes the terminal; the start ends with an error, since the address to listen on is not of this machine.
#![cfg(target_os = "linux")]

use std::{
    io::Read,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Command, Stdio},
};

use crate::harness::{Host, PATIENCE, Scratch, Setup, guest};

/// For documentation (RFC 5737), and of nobody.
const ELSEWHERE: &str = "192.0.2.1:80";

/// What `astra-host run MODULE --state STATE --listen ELSEWHERE` shows on a terminal until it ends.
fn on_a_terminal(module: &Path, state: &Path) -> String {
    let (mut screen, output) = UnixStream::pair().expect("two sockets");
    screen.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let mut terminal = Command::new("script")
        .args([
            "--quiet",
            "--command",
            r#"exec "$PROGRAM" run "$MODULE" --state "$STATE" --listen "$ELSEWHERE""#,
            "/dev/null",
        ])
        .env("SHELL", "/bin/sh")
        .env("PROGRAM", env!("CARGO_BIN_EXE_astra-host"))
        .env("MODULE", module)
        .env("STATE", state)
        .env("ELSEWHERE", ELSEWHERE)
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(output))
        .spawn()
        .expect("`script` is installed");
    let mut shown = String::new();
    screen.read_to_string(&mut shown).expect("it ends");
    terminal.wait().expect("it is ours");
    shown
}

#[test]
fn a_start_that_takes_long_shows_a_spinner_on_a_terminal_and_nowhere_else() {
    let dir = Scratch::new();
    let state = dir.join("state");
    let _first = Host::with("hello").flag("--state", &state).start();
    let module = guest("hello");

    let spinning = format!("compiling {} ", module.display());
    let all = on_a_terminal(&module, &state);
    assert!(all.contains(&format!("\r| {spinning}\r/ {spinning}")), "{all:?}");
    let (turns, rest) = all.rsplit_once("\x1b[K").expect("the line is cleared");
    assert!(turns.ends_with('\r'), "{all:?}");
    assert!(rest.starts_with("astra-host: error: cannot listen on"), "{all:?}");

    let ended = Setup::run(&module).flag("--state", &state).flag("--listen", ELSEWHERE).end();
    // After what the log has to say of the state directory.
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("\nastra-host: error: cannot listen on"), "{ended:?}");
    assert!(!ended.stderr.contains("compiling") && ended.stdout.is_empty(), "{ended:?}");
}
