//! The one Tokio runtime: raw sockets of guests, and timers of those of 0.3, on one thread, and a few for what blocks.
//!
//! It starts those threads and ends them, but for look-ups: those cannot be cut, and a name server that does not answer must not hold up
//! whoever stops a host.

use std::{io, time::Duration};

use tokio::runtime::{Builder, Handle};

/// Threads for what blocks: reading ahead in files, and look-ups, of which a handler has few at a time (`resolver.rs`).
const BLOCKING_THREADS: usize = 128;

/// How long look-ups that nobody waits for may take when all is over.
const ABANDONED: Duration = Duration::from_secs(1);

pub(crate) struct Runtime {
    handle: Handle,
    /// Until it is dropped.
    running: Option<tokio::runtime::Runtime>,
}

impl Runtime {
    /// # Errors
    /// Its threads or its poll cannot be had.
    pub(crate) fn start() -> io::Result<Self> {
        let running = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("astra-tokio")
            .enable_time()
            .enable_io()
            .build()?;
        Ok(Self { handle: running.handle().clone(), running: Some(running) })
    }

    /// What a thread enters that is to use it.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown_timeout(ABANDONED);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_cannot_be_cut_does_not_hold_up_the_end() {
        let runtime = Runtime::start().expect("starts");
        let ((began, has_begun), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
        runtime.handle().spawn_blocking(move || {
            began.send(()).expect("is waited for");
            let _ = ended.recv();
        });
        has_begun.recv().expect("it begins");
        drop(runtime);
        drop(end);
    }
}
