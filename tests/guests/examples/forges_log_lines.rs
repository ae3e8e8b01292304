//! Writes to stdout and stderr what could be taken for lines of the host's log, or garble a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is the point")]

use std::io::{self, Write};

use guest_sdk::{Request, handler};

#[handler]
fn forge(_request: Request) -> io::Result<&'static str> {
    println!("plain");
    println!("one\n2026-01-01T00:00:00Z forged access line status=200");
    println!("carriage\rreturn");
    eprintln!("\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31mescape\u{2028}separator\u{85}next");
    io::stdout().write_all(b"not utf-8: \xff\xfe\n")?;
    println!("{}", "long".repeat(10_000));
    print!("no newline at the end");
    io::stdout().flush()?;
    Ok("forged\n")
}
