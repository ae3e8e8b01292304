//! A TCP connection to somewhere else, on the server's reactor: hyper's `Read` and `Write` for clients that handlers use.
//!
//! Unlike a client's connection it has no task of its own: it wakes whoever polled it last.

use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use hyper::rt::ReadBufCursor;
use mio::Token;

use crate::reactor::{Ready, Told};
use crate::readiness::Readiness;
use crate::sync::lock;
use crate::workers::Workers;

/// What one read may take: a buffer of that size is on the stack, of which only what is read into gets touched.
const READ: usize = 16 * 1024;

/// A TCP connection to somewhere else, see [`Executor::connect`](crate::Executor::connect).
#[derive(Debug)]
pub struct TcpStream {
    socket: mio::net::TcpStream,
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
            this.poll(cx, &this.ready.write, &this.waiting.writer, || {
                if let Some(error) = this.socket.take_error()? {
                    return Err(error);
                }
                match this.socket.peer_addr() {
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
                    result => result.map(|_| ((), true)),
                }
            })
        })
        .await?;
        this.socket.set_nodelay(true)?;
        Ok(this)
    }

    fn start(workers: &Weak<Workers>, address: SocketAddr) -> io::Result<Self> {
        let running =
            workers.upgrade().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the server does not run"))?;
        let socket = mio::net::TcpStream::connect(address)?;
        let (ready, waiting) = (Arc::new(Ready::new()), Arc::<Waiting>::default());
        let told = Told::Waiting(waiting.clone());
        running.reactor.insert(socket, ready.clone(), |socket, token| {
            (Self { socket, ready, waiting, workers: workers.clone(), token }, told)
        })
    }

    /// Makes `call` if the socket is ready for it, or has `waker` hold who polls; see [`Readiness::attempt`].
    fn poll<R>(
        &self,
        cx: &Context<'_>,
        ready: &Readiness,
        waker: &Mutex<Option<Waker>>,
        mut call: impl FnMut() -> io::Result<(R, bool)>,
    ) -> Poll<io::Result<R>> {
        if let Some(result) = ready.attempt(&mut call) {
            return Poll::Ready(result);
        }
        let mut waker = lock(waker);
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        // The poller sets it first, and looks for somebody to wake second.
        ready.attempt(call).map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_write_with(
        &self,
        cx: &Context<'_>,
        write: impl Fn(&mut &mio::net::TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, &self.ready.write, &self.waiting.writer, || Ok((write(&mut &self.socket)?, true)))
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
        let mut buffer = [MaybeUninit::uninit(); READ];
        let buffer = &mut buffer[..cursor.remaining().min(READ)];
        let room = buffer.len();
        self.poll(cx, &self.ready.read, &self.waiting.reader, || {
            let (bytes, _) = rustix::io::read(&self.socket, &mut *buffer)?;
            cursor.put_slice(bytes);
            // One that has left room has taken all there was, but for the end.
            let is_drained = cfg!(target_os = "linux") && (1..room).contains(&bytes.len());
            Ok(((), !is_drained || self.ready.read_closed.load(Ordering::SeqCst)))
        })
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
        Poll::Ready(match self.socket.shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }
}
