//! The one place where guests wait: for a body, a clock, a socket, a file stream.
//!
//! All of `wasi:io/poll` and the calls and drops of `wasi:io/streams` that may block go through [`wait`]: poll once; if
//! not ready, let the output go out, give up the seat and park until ready, until the deadline, until the request is
//! cut, or until the client of a response that is not complete is gone. The event loop of guests of 0.3
//! (`concurrent.rs`) parks here too. The traits below are wasmtime-wasi's sync ones, implemented on our own view: each
//! method is a line over wasmtime-wasi-io's async `Host` for `ResourceTable`. Its own sync implementation is not used:
//! it blocks in Tokio (`in_tokio`), which takes a process-wide lock each time and knows no deadline. File-system calls
//! do not come here: they run on the worker and keep its seat, and the deadline acts when they return.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use wasmtime::{
    Result,
    component::{HasData, Linker, Resource, ResourceTable},
};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult, TcpSocket,
    bindings::sync::io::{poll, streams},
};
use wasmtime_wasi_io::bindings::wasi::io::{error, poll as async_poll, streams as async_streams};

use super::{
    answer::Answer,
    instance::State,
    limits::{Clock, Cut},
};

#[cfg(test)]
thread_local! {
    /// Calls of [`wait`] on this thread, for the test that none of a guest's ways to wait goes elsewhere.
    pub(super) static WAITS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Waits for `future` on the calling thread, which must be the worker that runs the guest.
///
/// # Errors
/// The deadline has passed, the request was cut, or the client is gone.
pub(crate) fn wait<F: Future>(answer: &mut Answer, clock: &mut Clock, future: F) -> Result<F::Output, Cut> {
    #[cfg(test)]
    WAITS.set(WAITS.get() + 1);
    let mut future = pin!(future);
    if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return Ok(output);
    }
    answer.send_out();
    wait_parked(answer, clock, future)
}

fn wait_parked<F: Future>(answer: &Answer, clock: &mut Clock, future: Pin<&mut F>) -> Result<F::Output, Cut> {
    clock.show_cpu();
    let watch = Arc::clone(clock.watch());
    let mut future = pin!(watch.or_cut(future));
    let phase = answer.phase();
    match park(future.as_mut(), clock.until(phase), false) {
        Err(Cut::ClientGone) => park(future, Some(clock.until_alone(phase)?), true)?,
        waited => waited?,
    }
}

/// Parks until `future` is ready. `is_alone`: the guest goes on without its client.
///
/// # Errors
/// What `until` says, or the client is gone.
pub(crate) fn park<F: Future>(future: F, until: Option<(Instant, Cut)>, is_alone: bool) -> Result<F::Output, Cut> {
    let at = until.map(|(at, _)| at);
    let waited = if is_alone { astra_server::wait_alone(future, at) } else { astra_server::wait(future, at) };
    waited.map_err(|interrupted| match interrupted {
        astra_server::Interrupted::ClientGone => Cut::ClientGone,
        _ => until.map_or(Cut::Deadline, |(_, cut)| cut), // the deadline
    })
}

/// Lets the output of a guest that is computing go out. A wake-up alone would not do: the server keeps what a handler
/// wakes on its own connection until the handler waits.
pub(crate) fn send_out(answer: &mut Answer) {
    if answer.send_out() {
        astra_server::flush();
    }
}

/// Adds `wasi:io` to a linker.
pub(crate) fn link(linker: &mut Linker<State>) -> Result<()> {
    error::add_to_linker::<State, HasTable>(linker, |state| &mut state.table)?;
    poll::add_to_linker::<State, HasIo>(linker, State::io)?;
    streams::add_to_linker::<State, HasIo>(linker, State::io)
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

pub(crate) struct HasIo;

impl HasData for HasIo {
    type Data<'a> = Io<'a>;
}

/// What `wasi:io` needs of a request: its handles, and how to wait.
pub(crate) struct Io<'a> {
    pub(crate) table: &'a mut ResourceTable,
    pub(crate) answer: &'a mut Answer,
    pub(crate) clock: &'a mut Clock,
}

/// `wait`, for calls whose own error is a stream's.
fn wait_stream<T>(
    answer: &mut Answer,
    clock: &mut Clock,
    future: impl Future<Output = StreamResult<T>>,
) -> StreamResult<T> {
    wait(answer, clock, future).unwrap_or_else(|cut| Err(StreamError::Trap(cut.into())))
}

impl poll::Host for Io<'_> {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        wait(self.answer, self.clock, async_poll::Host::poll(self.table, pollables))?
    }
}

impl poll::HostPollable for Io<'_> {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> Result<bool> {
        wait(self.answer, self.clock, async_poll::HostPollable::ready(self.table, pollable))?
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        wait(self.answer, self.clock, async_poll::HostPollable::block(self.table, pollable))?
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        async_poll::HostPollable::drop(self.table, pollable)
    }
}

impl streams::Host for Io<'_> {
    fn convert_stream_error(&mut self, err: StreamError) -> Result<streams::StreamError> {
        Ok(async_streams::Host::convert_stream_error(self.table, err)?.into())
    }
}

impl streams::HostInputStream for Io<'_> {
    fn drop(&mut self, stream: Resource<DynInputStream>) -> Result<()> {
        wait(self.answer, self.clock, async_streams::HostInputStream::drop(self.table, stream))?
    }

    fn read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        async_streams::HostInputStream::read(self.table, stream, len)
    }

    fn blocking_read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        let read = async_streams::HostInputStream::blocking_read(self.table, stream, len);
        wait_stream(self.answer, self.clock, read)
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        async_streams::HostInputStream::skip(self.table, stream, len)
    }

    fn blocking_skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        let skip = async_streams::HostInputStream::blocking_skip(self.table, stream, len);
        wait_stream(self.answer, self.clock, skip)
    }

    fn subscribe(&mut self, stream: Resource<DynInputStream>) -> Result<Resource<DynPollable>> {
        async_streams::HostInputStream::subscribe(self.table, stream)
    }
}

impl streams::HostOutputStream for Io<'_> {
    fn drop(&mut self, stream: Resource<DynOutputStream>) -> Result<()> {
        wait(self.answer, self.clock, async_streams::HostOutputStream::drop(self.table, stream))?
    }

    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        async_streams::HostOutputStream::check_write(self.table, stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        async_streams::HostOutputStream::write(self.table, stream, bytes)
    }

    fn blocking_write_and_flush(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        let write = async_streams::HostOutputStream::blocking_write_and_flush(self.table, stream, bytes);
        wait_stream(self.answer, self.clock, write)
    }

    fn blocking_write_zeroes_and_flush(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        let write = async_streams::HostOutputStream::blocking_write_zeroes_and_flush(self.table, stream, len);
        wait_stream(self.answer, self.clock, write)
    }

    fn subscribe(&mut self, stream: Resource<DynOutputStream>) -> Result<Resource<DynPollable>> {
        async_streams::HostOutputStream::subscribe(self.table, stream)
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        // The implementation allocates what it is told to; the permit bounds that only after the allocation.
        let permit = async_streams::HostOutputStream::check_write(self.table, Resource::new_borrow(stream.rep()))?;
        if len > permit {
            return Err(StreamError::trap("write-zeroes exceeds what check-write permitted"));
        }
        async_streams::HostOutputStream::write_zeroes(self.table, stream, len)
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        async_streams::HostOutputStream::flush(self.table, stream)
    }

    fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        let flush = async_streams::HostOutputStream::blocking_flush(self.table, stream);
        wait_stream(self.answer, self.clock, flush)
    }

    fn splice(&mut self, to: Resource<DynOutputStream>, from: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        async_streams::HostOutputStream::splice(self.table, to, from, len)
    }

    fn blocking_splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        let splice = async_streams::HostOutputStream::blocking_splice(self.table, to, from, len);
        wait_stream(self.answer, self.clock, splice)
    }
}

/// Waits until no file operation that the guest started is still under way, so that none outlives its request. What is
/// still in its sockets, if it may have any, ends with them: a peer that does not read could make that wait for ever.
pub(crate) fn settle(table: &mut ResourceTable, has_sockets: bool) {
    let of_sockets = if has_sockets { streams_of_sockets(table) } else { Vec::new() };
    for entry in table.iter_mut() {
        if of_sockets.contains(&std::ptr::from_mut(entry).cast_const().cast()) {
            continue;
        }
        let entry: &mut dyn std::any::Any = entry;
        if let Some(stream) = entry.downcast_mut::<DynInputStream>() {
            finish(stream.cancel());
        } else if let Some(stream) = entry.downcast_mut::<DynOutputStream>() {
            finish(stream.cancel());
        }
    }
}

/// Where those streams are whose parents are sockets.
fn streams_of_sockets(table: &ResourceTable) -> Vec<*const ()> {
    let handles = 0..u32::try_from(table.max_capacity()).unwrap_or(u32::MAX);
    let sockets = handles.map(Resource::<TcpSocket>::new_borrow).filter(|socket| table.get(socket).is_ok());
    let streams = sockets.filter_map(|socket| table.iter_children(&socket).ok());
    streams.flatten().map(|stream| std::ptr::from_ref(stream).cast()).collect()
}

/// A file operation cannot be cut, and each is bounded (64 KiB): there is no deadline to give, and a client that is
/// gone must not end this wait. So it is the one wait that does not go through [`wait`].
fn finish(cancel: Pin<Box<dyn Future<Output = ()> + Send + '_>>) {
    let _never_interrupted = astra_server::wait_alone(cancel, None);
}
