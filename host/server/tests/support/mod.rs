//! What the tests share: starting a server on a free port, an HTTP/1.1 client that writes raw bytes and reads exactly one
//! answer, gates and signals to order things without sleeping, and re-executing a test in a process of its own.
//!
//! Every wait ends after [`PATIENCE`]: a hang fails a test, it does not hang the suite.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub(crate) mod client;
pub(crate) mod frames;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use astra_server::{Body, ConnectionInfo, Counters, Exchange, Handle, Handler, Request, Response, Server, Service};

pub(crate) use client::Client;

/// How long a test waits for something that should happen soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running server that is shut down when the test is over.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    handle: Option<Handle>,
}

impl Running {
    fn new(handle: io::Result<Handle>) -> Running {
        let handle = handle.expect("the server starts");
        let addr = handle.local_addrs()[0];
        Running { addr, handle: Some(handle) }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    pub(crate) fn counters(&self) -> Counters {
        self.handle.as_ref().expect("it was not taken").counters()
    }

    /// Takes the handle, to shut down in the middle of the test.
    pub(crate) fn into_handle(mut self) -> Handle {
        self.handle.take().expect("the handle is taken once")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let handle = self.handle.take();
        // A test that failed may have left handlers behind that never end: its message matters more than its threads.
        if std::thread::panicking() {
            std::mem::forget(handle);
        }
    }
}

/// A server with default settings on a free port of the loopback interface.
pub(crate) fn server() -> Server {
    Server::try_bind("127.0.0.1:0").expect("a free port on 127.0.0.1")
}

pub(crate) fn serve(service: impl Service) -> Running {
    start(server(), service)
}

pub(crate) fn start(server: Server, service: impl Service) -> Running {
    Running::new(server.start_service(service))
}

pub(crate) fn start_handler(server: Server, handler: impl Handler) -> Running {
    Running::new(server.start(handler))
}

/// A closure as a [`Handler`].
pub(crate) struct HandlerFn<F>(pub(crate) F);

impl<F: Fn(Exchange) + Send + Sync + 'static> Handler for HandlerFn<F> {
    fn handle(&self, exchange: Exchange) {
        (self.0)(exchange);
    }
}

/// Closed until it is opened; whoever waits at it goes on then.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        let (open, changed) = &*self.0;
        *open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    pub(crate) fn wait(&self) {
        let (open, changed) = &*self.0;
        let open = open.lock().unwrap_or_else(PoisonError::into_inner);
        let (_open, result) =
            changed.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap_or_else(PoisonError::into_inner);
        assert!(!result.timed_out(), "the gate was never opened");
    }
}

/// Carries what a handler saw to the test.
pub(crate) struct Signals<T>(Receiver<T>);

pub(crate) fn signals<T>() -> (Sender<T>, Signals<T>) {
    let (sender, receiver) = mpsc::channel();
    (sender, Signals(receiver))
}

impl<T> Signals<T> {
    pub(crate) fn next(&self) -> T {
        self.0.recv_timeout(PATIENCE).expect("a signal from the handler")
    }

    /// True if nothing was sent so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.try_recv().is_err()
    }
}

/// Writes an answer without end, and tells when it may not write any more.
pub(crate) fn endless(ended: Sender<()>) -> impl Service {
    move |_req: Request, _info: ConnectionInfo| {
        let ended = ended.clone();
        Response::new(Body::stream(move |writer| {
            while writer.write_all(&[b'x'; 64 << 10]).is_ok() {}
            ended.send(()).expect("the test listens");
            Ok(())
        }))
    }
}

/// Calls `condition` until it holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < end, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Seats of a server on this machine.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Bytes that differ from place to place, so that lost or swapped pieces show.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

const CHILD: &str = "ASTRA_TEST_CHILD";

/// Whether this is the child process that `spawn_child(test)` started.
pub(crate) fn is_child(test: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|name| name == test)
}

/// Runs the test named `test` again, alone in a process of its own where `is_child(test)` holds; its input and output are ours.
pub(crate) fn spawn_child(test: &str) -> KilledChild {
    KilledChild(child(test).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the test can run itself"))
}

/// Runs `body` in a process of its own, where it shares nothing with other tests (threads, descriptors, limits).
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if is_child(test) {
        body();
        return;
    }
    let status = child(test).status().expect("the test can run itself");
    assert!(status.success(), "{test} failed in its own process: {status}");
}

fn child(test: &str) -> Command {
    let exe = std::env::current_exe().expect("the test knows its own path");
    let mut command = Command::new(exe);
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, test);
    command
}

/// A child that does not outlive its test.
pub(crate) struct KilledChild(pub(crate) Child);

impl Drop for KilledChild {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Threads of this process.
pub(crate) fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists a process's threads");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect()
}
