//! Clients that look at what they get: keep-alive connections of both versions of HTTP, each asking as soon as it is answered.

use std::future::Future;
use std::pin::Pin as Pinned;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Pin;
use crate::endpoint::{Endpoint, server_name};
use crate::http1::id_number;

const HTTP1: usize = 24;
const HTTP2: usize = 2;
/// On each connection of HTTP/2.
const STREAMS: usize = 4;
/// One request in so many is for the large answer.
const LARGE: u64 = 32;

/// What came back.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) latencies_us: Vec<u32>,
    /// Connections lost, statuses other than 200, bodies cut.
    pub(crate) failed: u64,
    /// Bodies of two revisions.
    pub(crate) mixed: u64,
    /// The numbers in `x-request-id`: one for each answer that was as it should be.
    pub(crate) ids: Vec<u64>,
    /// As many of them came over TLS.
    pub(crate) over_tls: u64,
    /// When an answer was first seen that differs from all before it, since the epoch.
    pub(crate) changes: Vec<Duration>,
    seconds: f64,
}

impl Answers {
    pub(crate) fn rate(&self) -> f64 {
        self.latencies_us.len() as f64 / self.seconds
    }

    pub(crate) fn p99_ms(&self) -> f64 {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * 99 / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(f64::NAN, |us| f64::from(*us) / 1e3)
    }
}

#[derive(Default)]
struct Shared {
    answers: Mutex<Answers>,
    /// What was answered last.
    current: Mutex<Bytes>,
    pause: Duration,
    is_over: AtomicBool,
}

/// How the clients ask.
pub(crate) struct Clients<'a> {
    /// Where: its connections take turns.
    pub(crate) endpoints: &'a [Endpoint],
    pub(crate) pin: Pin,
    /// Between an answer and the next request.
    pub(crate) pause: Duration,
}

impl Clients<'_> {
    /// Asks for as long as `time`, and until `meanwhile`, which runs on a thread of its own, is done.
    pub(crate) fn ask<T: Send>(
        &self,
        time: Duration,
        meanwhile: impl FnOnce() -> Result<T> + Send,
    ) -> Result<(Answers, T)> {
        let shared = Arc::new(Shared { pause: self.pause, ..Shared::default() });
        let started = Instant::now();
        let done = std::thread::scope(|scope| {
            let meanwhile = scope.spawn(meanwhile);
            let asking = scope.spawn(|| run(self.endpoints, self.pin, &shared));
            std::thread::sleep(time);
            let done = meanwhile.join().map_err(|_| anyhow!("a panic"))?;
            shared.is_over.store(true, Ordering::Relaxed);
            asking.join().map_err(|_| anyhow!("a panic"))??;
            done
        })?;
        let mut answers = std::mem::take(&mut *shared.answers.lock().unwrap_or_else(PoisonError::into_inner));
        answers.seconds = started.elapsed().as_secs_f64();
        answers.changes.sort_unstable();
        Ok((answers, done))
    }
}

fn run(endpoints: &[Endpoint], pin: Pin, shared: &Arc<Shared>) -> Result<()> {
    pin.to_load();
    // One thread: on two cores the server needs the other.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        for endpoint in endpoints.iter().cycle().take(HTTP1) {
            clients.spawn(over_http1(endpoint.clone(), Arc::clone(shared)));
        }
        for endpoint in endpoints.iter().cycle().take(HTTP2) {
            clients.spawn(over_http2(endpoint.clone(), Arc::clone(shared)));
        }
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        Ok(())
    })
}

async fn over_http1(endpoint: Endpoint, shared: Arc<Shared>) -> Result<()> {
    while !shared.is_over.load(Ordering::Relaxed) {
        let stream = connect(&endpoint, "http/1.1").await?;
        let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let asked = ask_on(&shared, &endpoint, |request| {
            let response = sender.send_request(request);
            Box::pin(response)
        });
        if asked.await.is_err() {
            shared.failed();
        }
    }
    Ok(())
}

async fn over_http2(endpoint: Endpoint, shared: Arc<Shared>) -> Result<()> {
    while !shared.is_over.load(Ordering::Relaxed) {
        let stream = connect(&endpoint, "h2").await?;
        let (sender, connection) =
            http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut streams = tokio::task::JoinSet::new();
        for _ in 0..STREAMS {
            let (shared, endpoint, mut sender) = (Arc::clone(&shared), endpoint.clone(), sender.clone());
            streams.spawn(async move {
                let asked = ask_on(&shared, &endpoint, |request| {
                    let response = sender.send_request(request);
                    Box::pin(response)
                });
                if asked.await.is_err() {
                    shared.failed();
                }
            });
        }
        while streams.join_next().await.is_some() {}
    }
    Ok(())
}

/// A connection, with TLS or without.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

async fn connect(endpoint: &Endpoint, protocol: &str) -> std::io::Result<Box<dyn Duplex>> {
    let stream = TcpStream::connect(endpoint.addr).await?;
    stream.set_nodelay(true)?;
    let Some(config) = &endpoint.tls else { return Ok(Box::new(stream)) };
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![protocol.into()];
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(server_name(), stream).await?))
}

type Answer = Pinned<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

/// Asks on one connection or stream until it is over or something fails.
async fn ask_on(
    shared: &Shared,
    endpoint: &Endpoint,
    mut send: impl FnMut(Request<Empty<Bytes>>) -> Answer,
) -> hyper::Result<()> {
    let (mut latencies, mut ids) = (Vec::new(), Vec::new());
    let (mut failed, mut mixed) = (0, 0);
    let mut number: u64 = 0;
    let Endpoint { addr, tls } = endpoint;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let result = async {
        while !shared.is_over.load(Ordering::Relaxed) {
            number += 1;
            let path = if number.is_multiple_of(LARGE) { "/big" } else { "/" };
            let request = Request::get(format!("{scheme}://{addr}{path}")).header("host", addr.to_string());
            // A request of constants.
            let Ok(request) = request.body(Empty::new()) else { continue };
            let started = Instant::now();
            let response = send(request).await?;
            let status = response.status();
            let id = response.headers().get("x-request-id").and_then(|id| id_number(id.to_str().ok()?));
            let body = response.into_body().collect().await?.to_bytes();
            latencies.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
            if status != 200 {
                failed += 1;
            } else if !shared.is_whole(&body) {
                mixed += 1;
            } else {
                ids.extend(id);
            }
            if !shared.pause.is_zero() {
                tokio::time::sleep(shared.pause).await;
            }
        }
        Ok(())
    }
    .await;
    let mut answers = shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
    answers.latencies_us.extend(latencies);
    answers.over_tls += if tls.is_some() { ids.len() as u64 } else { 0 };
    answers.ids.extend(ids);
    answers.failed += failed;
    answers.mixed += mixed;
    result
}

impl Shared {
    fn failed(&self) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).failed += 1;
    }

    /// Whether the body is one text, again and again; notes when it is another than before.
    fn is_whole(&self, body: &Bytes) -> bool {
        let Some(text) = body.get(..12) else { return false };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Answers of the revision before come for as long as it drains: they are no change.
        if current.is_empty() || is_after(text, &current) {
            *current = Bytes::copy_from_slice(text);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.answers.lock().unwrap_or_else(PoisonError::into_inner).changes.push(now);
        }
        body.chunks(text.len()).all(|part| part == text)
    }
}

/// Whether the text of one module comes next after that of another; after the last, which is the third or the eighth, comes the first.
fn is_after(text: &[u8], before: &[u8]) -> bool {
    match (text.last(), before.last()) {
        (Some(text), Some(before)) => *text == *before + 1 || (*text == b'1' && matches!(before, b'3' | b'8')),
        _ => false,
    }
}
