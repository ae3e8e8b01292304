//! Guests that are CGI programs (RFC 3875): the request as environment and standard input, the response from the
//! standard output.
//!
//! Both bodies stream. The head of the response is read as it is printed; what follows goes into the pipe of `body.rs`,
//! so a program waits while its client reads slowly. It runs on the worker of the request; the connection's poller only
//! reads that pipe. Programs that speak HTTP themselves ("NPH") are not supported, and told so.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request, uri::Scheme};
use http_body::Body as _;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::{
    cli::{IsTerminal, StdinStream, StdoutStream},
    p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult},
};

use super::{
    answer::content_length,
    body::{BodyStream, BodyWatch, BodyWriter, Budget},
    destination::default_port,
    http::RequestBody,
    wakers::Everyone,
};
use crate::{
    failure::{Failure, FailureKind},
    hop_by_hop,
};

/// The longest head that a program may print, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// What a CGI program is told beside its request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gateway {
    /// The client's address.
    pub peer: Option<SocketAddr>,
    /// The address of ours that the request came to.
    pub local: Option<SocketAddr>,
    /// How many bytes of the request's path name the program; the rest is its `PATH_INFO`.
    pub script: usize,
}

/// One run of a program: what it is given and what it prints.
pub(crate) struct Cgi {
    /// What it is called.
    pub(crate) name: Arc<str>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) stdin: Stdin,
    pub(crate) stdout: Stdout,
}

/// The meta-variables of a request (RFC 3875 section 4.1). `AUTH_TYPE` and `REMOTE_USER` are not among them, since the
/// host authenticates nobody, and nor is `PATH_TRANSLATED`; for the same reason `authorization` is passed on. Never
/// `HTTP_PROXY` (CVE-2016-5385).
///
/// # Errors
/// The path has a zero byte in it, which no environment can hold.
pub(crate) fn variables(
    head: &request::Parts,
    scheme: &Scheme,
    gateway: &Gateway,
) -> wasmtime::Result<Vec<(String, String)>> {
    let path = head.uri.path();
    let (script, rest) = match path {
        "*" => ("", ""), // `OPTIONS *` names no script and nothing below one
        _ => path.split_at_checked(gateway.script).unwrap_or((path, "")),
    };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut variables = Vec::with_capacity(16 + head.headers.len());
    let mut put = |name: &str, value: String| variables.push((name.to_owned(), value));
    put("GATEWAY_INTERFACE", "CGI/1.1".to_owned());
    put("SERVER_SOFTWARE", concat!("astra-host/", env!("CARGO_PKG_VERSION")).to_owned());
    put("SERVER_PROTOCOL", format!("{:?}", head.version));
    put("REQUEST_METHOD", head.method.to_string());
    put("REQUEST_SCHEME", scheme.to_string());
    put("REQUEST_URI", head.uri.path_and_query().map_or_else(|| path.to_owned(), ToString::to_string));
    put("SCRIPT_NAME", decoded(script));
    put("PATH_INFO", decoded(rest));
    put("QUERY_STRING", head.uri.query().unwrap_or_default().to_owned());
    if *scheme == Scheme::HTTPS {
        put("HTTPS", "on".to_owned());
    }
    let host = head.uri.authority().map(http::uri::Authority::as_str);
    let host = host.or_else(|| head.headers.get(header::HOST)?.to_str().ok()).unwrap_or_default();
    let authority: Option<http::uri::Authority> = host.parse().ok();
    put("SERVER_NAME", authority.as_ref().map_or(host, http::uri::Authority::host).to_owned());
    // The port that the request came to (section 4.1.15), whatever the client calls it; a Unix socket has none.
    let port = gateway.local.map(|local| local.port()).or_else(|| authority.as_ref()?.port_u16());
    put("SERVER_PORT", port.unwrap_or(default_port(scheme)).to_string());
    if let Some(peer) = gateway.peer {
        let address = peer.ip().to_canonical().to_string();
        put("REMOTE_ADDR", address.clone());
        put("REMOTE_HOST", address);
        put("REMOTE_PORT", peer.port().to_string());
    }
    // The authority of the target goes before it (RFC 9112 section 3.2.2), and HTTP/2 has nothing else.
    if !host.is_empty() {
        put("HTTP_HOST", host.to_owned());
    }
    for name in head.headers.keys() {
        let variable = match *name {
            header::CONTENT_TYPE => "CONTENT_TYPE".to_owned(),
            header::CONTENT_LENGTH => "CONTENT_LENGTH".to_owned(),
            _ if is_passed_on(name) => format!("HTTP_{}", name.as_str().replace('-', "_").to_ascii_uppercase()),
            _ => continue,
        };
        let separator = if *name == header::COOKIE { "; " } else { ", " };
        let values = head.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        put(&variable, values.collect::<Vec<_>>().join(separator));
    }
    if variables.iter().any(|(_, value)| value.contains('\0')) {
        wasmtime::bail!("the path has a zero byte in it");
    }
    Ok(variables)
}

/// Not what concerns the connection; and nothing with a `_`, which would pass for another one with a `-`.
fn is_passed_on(name: &HeaderName) -> bool {
    let is_plain = name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_plain && *name != "proxy" && !hop_by_hop::concerns_connection(name)
}

/// The request's body as the standard input.
#[derive(Clone)]
pub(crate) struct Stdin(Arc<Mutex<Input>>);

struct Input {
    body: RequestBody,
    /// Those who wait for more of it, which itself knows one only.
    readers: Arc<Everyone>,
    /// What has been taken from the body and not been read yet.
    rest: Bytes,
    end: Option<std::io::ErrorKind>,
    has_ended: bool,
}

impl Stdin {
    pub(crate) fn new(body: RequestBody) -> Self {
        Self(Arc::new(Mutex::new(Input {
            body,
            readers: Arc::default(),
            rest: Bytes::new(),
            end: None,
            has_ended: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Input> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Input {
    /// Ready when there is something to read, or nothing more will come.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.rest.is_empty() && !self.has_ended {
            self.readers.add(cx.waker());
            let waker = Waker::from(Arc::clone(&self.readers));
            match Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => self.rest = frame.into_data().unwrap_or_default(),
                Poll::Ready(Some(Err(_))) => {
                    (self.end, self.has_ended) = (Some(std::io::ErrorKind::ConnectionAborted), true);
                }
                Poll::Ready(None) => self.has_ended = true,
            }
        }
        Poll::Ready(())
    }

    fn take(&mut self, most: usize) -> std::io::Result<Option<Bytes>> {
        if !self.rest.is_empty() {
            return Ok(Some(self.rest.split_to(most.min(self.rest.len()))));
        }
        match self.end {
            _ if !self.has_ended => Ok(Some(Bytes::new())),
            Some(kind) => Err(kind.into()),
            None => Ok(None),
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.lock().poll_fill(cx)).await;
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for Stdin {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut input = self.lock();
        // What is not there yet is waited for by `ready`.
        let _ = input.poll_fill(&mut Context::from_waker(Waker::noop()));
        match input.take(size) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(StreamError::Closed),
            Err(error) => Err(StreamError::LastOperationFailed(error.into())),
        }
    }
}

impl AsyncRead for Stdin {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let mut input = self.lock();
        if input.poll_fill(cx).is_pending() {
            return Poll::Pending;
        }
        if let Some(bytes) = input.take(buffer.remaining())? {
            buffer.put_slice(&bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Stdin {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

/// The standard output: a head, then a body.
#[derive(Clone)]
pub(crate) struct Stdout(Arc<Mutex<Output>>);

enum Output {
    /// What has been printed of the head.
    Head { text: Vec<u8>, unsent: Budget },
    /// The head has ended; `head` is there until it is taken.
    Body { head: Option<Head>, writer: BodyWriter, stream: BodyStream },
    /// It is no CGI response, or all has been printed.
    Over(Option<Failure>),
}

/// A response without its body, as a program has printed it.
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: BodyWatch,
}

impl Stdout {
    pub(crate) fn new(unsent: &Budget) -> Self {
        Self(Arc::new(Mutex::new(Output::Head { text: Vec::new(), unsent: unsent.clone() })))
    }

    /// The head, once it has been printed; or why there will be none.
    ///
    /// # Errors
    /// What was printed is no CGI response.
    pub(crate) fn take_head(&self) -> Result<Option<Head>, Failure> {
        match &mut *self.lock() {
            Output::Head { .. } => Ok(None),
            Output::Body { head, .. } => Ok(head.take()),
            Output::Over(failure) => failure.take().map_or(Ok(None), Err),
        }
    }

    /// The program has ended well, and its head has been taken: its response ends here.
    pub(crate) fn finish(&self) {
        let mut output = self.lock();
        *output = match std::mem::replace(&mut *output, Output::Over(None)) {
            Output::Body { writer, stream, .. } => {
                drop(stream);
                // Too short a body is broken by this, which the answer notices.
                let _ = writer.finish(None);
                Output::Over(None)
            }
            Output::Head { text, .. } if !text.is_empty() => {
                Output::Over(Some(not_cgi("it ends in the middle of the head; an empty line ends the head")))
            }
            Output::Head { .. } => Output::Over(None),
            over @ Output::Over(_) => over,
        };
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stream(&self) -> Option<BodyStream> {
        match &*self.lock() {
            Output::Body { stream, .. } => Some(stream.clone()),
            Output::Head { .. } | Output::Over(_) => None,
        }
    }

    fn print(&self, bytes: Bytes) -> StreamResult<()> {
        let mut output = self.lock();
        match &mut *output {
            Output::Body { stream, .. } => stream.write(bytes),
            Output::Over(_) => Err(StreamError::Closed),
            Output::Head { .. } if bytes.len() > MAX_HEAD => {
                Err(StreamError::trap("write exceeds what check-write permitted"))
            }
            Output::Head { text, unsent } => {
                let looked_at = text.len().saturating_sub(3);
                text.extend_from_slice(&bytes);
                let end = find_end(text, looked_at);
                if end.map_or(text.len(), |(head_end, _)| head_end) > MAX_HEAD {
                    *output = Output::Over(Some(not_cgi("the head is longer than 64 KiB")));
                    return Err(StreamError::Closed);
                }
                let Some((head_end, body_start)) = end else { return Ok(()) };
                let rest = Bytes::copy_from_slice(&text[body_start..]);
                *output = match begin(&text[..head_end], unsent) {
                    Ok(body) => body,
                    Err(reason) => Output::Over(Some(not_cgi(&reason))),
                };
                match &mut *output {
                    Output::Body { stream, .. } if !rest.is_empty() => stream.write(rest),
                    Output::Body { .. } => Ok(()),
                    _ => Err(StreamError::Closed),
                }
            }
        }
    }
}

/// The head that a program prints in these pieces: `None` while it has no end, `Err` if it is none.
///
/// # Errors
/// It is no CGI response.
#[cfg(fuzzing)]
pub fn printed_head<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<(StatusCode, HeaderMap)>, ()> {
    let stdout = Stdout::new(&Budget::new());
    for piece in pieces {
        let _ = stdout.print(Bytes::copy_from_slice(piece));
    }
    let head = stdout.take_head().map_err(drop)?;
    Ok(head.map(|head| (head.status, head.headers)))
}

fn not_cgi(reason: &str) -> Failure {
    let detail = format_args!("the program's output is no CGI response (RFC 3875): {reason}");
    Failure::new(FailureKind::GuestError, detail)
}

/// Where the head ends and where the body begins, if there is an empty line from `from` on.
fn find_end(text: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    while let Some(found) = text[at..].iter().position(|byte| *byte == b'\n') {
        let end = at + found + 1;
        match &text[end..] {
            [b'\n', ..] => return Some((end, end + 1)),
            [b'\r', b'\n', ..] => return Some((end, end + 2)),
            _ => at = end,
        }
    }
    None
}

fn begin(head: &[u8], unsent: &Budget) -> Result<Output, String> {
    let (status, headers) = parse(head)?;
    let expected = content_length(&headers).map_err(|()| "`content-length` is no number".to_owned())?;
    let mut writer = BodyWriter::new(expected, unsent);
    let stream = writer.stream().ok_or("no body")?;
    Ok(Output::Body { head: Some(Head { status, headers, body: writer.watch() }), writer, stream })
}

/// Reads the fields of a response (RFC 3875 section 6.3). What concerns the connection is left out.
fn parse(head: &[u8]) -> Result<(StatusCode, HeaderMap), String> {
    let mut status = None;
    let mut headers = HeaderMap::new();
    let shown = |line: &[u8]| format!("`{}`", String::from_utf8_lossy(&line[..line.len().min(80)]).escape_debug());
    for line in head.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        if line.starts_with(b"HTTP/") {
            return Err("it begins with a status line, and programs that speak HTTP themselves (NPH) are not supported; print `Status: 200` instead".to_owned());
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = colon.map(|colon| (&line[..colon], line[colon + 1..].trim_ascii())).ok_or_else(|| {
            format!("expected fields such as `Content-Type: text/plain`, then an empty line, found {}", shown(line))
        })?;
        if name.eq_ignore_ascii_case(b"status") {
            let code = value.split(|byte| *byte == b' ').next().unwrap_or_default();
            let code = StatusCode::from_bytes(code).ok().filter(|code| !code.is_informational());
            status = Some(code.ok_or_else(|| format!("no status in {}", shown(line)))?);
            continue;
        }
        let name = HeaderName::from_bytes(name).map_err(|_| format!("no field name in {}", shown(line)))?;
        let value = HeaderValue::from_bytes(value).map_err(|_| format!("no field value in {}", shown(line)))?;
        headers.try_append(name, value).map_err(|_| "it has too many fields".to_owned())?;
    }
    hop_by_hop::clean(&mut headers);
    if status.is_none() && headers.is_empty() {
        return Err("the head is empty".to_owned());
    }
    // A `location` alone is a redirect (section 6.2.3).
    let default = if headers.contains_key(header::LOCATION) { StatusCode::FOUND } else { StatusCode::OK };
    Ok((status.unwrap_or(default), headers))
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stdout {
    async fn ready(&mut self) {
        if let Some(mut stream) = self.stream() {
            stream.ready().await;
        }
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Stdout {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.print(bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.stream().map_or(Ok(()), |mut stream| stream.flush())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match &mut *self.lock() {
            Output::Body { stream, .. } => stream.check_write(),
            Output::Head { .. } => Ok(MAX_HEAD),
            Output::Over(_) => Err(StreamError::Closed),
        }
    }
}

impl AsyncWrite for Stdout {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        if this.ready().as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let written = this.check_write().and_then(|room| {
            let length = room.min(bytes.len());
            this.print(Bytes::copy_from_slice(&bytes[..length])).map(|()| length)
        });
        Poll::Ready(written.map_err(|_| std::io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for Stdout {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stdout {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, request: request::Builder, gateway: Gateway) -> Option<String> {
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let variables = variables(&head, &Scheme::HTTP, &gateway).expect("no zero byte");
        variables.into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    #[test]
    fn the_port_is_the_one_that_the_request_came_to() {
        let port = |host: &str, local: Option<&str>| {
            let local = local.map(|local| local.parse().expect("an address"));
            let request = request::Builder::new().uri("/").header(header::HOST, host);
            variable("SERVER_PORT", request, Gateway { local, ..Gateway::default() })
        };
        assert_eq!(port("example.com:81", Some("[::1]:8080")).as_deref(), Some("8080"));
        // A Unix socket has none.
        assert_eq!(port("example.com:81", None).as_deref(), Some("81"));
        assert_eq!(port("example.com", None).as_deref(), Some("80"));
    }

    fn head(pieces: &[&str]) -> Result<Option<Head>, Failure> {
        let stdout = Stdout::new(&Budget::new());
        for piece in pieces {
            let _ = stdout.print(Bytes::copy_from_slice(piece.as_bytes()));
        }
        stdout.take_head()
    }

    #[test]
    fn a_head_that_has_an_end_may_not_be_longer_than_one_that_has_none() {
        let field = format!("x-a: {}\n", "a".repeat(MAX_HEAD - "x-a: \n".len()));
        assert!(head(&[&field, "\nbody"]).is_ok_and(|head| head.is_some()));
        for pieces in [[&*field, "b:\n\nbody"], [&field[1..], "b:\n\n"]] {
            let failure = head(&pieces).err().expect("too long");
            assert!(failure.to_string().contains("longer than 64 KiB"), "{failure}");
        }
    }

    #[test]
    fn what_exceeds_the_permit_is_no_head() {
        let mut stdout = Stdout::new(&Budget::new());
        let permit = stdout.check_write().expect("open");
        let written = stdout.write(format!("a: b\n\n{}", "c".repeat(permit)).into());
        assert!(matches!(written, Err(StreamError::Trap(_))));
        assert!(stdout.take_head().is_ok_and(|head| head.is_none()));
    }

    #[test]
    fn a_head_of_more_fields_than_a_map_can_have_is_none() {
        let fields: String = (0..24_577).map(|n| format!("x{n:x}:\n")).collect();
        assert_eq!(parse(fields.as_bytes()), Err("it has too many fields".to_owned()));
    }

    #[test]
    fn who_asks_for_everything_asks_for_no_script() {
        for name in ["SCRIPT_NAME", "PATH_INFO"] {
            for script in [0, 1] {
                let request = request::Builder::new().method("OPTIONS").uri("*");
                let found = variable(name, request, Gateway { script, ..Gateway::default() });
                assert_eq!(found.as_deref(), Some(""), "{name}");
            }
        }
    }
}
