//! A connection of HTTP/1.1 that is kept, on a blocking socket or session of TLS: a request goes out, the whole answer is read; and such an
//! answer by itself, wherever its bytes come from.

use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::endpoint::{Endpoint, Stream};

/// Longer than anything a server may take: whoever waits as long has been forgotten.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Connection {
    reader: BufReader<Box<dyn Stream>>,
    /// The server has said that it ends the connection.
    pub(crate) is_over: bool,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// The number in the host's `x-request-id`.
    pub(crate) id: Option<u64>,
    /// The server ends the connection behind it.
    pub(crate) is_last: bool,
}

impl Connection {
    pub(crate) fn open(endpoint: &Endpoint) -> Result<Self> {
        let stream = endpoint.connect(PATIENCE).context("cannot connect")?;
        Ok(Self { reader: BufReader::with_capacity(4096, stream), is_over: false })
    }

    /// Sends a whole request (one that is not HEAD) and reads its answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.reader.get_mut().write_all(request).context("cannot send")?;
        let answer = read_answer(&mut self.reader)?;
        self.is_over = answer.is_last;
        Ok(answer)
    }
}

/// Reads the answer to a request that is not HEAD.
///
/// # Errors
///
/// It is none, or not all of it is there.
pub(crate) fn read_answer(reader: &mut impl BufRead) -> Result<Answer> {
    let first = line(reader)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no answer: {first:?}"))?;
    let mut answer = Answer { status, body: Vec::new(), id: None, is_last: false };
    let mut length = None;
    loop {
        let line = line(reader)?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').with_context(|| format!("no field: {line:?}"))?;
        let value = value.trim();
        match name {
            "content-length" => length = Some(value.parse()?),
            "connection" => answer.is_last = value == "close",
            "x-request-id" => answer.id = id_number(value),
            _ => {}
        }
    }
    match length {
        Some(length) => read_body(reader, &mut answer.body, length)?,
        // What is neither one nor the other, the hosts here do not send.
        None => {
            while let size @ 1.. = chunk_size(reader)? {
                read_body(reader, &mut answer.body, size)?;
                ensure!(line(reader)?.is_empty(), "a chunk is not what it says it is");
            }
            ensure!(line(reader)?.is_empty(), "nobody asked for trailers");
        }
    }
    Ok(answer)
}

/// A line of a head, without its end.
pub(crate) fn line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line).context("cannot receive")?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => bail!("cut: {line:?}"),
    }
}

/// What a chunk begins with: how long it is; 0 is the end.
pub(crate) fn chunk_size(reader: &mut impl BufRead) -> Result<u64> {
    let size = line(reader)?;
    u64::from_str_radix(&size, 16).with_context(|| format!("not a chunk: {size:?}"))
}

fn read_body(reader: &mut impl BufRead, body: &mut Vec<u8>, length: u64) -> Result<()> {
    let seen = reader.take(length).read_to_end(body).context("cannot receive")?;
    ensure!(seen as u64 == length, "cut within the body");
    Ok(())
}

/// A host's ids differ in their last part only, a hexadecimal number that counts its requests.
pub(crate) fn id_number(id: &str) -> Option<u64> {
    u64::from_str_radix(id.rsplit('-').next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn answers_are_read_to_their_end_and_no_further() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut connection =
            Connection::open(&Endpoint::plain(listener.local_addr().expect("bound"))).expect("it listens");
        let (mut server, _) = listener.accept().expect("it has come");
        let chunked = "HTTP/1.1 200 OK\r\nX-Request-Id: 1-2-00ff\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let sized = "HTTP/1.1 503 Service Unavailable\r\nempty:\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
        server.write_all(format!("{chunked}{sized}").as_bytes()).expect("there is room");
        let first = connection.ask(b"one").expect("an answer");
        assert_eq!((first.status, &first.body[..], first.id), (200, &b"abcde"[..], Some(255)));
        assert!(!connection.is_over);
        let second = connection.ask(b"two").expect("an answer");
        assert_eq!((second.status, &second.body[..], second.id), (503, &b"no"[..], None));
        assert!(connection.is_over);
    }
}
