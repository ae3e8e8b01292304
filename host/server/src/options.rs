//! What can be set on a [`Server`], with its default.

use std::net::IpAddr;
use std::thread::available_parallelism;
use std::time::Duration;

use crate::executor::Executor;
use crate::limits::{BodyRate, Limits};
use crate::seats::Bounds;
use crate::server::{Protocols, Server};
use crate::workers;

/// Whether who has this address says of whom it is a proxy.
pub(crate) type IsProxy = dyn Fn(IpAddr) -> bool + Send + Sync;

/// Largest head in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// hyper's own bound on what it buffers of a connection of HTTP/1, in bytes.
const MAX_BUF: usize = 8 * 1024 + 100 * 4 * 1024;

pub(crate) struct Options {
    pub(crate) http1: hyper::server::conn::http1::Builder,
    pub(crate) http2: hyper::server::conn::http2::Builder<Executor>,
    pub(crate) executor: Executor,
    pub(crate) protocols: Protocols,
    pub(crate) limits: Limits,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_peer: Option<usize>,
    pub(crate) is_proxy: Option<Box<IsProxy>>,
    pub(crate) nodelay: bool,
    pub(crate) abandon_after: Option<Duration>,
    pub(crate) workers: workers::Options,
}

impl Default for Options {
    fn default() -> Self {
        let executor = Executor::default();
        let mut http1 = hyper::server::conn::http1::Builder::new();
        // hyper's own timer does not tell an idle connection from an unfinished head, and closes without 408;
        // `connection.rs` does both. With half-close allowed hyper does not read ahead of the answer, which saves a
        // system call a request.
        http1.header_read_timeout(None).half_close(true).max_header_size(MAX_HEAD);
        let mut http2 = hyper::server::conn::http2::Builder::new(executor.clone());
        http2.max_header_list_size(64 * 1024);
        Self {
            http1,
            http2,
            executor,
            protocols: Protocols { http1: true, http2: true },
            limits: Limits {
                head_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(60),
                write_timeout: Duration::from_secs(30),
                handshake_timeout: Duration::from_secs(10),
                body_read_timeout: Duration::from_secs(30),
                body_rate: BodyRate { bytes_per_second: 500, grace: Duration::from_secs(10) },
                max_body: u64::MAX,
                max_head: MAX_HEAD,
                max_headers: 100,
                max_requests: u64::MAX,
                max_age: Duration::MAX,
                max_control_frames: 10_000,
            },
            max_connections: 16 * 1024,
            max_connections_per_peer: None,
            is_proxy: None,
            nodelay: true,
            abandon_after: None,
            workers: workers::Options {
                bounds: Bounds { seats: available_parallelism().map_or(1, usize::from), open: 512, queued: 1024 },
                queue_timeout: Duration::from_secs(10),
                keep_alive: Duration::from_secs(6),
                stack: 2 * 1024 * 1024,
                around: Box::new(|work| work()),
                on_tick: Box::new(|| {}),
            },
        }
    }
}

/// Workers, queue and connections.
impl Server {
    /// Requests that may be handled at once, running or waiting, each on a thread of its own; at most half of them (but one at least) whose
    /// bodies have not ended. Default 512.
    #[must_use]
    pub fn max_workers(mut self, requests: usize) -> Self {
        self.options.workers.bounds.open = requests.max(1);
        self
    }

    /// Workers that may run (not wait) at once. Default: the cores that this process may use.
    #[must_use]
    pub fn seats(mut self, seats: usize) -> Self {
        self.options.workers.bounds.seats = seats.max(1);
        self
    }

    /// How long a worker thread that has nothing to do is kept. Default 6 s.
    #[must_use]
    pub fn worker_keep_alive(mut self, time: Duration) -> Self {
        self.options.workers.keep_alive = time;
        self
    }

    /// Native stack of a worker thread, in bytes. Default 2 MiB.
    #[must_use]
    pub fn worker_stack(mut self, bytes: usize) -> Self {
        self.options.workers.stack = bytes;
        self
    }

    /// Requests that may wait for a worker, and for how long, before they get 503 with `Retry-After`; as many again whose
    /// bodies have not ended may wait for others of their kind. Default 1,024 requests, 10 s.
    #[must_use]
    pub fn queue(mut self, requests: usize, timeout: Duration) -> Self {
        self.options.workers.bounds.queued = requests;
        self.options.workers.queue_timeout = timeout;
        self
    }

    /// Connections open at once; beyond it clients wait in the listener's backlog. Default 16,384.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.options.max_connections = connections.max(1);
        self
    }

    /// Connections that one peer may have open at once; one more is closed at once. A peer is an IPv4 address or an IPv6 network of 64
    /// bits; behind a proxy all clients are one. Default: no such limit.
    #[must_use]
    pub fn max_connections_per_peer(mut self, connections: usize) -> Self {
        self.options.max_connections_per_peer = Some(connections.max(1));
        self
    }

    /// Which peers are proxies that say, in front of everything else on a connection, who their client is: the PROXY protocol, version 2.
    /// Such a peer must; that of any other is a malformed request. What it says is [`ConnectionInfo`](crate::ConnectionInfo), and counts as
    /// the peer. Default: none.
    #[must_use]
    pub fn proxy_protocol(mut self, is_proxy: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.options.is_proxy = Some(Box::new(is_proxy));
        self
    }

    /// Requests on one connection; then it ends: `connection: close` on the last answer, GOAWAY. Default: no such limit.
    #[must_use]
    pub fn max_requests_per_connection(mut self, requests: u64) -> Self {
        self.options.limits.max_requests = requests.max(1);
        self
    }

    /// How old a connection may become; then it ends with its next request: `connection: close` on the answer to that, GOAWAY. After
    /// GOAWAY streams are taken for 2 s more at the most, and answered. One without a request ends by [`idle_timeout`](Self::idle_timeout). Default: no such limit.
    #[must_use]
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.options.limits.max_age = age;
        self
    }

    /// Runs around the whole life of each worker thread, and of the monitor's, which polls when no worker can be had; to enter a runtime, say.
    /// It must call its argument, once.
    #[must_use]
    pub fn around_worker(mut self, around: impl Fn(&mut dyn FnMut()) + Send + Sync + 'static) -> Self {
        self.options.workers.around = Box::new(around);
        self
    }

    /// Is called every millisecond while a request runs, on the monitor's thread.
    #[must_use]
    pub fn on_tick(mut self, tick: impl Fn() + Send + Sync + 'static) -> Self {
        self.options.workers.on_tick = Box::new(tick);
        self
    }

    /// How long a request may go on after it was cut because the server ends. Then it is left behind, with its thread,
    /// which ends when the handler returns. Default: for ever.
    #[must_use]
    pub fn abandon_after(mut self, time: Duration) -> Self {
        self.options.abandon_after = Some(time);
        self
    }

    /// Whether small writes are sent at once (`TCP_NODELAY`); over Unix sockets they always are. Default true.
    #[must_use]
    pub fn nodelay(mut self, enabled: bool) -> Self {
        self.options.nodelay = enabled;
        self
    }
}

/// Limits on clients.
impl Server {
    /// Largest request body in bytes; beyond it the client gets 413. Default unlimited.
    #[must_use]
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.options.limits.max_body = bytes;
        self
    }

    /// From the first byte of a request to the end of its head; after it the client gets 408, on HTTP/2 the end of the connection.
    /// Default 10 s.
    #[must_use]
    pub fn header_read_timeout(mut self, time: Duration) -> Self {
        self.options.limits.head_timeout = time;
        self
    }

    /// How long a connection without a request is kept. Default 60 s.
    #[must_use]
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.options.limits.idle_timeout = time;
        self
    }

    /// How long a request body may stand still while it is being waited for; then its reader gets an error and, if it
    /// has not answered, the client 408. Default 30 s.
    #[must_use]
    pub fn body_read_timeout(mut self, time: Duration) -> Self {
        self.options.limits.body_read_timeout = time;
        self
    }

    /// How slowly a request body may come while it is being waited for: all the waiting for it together may last `grace`, and a second
    /// more for each `bytes_per_second` that have come. Then it is as after [`body_read_timeout`](Self::body_read_timeout). 0 is no
    /// such limit. Default 500 bytes a second, 10 s.
    #[must_use]
    pub fn body_rate(mut self, bytes_per_second: u32, grace: Duration) -> Self {
        self.options.limits.body_rate = BodyRate { bytes_per_second, grace };
        self
    }

    /// How long a client may take nothing of what there is to send; then it is cut: over TCP reset, so that nothing is kept for it.
    /// That it takes something shows once it has made room for some 64 KiB. Default 30 s.
    #[must_use]
    pub fn write_timeout(mut self, time: Duration) -> Self {
        self.options.limits.write_timeout = time;
        self
    }
}

/// HTTP/1: hyper's options.
impl Server {
    /// Speaks HTTP/1 only.
    #[must_use]
    pub fn http1_only(mut self) -> Self {
        self.options.protocols = Protocols { http1: true, http2: false };
        self
    }

    /// Whether a connection serves more than one request. Default true.
    #[must_use]
    pub fn http1_keep_alive(mut self, enabled: bool) -> Self {
        self.options.http1.keep_alive(enabled);
        self
    }

    /// Whether a client may end its sending side and still get its answer. Default true (hyper's and the seed's is
    /// false).
    #[must_use]
    pub fn http1_half_close(mut self, enabled: bool) -> Self {
        self.options.http1.half_close(enabled);
        self
    }

    /// Largest read buffer of a connection in bytes. Default about 400 KiB.
    ///
    /// # Panics
    ///
    /// Below 8,192.
    #[must_use]
    pub fn http1_max_buf_size(mut self, bytes: usize) -> Self {
        self.options.http1.max_buf_size(bytes);
        self
    }

    /// Largest head in bytes; beyond it the client gets 431. Where a connection's buffer is smaller
    /// ([`http1_max_buf_size`](Self::http1_max_buf_size)), it is made as large. Default 64 KiB.
    #[must_use]
    pub fn http1_max_header_size(mut self, bytes: usize) -> Self {
        self.options.limits.max_head = bytes;
        self.options.http1.max_header_size(bytes);
        if bytes > MAX_BUF {
            self.options.http1.max_buf_size(bytes);
        }
        self
    }

    /// Most header fields; beyond it the client gets 431. Default 100.
    #[must_use]
    pub fn http1_max_headers(mut self, fields: usize) -> Self {
        self.options.http1.max_headers(fields);
        self
    }

    /// Whether flushes are aggregated for pipelined responses. Default false.
    #[must_use]
    pub fn http1_pipeline_flush(mut self, enabled: bool) -> Self {
        self.options.http1.pipeline_flush(enabled);
        self
    }

    /// Whether vectored writes are used, or everything is copied into one buffer. Default: hyper decides.
    #[must_use]
    pub fn http1_writev(mut self, enabled: bool) -> Self {
        self.options.http1.writev(enabled);
        self
    }

    /// Whether names of header fields are sent in title case. Default false.
    #[must_use]
    pub fn http1_title_case_headers(mut self, enabled: bool) -> Self {
        self.options.http1.title_case_headers(enabled);
        self
    }

    /// Whether the case of header names is kept as received, for sending it back. Default false.
    #[must_use]
    pub fn http1_preserve_header_case(mut self, enabled: bool) -> Self {
        self.options.http1.preserve_header_case(enabled);
        self
    }
}

/// HTTP/2: hyper's options.
impl Server {
    /// Speaks HTTP/2 (with prior knowledge) only.
    #[must_use]
    pub fn http2_only(mut self) -> Self {
        self.options.protocols = Protocols { http1: false, http2: true };
        self
    }

    /// Flow control window of a stream, in bytes. Default 1 MiB.
    #[must_use]
    pub fn http2_initial_stream_window_size(mut self, bytes: impl Into<Option<u32>>) -> Self {
        self.options.http2.initial_stream_window_size(bytes);
        self
    }

    /// Flow control window of a connection, in bytes. Default 1 MiB.
    #[must_use]
    pub fn http2_initial_connection_window_size(mut self, bytes: impl Into<Option<u32>>) -> Self {
        self.options.http2.initial_connection_window_size(bytes);
        self
    }

    /// Whether the windows adapt to the connection. Default false.
    #[must_use]
    pub fn http2_adaptive_window(mut self, enabled: bool) -> Self {
        self.options.http2.adaptive_window(enabled);
        self
    }

    /// Announces the extended CONNECT protocol (RFC 8441). CONNECT itself is answered 405.
    #[must_use]
    pub fn http2_enable_connect_protocol(mut self) -> Self {
        self.options.http2.enable_connect_protocol();
        self
    }

    /// Largest frame in bytes. Default 16 KiB.
    #[must_use]
    pub fn http2_max_frame_size(mut self, bytes: impl Into<Option<u32>>) -> Self {
        self.options.http2.max_frame_size(bytes);
        self
    }

    /// Streams that a client may have open at once. Default 200.
    #[must_use]
    pub fn http2_max_concurrent_streams(mut self, streams: impl Into<Option<u32>>) -> Self {
        self.options.http2.max_concurrent_streams(streams);
        self
    }

    /// Frames that are no part of a request (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown ones) which a client may send in a
    /// second; RST_STREAM counts as ten. Each request allows two more, each KiB of response one more, so that a client may update its
    /// windows as often as it likes. Beyond it the client gets GOAWAY with ENHANCE_YOUR_CALM, and the connection is closed.
    /// Default 10,000, which cost a fifth of a percent of a core; of curl, nghttp, h2load, Node and httpx none needed ten.
    #[must_use]
    pub fn http2_max_control_frames(mut self, per_second: u32) -> Self {
        self.options.limits.max_control_frames = per_second;
        self
    }

    /// What hyper buffers of a stream's response, in bytes. Default about 400 KiB.
    ///
    /// # Panics
    ///
    /// Above `u32::MAX`.
    #[must_use]
    pub fn http2_max_send_buf_size(mut self, bytes: usize) -> Self {
        self.options.http2.max_send_buf_size(bytes);
        self
    }

    /// Largest header list in bytes. Default 64 KiB.
    #[must_use]
    pub fn http2_max_header_list_size(mut self, bytes: u32) -> Self {
        self.options.http2.max_header_list_size(bytes);
        self
    }

    /// Most header fields of a request; beyond it the client gets 431. A cookie in pieces (RFC 9113 section 8.2.3) is one. Default 100.
    #[must_use]
    pub fn http2_max_headers(mut self, fields: usize) -> Self {
        self.options.limits.max_headers = fields;
        self
    }

    /// Sends a PING this often, also while no stream is open, and closes the connection if there is no answer in time.
    /// Default off.
    #[must_use]
    pub fn http2_keep_alive_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.options.http2.keep_alive_interval(interval);
        self
    }

    /// How long to wait for the answer to such a PING. Default 20 s.
    #[must_use]
    pub fn http2_keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.options.http2.keep_alive_timeout(timeout);
        self
    }
}
