//! An HTTP/1.1 client that writes what it is told, byte for byte, and reads exactly one answer at a time. It is strict on
//! purpose: an answer that is cut, chunked wrongly or has no length where it needs one is an error.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::PATIENCE;

pub(crate) struct Client<S = TcpStream> {
    stream: S,
    /// Read from the socket, not yet asked for.
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Names in lower case, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        Client::try_connect(addr).expect("the server accepts")
    }

    pub(crate) fn try_connect(addr: SocketAddr) -> io::Result<Client> {
        Ok(Client::over(TcpStream::connect(addr)?))
    }

    pub(crate) fn over(stream: TcpStream) -> Client {
        stream.set_nodelay(true).expect("TCP has nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
        Client { stream, buffer: Vec::new() }
    }

    /// A client whose socket takes little before somebody reads, so that the server feels back-pressure early.
    pub(crate) fn connect_narrow(addr: SocketAddr) -> Client {
        let socket =
            socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("a small receive buffer");
        socket.connect(&addr.into()).expect("the server accepts");
        Client::over(socket.into())
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("connected")
    }

    /// Ends the sending side: the server reads the end of the stream.
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("connected");
    }

    /// Goes away with a reset instead of a FIN: no half-closed client, a gone one.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("TCP lingers");
    }
}

impl Client<UnixStream> {
    pub(crate) fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
        Client { stream, buffer: Vec::new() }
    }
}

impl<S: Read + Write> Client<S> {
    /// Over something else, whose time-outs are the caller's business.
    pub(crate) fn wrapping(stream: S) -> Self {
        Client { stream, buffer: Vec::new() }
    }

    pub(crate) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the server takes what is sent");
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends `GET path`, without waiting for the answer.
    pub(crate) fn ask(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.ask(path);
        self.answer()
    }

    pub(crate) fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        self.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", body.len()));
        self.send(body);
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("a whole answer")
    }

    /// The next answer that is not an interim one, whole.
    pub(crate) fn try_answer(&mut self) -> io::Result<Answer> {
        let head = loop {
            let head = self.try_head()?;
            if head.status >= 200 {
                break head;
            }
        };
        self.body_of(head)
    }

    /// The answer to a HEAD request.
    pub(crate) fn answer_without_body(&mut self) -> Answer {
        let Head { status, headers } = self.head();
        Answer { status, headers, body: Vec::new(), trailers: Vec::new() }
    }

    pub(crate) fn head(&mut self) -> Head {
        self.try_head().expect("a whole head")
    }

    pub(crate) fn try_head(&mut self) -> io::Result<Head> {
        let line = self.line()?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| malformed(&line))?;
        Ok(Head { status, headers: self.fields()? })
    }

    fn body_of(&mut self, Head { status, headers }: Head) -> io::Result<Answer> {
        let mut answer = Answer { status, headers, body: Vec::new(), trailers: Vec::new() };
        if matches!(status, 204 | 304) {
            return Ok(answer);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk()? {
                answer.body.extend(chunk);
            }
            answer.trailers = self.fields()?;
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(|_| malformed(length))?;
            answer.body = self.exactly(length)?;
        } else {
            answer.body = self.rest()?;
        }
        Ok(answer)
    }

    /// The data of the next chunk; `None` for the last one, whose trailers are left to read.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| malformed(&line))?;
        if size == 0 {
            return Ok(None);
        }
        let data = self.exactly(size)?;
        if self.exactly(2)? != b"\r\n" {
            return Err(malformed("a chunk longer than its size"));
        }
        Ok(Some(data))
    }

    /// Header or trailer fields up to and with the empty line.
    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| malformed("not UTF-8"));
            }
            self.fill()?;
        }
    }

    pub(crate) fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Everything up to the end of the stream; an error if that is a reset.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(std::mem::take(&mut self.buffer)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Everything up to the end of the connection, which the server must end (FIN or reset).
    pub(crate) fn until_closed(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) if is_end(&error) => return std::mem::take(&mut self.buffer),
                Err(error) => panic!("the server leaves the connection open: {error}"),
            }
        }
    }

    /// Reads what there is; the end of the stream is [`ErrorKind::UnexpectedEof`].
    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection ended")),
            n => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Ok(())
            }
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }
}

pub(crate) fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

/// Whether a read failed because the connection is over, not because nothing came.
pub(crate) fn is_end(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("malformed answer: {what:?}"))
}
