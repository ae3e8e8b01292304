//! Answers as `PATH_INFO` says, through the `wasi:cli` of 0.3: with its environment, with what it reads, or in one of the ways in which
//! a CGI program can fail.
#![cfg(target_family = "wasm")]
#![allow(missing_docs, clippy::print_stdout, reason = "what `export!` makes, and how the standard library answers")]

use std::io::{self, Write as _};

use wasip3::{
    cli::{environment, exit, stderr, stdin, stdout, types::ErrorCode},
    clocks::monotonic_clock,
    wit_bindgen::{self, FutureReader, StreamWriter, spawn_local},
    wit_stream,
};

wasip3::cli::command::export!(Program);

struct Program;

const HEAD: &str = "Content-Type: text/plain\n\n";
const HOUR: u64 = 3_600_000_000_000;

/// How printing went.
type Printed = FutureReader<Result<(), ErrorCode>>;

impl wasip3::exports::cli::run::Guest for Program {
    async fn run() -> Result<(), ()> {
        let variables = environment::get_environment();
        let path = variables.iter().find(|(name, _)| name == "PATH_INFO").map_or("", |(_, value)| value);
        let (mut out, printed) = open();
        match path {
            "/environment" => {
                let mut text: Vec<_> = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
                text.sort();
                let arguments = environment::get_arguments();
                print(&mut out, &format!("{HEAD}{}arguments={arguments:?}\n", text.concat())).await;
            }
            "/echo" => echo(&mut out).await,
            "/collects" => {
                let (input, ended) = stdin::read_via_stream();
                let text = format!("{} bytes, {:?}", input.collect().await.len(), ended.await);
                print(&mut out, &format!("{HEAD}{text}")).await;
            }
            "/status" => print(&mut out, "Status: 404 Not Found\r\nX-Two: 1\r\n\r\nno such thing").await,
            "/in-pieces" => {
                for byte in format!("{HEAD}Hello World!").chars() {
                    print(&mut out, &byte.to_string()).await;
                }
            }
            "/in-many-streams" => {
                print(&mut out, HEAD).await;
                for n in 0..200 {
                    let (mut one_more, printed) = open();
                    print(&mut one_more, &format!("{n},")).await;
                    drop(one_more);
                    let _ = printed.await;
                }
            }
            "/in-two-tasks" => {
                print(&mut out, HEAD).await;
                let (mut other, printed) = open();
                spawn_local(async move { print(&mut other, &"b".repeat(1_000_000)).await });
                print(&mut out, &"a".repeat(1_000_000)).await;
                let _ = printed.await;
            }
            "/counts-in-two-tasks" => {
                print(&mut out, HEAD).await;
                let (mut other, printed) = open();
                spawn_local(async move { print(&mut other, &count().await).await });
                print(&mut out, &count().await).await;
                let _ = printed.await;
            }
            "/in-std" => {
                print!("{HEAD}Hello World!");
                io::stdout().flush().map_err(drop)?;
            }
            "/complains" => {
                let (mut writer, reader) = wit_stream::new();
                let complained = stderr::write_via_stream(reader);
                print(&mut writer, "complaint of 0.3\n").await;
                drop(writer);
                let _ = complained.await;
            }
            "/slowly" => {
                print(&mut out, &format!("{HEAD}first")).await;
                monotonic_clock::wait_for(HOUR).await;
            }
            "/without-end" => {
                print(&mut out, HEAD).await;
                while out.write_all(vec![b'x'; 10_000]).await.is_empty() {}
            }
            "/spins" => loop {
                std::hint::spin_loop();
            },
            // The program has ended when `run` has returned.
            "/goes-on" => {
                print(&mut out, &format!("{HEAD}Hello World!")).await;
                spawn_local(async move {
                    monotonic_clock::wait_for(HOUR).await;
                    print(&mut out, " and more").await;
                });
                return Ok(());
            }
            "/too-short" => print(&mut out, "Content-Length: 100\n\nshort").await,
            "/too-long" => {
                print(&mut out, "Content-Length: 5\n\n").await;
                print(&mut out, "Hello World!").await;
            }
            "/no-head" => print(&mut out, "Hello World!\n\n").await,
            "/nothing" => {}
            "/fails" => {
                print(&mut out, &format!("{HEAD}half of it")).await;
                return Err(());
            }
            "/exits" => {
                print(&mut out, &format!("{HEAD}all of it")).await;
                exit::exit_with_code(0);
            }
            "/exits-badly" => {
                print(&mut out, &format!("{HEAD}half of it")).await;
                exit::exit_with_code(3);
            }
            "/panics-later" => {
                print(&mut out, &format!("{HEAD}half of it")).await;
                monotonic_clock::wait_for(10_000_000).await;
                panic!("as it shall");
            }
            _ => print(&mut out, &format!("{HEAD}Hello World!")).await,
        }
        drop(out);
        printed.await.map_err(drop)
    }
}

/// The standard output.
fn open() -> (StreamWriter<u8>, Printed) {
    let (writer, reader) = wit_stream::new();
    (writer, stdout::write_via_stream(reader))
}

async fn print(out: &mut StreamWriter<u8>, text: &str) {
    out.write_all(text.into()).await;
}

/// How many bytes of the standard input are not read by others.
async fn count() -> String {
    format!("{} ", stdin::read_via_stream().0.collect().await.len())
}

/// Each piece goes back as it comes.
async fn echo(out: &mut StreamWriter<u8>) {
    print(out, HEAD).await;
    let (mut input, _) = stdin::read_via_stream();
    loop {
        let (status, bytes) = input.read(Vec::with_capacity(10_000)).await;
        let has_ended = !matches!(status, wit_bindgen::StreamResult::Complete(_));
        if !out.write_all(bytes).await.is_empty() || has_ended {
            break;
        }
    }
}
