//! A connection that is counted, and remembers what went wrong on it: hyper and h2 pass on only that something did.

use std::{
    error::Error as StdError,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{Uri, uri::Authority};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection};
use tower_service::Service;

use crate::guest::descriptors::{Place, Room};

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

/// The last connection that was made, when, and where to: a server that refuses a client's certificate does so when TLS 1.3 has connected,
/// and then no request is on that connection yet.
#[derive(Clone, Default)]
pub(super) struct Last(Arc<Mutex<Option<(Authority, Instant, Trouble)>>>);

impl Last {
    /// That connection's, if it went to `to`, and was not there before.
    pub(super) fn to(&self, to: &Authority, since: Instant) -> Option<Trouble> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.as_ref().filter(|(authority, at, _)| authority == to && *at >= since);
        last.map(|(_, _, trouble)| trouble.clone())
    }

    fn is(&self, to: Option<Authority>, trouble: &Trouble) {
        let last = to.map(|to| (to, Instant::now(), trouble.clone()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

/// There are as many connections as there may be.
#[derive(Debug, thiserror::Error)]
#[error("there are too many connections")]
pub(super) struct NoRoom;

/// What `S` connects, counted, and with its [`Trouble`].
#[derive(Clone)]
pub(super) struct Counted<S> {
    pub(super) connector: S,
    pub(super) last: Last,
    pub(super) room: Room,
}

type Failed = Box<dyn StdError + Send + Sync>;

impl<S> Service<Uri> for Counted<S>
where
    S: Service<Uri, Error = Failed, Future: Send + 'static>,
{
    type Response = Stream<S::Response>;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failed>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (last, authority) = (self.last.clone(), to.authority().cloned());
        let place = self.room.take();
        let connecting = place.map(|place| (self.connector.call(to), place));
        Box::pin(async move {
            let (connecting, place) = connecting.ok_or(NoRoom)?;
            let stream = Stream { stream: connecting.await?, trouble: Trouble::default(), _place: place };
            last.is(authority, &stream.trouble);
            Ok(stream)
        })
    }
}

/// A connection to an origin.
pub(super) struct Stream<T> {
    stream: T,
    trouble: Trouble,
    _place: Place,
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

#[cfg(test)]
mod tests {
    use std::future::Ready;

    use super::*;

    #[derive(Clone)]
    struct Connects;

    impl Service<Uri> for Connects {
        type Response = ();
        type Error = Failed;
        type Future = Ready<Result<(), Failed>>;

        fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _to: Uri) -> Self::Future {
            std::future::ready(Ok(()))
        }
    }

    #[test]
    fn there_are_as_many_connections_as_there_is_room() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("starts");
        let room = Room::of_one_handler().within(2);
        let mut counted = Counted { connector: Connects, last: Last::default(), room };
        let mut connect = || runtime.block_on(counted.call(Uri::from_static("http://localhost/")));
        let (first, second) = (connect(), connect());
        assert!(first.is_ok() && second.is_ok());
        assert!(connect().err().is_some_and(|error| error.is::<NoRoom>()));
        drop(first);
        assert!(connect().is_ok(), "its place is free again");
    }
}
