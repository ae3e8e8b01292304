//! What a terminal is shown and nobody else: a sign of life while a start takes its time, here that of compiling a large module. `script`
//! (Debian's bsdutils) makes the terminal; the start ends with an error, since the address to listen on is not of this machine.
#![cfg(target_os = "linux")]

use std::{
    io::Read,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    compiling::many_functions,
    harness::{PATIENCE, Scratch, Setup},
};

/// For documentation (RFC 5737), and of nobody.
const ELSEWHERE: &str = "192.0.2.1:80";

/// What `astra-host run MODULE --no-cache --listen ELSEWHERE` shows on a terminal until it ends.
fn on_a_terminal(module: &Path) -> String {
    let (mut screen, output) = UnixStream::pair().expect("two sockets");
    screen.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let mut terminal = Command::new("script")
        .args([
            "--quiet",
            "--command",
            r#"exec "$PROGRAM" run "$MODULE" --no-cache --listen "$ELSEWHERE""#,
            "/dev/null",
        ])
        .env("SHELL", "/bin/sh")
        .env("PROGRAM", env!("CARGO_BIN_EXE_astra-host"))
        .env("MODULE", module)
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
    let text = format!("(module (memory (export \"memory\") 1) (func (export \"_start\")) {})", many_functions());
    let module = dir.file("large.wasm", wat::parse_str(text).expect("valid text"));

    let spinning = format!("compiling {} ", module.display());
    let all = on_a_terminal(&module);
    assert!(all.contains(&format!("\r| {spinning}\r/ {spinning}")), "{all:?}");
    let (turns, rest) = all.split_once("\x1b[K").expect("the line is cleared");
    assert!(turns.ends_with(&format!("{spinning}\r")) && !turns.contains('\n'), "{all:?}");
    assert!(rest.starts_with("astra-host: error: ") && rest.contains("cannot listen on"), "{all:?}");
    assert!(!rest.contains("compiling"), "{all:?}");

    let ended = Setup::run(&module).arg("--no-cache").flag("--listen", ELSEWHERE).end();
    ended.expect_complaint(1, &["cannot listen on"]);
    assert!(!ended.stderr.contains("compiling") && ended.stdout.is_empty(), "{ended:?}");
}
