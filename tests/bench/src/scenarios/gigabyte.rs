//! A body far larger than the host may grow, up and down through the echo guest at the same time.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::contenders::Contenders;
use crate::report::{Figure, Report};
use crate::server::Server;
use crate::{Options, Pin};

pub(crate) fn gigabyte(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let bytes = options.body_mib << 20;
    let max_body = format!("{}MiB", options.body_mib);
    let contender = contenders.astra_host("astra-host", "echo", &["--max-body", &max_body, "--deadline", "10m"]);
    // Once is enough for memory; the rate is a by-product.
    let server = Server::start(&contender, Pin::Off)?;
    let idle = server.rss()?;
    let started = Instant::now();
    echo(&server, bytes)?;
    let rate = options.body_mib as f64 / started.elapsed().as_secs_f64();
    let grown = server.peak_rss()?.saturating_sub(idle) as f64 / 1024.0;

    let figures =
        [Figure { name: "MiB above idle", rounds: vec![grown] }, Figure { name: "MiB/s", rounds: vec![rate] }];
    report.row("gigabyte", "unpinned", contender.name, &contender.shown(), &figures);
    report.at_most(format!("gigabyte: host MiB above idle for {} MiB", options.body_mib), grown, 64.0);
    Ok(())
}

/// Sends `bytes` bytes and reads as many back; their values are checked on the way.
fn echo(server: &Server, bytes: u64) -> Result<()> {
    let stream = TcpStream::connect(server.addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    let mut sender = stream.try_clone()?;
    let block: Vec<u8> = (0..1 << 16).map(|i: u32| (i % 251) as u8).collect();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| -> Result<()> {
            write!(sender, "POST / HTTP/1.1\r\nhost: {}\r\ncontent-length: {bytes}\r\n\r\n", server.addr)?;
            let mut left = bytes;
            while left > 0 {
                let part = left.min(block.len() as u64) as usize;
                sender.write_all(&block[..part]).with_context(|| format!("{left} bytes left to send"))?;
                left -= part as u64;
            }
            Ok(())
        });
        let received = receive(stream, bytes, &block);
        match sending.join() {
            Ok(sent) => sent?,
            Err(_) => bail!("the sender panicked"),
        }
        received
    })
}

fn receive(stream: TcpStream, bytes: u64, block: &[u8]) -> Result<()> {
    let mut reader = BufReader::with_capacity(1 << 18, stream);
    let head = head(&mut reader)?;
    ensure!(head.starts_with("HTTP/1.1 200"), "refused: {head}");
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let mut buffer = vec![0; 1 << 18];
    let mut seen = 0;
    while seen < bytes {
        let size = if chunked { chunk_size(&mut reader)? } else { bytes };
        ensure!(size > 0, "the answer ended after {seen} bytes");
        let mut left = size;
        while left > 0 {
            let part = left.min(buffer.len() as u64) as usize;
            reader.read_exact(&mut buffer[..part]).with_context(|| format!("cut after {seen} bytes"))?;
            let expected = |i: usize| block[((seen + i as u64) % block.len() as u64) as usize];
            ensure!(buffer[0] == expected(0) && buffer[part - 1] == expected(part - 1), "other bytes came back");
            seen += part as u64;
            left -= part as u64;
        }
        if chunked {
            reader.read_exact(&mut [0; 2])?;
        }
    }
    ensure!(seen == bytes, "{seen} bytes came back");
    ensure!(!chunked || chunk_size(&mut reader)? == 0, "more came back than was sent");
    Ok(())
}

fn head(reader: &mut impl Read) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        reader.read_exact(&mut byte).context("no answer")?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn chunk_size(reader: &mut impl Read) -> Result<u64> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        reader.read_exact(&mut byte).context("cut between chunks")?;
        line.extend(byte);
    }
    let size = std::str::from_utf8(&line)?.trim_end();
    u64::from_str_radix(size, 16).with_context(|| format!("not a chunk: {size:?}"))
}
