//! Millions of guests that look for what others have left, everywhere in their memory, tables and globals, and leave a secret there;
//! then again while the kernel moves pages.

mod moving;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::contenders::Contenders;
use crate::report::{Figure, Report};
use crate::server::Server;
use crate::{Options, Pin};

use moving::{Blocks, Moves};

/// As many as cores are enough to keep them busy; a memory is used again at once.
const CLIENTS: u64 = 4;
/// One guest in so many ends by a trap instead, and one has more memory than is kept for the next.
const TRAP: u64 = 61;
const LARGE: u64 = 1021;

pub(crate) fn isolation(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let guest = std::env::temp_dir().join(format!("looks-for-secrets-{}.wasm", std::process::id()));
    std::fs::write(&guest, wat::parse_str(include_str!("../../../../guests/looks-for-secrets.wat"))?)?;
    let all = options.isolation_guests;
    let result = [("scan", false, all), ("scan", true, all), ("copy", false, all / 10), ("copy", true, all / 10)]
        .into_iter()
        .try_for_each(|(reset, moves, guests)| {
            one(contenders, report, &guest.display().to_string(), reset, moves, guests)
        });
    let _ = std::fs::remove_file(guest);
    result
}

fn one(
    contenders: &Contenders,
    report: &mut Report,
    guest: &str,
    reset: &'static str,
    moves: bool,
    guests: u64,
) -> Result<()> {
    let name = if reset == "scan" { "astra-host" } else { "astra-host copy" };
    let contender = contenders.astra_host(name, guest, &["--reset", reset, "--max-workers", "2"]);
    if moves && !moving::is_allowed() {
        report.note("isolation: no pages can be moved here, which takes root");
        return Ok(());
    }
    // Before the host is started, whose pages come to lie in them.
    let blocks = moves.then(Blocks::take);
    let server = match Server::start(&contender, Pin::Off) {
        Ok(server) => server,
        Err(error) if reset == "scan" => {
            report.note(&format!("isolation: no scanning here: {error:#}"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let started = Instant::now();
    let is_over = AtomicBool::new(false);
    let (leaks, moves) = std::thread::scope(|scope| {
        let moving = blocks.as_ref().map(|blocks| scope.spawn(|| blocks.turn(&server, &is_over)));
        let leaks = look(server.addr, guests);
        is_over.store(true, Ordering::Relaxed);
        let moves = moving.map(|moving| moving.join().map_err(|_| anyhow!("a panic"))?).transpose()?;
        Ok::<_, anyhow::Error>((leaks?, moves))
    })?;

    let setting = if moves.is_some() { "moving" } else { "at rest" };
    let figure = |name, value| Figure { name, rounds: vec![value] };
    let mut figures = vec![
        figure("guests", guests as f64),
        figure("leaks", leaks as f64),
        figure("guests/s", guests as f64 / started.elapsed().as_secs_f64()),
    ];
    if let Some(Moves { compactions, emptied, pages, of_host }) = moves {
        let moved = [
            figure("compactions", compactions as f64),
            figure("blocks emptied", emptied as f64),
            figure("pages moved", pages as f64),
            figure("pages of the host moved", of_host as f64),
        ];
        figures.extend(moved);
        report.at_least(format!("isolation, {reset}: pages of the host that were moved"), of_host as f64, 1.0);
    }
    report.row("isolation", setting, contender.name, &contender.shown(), &figures);
    report.at_most(format!("isolation, {reset}, {setting}: leaks in {guests} guests"), leaks as f64, 0.0);
    Ok(())
}

/// Runs so many guests; how many have found something.
fn look(addr: SocketAddr, guests: u64) -> Result<u64> {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let looking: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| look_on_one(addr, &next, guests))).collect();
        looking.into_iter().map(|looking| looking.join().map_err(|_| anyhow!("a panic"))?).sum()
    })
}

fn look_on_one(addr: SocketAddr, next: &AtomicU64, guests: u64) -> Result<u64> {
    let mut stream = BufReader::new(TcpStream::connect(addr)?);
    stream.get_ref().set_nodelay(true)?;
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut leaks = 0;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= guests {
            return Ok(leaks);
        }
        let letter = match () {
            () if number.is_multiple_of(LARGE) => 'R',
            () if number.is_multiple_of(TRAP) => 't',
            () => 'r',
        };
        write!(stream.get_mut(), "POST / HTTP/1.1\r\nhost: {addr}\r\ncontent-length: 1\r\n\r\n{letter}")?;
        let (status, body) = answer(&mut stream)?;
        match (status.as_str(), body.trim_ascii_end(), letter) {
            ("200", b"clean", _) | ("500", _, 't') => {}
            ("200", b"memory" | b"table" | b"global", _) => leaks += 1,
            _ => bail!("{letter} was answered with {status}: {}", String::from_utf8_lossy(&body)),
        }
    }
}

/// Status and body of an answer that says how long it is.
fn answer(stream: &mut impl BufRead) -> Result<(String, Vec<u8>)> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).context("no answer")?.to_owned();
    let mut length = None;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    let mut body = vec![0; length.context("an answer without a length")?];
    stream.read_exact(&mut body)?;
    Ok((status, body))
}
