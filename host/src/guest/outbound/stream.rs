//! A connection that remembers what went wrong on it: hyper and h2 pass on only that something did.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, ready},
};

use http::{Uri, uri::Authority};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection};
use tower_service::Service;

/// The first error of a connection. Written by the task that has it, read by the request whose it is.
#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<OnceLock<io::Error>>);

impl Trouble {
    /// That of the connection that a request is on.
    pub(super) fn of(connection: &CaptureConnection) -> Option<Self> {
        let mut extras = http::Extensions::new();
        connection.connection_metadata().as_ref()?.get_extras(&mut extras);
        extras.remove()
    }

    pub(super) fn error(&self) -> Option<&io::Error> {
        self.0.get()
    }
}

/// The last connection that was made, and where to: a server that refuses a client's certificate does so when TLS 1.3 has connected,
/// and then no request is on that connection yet.
#[derive(Clone, Default)]
pub(super) struct Last(Arc<Mutex<Option<(Authority, Trouble)>>>);

impl Last {
    /// That connection's, if it went to `to`.
    pub(super) fn to(&self, to: &Authority) -> Option<Trouble> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(authority, _)| authority == to).map(|(_, trouble)| trouble.clone())
    }

    fn is(&self, to: Option<Authority>, trouble: &Trouble) {
        let last = to.map(|to| (to, trouble.clone()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

/// What `S` connects, with its [`Trouble`].
#[derive(Clone)]
pub(super) struct Remembering<S> {
    pub(super) connector: S,
    pub(super) last: Last,
}

impl<S> Service<Uri> for Remembering<S>
where
    S: Service<Uri, Future: Send + 'static>,
{
    type Response = Stream<S::Response>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (last, authority) = (self.last.clone(), to.authority().cloned());
        let connecting = self.connector.call(to);
        Box::pin(async move {
            let stream = Stream { stream: connecting.await?, trouble: Trouble::default() };
            last.is(authority, &stream.trouble);
            Ok(stream)
        })
    }
}

/// A connection to an origin.
pub(super) struct Stream<T> {
    stream: T,
    trouble: Trouble,
}

impl<T: Unpin> Stream<T> {
    fn remembered<R>(&mut self, poll: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        Poll::Ready(ready!(poll(Pin::new(&mut self.stream))).map_err(|error| {
            let kind = error.kind();
            // The first is the cause of the others.
            let _ = self.trouble.0.set(error);
            kind.into()
        }))
    }
}

impl<T: Read + Unpin> Read for Stream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.remembered(|stream| stream.poll_read(cx, buffer))
    }
}

impl<T: Write + Unpin> Write for Stream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.remembered(|stream| stream.poll_write(cx, data))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.remembered(|stream| stream.poll_write_vectored(cx, data))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.remembered(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.remembered(|stream| stream.poll_shutdown(cx))
    }
}

impl<T: Connection> Connection for Stream<T> {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.trouble.clone())
    }
}
