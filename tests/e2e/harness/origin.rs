//! Servers that guests ask: on the loopback, in this process, each ended with its value.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};
use tokio::{io::AsyncWriteExt as _, runtime::Runtime};
use tokio_rustls::TlsAcceptor;

use super::PATIENCE;

/// A server of HTTP; over TLS also of HTTP/2.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Origin {
    /// Answers each request, whose body has come, with what `answer` makes of it.
    pub(crate) fn http(answer: impl Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(answer))
    }

    /// The same over TLS, HTTP/2 if the client can.
    pub(crate) fn https(
        mut tls: ServerConfig,
        answer: impl Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::start(Some(TlsAcceptor::from(Arc::new(tls))), Arc::new(answer))
    }

    fn start<A>(tls: Option<TlsAcceptor>, answer: Arc<A>) -> Self
    where
        A: Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    {
        let runtime = Runtime::new().expect("starts");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).expect("a socket");
                tokio::spawn(connection(stream, tls.clone(), Arc::clone(&answer)));
            }
        });
        Self { address, connections, _runtime: runtime }
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn connection<A>(stream: tokio::net::TcpStream, tls: Option<TlsAcceptor>, answer: Arc<A>)
where
    A: Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move {
            let (head, body) = request.into_parts();
            // One that breaks off gets no answer.
            let body = body.collect().await?.to_bytes();
            let answered = tokio::task::spawn_blocking(move || answer(Request::from_parts(head, body)));
            Ok::<_, hyper::Error>(answered.await.expect("answers").map(http_body_util::Full::new))
        }
    });
    // What goes wrong here, the guest is told too.
    match tls {
        None => drop(conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await),
        Some(tls) => {
            let stream = match tls.accept(stream).into_fallible().await {
                Ok(stream) => stream,
                Err((_, mut stream)) => {
                    // To close it with something unread would be a reset, which may overtake the alert.
                    let _ = stream.shutdown().await;
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                    return;
                }
            };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let stream = TokioIo::new(stream);
            match is_http2 {
                true => drop(conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await),
                false => drop(conn::http1::Builder::new().serve_connection(stream, service).await),
            }
        }
    }
}

/// A server that does this with each connection, each in a thread of its own that ends with it.
pub(crate) fn raw(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || {
                // Whoever is served tells what went wrong.
                let _ = stream.and_then(|stream| {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_nodelay(true)?;
                    serve(stream)
                });
            });
        }
    });
    address
}

/// A server that takes a request and says nothing.
pub(crate) fn silent() -> SocketAddr {
    raw(|mut stream| head(&mut stream).and_then(|_| stream.read_to_end(&mut Vec::new())).map(drop))
}

/// A server that answers with the half of a body, and then stands still.
pub(crate) fn stalling() -> SocketAddr {
    raw(|mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    })
}

/// A server that sends a request's body back, each piece as soon as it has come, as it is coded.
pub(crate) fn echoing() -> SocketAddr {
    raw(|mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer)?;
            stream.write_all(&buffer[..read])?;
            if read == 0 || buffer[..read].ends_with(b"0\r\n\r\n") {
                return Ok(());
            }
        }
    })
}

/// A server that tells the heads that it gets, and has some of its own of which not all are for everybody.
pub(crate) fn telling_heads() -> (SocketAddr, Receiver<String>) {
    let (tell, told) = mpsc::channel();
    let address = raw(move |mut stream| {
        tell.send(head(&mut stream)?).expect("is waited for");
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x-private, close\r\nx-private: 1\r\nkeep-alive: 1\r\n\
              x-public: 1\r\n\r\nok",
        )
    });
    (address, told)
}

/// Where nobody takes connections, and nobody refuses them either.
pub(crate) struct Full {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _queued: TcpStream,
}

impl Full {
    /// Nobody accepts, and the kernel's queue is full.
    pub(crate) fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        listener.listen(0).expect("can listen");
        let address = listener.local_addr().expect("it is bound").as_socket().expect("IPv4");
        let queued = TcpStream::connect(address).expect("there is room for one");
        Self { address, _listener: listener, _queued: queued }
    }
}

/// A request's head, as it came.
pub(crate) fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// What the answer of an [`Origin`] is made of most often.
pub(crate) fn text(text: impl Into<String>) -> Response<Bytes> {
    Response::new(text.into().into())
}
