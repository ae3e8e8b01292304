//! A TCP connection to somewhere else, on the server's reactor: hyper's `Read` and `Write` for clients that handlers use.
//!
//! Unlike a client's connection it has no task of its own: it wakes whoever polled it last.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use hyper::rt::ReadBufCursor;
use mio::Token;
use socket2::SockRef;

use crate::reactor::{Ready, Told};
use crate::socket::Socket;
use crate::sync::lock;
use crate::workers::Workers;

/// A TCP connection to somewhere else, see [`Executor::connect`](crate::Executor::connect).
#[derive(Debug)]
pub struct TcpStream {
    socket: Socket,
    ready: Arc<Ready>,
    waiting: Arc<Waiting>,
    workers: Weak<Workers>,
    token: Token,
}

/// Who waits for the socket. Written by who polls it, taken by the poller of the reactor.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    reader: Mutex<Option<Waker>>,
    writer: Mutex<Option<Waker>>,
}

impl Waiting {
    /// Something has happened, after which the readiness was set.
    pub(crate) fn wake(&self) {
        for waker in [&self.reader, &self.writer].into_iter().filter_map(|waker| lock(waker).take()) {
            waker.wake();
        }
    }
}

impl TcpStream {
    pub(crate) async fn connect(workers: Weak<Workers>, address: SocketAddr) -> io::Result<Self> {
        let this = Self::start(&workers, address)?;
        poll_fn(|cx| {
            this.poll_write_with(cx, |socket| {
                let socket = SockRef::from(socket);
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                match socket.peer_addr() {
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
                    result => result.map(drop),
                }
            })
        })
        .await?;
        this.socket.set_nodelay()?;
        Ok(this)
    }

    fn start(workers: &Weak<Workers>, address: SocketAddr) -> io::Result<Self> {
        let running =
            workers.upgrade().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the server does not run"))?;
        let socket = Socket::Tcp(mio::net::TcpStream::connect(address)?);
        let (ready, waiting) = (Arc::new(Ready::new()), Arc::<Waiting>::default());
        let told = Told::Waiting(waiting.clone());
        running.reactor.insert(socket, ready.clone(), |socket, token| {
            (Self { socket, ready, waiting, workers: workers.clone(), token }, told)
        })
    }

    /// Makes `attempt`, or has `waker` hold who polls, if that says that the socket is not ready.
    fn poll<R>(
        cx: &Context<'_>,
        waker: &Mutex<Option<Waker>>,
        mut attempt: impl FnMut() -> Option<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if let Some(result) = attempt() {
            return Poll::Ready(result);
        }
        let mut waker = lock(waker);
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        // The poller sets it first, and looks for somebody to wake second.
        attempt().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_write_with<R>(&self, cx: &Context<'_>, write: impl Fn(&Socket) -> io::Result<R>) -> Poll<io::Result<R>> {
        let attempt = || self.ready.write.attempt(|| Ok((write(&self.socket)?, true)));
        Self::poll(cx, &self.waiting.writer, attempt)
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        if let Some(workers) = self.workers.upgrade() {
            workers.reactor.remove(self.token);
        }
    }
}

impl hyper::rt::Read for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let attempt = || self.ready.read_from(&self.socket, cursor.remaining(), |bytes| cursor.put_slice(bytes));
        Self::poll(cx, &self.waiting.reader, attempt).map_ok(drop)
    }
}

impl hyper::rt::Write for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |socket| socket.write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.shutdown(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
