//! What a terminal is shown and nobody else: a sign of life while a module takes its time. `script` (Debian's bsdutils) makes
//! the terminal; the module is a FIFO, which takes until the test has written to it.
#![cfg(target_os = "linux")]

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::harness::{PATIENCE, Scratch, Setup};

/// A module that can be opened and has not come yet.
fn slow_module(dir: &Scratch, name: &str) -> (PathBuf, File) {
    let path = dir.join(name);
    assert!(Command::new("mkfifo").arg(&path).status().expect("a Unix").success());
    // Linux opens a FIFO at once for someone who is both of its ends.
    let fifo = OpenOptions::new().read(true).write(true).open(&path).expect("ours");
    (path, fifo)
}

/// What `astra-host run MODULE` shows on a terminal until it ends, where `shown` sees all that there is so far.
fn on_a_terminal(module: &Path, mut shown: impl FnMut(&str)) -> String {
    let (mut screen, output) = UnixStream::pair().expect("two sockets");
    screen.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let mut terminal = Command::new("script")
        .args(["--quiet", "--command", r#"exec "$PROGRAM" run "$MODULE" --no-cache"#, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("PROGRAM", env!("CARGO_BIN_EXE_astra-host"))
        .env("MODULE", module)
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
fn a_module_that_takes_long_shows_a_spinner_on_a_terminal_and_nowhere_else() {
    let dir = Scratch::new();
    let (piped_path, mut piped_module) = slow_module(&dir, "piped.wasm");
    let (path, module) = slow_module(&dir, "shown.wasm");
    // Begun first, so that it has had its time when the other one shows something.
    let mut piped = Setup::run(&piped_path).arg("--no-cache").begin();

    let spinning = format!("compiling {} ", path.display());
    let mut module = Some(module);
    let all = on_a_terminal(&path, |all| {
        if all.contains(&format!("\r| {spinning}\r/ {spinning}"))
            && let Some(mut module) = module.take()
        {
            module.write_all(b"hello").expect("there is room");
        }
    });
    let (turns, rest) = all.split_once("\x1b[K").expect("the line is cleared");
    assert!(turns.ends_with(&format!("{spinning}\r")) && !turns.contains('\n'), "{all:?}");
    assert!(rest.starts_with("astra-host: error: ") && rest.contains("a text file"), "{all:?}");
    assert!(!rest.contains("compiling"), "{all:?}");

    piped_module.write_all(b"hello").expect("there is room");
    drop(piped_module);
    let ended = piped.ended();
    ended.expect_complaint(1, &["a text file"]);
    assert!(!ended.stderr.contains("compiling") && ended.stdout.is_empty(), "{ended:?}");
}
