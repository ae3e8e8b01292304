//! The operator: swaps, reloads by SIGHUP, certificates and kills, one after the other until it is over and nobody waits to be killed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::Soak;

const PAUSE: Duration = Duration::from_millis(300);

/// How long a reload may take, or a certificate until it is shown.
const PATIENCE: Duration = Duration::from_secs(10);

impl Soak<'_> {
    pub(super) fn operate(&self, is_over: &AtomicBool, victims: &AtomicU64) -> Result<()> {
        let mut turn = 0;
        loop {
            let is_over = is_over.load(Ordering::SeqCst);
            if is_over && victims.load(Ordering::SeqCst) == 0 {
                return Ok(());
            }
            self.kill();
            if !is_over {
                turn += 1;
                let done = match turn % 8 {
                    0 => self.renew().map(|()| &self.seen.renewals),
                    n if n % 2 == 0 => self.reload(turn).map(|()| &self.seen.reloads),
                    _ => self.swap(turn).map(|()| &self.seen.swaps),
                };
                match done {
                    Ok(counter) => _ = counter.fetch_add(1, Ordering::Relaxed),
                    Err(error) => {
                        self.seen.failed.fetch_add(1, Ordering::Relaxed);
                        self.seen.told(format!("{error:#}"));
                    }
                }
            }
            thread::sleep(PAUSE);
        }
    }

    fn swap(&self, turn: u64) -> Result<()> {
        let module = &self.versions[turn as usize / 2 % self.versions.len()];
        self.operator.swap("version", module).map(drop)
    }

    /// Ends when the handler whose table has changed has a new revision.
    fn reload(&self, turn: u64) -> Result<()> {
        let before = self.revision_of("echo")?;
        self.config.write(turn)?;
        self.server.signal(Signal::HUP)?;
        let started = Instant::now();
        while self.revision_of("echo")? == before {
            ensure!(started.elapsed() < PATIENCE, "a reload made no revision");
        }
        Ok(())
    }

    /// Exchanges the certificate. Ends when the host shows the new one.
    fn renew(&self) -> Result<()> {
        let renewed = self.config.authority.sign()?;
        let started = Instant::now();
        while self.stranger.certificate(PATIENCE)?.as_ref() != Some(&renewed) {
            ensure!(started.elapsed() < PATIENCE, "a renewed certificate is not shown");
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn revision_of(&self, handler: &str) -> Result<u64> {
        let status = self.operator.status()?;
        let handlers = status["handlers"].as_array().context("a list of handlers")?;
        let handler = handlers.iter().find(|one| one["name"] == handler).context("the handler")?;
        handler["revision"]["number"].as_u64().context("its number")
    }

    /// Whoever waits for it. That a request has ended meanwhile is no failure.
    fn kill(&self) {
        let requests = self.operator.requests().unwrap_or_default();
        for request in requests.iter().filter(|request| request["handler"] == "victim") {
            let killed = request["id"].as_str().is_some_and(|id| self.operator.kill(id).is_ok());
            self.seen.kills.fetch_add(killed.into(), Ordering::Relaxed);
        }
    }
}
