//! Idle keep-alive connections: what they cost in memory and threads, and whether hello is still served at its speed beside them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::contenders::Contenders;
use crate::load::{self, get};
use crate::report::{Figure, Report, median};
use crate::server::Server;
use crate::{Options, Pin};

pub(crate) fn idle(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    raise_descriptors(options.idle_connections)?;
    let contender = contenders.astra_host("astra-host", "hello", &[]);
    let pin = options.pins()[0];
    let [mut alone, mut beside, mut mib, mut threads] = [const { Vec::new() }; 4];
    for _ in 0..options.rounds {
        let server = Server::start(&contender, pin)?;
        load::run(&server, get("/", 32), 1, pin)?;
        let rate =
            |pin: Pin| load::run(&server, get("/", 32), options.seconds, pin).map(|load| load.requests_per_second);
        alone.push(rate(pin)?);

        let (rss, threads_before) = (server.rss()?, server.threads()?);
        let connections = open(&server, options.idle_connections)?;
        // Idle is what they are to be: the server gives their buffers back after a while.
        std::thread::sleep(Duration::from_secs(3));
        mib.push((server.rss()?.saturating_sub(rss)) as f64 / 1024.0);
        threads.push(server.threads()? as f64 - threads_before as f64);
        beside.push(rate(pin)?);
        ensure!(still_open(&connections)?, "the server closed connections that were only idle");
    }

    let ratio = median(&beside) / median(&alone);
    let (most_mib, most_threads) = (median(&mib), median(&threads));
    let figures = [
        Figure { name: "requests/s alone", rounds: alone },
        Figure { name: "requests/s beside", rounds: beside },
        Figure { name: "MiB for all", rounds: mib },
        Figure { name: "threads added", rounds: threads },
    ];
    report.row("idle", pin.name(), contender.name, &contender.shown(), &figures);
    let n = options.idle_connections;
    report.at_most(format!("idle: MiB for {n} connections"), most_mib, 100.0);
    report.at_most(format!("idle: threads added by {n} connections"), most_threads, 16.0);
    report.at_least("idle: hello beside them / alone".to_owned(), ratio, 0.9);
    Ok(())
}

/// Opens connections that have been used once each, as a browser's are.
fn open(server: &Server, count: usize) -> Result<Vec<TcpStream>> {
    let request = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", server.addr);
    let mut buffer = [0; 4096];
    let mut connections = Vec::with_capacity(count);
    for i in 0..count {
        let mut stream = TcpStream::connect(server.addr).with_context(|| format!("connection {i}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(request.as_bytes())?;
        // Head and body of a hello fit into one read, or the rest waits unread: the server has sent it either way.
        let n = stream.read(&mut buffer).with_context(|| format!("answer on connection {i}"))?;
        ensure!(buffer[..n].starts_with(b"HTTP/1.1 200"), "connection {i} was refused");
        connections.push(stream);
    }
    Ok(connections)
}

fn still_open(connections: &[TcpStream]) -> Result<bool> {
    for mut stream in connections {
        stream.set_nonblocking(true)?;
        loop {
            match stream.read(&mut [0; 4096]) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Ok(false),
            }
        }
    }
    Ok(true)
}

/// Raises the soft limit, which the servers inherit, to the hard one.
pub(super) fn raise_descriptors(connections: usize) -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let enough = maximum.is_none_or(|most| most > connections as u64 + 100);
    ensure!(enough, "{connections} connections need `ulimit -Hn {}`", connections + 200);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise RLIMIT_NOFILE")
}
