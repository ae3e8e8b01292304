//! A sign of life on a terminal while something takes longer than half a second. Its thread ends with it.

use std::{
    io::{self, IsTerminal, Write},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_millis(500);
const TURN: Duration = Duration::from_millis(100);

pub(super) struct Spinner {
    // Dropped to tell the thread that it is over.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Spinner {
    /// Shows `what` on the standard error if that is a terminal.
    pub(super) fn start(what: String) -> Self {
        if !io::stderr().is_terminal() {
            return Self { running: None, thread: None };
        }
        let (running, over) = mpsc::channel::<()>();
        let spin = move || {
            let mut wait = PATIENCE;
            for sign in ['|', '/', '-', '\\'].into_iter().cycle() {
                if over.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
                wait = TURN;
                let _ = write!(io::stderr(), "\r{sign} {what} ");
            }
            if wait == TURN {
                let _ = write!(io::stderr(), "\r\x1b[K");
            }
        };
        // Without a thread there is no spinner, and that is all.
        let thread = thread::Builder::new().name("spinner".to_owned()).spawn(spin).ok();
        Self { running: Some(running), thread }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
