//! What clients may do: how slow they may be, and how much of everything they may have.

use std::{ops::RangeInclusive, time::Duration};

/// How slow clients may be, and how much they may have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientLimits {
    /// From the first byte of a request to the end of its head; then the client gets 408.
    pub header_timeout: Duration,
    /// How long a TLS handshake may take.
    pub tls_handshake_timeout: Duration,
    /// How long a connection without a request is kept.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of its answer; then it is cut.
    pub write_timeout: Duration,
    /// Bytes a second that a body has to bring while its guest waits for it, after ten seconds of that; then the client gets 408. 0: any
    /// rate will do.
    pub body_rate: u64,
    /// Largest head, in bytes; 431 beyond it.
    pub max_header_size: u64,
    /// Most fields of a head; 431 beyond it.
    pub max_headers: u32,
    /// Connections at once; then clients wait in the backlog. By default three quarters of the open files that the process may have, and
    /// at most 65,536.
    pub max_connections: Option<u32>,
    /// Connections of one peer at once, which is an IPv4 address or an IPv6 network of 64 bits; one more is closed.
    pub max_connections_per_peer: Option<u32>,
    /// Requests on one connection, which then ends.
    pub max_requests_per_connection: Option<u32>,
    /// How old a connection may become, which then ends with its next request.
    pub max_connection_age: Option<Duration>,
    /// Streams of one HTTP/2 connection at once.
    pub http2_max_streams: u32,
    /// HTTP/2 frames a second that are part of no request or answer; then the client gets GOAWAY (ENHANCE_YOUR_CALM) and is cut.
    pub http2_max_control_frames: u32,
}

impl ClientLimits {
    pub(crate) const HEADER_SIZE: RangeInclusive<u64> = 8 << 10..=1 << 20;
    pub(crate) const BODY_RATE: RangeInclusive<u64> = 0..=1 << 30;
    /// Below the 24,576 fields that a `HeaderMap` can have, with room for those that the host adds.
    pub(crate) const HEADERS: RangeInclusive<u32> = 1..=10_000;
    pub(crate) const COUNT: RangeInclusive<u32> = 1..=1_000_000;
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            tls_handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            body_rate: 500,
            max_header_size: 64 << 10,
            max_headers: 100,
            max_connections: None,
            max_connections_per_peer: None,
            max_requests_per_connection: None,
            max_connection_age: None,
            http2_max_streams: 200,
            http2_max_control_frames: 10_000,
        }
    }
}
