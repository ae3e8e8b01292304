//! A blocking client of HTTP/2, over the crate h2: frames, resets and trailers by hand. Its connection moves on a thread of its own.

use std::{future::Future, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::{self, Handle, Runtime},
};
use tokio_rustls::TlsConnector;

use super::{Answer, PATIENCE};

pub(crate) struct Http2 {
    runtime: Runtime,
    requests: SendRequest<Bytes>,
}

/// One request on its way, and its answer.
pub(crate) struct Stream {
    runtime: Handle,
    to_host: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    from_host: Option<RecvStream>,
}

fn wait<T>(runtime: &Handle, what: impl Future<Output = T>) -> T {
    runtime.block_on(async { tokio::time::timeout(PATIENCE, what).await }).expect("the host answers")
}

async fn tcp(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).await.expect("the host accepts");
    stream.set_nodelay(true).expect("TCP has nodelay");
    stream
}

impl Http2 {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::over(tcp(addr), &Builder::new())
    }

    /// Takes nothing of bodies: what there is of them stays with the host.
    pub(crate) fn connect_without_window(addr: SocketAddr) -> Self {
        Self::over(tcp(addr), Builder::new().initial_window_size(0))
    }

    /// With TLS, to a server called `name`.
    pub(crate) fn connect_tls(addr: SocketAddr, name: ServerName<'static>, config: Arc<ClientConfig>) -> Self {
        let stream = async move {
            TlsConnector::from(config).connect(name, tcp(addr).await).await.expect("the host is trusted")
        };
        Self::over(stream, &Builder::new())
    }

    fn over<S>(stream: impl Future<Output = S>, how: &Builder) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let requests = wait(runtime.handle(), async {
            let stream = stream.await;
            let (requests, connection) = how.handshake(stream).await.expect("the host speaks HTTP/2");
            // How the connection ends is told by the streams.
            tokio::spawn(async { drop(connection.await) });
            requests
        });
        Self { runtime, requests }
    }

    /// Sends a head. `is_all`: there is no body.
    pub(crate) fn open(&mut self, method: &str, path: &str, headers: &[(&str, &str)], is_all: bool) -> Stream {
        let mut request = Request::builder().method(method).uri(format!("http://test{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a valid request");
        let runtime = self.runtime.handle().clone();
        let mut requests = wait(&runtime, self.requests.clone().ready()).expect("room for a stream");
        let (response, to_host) = requests.send_request(request, is_all).expect("the request is valid");
        Stream { runtime, to_host, response: Some(response), from_host: None }
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.open("GET", path, &[], true).answer().expect("a whole answer")
    }
}

impl Stream {
    /// Sends a part of the body, as the host makes room for it.
    pub(crate) fn send(&mut self, data: &[u8], is_last: bool) -> Result<(), h2::Error> {
        let mut data = Bytes::copy_from_slice(data);
        while !data.is_empty() {
            self.to_host.reserve_capacity(data.len());
            let room = wait(&self.runtime, std::future::poll_fn(|cx| self.to_host.poll_capacity(cx)));
            let room = room.ok_or(Reason::STREAM_CLOSED)??;
            let part = data.split_to(room.min(data.len()));
            self.to_host.send_data(part, is_last && data.is_empty())?;
        }
        Ok(())
    }

    pub(crate) fn send_trailers(&mut self, trailers: &[(&'static str, &'static str)]) {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        self.to_host.send_trailers(trailers.iter().map(pair).collect()).expect("the stream is open");
    }

    /// Gives the request up (RST_STREAM with CANCEL).
    pub(crate) fn cancel(mut self) {
        self.to_host.send_reset(Reason::CANCEL);
    }

    /// The head of the answer; its body is empty and still to come.
    pub(crate) fn head(&mut self) -> Result<Answer, h2::Error> {
        let (head, body) = wait(&self.runtime, self.response.take().expect("asked for once"))?.into_parts();
        self.from_host = Some(body);
        Ok(Answer {
            status: head.status.as_u16(),
            headers: pairs(&head.headers),
            body: Vec::new(),
            trailers: Vec::new(),
        })
    }

    /// The next part of the answer's body; `None` when it is complete.
    pub(crate) fn chunk(&mut self) -> Result<Option<Bytes>, h2::Error> {
        let body = self.from_host.as_mut().expect("the head comes first");
        let Some(data) = wait(&self.runtime, body.data()).transpose()? else { return Ok(None) };
        body.flow_control().release_capacity(data.len())?;
        Ok(Some(data))
    }

    /// What is left of the answer's body.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, h2::Error> {
        let mut rest = Vec::new();
        while let Some(chunk) = self.chunk()? {
            rest.extend(chunk);
        }
        Ok(rest)
    }

    pub(crate) fn answer(mut self) -> Result<Answer, h2::Error> {
        let mut answer = self.head()?;
        answer.body = self.rest()?;
        let trailers = wait(&self.runtime, self.from_host.as_mut().expect("it has come").trailers())?;
        answer.trailers = trailers.as_ref().map(pairs).unwrap_or_default();
        Ok(answer)
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}
