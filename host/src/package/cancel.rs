//! Giving up a build: what it runs has a process group of its own, which another thread can kill.
//!
//! The thread that builds waits for its process and reaps it; the one that cancels does not wait.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    io::retry_on_intr,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};

/// Gives up the builds that it was given to, at once and from any thread. It stays cancelled.
#[derive(Debug, Default)]
pub struct Cancel(Mutex<Running>);

#[derive(Debug, Default)]
struct Running {
    is_cancelled: bool,
    /// The process groups that run now. Listed and taken off under the lock, and only while the first process is not reaped: until then
    /// the system gives its id to no other.
    groups: Vec<Pid>,
}

impl Cancel {
    /// Kills whatever the builds run, and lets them run nothing more.
    ///
    /// Killed, not asked to end: cargo takes up an interrupted build where it was, and a build script may not listen.
    pub fn cancel(&self) {
        let mut running = self.lock();
        running.is_cancelled = true;
        for group in &running.groups {
            let _ = kill_process_group(*group, Signal::KILL);
        }
    }

    /// Whether [`Self::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.lock().is_cancelled
    }

    /// Runs `command` in a process group of its own and reaps it.
    ///
    /// It is in the background of our terminal then: Ctrl-C does not reach it, it reads nothing, and what it writes is shown, unless the
    /// terminal is set to `tostop`, which stops it until it is cancelled.
    pub(super) fn output(&self, command: &mut Command) -> io::Result<Output> {
        let mut running = self.lock();
        if running.is_cancelled {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut child = command.process_group(0).spawn()?;
        let pid = Pid::from_child(&child);
        running.groups.push(pid);
        drop(running);

        let mut stdout = Vec::new();
        let read = child.stdout.take().map(|mut out| out.read_to_end(&mut stdout)).transpose();
        // Without reaping, so that it can be killed as long as it has not ended. Should this fail, the wait below cannot be cut short.
        let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
        self.lock().groups.retain(|group| *group != pid);
        let status = child.wait()?;
        read?;
        Ok(Output { status, stdout, stderr: Vec::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_cancelled_build_leaves_nothing_running() {
        let cancel = Cancel::default();
        let mut shell = Command::new("sh");
        // What it starts holds the pipe too, and would for an hour.
        shell.args(["-c", "sleep 3600 & sleep 3600"]).stdout(Stdio::piped());
        std::thread::scope(|scope| {
            let running = scope.spawn(|| cancel.output(&mut shell));
            while cancel.lock().groups.is_empty() {
                std::thread::yield_now();
            }
            cancel.cancel();
            let output = running.join().expect("no panic").expect("it did run");
            assert!(!output.status.success());
        });
        let refused = cancel.output(Command::new("true").stdout(Stdio::piped())).expect_err("it stays cancelled");
        assert_eq!(refused.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn what_is_not_cancelled_runs_to_its_end() {
        let cancel = Cancel::default();
        let mut shell = Command::new("sh");
        let output = cancel.output(shell.args(["-c", "echo it; exit 3"]).stdout(Stdio::piped())).expect("it runs");
        assert_eq!((output.status.code(), output.stdout), (Some(3), b"it\n".to_vec()));
        cancel.cancel();
    }
}
