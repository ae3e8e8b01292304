//! Load at a fixed rate, whatever the server does: each request has a time at which it is due, and its latency counts from then.
//!
//! One thread polls all connections, which are kept, or opened anew when the server has ended them. What is due goes out on the one that has been
//! free for the longest time; what is due while none is free goes out late, at the expense of its latency (nothing is left out of account: no
//! coordinated omission). The thread never sleeps: one that sleeps until a request is due is woken 50 µs later (timer slack), and a thousand of
//! them wait for their core, where a server answers within 100 µs.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::Pin;
use crate::http1::{PATIENCE, read_answer};

/// What is sent later than this after it was due, was late by the client's fault, or because all connections were taken.
const LATE: Duration = Duration::from_millis(1);

/// How long the connections may take to open before the first request is due.
const OPENING: Duration = Duration::from_secs(2);

pub(crate) struct OpenLoop<'a> {
    pub(crate) addr: SocketAddr,
    pub(crate) path: &'a str,
    /// At most as many requests are under way.
    pub(crate) connections: usize,
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
        let ask = || {
            self.pin.to_load();
            let mut client = Client::open(self)?;
            client.run()?;
            Ok(client.outcome)
        };
        // A thread of its own, since it is kept to a core.
        thread::scope(|scope| scope.spawn(ask).join().map_err(|_| anyhow!("a panic"))?)
    }
}

struct Client<'a> {
    schedule: &'a OpenLoop<'a>,
    request: Vec<u8>,
    poll: Poll,
    connections: Vec<Connection>,
    /// Tokens of those that are open and wait for nothing.
    free: VecDeque<Token>,
    start: Instant,
    outcome: Outcome,
}

impl<'a> Client<'a> {
    fn open(schedule: &'a OpenLoop<'a>) -> Result<Self> {
        let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", schedule.path, schedule.addr).into_bytes();
        let poll = Poll::new()?;
        let tokens = (0..schedule.connections).map(Token);
        let connections = tokens.map(|token| Connection::open(schedule.addr, token, &poll)).collect::<Result<_>>()?;
        let (free, start, outcome) = (VecDeque::new(), Instant::now(), Outcome::default());
        let mut client = Self { schedule, request, poll, connections, free, start, outcome };
        let mut events = Events::with_capacity(schedule.connections);
        while client.free.len() < schedule.connections && start.elapsed() < OPENING {
            client.look(&mut events)?;
        }
        client.start = Instant::now();
        Ok(client)
    }

    fn run(&mut self) -> Result<()> {
        let OpenLoop { connections, rate, time, .. } = *self.schedule;
        let due = |number: u64| Duration::from_secs_f64(number as f64 / rate);
        let all = (rate * time.as_secs_f64()).ceil() as u64;
        let mut events = Events::with_capacity(connections);
        let mut sent = 0;
        while (sent < all || self.is_waiting()) && self.start.elapsed() < time + PATIENCE {
            while sent < all
                && due(sent) <= self.start.elapsed()
                && let Some(token) = self.free.pop_front()
            {
                self.send(token, due(sent))?;
                sent += 1;
            }
            self.look(&mut events)?;
        }
        let unanswered = self.connections.iter().filter(|connection| connection.due.is_some()).count() as u64;
        self.outcome.failed += unanswered + all - sent;
        Ok(())
    }

    fn is_waiting(&self) -> bool {
        self.connections.iter().any(|connection| connection.due.is_some())
    }

    fn send(&mut self, token: Token, due: Duration) -> Result<()> {
        self.outcome.late += u64::from(self.start.elapsed() - due > LATE);
        let connection = &mut self.connections[token.0];
        // There is room for it: the one before has been answered.
        if connection.stream.write_all(&self.request).is_ok() {
            connection.due = Some(due);
            return Ok(());
        }
        self.outcome.failed += 1;
        self.reopen(token)
    }

    /// Takes what has come, and waits for nothing.
    fn look(&mut self, events: &mut Events) -> Result<()> {
        self.poll.poll(events, Some(Duration::ZERO))?;
        if events.is_empty() {
            thread::yield_now();
        }
        for event in &*events {
            self.take(event.token())?;
        }
        Ok(())
    }

    fn take(&mut self, token: Token) -> Result<()> {
        let connection = &mut self.connections[token.0];
        let has_ended = connection.receive();
        // Answers are short: one that is not all there is read from its start again.
        let answer = read_answer(&mut &connection.received[..]).ok();
        if let Some((answer, due)) = answer.zip(connection.due) {
            connection.due = None;
            connection.received.clear();
            let end = self.start.elapsed();
            let answered = Answered { status: answer.status, latency: end - due, in_time: end <= self.schedule.time };
            self.outcome.answers.push(answered);
            if has_ended || answer.is_last {
                return self.reopen(token);
            }
            self.free.push_back(token);
        } else if has_ended {
            self.outcome.failed += u64::from(connection.due.is_some());
            return self.reopen(token);
        } else if !connection.is_open {
            connection.is_open = true;
            self.free.push_back(token);
        }
        Ok(())
    }

    fn reopen(&mut self, token: Token) -> Result<()> {
        self.free.retain(|free| *free != token);
        self.connections[token.0] = Connection::open(self.schedule.addr, token, &self.poll)?;
        Ok(())
    }
}

struct Connection {
    stream: TcpStream,
    /// The first event says so.
    is_open: bool,
    /// When the request was due whose answer has not come.
    due: Option<Duration>,
    /// Of that answer.
    received: Vec<u8>,
}

impl Connection {
    fn open(addr: SocketAddr, token: Token, poll: &Poll) -> Result<Self> {
        let mut stream = TcpStream::connect(addr)?;
        poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, is_open: false, due: None, received: Vec::new() })
    }

    /// Reads what is there; whether the server has ended the connection.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(read) => self.received.extend(&buffer[..read]),
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn every_request_is_sent_and_counted_also_when_connections_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        thread::spawn(move || {
            // One at a time, and one answer each; every third connection ends in the middle of it.
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.expect("it has come");
                let _ = stream.read(&mut [0; 4096]);
                let body = if number % 3 == 2 { "o" } else { "ok" };
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        let time = Duration::from_millis(300);
        let asked = OpenLoop { addr, path: "/", connections: 3, rate: 100.0, time, pin: Pin::Off };
        let outcome = asked.run().expect("it runs");
        assert_eq!((outcome.count(200) as u64 + outcome.failed, outcome.others([200, 200])), (30, 0));
        assert!(outcome.count(200) > 0 && outcome.failed > 0);
    }
}
