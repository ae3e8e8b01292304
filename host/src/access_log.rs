//! The access log: one line for each request, written when both the guest and the response body have ended.
//!
//! A [`Visit`] is that line in the making. The worker that runs the guest holds one share of it, the response body another; each
//! writes down what it knows, and whoever lets go last writes the line. Without an access log there is no visit.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Uri};
use http_body::{Body, Frame, SizeHint};

use crate::{
    guest::Report,
    log_line::AccessLine,
    log_writer::{Log, Origin},
    request_id::RequestId,
};

/// The access line of one request in the making; written when the last share is dropped.
///
/// The atomics are relaxed: the count of the `Arc` orders them before the drop that reads them.
pub(crate) struct Visit {
    pub(crate) log: Log,
    pub(crate) arrived: Instant,
    pub(crate) handler: Arc<str>,
    pub(crate) id: RequestId,
    pub(crate) client_id: Option<HeaderValue>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) progress: Progress,
}

#[derive(Default)]
pub(crate) struct Progress {
    status: AtomicU16,
    bytes_out: AtomicU64,
    /// The response body went away before its end although its guest did not fail: the client left.
    cut: AtomicBool,
    guest: OnceLock<GuestEnd>,
}

struct GuestEnd {
    outcome: &'static str,
    bytes_in: u64,
    cpu: Duration,
    peak_memory: u64,
}

impl Visit {
    pub(crate) fn answered(&self, status: http::StatusCode) {
        self.progress.status.store(status.as_u16(), Ordering::Relaxed);
    }

    /// The server has answered by itself: no guest has run.
    pub(crate) fn refused(self, status: http::StatusCode) {
        self.answered(status);
        let end = GuestEnd { outcome: "refused", bytes_in: 0, cpu: Duration::ZERO, peak_memory: 0 };
        let _ = self.progress.guest.set(end);
    }

    pub(crate) fn guest_ended(&self, report: &Report) {
        let &Report { ref outcome, bytes_in, cpu, peak_memory } = report;
        let _ = self.progress.guest.set(GuestEnd { outcome: outcome.name(), bytes_in, cpu, peak_memory });
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Progress { status, bytes_out, cut, guest } = &mut self.progress;
        let guest = guest.get();
        let outcome = match guest {
            Some(GuestEnd { outcome: "ok", .. }) if *cut.get_mut() => "client_gone",
            Some(guest) => guest.outcome,
            // The worker let go of the request without a report: it is unwinding.
            None => "panic",
        };
        let access = AccessLine {
            handler: &self.handler,
            id: self.id,
            client_id: self.client_id.as_ref().and_then(|id| id.to_str().ok()),
            peer: self.peer,
            method: self.method.as_str(),
            // Without the query, which may hold secrets.
            path: self.uri.path(),
            status: *status.get_mut(),
            bytes_in: guest.map_or(0, |guest| guest.bytes_in),
            bytes_out: *bytes_out.get_mut(),
            wall: self.arrived.elapsed(),
            cpu: guest.map_or(Duration::ZERO, |guest| guest.cpu),
            peak_memory: guest.map_or(0, |guest| guest.peak_memory),
            outcome,
        };
        self.log.line(Origin::Host, |line| self.log.format().access_line(line, &access));
    }
}

/// A response body whose bytes are counted for the access log, if there is one.
pub(crate) struct Counted<B: Body<Data = Bytes>> {
    body: B,
    visit: Option<Arc<Visit>>,
    /// Bytes that are still to come, if the length is known.
    left: Option<u64>,
    ended: bool,
}

impl<B: Body<Data = Bytes>> Counted<B> {
    /// `length` is the response's `content-length`; 0 when it has no body whatever its headers say (HEAD, 204, 304).
    pub(crate) fn new(body: B, length: Option<u64>, visit: Option<Arc<Visit>>) -> Self {
        Self { body, visit, left: length, ended: false }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(visit) = &this.visit {
            let bytes = match &frame {
                Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
                _ => 0,
            };
            visit.progress.bytes_out.fetch_add(bytes, Ordering::Relaxed);
            this.left = this.left.map(|left| left.saturating_sub(bytes));
            // An error is an end too: the guest's, and its outcome says which.
            this.ended |= frame.as_ref().is_none_or(|frame| frame.as_ref().map_or(true, Frame::is_trailers));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body<Data = Bytes>> Drop for Counted<B> {
    fn drop(&mut self) {
        // hyper lets go of a body as soon as it has as many bytes as were announced, without asking for its end.
        let complete = self.ended || self.left == Some(0) || self.body.is_end_stream();
        if let Some(visit) = self.visit.as_ref().filter(|_| !complete) {
            visit.progress.cut.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex, task::Waker};

    use http_body_util::Full;

    use super::*;
    use crate::{failure::Outcome, log_line::LogFormat, log_writer::LogWriter, request_id::RequestIds};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the access log says when `request` has had its way with a visit.
    fn logged(request: impl FnOnce(Arc<Visit>)) -> String {
        let written = Written::default();
        let writer = LogWriter::start(LogFormat::Text, true, written.clone()).expect("starts");
        let visit = Visit {
            log: writer.log(),
            arrived: Instant::now(),
            handler: "hello".into(),
            id: RequestIds::new().next(),
            client_id: None,
            peer: None,
            method: Method::GET,
            uri: Uri::from_static("/a?secret"),
            progress: Progress::default(),
        };
        visit.answered(http::StatusCode::OK);
        request(Arc::new(visit));
        drop(writer);
        String::from_utf8(written.0.lock().expect("not poisoned").clone()).expect("is text")
    }

    fn ok() -> Report {
        Report { outcome: Outcome::Ok, cpu: Duration::ZERO, bytes_in: 3, peak_memory: 4 }
    }

    fn body(length: Option<u64>, visit: &Arc<Visit>) -> Counted<Full<Bytes>> {
        Counted::new(Full::new(Bytes::from_static(b"Hello")), length, Some(Arc::clone(visit)))
    }

    fn pull(body: &mut Counted<Full<Bytes>>) {
        let _ = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
    }

    #[test]
    fn the_line_is_written_once_when_guest_and_body_have_ended() {
        let line = logged(|visit| {
            let mut body = body(None, &visit);
            visit.guest_ended(&ok());
            drop(visit);
            pull(&mut body);
            pull(&mut body);
        });
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.contains(" path=/a status=200 in=3 out=5 "), "{line}");
        assert!(line.ends_with(" memory=4 outcome=ok\n"), "{line}");
    }

    #[test]
    fn a_body_that_nobody_read_to_its_end_means_that_the_client_left() {
        let line = logged(|visit| {
            let unread = body(Some(5), &visit);
            visit.guest_ended(&ok());
            drop(unread);
        });
        assert!(line.contains(" out=0 ") && line.ends_with("outcome=client_gone\n"), "{line}");
    }

    #[test]
    fn a_body_with_all_its_announced_bytes_is_complete() {
        let line = logged(|visit| {
            let mut body = body(Some(5), &visit);
            pull(&mut body);
            visit.guest_ended(&ok());
        });
        assert!(line.contains(" out=5 ") && line.ends_with("outcome=ok\n"), "{line}");
    }

    #[test]
    fn a_request_without_a_report_is_a_panic() {
        let line = logged(drop);
        assert!(line.ends_with("outcome=panic\n"), "{line}");
    }
}
