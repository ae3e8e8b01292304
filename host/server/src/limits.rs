//! What clients may do on a connection: bounds that never change while a server runs.

use std::time::Duration;

/// Bounds on a connection, each documented at its option of [`Server`](crate::Server).
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) head_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) body_read_timeout: Duration,
    pub(crate) body_rate: BodyRate,
    pub(crate) max_body: u64,
    /// Bytes of a head, on HTTP/1.
    pub(crate) max_head: usize,
    /// Fields of a head, on HTTP/2; on HTTP/1 hyper counts.
    pub(crate) max_headers: usize,
    pub(crate) max_requests: u64,
    pub(crate) max_age: Duration,
    /// HTTP/2 frames a second that are no part of a request.
    pub(crate) max_control_frames: u32,
}

/// How slowly a request body may come while it is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyRate {
    pub(crate) bytes_per_second: u32,
    pub(crate) grace: Duration,
}

impl BodyRate {
    /// How long so many bytes may have been waited for, all in all.
    pub(crate) fn allowed(self, bytes: u64) -> Duration {
        let millis = bytes.saturating_mul(1000).checked_div(u64::from(self.bytes_per_second));
        millis.map_or(Duration::MAX, |millis| self.grace.saturating_add(Duration::from_millis(millis)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_be_waited_for_as_long_as_what_has_come_of_it_allows() {
        let rate = BodyRate { bytes_per_second: 500, grace: Duration::from_secs(10) };
        assert_eq!(rate.allowed(0), Duration::from_secs(10));
        assert_eq!(rate.allowed(250), Duration::from_millis(10_500));
        assert!(rate.allowed(u64::MAX) > Duration::from_secs(1 << 40));
        assert_eq!(BodyRate { bytes_per_second: 0, ..rate }.allowed(0), Duration::MAX);
    }
}
