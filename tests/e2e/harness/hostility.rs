//! All that the guest `does_its_worst` does, asked for by clients that take their part in it. The benchmarks use it too.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

/// What computes, and goes on for as long as it may.
pub(crate) const COMPUTING: [&str; 5] = ["/computes", "/calls", "/draws", "/prints", "/grows"];
/// What waits, and computes next to nothing.
pub(crate) const WAITING: [&str; 2] = ["/sleeps", "/naps"];
/// What the host puts an end to by itself: there is no more of it.
pub(crate) const REFUSED: [&str; 9] =
    ["/recurses", "/fields", "/pollables", "/streams", "/requests", "/bodies", "/headers", "/random", "/insecure"];

/// Clients that do not read stay for so many requests.
const UNREAD: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for everything, from several clients at a time that begin in different places; `silent` is a server that answers nothing.
/// How many requests that was.
///
/// # Errors
/// What is between them, which is nothing bad, is not answered as ever.
pub(crate) fn round(host: SocketAddr, silent: SocketAddr, clients: usize) -> io::Result<u64> {
    let elsewhere = [
        format!("/connects?{silent}"),
        format!("/asks?http://{silent}/"),
        "/reads".into(),
        "/writes".into(),
        "/trailers".into(),
        "/blames".into(),
    ];
    let all: Vec<&str> =
        COMPUTING.into_iter().chain(WAITING).chain(REFUSED).chain(elsewhere.iter().map(String::as_str)).collect();
    thread::scope(|scope| {
        let asking = (0..clients).map(|client| {
            scope.spawn({
                let all = &all;
                move || {
                    let from = client * all.len() / clients;
                    ask_all(host, all[from..].iter().chain(&all[..from]))
                }
            })
        });
        let asking: Vec<_> = asking.collect();
        asking
            .into_iter()
            .map(|asking| asking.join().unwrap_or_else(|_| Err(io::Error::other("a client panicked"))))
            .sum()
    })
}

fn ask_all<'a>(host: SocketAddr, paths: impl Iterator<Item = &'a &'a str>) -> io::Result<u64> {
    let mut unread = VecDeque::new();
    let mut asked = 0;
    for path in paths {
        asked += 2;
        let mut stream = send(host, path)?;
        if *path == "/writes" {
            unread.push_back(stream);
        } else {
            // Whatever came of it, and however it ended.
            let _ = io::copy(&mut stream, &mut io::sink());
        }
        if unread.len() > UNREAD {
            unread.pop_front();
        }
        // On a machine that is busy with others even these may be cut at the deadline, but not each time.
        let mut answer = String::new();
        for _ in 0..20 {
            answer.clear();
            send(host, "/")?.read_to_string(&mut answer)?;
            if !answer.starts_with("HTTP/1.1 504") {
                break;
            }
        }
        if !answer.contains("well\n") {
            return Err(io::Error::other(format!("after {path}: {answer}")));
        }
    }
    Ok(asked)
}

fn send(host: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let rest = match path {
        // The other half never comes.
        "/reads" => "content-length: 10\r\n\r\nhalf ",
        _ => "\r\n",
    };
    stream.write_all(format!("POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{rest}").as_bytes())?;
    Ok(stream)
}
