//! The host makes way for a new process of itself: starts it, passes everything on, and stops once the new one serves.

use std::{
    ffi::OsString,
    io,
    net::Shutdown,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use astra_server::{Counters, Sockets};
use rustix::process::{Pid, Signal, kill_process};

use super::{Change, Inner, Operator};
use crate::{
    control::{ControlShare, Inherited},
    events::Urgency,
    handler::Handler,
    operator_error::OperatorError,
    take_over::{self, Estate, Places},
    unix_socket::SocketFilesShare,
};

/// How long a new host may take to load its modules, whoever has started it.
const LONGEST: Duration = Duration::from_secs(3600);

/// How often it is looked whether the new process has ended.
const LOOK: Duration = Duration::from_millis(10);

/// How long a new host that is given up may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// How this host was started: a new one is started the same way.
#[derive(Debug, Clone)]
pub(crate) struct Relaunch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

/// How to upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpgradeOptions {
    /// What to start; what this host was started from, unless set.
    pub program: Option<PathBuf>,
    /// How long it may take to get ready; five minutes.
    pub within: Duration,
    /// Whether to upgrade also while a canary or a guard is there: neither is afterwards, and what is live stays.
    pub force: bool,
}

impl Default for UpgradeOptions {
    fn default() -> Self {
        Self { program: None, within: Duration::from_secs(300), force: false }
    }
}

/// A process that was started to take this one's place.
pub(super) struct Upgrading {
    pid: u32,
    force: bool,
}

/// What a host has to pass on, beside the state directory.
pub(crate) struct Holdings {
    pub(crate) sockets: Sockets,
    pub(crate) counters: Counters,
    pub(crate) files: SocketFilesShare,
    pub(crate) places: Places,
    pub(crate) control: ControlShare,
}

/// An upgrade, as long as nobody knows how it ends.
struct UnderWay<'a>(&'a Inner);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.upgrading().take();
    }
}

impl Operator {
    /// What can be passed on from now on.
    pub(crate) fn hold(&self, holdings: Holdings) {
        // Once, by who starts the host.
        let _ = self.0.holdings.set(holdings);
    }

    /// What was inherited is this host's from now on: the one before has let go. Nothing was changed before.
    pub(crate) fn settle(&self) {
        if let Some(holdings) = self.0.holdings.get() {
            holdings.control.settle();
            holdings.files.settle();
        }
        if let Some(state) = &self.0.state
            && let Err(error) = state.settle()
        {
            log::error!("`{}` cannot be changed, and says what was swapped in before: {error}", state.path().display());
        }
        self.0.let_change(self.0.changes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The lock that who waits for this host's end waits for; it is held as long as anybody has it.
    pub(crate) fn lock(&self) -> Option<OwnedFd> {
        self.0.holdings.get()?.control.lock()
    }

    /// The process that has taken this one's place.
    pub fn successor(&self) -> Option<u32> {
        self.0.successor.get().copied()
    }

    /// Starts a new host, which takes this one's place; returns its process id. Then this one finishes what runs, and ends. One at a time:
    /// only the process that was started here may take over meanwhile.
    ///
    /// # Errors
    /// Another one is being started, or something is on trial; or the new one did not get ready in time, or at all, and has been ended: this
    /// one serves on.
    pub fn upgrade(&self, options: &UpgradeOptions) -> Result<u32, OperatorError> {
        let (relaunch, control) =
            self.means().map_err(|reason| OperatorError::Upgrade { reason: reason.to_owned() })?;
        let UpgradeOptions { program, within, force } = options;
        self.0.check_no_trial(*force).map_err(|reason| OperatorError::Upgrade { reason })?;
        let program = program.as_ref().unwrap_or(&relaunch.program);
        let mut command = Command::new(program);
        command.args(&relaunch.arguments).arg("--take-over").arg(control).stdin(Stdio::null());
        let cannot = |error: io::Error| OperatorError::Upgrade {
            reason: format!("`{}` cannot be started: {error}", program.display()),
        };
        let (mut child, _under_way) = {
            // Held until it is known whose child asks for what this host has.
            let mut upgrading = self.0.upgrading();
            if let Some(Upgrading { pid, .. }) = *upgrading {
                return Err(OperatorError::Upgrading { pid });
            }
            self.0.complaint().take();
            let child = command.spawn().map_err(cannot)?;
            *upgrading = Some(Upgrading { pid: child.id(), force: *force });
            (child, UnderWay(&self.0))
        };
        self.0.events.tell(Urgency::Normal, "upgrade", None, format!("process {} is starting", child.id()), None);
        let reason = match self.wait_for(&mut child, *within) {
            Ok(()) => return Ok(child.id()),
            Err(reason) => reason,
        };
        end(&mut child);
        if self.successor().is_none() && self.is_stopping() {
            return Err(OperatorError::Stopping);
        }
        self.0.events.tell(Urgency::Loud, "failed", None, format!("upgrade: {reason}"), None);
        Err(OperatorError::Upgrade { reason })
    }

    /// Whether it can be upgraded at all.
    pub(super) fn can_upgrade(&self) -> bool {
        self.means().is_ok()
    }

    /// How a new host is started, and where it asks for what this one has.
    ///
    /// # Errors
    /// Why there can be none.
    fn means(&self) -> Result<(&Relaunch, &Path), &'static str> {
        let relaunch = self.0.relaunch.as_ref().ok_or("it was not started by `astra-host run`")?;
        let control = self.0.holdings.get().and_then(|holdings| holdings.control.path.as_deref());
        let control = control.ok_or("it has no control socket")?;
        if std::process::id() == 1 {
            return Err("it is process 1, and with that its container would end: replace the container");
        }
        Ok((relaunch, control))
    }

    /// Until that child has taken over.
    ///
    /// # Errors
    /// Why it has not, and never will.
    fn wait_for(&self, child: &mut Child, within: Duration) -> Result<(), String> {
        let until = Instant::now() + within;
        let is_there = |child: &Child| match self.successor() {
            Some(pid) if pid == child.id() => Ok(true),
            Some(pid) => Err(format!("process {pid} has taken over instead")),
            None => Ok(false),
        };
        loop {
            if is_there(child)? {
                return Ok(());
            }
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                // It may have become the successor before it ended.
                if is_there(child)? {
                    return Ok(());
                }
                let complaint = self.0.complaint().take();
                return Err(complaint.unwrap_or_else(|| format!("it has ended ({status}); what it said is in the log")));
            }
            if Instant::now() >= until || self.is_stopping() {
                // While this is held none can become the successor.
                let _change = self.0.change_at_last();
                if is_there(child)? {
                    return Ok(());
                }
                end(child);
                return Err(format!("it was not ready within {}", humantime::format_duration(within)));
            }
            thread::sleep(LOOK);
        }
    }

    /// Passes everything on to the process that has asked for it, and stops once that one serves; returns its id. Until then nothing is
    /// swapped, since the new one has read what is recorded.
    ///
    /// # Errors
    /// It does not serve; this one serves on.
    pub(crate) fn hand_over(&self) -> Result<u32, OperatorError> {
        let inner = &*self.0;
        let holdings = inner.holdings.get().ok_or(OperatorError::Stopping)?;
        if inner.stop.is_none() {
            return Err(OperatorError::Upgrade { reason: "it does not know how to stop itself".to_owned() });
        }
        let _change = inner.change();
        if self.is_stopping() {
            return Err(OperatorError::Stopping);
        }
        let (expected, force) = inner.upgrading().as_ref().map(|upgrading| (upgrading.pid, upgrading.force)).unzip();
        // It may have begun since the upgrade has; from here on nothing can.
        inner.check_no_trial(force.unwrap_or_default()).map_err(|reason| {
            *inner.complaint() = Some(reason.clone());
            OperatorError::Upgrade { reason }
        })?;
        let passed = self.passed_on(holdings, expected);
        // One that has no business here: whoever waits for an upgrade does not want to know.
        let is_stranger = passed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        let taken = passed.map_err(|error| error.to_string()).and_then(|stream| {
            let kept = stream.try_clone().map_err(|error| error.to_string())?;
            *inner.offer.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
            let taken = take_over::verdict(&stream, LONGEST);
            inner.offer.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken
        });
        let pid = match taken {
            Ok(pid) => pid,
            Err(reason) => {
                inner.events.tell(Urgency::Loud, "failed", None, format!("take-over: {reason}"), None);
                if !is_stranger {
                    *inner.complaint() = Some(reason.clone());
                }
                return Err(OperatorError::Upgrade { reason });
            }
        };
        // From here on this process takes nothing new; what is in the backlogs is the new one's.
        holdings.control.leave();
        holdings.files.leave();
        if let Some(state) = &inner.state {
            state.leave();
        }
        holdings.sockets.close();
        {
            // Whoever finds that it is too late finds why.
            let mut book = inner.lock();
            book.is_stopping = true;
            let _ = inner.successor.set(pid);
        }
        inner.events.tell(Urgency::Normal, "upgrade", None, format!("process {pid} has taken over"), None);
        self.stop();
        Ok(pid)
    }

    fn passed_on(&self, holdings: &Holdings, expected: Option<u32>) -> io::Result<std::os::unix::net::UnixStream> {
        let control = &holdings.control;
        let path = control.path.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let state =
            self.0.state.as_ref().map(|state| Ok::<_, io::Error>((state.path().to_owned(), state.lock_again()?)));
        let Inherited { unix, tcp } = control.try_clone()?;
        let sockets = holdings.sockets.try_clone()?;
        let files = holdings.files.list();
        let places = Some(holdings.places.clone());
        let estate = Estate { sockets, files, places, control: unix, control_tcp: tcp, state: state.transpose()? };
        take_over::offer(path, &estate, expected)
    }
}

/// Ends a new host, unless that has ended by itself; nothing is left of it. It may have taken requests just now: it is asked first.
fn end(child: &mut Child) {
    let until = Instant::now() + GRACE;
    let has_ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
    if !has_ended(child) {
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
    }
    while !has_ended(child) && Instant::now() < until {
        thread::sleep(LOOK);
    }
    let _ = child.kill();
    let _ = child.wait();
}

impl Inner {
    /// As [`change`](Self::change), but does not wait for a new host to get ready: that one has to end.
    pub(super) fn change_at_last(&self) -> Change<'_> {
        loop {
            if let Some(change) = self.try_change() {
                return change;
            }
            if let Some(stream) = self.offer.lock().unwrap_or_else(PoisonError::into_inner).take() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            thread::sleep(LOOK);
        }
    }

    /// # Errors
    /// Something is on trial, of which a new host would know nothing.
    fn check_no_trial(&self, force: bool) -> Result<(), String> {
        let trial = self.lock().handlers.iter().find_map(Handler::trial).filter(|_| !force);
        trial.map_or(Ok(()), |what| {
            Err(format!("{what}, which ends with an upgrade; wait for its end, or `astra-host upgrade --force`"))
        })
    }

    /// What was started to take this process's place.
    fn upgrading(&self) -> MutexGuard<'_, Option<Upgrading>> {
        self.upgrading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the last new host that has said something did not get ready.
    fn complaint(&self) -> MutexGuard<'_, Option<String>> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
