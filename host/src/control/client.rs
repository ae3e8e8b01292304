//! The command line's end of the control socket: finds the host, asks, and waits for the answer.
//!
//! hyper's client on a Tokio runtime of the calling thread, one connection a question. It is given paths and queries in parts, so
//! that whatever a name contains stays in its place.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use astra_server::Body;
use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, HOST},
};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{net::UnixStream, runtime};

use super::socket;
use crate::log_line::Escaped;

/// What stands for itself in a path (RFC 3986 section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One host's control socket.
pub(crate) struct Client {
    path: PathBuf,
}

/// Why there is no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(
        "no host is running (or it was started with `control = false`); start one with `astra-host run`, or give its \
         socket with `--control PATH`"
    )]
    NoHost,
    #[error("several hosts are running; say which with `--control PATH`:{paths}")]
    SeveralHosts { paths: String },
    #[error("there is no control socket `{}`: start a host with `astra-host run`, or give another path", path.display())]
    NoSocket { path: PathBuf },
    #[error("the host of control socket `{}` is gone; start it again with `astra-host run`", path.display())]
    Gone { path: PathBuf },
    #[error("cannot connect to control socket `{}`: only the user who started the host can", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("the host ended, or cut the connection, before its answer was complete: see its log")]
    Lost(#[source] hyper::Error),
    /// The host's own words.
    #[error("{}", Escaped::text(message))]
    Refused { message: String },
    #[error("the host's answer cannot be understood: it may be of another version of astra-host")]
    Answer(#[source] serde_json::Error),
    #[error("the request cannot be sent")]
    Request(#[from] http::Error),
    #[error("cannot set up a connection")]
    Runtime(#[source] io::Error),
}

/// A question: method, path, query.
pub(crate) struct Question {
    method: Method,
    pub(super) target: String,
    body: Body,
    length: u64,
}

impl Question {
    pub(crate) fn new(method: Method, path: &[&str]) -> Self {
        let target = path.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, RESERVED))).collect();
        Self { method, target, body: Body::empty(), length: 0 }
    }

    /// Those that have a value.
    pub(crate) fn query(mut self, pairs: &[(&str, Option<&str>)]) -> Self {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs.iter().filter_map(|(key, value)| Some((key, (*value)?))));
        let query = query.finish();
        if !query.is_empty() {
            self.target = format!("{}?{query}", self.target);
        }
        self
    }

    /// With the `length` bytes of `reader` as its body.
    pub(crate) fn body(mut self, reader: impl io::Read + Send + 'static, length: u64) -> Self {
        self.body = Body::wrap_reader(reader);
        self.length = length;
        self
    }
}

impl Client {
    /// The host at `control`, or else the one that this user has running.
    pub(crate) fn find(control: Option<&Path>) -> Result<Self, ClientError> {
        if let Some(path) = control {
            return Ok(Self { path: path.to_owned() });
        }
        let mut running = socket::running();
        match (running.pop(), running.is_empty()) {
            (None, _) => Err(ClientError::NoHost),
            (Some(path), true) => Ok(Self { path }),
            (Some(last), false) => {
                let paths = running.iter().chain([&last]).map(|path| format!("\n  {}", path.display())).collect();
                Err(ClientError::SeveralHosts { paths })
            }
        }
    }

    /// Its socket.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The answer as it came, one line of JSON.
    pub(crate) fn ask(&self, question: Question) -> Result<String, ClientError> {
        self.block_on(async {
            let answer = self.send(question).await?.into_body().collect().await.map_err(ClientError::Lost)?;
            Ok(String::from_utf8_lossy(&answer.to_bytes()).trim_end().to_owned())
        })
    }

    /// Hands on the data of each event as it comes, one line of JSON, until the host has no more to tell.
    pub(crate) fn follow(&self, mut each: impl FnMut(&str)) -> Result<(), ClientError> {
        self.block_on(async {
            let mut body = self.send(Question::new(Method::GET, &["v1", "events"])).await?.into_body();
            let mut lines = Lines::default();
            while let Some(frame) = body.frame().await {
                if let Ok(chunk) = frame.map_err(ClientError::Lost)?.into_data() {
                    lines.push(&chunk, |line| line.strip_prefix("data: ").into_iter().for_each(&mut each));
                }
            }
            Ok(())
        })
    }

    /// Sends the question and reads the head of its answer; one that is not good news is an error.
    async fn send(&self, question: Question) -> Result<Response<Incoming>, ClientError> {
        let Question { method, target, body, length } = question;
        // There is no other host to speak of on this socket, but HTTP/1.1 wants a name.
        let request = Request::builder().method(method).uri(target).header(HOST, "localhost");
        let request = if length > 0 { request.header(CONTENT_LENGTH, length) } else { request };
        let request = request.body(Paced { body, is_due: true })?;
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.no_connection(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Lost)?;
        // What ends the connection ends the answer too, which says so.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(ClientError::Lost)?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }

    fn block_on<T>(&self, future: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        // It looks for what has arrived at every turn, not at every 61st: see `Paced`.
        let runtime = runtime::Builder::new_current_thread().enable_io().event_interval(1).build();
        let runtime = runtime.map_err(ClientError::Runtime)?;
        runtime.block_on(future)
    }

    fn no_connection(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::NotFound => ClientError::NoSocket { path },
            io::ErrorKind::ConnectionRefused => ClientError::Gone { path },
            _ => ClientError::Connect { path, source },
        }
    }
}

/// What an answer says.
pub(crate) fn parse<T: DeserializeOwned>(answer: &str) -> Result<T, ClientError> {
    serde_json::from_str(answer).map_err(ClientError::Answer)
}

async fn refused(response: Response<Incoming>) -> ClientError {
    let status: StatusCode = response.status();
    let text = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let said: Option<Value> = serde_json::from_slice(&text).ok();
    let message = match said.as_ref().and_then(|said| said["error"].as_str()) {
        Some(error) => error.to_owned(),
        None => format!("the host answered {status}: {}", String::from_utf8_lossy(&text).trim()),
    };
    ClientError::Refused { message }
}

/// A body that lets hyper look for an answer after each piece: a host that does not want a module says so before it has it all, and
/// then hangs up.
struct Paced {
    body: Body,
    is_due: bool,
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.is_due = !self.is_due;
        if self.is_due {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Cuts what arrives into lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, chunk: &Bytes, mut each: impl FnMut(&str)) {
        self.0.extend_from_slice(chunk);
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            each(String::from_utf8_lossy(&line[..end]).trim_end_matches('\r'));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{BufRead as _, BufReader, Read as _, Write as _},
        os::unix::net::UnixListener,
        thread,
    };

    use super::*;

    /// A host that gives one answer. Returns what was asked, and what became of it.
    fn asked<T>(name: &str, answer: &'static str, ask: impl FnOnce(&Client) -> T) -> (String, T) {
        let path = std::env::temp_dir().join(format!("astra-client-{}-{name}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).expect("binds");
        let host = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("accepts");
            let mut reader = BufReader::new(&stream);
            let mut request = String::new();
            let mut length = 0;
            while !request.ends_with("\r\n\r\n") {
                let start = request.len();
                reader.read_line(&mut request).expect("reads");
                if let Some(value) = request[start..].strip_prefix("content-length: ") {
                    length = value.trim().parse().expect("is a number");
                }
            }
            reader.take(length).read_to_string(&mut request).expect("reads");
            (&stream).write_all(answer.as_bytes()).expect("writes");
            request
        });
        let got = ask(&Client::find(Some(&path)).expect("is given"));
        fs::remove_file(&path).expect("removes");
        (host.join().expect("does not panic"), got)
    }

    #[test]
    fn a_question_arrives_as_it_was_meant() {
        let (request, answer) = asked("swap", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}\n", |client| {
            let question = Question::new(Method::POST, &["v1", "handlers", "my app/ü", "swap"]);
            let question = question.query(&[("canary", Some("10%")), ("no_wait", None), ("source", Some("a&b.wasm"))]);
            client.ask(question.body(&b"module"[..], 6))
        });
        assert_eq!(answer.expect("is an answer"), "{}");
        let path = "/v1/handlers/my%20app%2F%C3%BC/swap?canary=10%25&source=a%26b.wasm";
        assert!(request.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{request}");
        assert!(request.ends_with("\r\n\r\nmodule"), "{request}");
    }

    #[test]
    fn a_refusal_is_the_hosts_own_words_without_control_characters() {
        let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 29\r\n\r\n{\"error\":\"no \\u001b[2Jhello\"}\n";
        let (_, error) = asked("refused", answer, |client| client.ask(Question::new(Method::GET, &["v1", "status"])));
        assert_eq!(error.expect_err("is refused").to_string(), "no \\u{1b}[2Jhello");
    }

    #[test]
    fn a_host_that_refuses_before_it_has_all_is_heard() {
        let answer = "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 22\r\n\r\n{\"error\":\"too large\"}\n";
        let path = std::env::temp_dir().join(format!("astra-client-{}-early.sock", std::process::id()));
        let listener = UnixListener::bind(&path).expect("binds");
        let host = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepts");
            stream.read_exact(&mut [0; 16]).expect("reads");
            stream.write_all(answer.as_bytes()).expect("writes");
            // As a server does, so that the answer is seen.
            io::copy(&mut stream.take(256 << 10), &mut io::sink()).expect("reads");
        });
        let question = Question::new(Method::POST, &["v1", "handlers", "hello", "swap"]);
        let question = question.body(io::repeat(0).take(64 << 20), 64 << 20);
        let error = Client::find(Some(&path)).expect("is given").ask(question).expect_err("is refused");
        assert_eq!(error.to_string(), "too large");
        host.join().expect("does not panic");
        fs::remove_file(&path).expect("removes");
    }

    #[test]
    fn an_answer_that_is_cut_is_an_error() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
        let (_, error) = asked("cut", answer, |client| client.ask(Question::new(Method::GET, &["v1", "status"])));
        assert!(matches!(error, Err(ClientError::Lost(_))));
    }

    #[test]
    fn events_come_one_by_one_however_they_are_cut() {
        let chunks = ["id: 1\nevent: swap\nda", "ta: {\"a\":1}\n\n: nothing new\n\ndata: 2\n\n"];
        let mut body = Lines::default();
        let mut seen = Vec::new();
        for chunk in chunks {
            body.push(&Bytes::from_static(chunk.as_bytes()), |line| seen.push(line.to_owned()));
        }
        assert_eq!(seen[2], "data: {\"a\":1}");
        let answer = "HTTP/1.1 200 OK\r\n\r\nid: 1\ndata: {\"a\":1}\n\n: nothing new\n\ndata: 2\n\n";
        let mut data = Vec::new();
        let (_, end) = asked("events", answer, |client| client.follow(|line| data.push(line.to_owned())));
        end.expect("ends in order");
        assert_eq!(data, ["{\"a\":1}", "2"]);
    }

    #[test]
    fn a_host_that_is_not_there_is_told_from_one_that_is_gone() {
        let path = std::env::temp_dir().join(format!("astra-client-{}-gone.sock", std::process::id()));
        let ask = || {
            let client = Client::find(Some(&path)).expect("is given");
            client.ask(Question::new(Method::GET, &["v1", "status"])).expect_err("nobody answers")
        };
        assert!(matches!(ask(), ClientError::NoSocket { .. }));
        drop(UnixListener::bind(&path).expect("binds"));
        assert!(matches!(ask(), ClientError::Gone { .. }));
        fs::remove_file(&path).expect("removes");
    }
}
