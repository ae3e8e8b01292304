//! The signals that a host hears. SIGINT and SIGTERM stop it: the first is left to whoever asks, the second ends the process from inside
//! the signal handler, so that nothing that hangs can be in its way. SIGHUP and those that are not meant are told to who waits for them.

use std::{
    ffi::c_int,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ},
    flag,
    iterator::Signals,
};

use crate::package::Cancel;

/// How often it is looked whether somebody wants a start to end.
const LOOK: Duration = Duration::from_millis(20);

/// Signals that are caught: they do not end the process.
pub(super) struct Caught {
    /// One by one.
    pub(super) signals: Signals,
    /// One of those that stop us was among them. Written by the signal handler.
    stop: Arc<AtomicBool>,
}

impl Caught {
    /// # Errors
    /// They cannot be caught.
    pub(super) fn new() -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the flag that ends the process is looked at before this signal sets it.
            flag::register_conditional_shutdown(signal, super::FAILED.into(), Arc::clone(&stop))?;
            flag::register(signal, Arc::clone(&stop))?;
        }
        // A file that reaches `ulimit -f` is a full disk like any other, not the end of the process.
        flag::register(SIGXFSZ, Arc::default())?;
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2])?;
        Ok(Self { signals, stop })
    }

    /// Whether a signal has told us to stop.
    pub(super) fn stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Gives up what is being started when we are told to stop, until the thread that sees to that is dropped: who starts something is
    /// busy with it.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn give_up(&self, start: Arc<Cancel>) -> io::Result<GiveUp> {
        let (is_starting, is_over) = mpsc::channel::<()>();
        let stop = Arc::clone(&self.stop);
        let look = move || {
            while is_over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if stop.load(Ordering::SeqCst) {
                    return start.cancel();
                }
            }
        };
        let thread = thread::Builder::new().name("astra-start".to_owned()).spawn(look)?;
        Ok(GiveUp { is_starting: Some(is_starting), thread: Some(thread) })
    }
}

/// See [`Caught::give_up`].
pub(super) struct GiveUp {
    // Dropped to tell the thread that it is over.
    is_starting: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.is_starting = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Whether a signal that is caught stops the host.
pub(super) fn stops(signal: c_int) -> bool {
    [SIGINT, SIGTERM].contains(&signal)
}
