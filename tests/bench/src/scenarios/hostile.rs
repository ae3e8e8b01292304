//! Guests that do their worst at full speed: what the host's memory is after the first and after the last third of the time.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::contenders::Contenders;
use crate::hostility;
use crate::report::{Figure, Report};
use crate::server::Server;
use crate::{Options, Pin};

const CLIENTS: usize = 16;

pub(crate) fn hostile(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let guest = contenders.example_guest("does_its_worst").display().to_string();
    let limits = ["--deadline", "200ms", "--stream-deadline", "400ms", "--cpu", "20ms"];
    let grants = ["--tcp", "127.0.0.1:*", "--outbound-private", "http://127.0.0.1:*"];
    let contender = contenders.astra_host("astra-host", &guest, &[&limits[..], &grants].concat());
    let server = Server::start(&contender, Pin::Off)?;
    let silent = silent()?;

    let third = Duration::from_secs(options.hostile_seconds.into()) / 3;
    let mut requests = 0;
    let mut mib = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        while started.elapsed() < third {
            requests += hostility::round(server.addr, silent, CLIENTS).context("a good request was not served")?;
        }
        mib.push(server.rss()? as f64 / 1024.0);
    }
    server.ask("/")?;

    let figure = |name, value| Figure { name, rounds: vec![value] };
    let figures = [
        figure("requests", requests as f64),
        figure("RSS MiB first third", mib[0]),
        figure("second", mib[1]),
        figure("last", mib[2]),
        figure("threads", server.threads()? as f64),
    ];
    report.row("hostile", "unpinned", contender.name, &contender.shown(), &figures);
    report.at_most("hostile: RSS after the last third / the first".to_owned(), mib[2] / mib[0], 1.2);
    Ok(())
}

/// A server that answers nothing, and closes when it has the next connections.
fn silent() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let mut open = std::collections::VecDeque::new();
        for stream in listener.incoming() {
            open.push_back(stream);
            if open.len() > 4 * CLIENTS {
                open.pop_front();
            }
        }
    });
    Ok(address)
}
