//! Load at a fixed rate, whatever the server does: each request has a time at which it is due, and its latency counts from then.
//!
//! A thread is a connection that is kept, or opened anew when the server has ended it. Threads take the next request in turn, sleep until
//! it is due, send it and wait for its answer; so there are as many requests under way as there are threads, and what is due while all of
//! them wait goes out late, at the expense of its latency (nothing is left out of account: no coordinated omission).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Pin;
use crate::http1::Connection;

/// More than a host with default limits lets run and queue.
pub(crate) const CONNECTIONS: usize = 1500;

const STACK: usize = 128 << 10;

/// What is sent later than this after it was due, was late by the client's fault.
const LATE: Duration = Duration::from_millis(5);

pub(crate) struct OpenLoop<'a> {
    pub(crate) addr: SocketAddr,
    pub(crate) path: &'a str,
    /// Requests a second.
    pub(crate) rate: f64,
    pub(crate) time: Duration,
    pub(crate) pin: Pin,
}

/// What came back.
#[derive(Default)]
pub(crate) struct Outcome {
    answers: Vec<Answered>,
    /// Requests that got no answer, or half of one.
    pub(crate) failed: u64,
    pub(crate) late: u64,
}

struct Answered {
    status: u16,
    latency: Duration,
    in_time: bool,
}

impl Outcome {
    /// Answers with this status, also those after the end.
    pub(crate) fn count(&self, status: u16) -> usize {
        self.of(status).count()
    }

    pub(crate) fn others(&self, statuses: [u16; 2]) -> usize {
        self.answers.iter().filter(|answered| !statuses.contains(&answered.status)).count()
    }

    /// Of the answers with this status, those that came while requests were due: per second.
    pub(crate) fn rate(&self, status: u16, time: Duration) -> f64 {
        self.of(status).filter(|answered| answered.in_time).count() as f64 / time.as_secs_f64()
    }

    pub(crate) fn percentile_ms(&self, status: u16, percent: usize) -> f64 {
        let mut latencies: Vec<Duration> = self.of(status).map(|answered| answered.latency).collect();
        latencies.sort_unstable();
        let at = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
        latencies.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }

    fn of(&self, status: u16) -> impl Iterator<Item = &Answered> {
        self.answers.iter().filter(move |answered| answered.status == status)
    }
}

impl OpenLoop<'_> {
    pub(crate) fn run(&self) -> Result<Outcome> {
        let next = AtomicU64::new(0);
        // Time for the threads to start.
        let start = Instant::now() + Duration::from_millis(500);
        let mut all = Outcome::default();
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for _ in 0..CONNECTIONS {
                let thread = thread::Builder::new().stack_size(STACK);
                threads.push(thread.spawn_scoped(scope, || self.connection(start, &next))?);
            }
            for thread in threads {
                // A panic has been told on the standard error; its requests are missing.
                let one = thread.join().unwrap_or_else(|_| Outcome { failed: 1, ..Outcome::default() });
                all.answers.extend(one.answers);
                all.failed += one.failed;
                all.late += one.late;
            }
            Ok(all)
        })
    }

    fn connection(&self, start: Instant, next: &AtomicU64) -> Outcome {
        self.pin.to_load();
        let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", self.path, self.addr);
        let mut outcome = Outcome::default();
        let mut connection = Connection::open(self.addr).ok();
        loop {
            let due = Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 / self.rate);
            if due >= self.time {
                return outcome;
            }
            thread::sleep((start + due).saturating_duration_since(Instant::now()));
            outcome.late += u64::from(start.elapsed().saturating_sub(due) > LATE);
            let mut open = match connection.take() {
                Some(open) => open,
                None => match Connection::open(self.addr) {
                    Ok(open) => open,
                    Err(_) => {
                        outcome.failed += 1;
                        continue;
                    }
                },
            };
            let Ok(answer) = open.ask(request.as_bytes()) else {
                outcome.failed += 1;
                continue;
            };
            let end = start.elapsed();
            let answered = Answered { status: answer.status, latency: end - due, in_time: end <= self.time };
            outcome.answers.push(answered);
            connection = (!open.is_over).then_some(open);
        }
    }
}
