//! What libc's descriptors are for, in a guest that has none: the path says which.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is what it tries out")]

use std::{
    fs,
    io::{self, Write},
};

use guest_sdk::{Request, handler};

#[handler]
fn try_out(request: Request) -> String {
    match request.uri().path() {
        "/print" => {
            println!("to standard output");
            eprintln!("to standard error");
            let long = "long".repeat(3000);
            let written = io::stdout().write_all(long.as_bytes()).and_then(|()| io::stdout().flush());
            format!("{written:?}")
        }
        "/panic" => panic!("out of cheese"),
        file => match fs::read_to_string(file).and_then(|read| fs::write(file, "changed").map(|()| read)) {
            Ok(read) => read,
            Err(error) => format!("{error}"),
        },
    }
}
