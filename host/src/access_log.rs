//! The access log: one line for each request, written when the guest has ended and the response has gone out, or cannot.
//!
//! A [`Visit`] is that line in the making. The worker that runs the guest holds one share of it, the server another while it
//! sends the response; each writes down what it knows, and whoever lets go last writes the line. Without an access log there is no visit.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use astra_server::{Cut, Event, Gone};
use http::{HeaderValue, StatusCode};

use crate::{
    failure::{Failure, FailureKind},
    guest::Report,
    in_flight::Ongoing,
    log_line::AccessLine,
    log_writer::{Log, Origin},
};

/// The access line of one request in the making; written when the last share is dropped.
///
/// The status is relaxed: the count of the `Arc` orders it before the drop that reads it.
pub(crate) struct Visit {
    pub(crate) log: Log,
    pub(crate) request: Arc<Ongoing>,
    pub(crate) client_id: Option<HeaderValue>,
    pub(crate) progress: Progress,
}

#[derive(Default)]
pub(crate) struct Progress {
    status: AtomicU16,
    /// What became of the response, as `Responder::send_and_tell` has it. Unset: nobody was there to take it.
    sent: OnceLock<Result<u64, Cut>>,
    /// An outcome that goes before the guest's.
    overruled: OnceLock<&'static str>,
    guest: OnceLock<GuestEnd>,
}

struct GuestEnd {
    outcome: &'static str,
    bytes_in: u64,
    cpu: Duration,
    peak_memory: u64,
}

impl Visit {
    pub(crate) fn answered(&self, status: StatusCode) {
        self.progress.status.store(status.as_u16(), Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, sent: Result<u64, Cut>) {
        let _ = self.progress.sent.set(sent);
    }

    /// The server has answered by itself, or its client has gone before there was a worker: no guest has run.
    pub(crate) fn refused(&self, status: StatusCode, why: Event) {
        self.answered(status);
        self.no_guest(match (why, status) {
            (Event::QueueFull | Event::QueueTimeout | Event::ClientGone, _) => why.name(),
            (Event::Stopped, _) => FailureKind::Drained.name(),
            // As where a guest is asked first.
            (_, StatusCode::BAD_REQUEST) => FailureKind::BadRequest.name(),
            (_, StatusCode::METHOD_NOT_ALLOWED) => FailureKind::MethodNotAllowed.name(),
            (_, StatusCode::PAYLOAD_TOO_LARGE) => FailureKind::BodyTooLarge.name(),
            _ => "refused",
        });
    }

    /// Whatever the guest says: this is how it ended.
    pub(crate) fn overrule(&self, failure: &Failure) {
        let _ = self.progress.overruled.set(failure.kind().name());
    }

    /// The host itself answers.
    pub(crate) fn served_by_host(&self) {
        self.no_guest("ok");
    }

    /// No guest will run.
    pub(crate) fn unserved(&self, failure: &Failure) {
        self.no_guest(failure.kind().name());
    }

    fn no_guest(&self, outcome: &'static str) {
        let _ = self.progress.guest.set(GuestEnd { outcome, bytes_in: 0, cpu: Duration::ZERO, peak_memory: 0 });
    }

    pub(crate) fn guest_ended(&self, report: &Report) {
        let &Report { ref outcome, bytes_in, cpu, peak_memory } = report;
        let _ = self.progress.guest.set(GuestEnd { outcome: outcome.name(), bytes_in, cpu, peak_memory });
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Progress { status, sent, overruled, guest } = &mut self.progress;
        let (guest, sent) = (guest.get(), sent.get().copied());
        let outcome = match (guest, sent) {
            _ if let Some(outcome) = overruled.get() => outcome,
            (Some(GuestEnd { outcome: "ok", .. }), Some(Err(cut))) => unsent(cut.why).name(),
            (Some(GuestEnd { outcome: "ok", .. }), None) => unsent(Gone::Left).name(),
            (Some(guest), _) => guest.outcome,
            // The worker let go of the request without a report: it is unwinding.
            (None, _) => "panic",
        };
        let request = &self.request;
        let access = AccessLine {
            handler: &request.handler,
            revision: request.revision,
            id: request.id,
            client_id: self.client_id.as_ref().and_then(|id| id.to_str().ok()),
            peer: request.peer,
            method: request.method.as_str(),
            // Without the query, which may hold secrets.
            path: request.uri.path(),
            status: *status.get_mut(),
            bytes_in: guest.map_or(0, |guest| guest.bytes_in),
            bytes_out: sent.map_or(0, |sent| sent.unwrap_or_else(|cut| cut.bytes)),
            queued: request.queued,
            wall: request.started.elapsed(),
            cpu: guest.map_or(Duration::ZERO, |guest| guest.cpu),
            peak_memory: guest.map_or(0, |guest| guest.peak_memory),
            outcome,
        };
        self.log.line(Origin::Host, |line| self.log.format().access_line(line, &access));
    }
}

/// The guest did not fail, and its response did not go out whole: whose doing that is.
fn unsent(why: Gone) -> FailureKind {
    match why {
        Gone::Stopped => FailureKind::Drained,
        Gone::TooSlow => FailureKind::ClientTooSlow,
        _ => FailureKind::ClientGone,
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex, time::Instant};

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
            request: Arc::new(Ongoing {
                id: RequestIds::new().next(),
                handler: "hello".into(),
                revision: 1,
                queued: Duration::from_millis(7),
                started: Instant::now(),
                peer: None,
                method: http::Method::GET,
                uri: http::Uri::from_static("/a?secret"),
                watch: Arc::default(),
            }),
            client_id: None,
            progress: Progress::default(),
        };
        visit.answered(StatusCode::OK);
        request(Arc::new(visit));
        drop(writer);
        String::from_utf8(written.0.lock().expect("not poisoned").clone()).expect("is text")
    }

    fn ok() -> Report {
        Report { outcome: Outcome::Ok, cpu: Duration::ZERO, bytes_in: 3, peak_memory: 4 }
    }

    #[test]
    fn the_line_is_written_once_when_the_guest_has_ended_and_the_response_is_sent() {
        let line = logged(|visit| {
            visit.guest_ended(&ok());
            let sender = Arc::clone(&visit);
            drop(visit);
            sender.sent(Ok(5));
        });
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.contains(" path=/a status=200 in=3 out=5 "), "{line}");
        assert!(line.ends_with(" memory=4 outcome=ok\n"), "{line}");
    }

    #[test]
    fn a_response_that_was_not_sent_whole_has_somebody_to_blame() {
        let line = logged(|visit| visit.guest_ended(&ok()));
        assert!(line.contains(" out=0 queue_ms=7 ") && line.ends_with("outcome=client_gone\n"), "{line}");
        for (why, outcome) in
            [(Gone::Left, "client_gone"), (Gone::TooSlow, "client_too_slow"), (Gone::Stopped, "drained")]
        {
            assert_eq!(unsent(why).name(), outcome);
        }
    }

    #[test]
    fn a_request_without_a_report_is_a_panic() {
        let line = logged(drop);
        assert!(line.ends_with("outcome=panic\n"), "{line}");
    }
}
