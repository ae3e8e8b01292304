//! A body that is posted to an echo and comes back at the same time, of any size: it is sent by a thread of its own, and looked at on the way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::http1::{chunk_size, line};

/// Sends `bytes` bytes and reads as many back; their values are checked on the way.
pub(crate) fn there_and_back(addr: SocketAddr, bytes: u64) -> Result<()> {
    let stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    let mut sender = stream.try_clone()?;
    let block: Vec<u8> = (0..1 << 16).map(|i: u32| (i % 251) as u8).collect();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| -> Result<()> {
            write!(sender, "POST / HTTP/1.1\r\nhost: {addr}\r\ncontent-length: {bytes}\r\n\r\n")?;
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

/// Up to and without the empty line.
fn head(reader: &mut impl BufRead) -> Result<String> {
    let mut head = String::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Ok(head);
        }
        head.push_str(&line);
        head.push('\n');
    }
}
