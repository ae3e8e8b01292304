//! Answers as `PATH_INFO` says: with its environment, its arguments, with what it reads, or in one of the ways in which a CGI program can fail.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is how a CGI program answers and logs")]

use std::{
    env,
    io::{self, Read as _, Write as _},
    process, thread,
    time::Duration,
};

const TEXT: &str = "Content-Type: text/plain\n\n";

fn main() -> io::Result<()> {
    let path = env::var("PATH_INFO").unwrap_or_default();
    let mut out = io::stdout();
    match path.as_str() {
        "/env" => {
            let mut variables: Vec<_> = env::vars().collect();
            variables.sort();
            print!("{TEXT}");
            for (name, value) in variables {
                println!("{name}={value}");
            }
        }
        "/arguments" => print!("{TEXT}{:?}", env::args().collect::<Vec<_>>()),
        "/echo" => {
            print!("{TEXT}");
            out.flush()?;
            let mut buffer = [0; 10_000];
            loop {
                let read = io::stdin().read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                out.write_all(&buffer[..read])?;
                out.flush()?;
            }
        }
        "/status" => {
            print!("Status: 404 Not Found\r\nContent-Type: text/plain\r\nX-Two: 1\r\nX-Two: 2\r\n\r\nno such thing");
        }
        "/redirect" => print!("Location: https://example.com/\n\n"),
        "/bytes" => {
            print!("Content-Type: application/octet-stream\n\n");
            out.write_all(&[0xff, 0, 0xfe])?;
        }
        "/hop-by-hop" => {
            print!("X-Hop: 1\nConnection: close, x-hop\nTransfer-Encoding: chunked\nX-Stays: 1\n\nbody");
        }
        "/slowly" => {
            println!("{TEXT}first");
            out.flush()?;
            thread::sleep(Duration::from_secs(60));
        }
        "/without-end" => {
            print!("{TEXT}");
            loop {
                out.write_all(&[b'x'; 10_000])?;
            }
        }
        "/exits-well" => {
            print!("{TEXT}all of it");
            out.flush()?;
            process::exit(0);
        }
        "/nothing" => eprintln!("has nothing to say"),
        "/no-head" => print!("Hello World!\n\n"),
        "/half-a-head" => println!("Content-Type: text/plain"),
        "/nph" => print!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nraw"),
        "/long-head" => {
            for index in 0..10_000 {
                println!("X-{index}: value");
            }
        }
        "/exits-badly" => {
            print!("{TEXT}half of it");
            out.flush()?;
            process::exit(3);
        }
        "/panics-later" => {
            println!("{TEXT}half of it");
            out.flush()?;
            thread::sleep(Duration::from_millis(10));
            panic!("as it shall");
        }
        "/too-short" => print!("Content-Length: 100\n\nshort"),
        _ => print!("{TEXT}Hello World!"),
    }
    out.flush()
}
