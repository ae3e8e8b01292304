//! Answers with its environment and arguments, one a line.

use guest_sdk::{Request, handler};

#[handler]
fn env(_request: Request) -> String {
    let mut lines: Vec<_> = std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect();
    lines.sort();
    lines.extend(std::env::args().map(|argument| format!("argument {argument}\n")));
    lines.concat()
}
