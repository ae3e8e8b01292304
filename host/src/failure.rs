//! Why a request failed: the one place where status codes are chosen.
//!
//! A [`Failure`] has two readers. A stranger sees [`status`](Failure::status) and [`public_text`](Failure::public_text),
//! which name no path, trap or module; the operator sees the [`Display`](fmt::Display) text in the log, which names
//! everything, on one line. Pure data: usable on any thread.

use std::{fmt, time::Duration};

use http::StatusCode;

use crate::short_text::shortened;

/// Bytes of a failure's details, of which most may be its guest's.
pub(crate) const DETAIL: usize = 1024;

/// How a request ended.
#[derive(Debug)]
pub enum Outcome {
    /// The guest answered and ended in order.
    Ok,
    /// It did not.
    Failed(Failure),
}

impl Outcome {
    /// The word for logs and metrics: `ok`, or the [`FailureKind`]'s name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed(failure) => failure.kind.name(),
        }
    }

    /// The failure, if it is one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Ok => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

/// What went wrong, without the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The guest trapped: unreachable code, a bad memory access, an exhausted stack…
    Trap,
    /// The guest was cut at its `deadline` or `stream_deadline`.
    Deadline,
    /// The guest was cut because an operator asked for it.
    Killed,
    /// The guest was cut because its revision was replaced, or the host stopped, and it took longer than `drain`.
    Drained,
    /// The guest used up its `cpu` limit.
    Cpu,
    /// The client went away, so its guest was cancelled.
    ClientGone,
    /// The guest asked for more memory than its limit, was refused and gave up.
    Memory,
    /// The guest called `exit` before it had answered, or with a status that is not 0.
    Exit,
    /// The guest ended without an answer.
    NoAnswer,
    /// The guest ended before its response body was finished.
    Unfinished,
    /// The guest answered with an error code, meaning that a request it depends on failed.
    BadGateway,
    /// As [`BadGateway`](Self::BadGateway), and the reason was a time-out.
    GatewayTimeout,
    /// The guest answered with an error code of its own.
    GuestError,
    /// The request body was larger than `max_body`.
    BodyTooLarge,
    /// The client stopped sending the request body, or took nothing of the response.
    ClientTooSlow,
    /// The request is not one that a handler can be given.
    BadRequest,
    /// The method is never handed to a guest (CONNECT, TRACE).
    MethodNotAllowed,
    /// No route matches.
    NotFound,
    /// All workers, queue places or stacks for guests are taken, or all memory for guests or of the machine.
    Overload,
    /// The host itself failed: a bug, or the machine is out of something.
    Host,
}

impl FailureKind {
    /// Whether the module, or what its handler grants it, is to blame: what a guard counts after a swap.
    pub fn blames_revision(self) -> bool {
        match self {
            Self::Trap
            | Self::Deadline
            | Self::Cpu
            | Self::Memory
            | Self::Exit
            | Self::NoAnswer
            | Self::Unfinished
            | Self::GuestError
            | Self::Host => true,
            // The operator, the client, another server, or too many of them.
            Self::Killed
            | Self::Drained
            | Self::ClientGone
            | Self::BadGateway
            | Self::GatewayTimeout
            | Self::BodyTooLarge
            | Self::ClientTooSlow
            | Self::BadRequest
            | Self::MethodNotAllowed
            | Self::NotFound
            | Self::Overload => false,
        }
    }

    /// The word for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Killed => "killed",
            Self::Drained => "drained",
            Self::Cpu => "cpu",
            Self::ClientGone => "client_gone",
            Self::Memory => "memory",
            Self::Exit => "exit",
            Self::NoAnswer => "no_answer",
            Self::Unfinished => "unfinished",
            Self::BadGateway => "bad_gateway",
            Self::GatewayTimeout => "gateway_timeout",
            Self::GuestError => "guest_error",
            Self::BodyTooLarge => "body_too_large",
            Self::ClientTooSlow => "client_too_slow",
            Self::BadRequest => "bad_request",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotFound => "not_found",
            Self::Overload => "overload",
            Self::Host => "host",
        }
    }
}

/// Why one request failed.
#[derive(Debug)]
pub struct Failure {
    kind: FailureKind,
    detail: String,
}

impl Failure {
    /// A failure; `detail` is for the log only, where it is cut after 1 KiB, and may be empty.
    pub fn new(kind: FailureKind, detail: impl fmt::Display) -> Self {
        Self { kind, detail: shortened(detail, DETAIL) }
    }

    /// What went wrong, without the details.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The status of the answer, if no head has been sent yet. A client that is gone gets none: 499 is for the log.
    ///
    /// 504 is for time that has passed (`deadline`), for whatever reason; 503 for what there was too little of. CPU time is that, as memory
    /// is: another request, or the same at another time, may need less.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            FailureKind::Deadline | FailureKind::Drained | FailureKind::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
            FailureKind::Killed | FailureKind::Cpu | FailureKind::Memory | FailureKind::Overload => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            FailureKind::BadGateway => StatusCode::BAD_GATEWAY,
            FailureKind::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            FailureKind::ClientTooSlow => StatusCode::REQUEST_TIMEOUT,
            FailureKind::BadRequest => StatusCode::BAD_REQUEST,
            FailureKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            FailureKind::NotFound => StatusCode::NOT_FOUND,
            FailureKind::ClientGone => StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            FailureKind::Trap
            | FailureKind::Exit
            | FailureKind::NoAnswer
            | FailureKind::Unfinished
            | FailureKind::GuestError
            | FailureKind::Host => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// When it makes sense to try again (`Retry-After`, RFC 9110 section 10.2.3).
    pub fn retry_after(&self) -> Option<Duration> {
        let passes = self.status() == StatusCode::SERVICE_UNAVAILABLE && self.kind != FailureKind::Killed;
        passes.then_some(Duration::from_secs(1))
    }

    /// The text of the answer, one line. It says nothing about our files or the guest's insides.
    pub fn public_text(&self) -> &'static str {
        match self.kind {
            FailureKind::Deadline | FailureKind::Drained => "the handler took too long\n",
            FailureKind::Killed => "the request was ended by the operator\n",
            FailureKind::GatewayTimeout => "a server that the handler depends on took too long\n",
            FailureKind::Cpu | FailureKind::Memory => "the handler went over its limits\n",
            FailureKind::Overload => "too busy, try again\n",
            FailureKind::BadGateway => "a server that the handler depends on failed\n",
            FailureKind::BodyTooLarge => "the request body is too large\n",
            FailureKind::ClientTooSlow => "the request body came too slowly\n",
            FailureKind::BadRequest => "bad request\n",
            FailureKind::MethodNotAllowed => "method not allowed\n",
            FailureKind::NotFound => "not found\n",
            FailureKind::ClientGone => "client closed the request\n",
            FailureKind::Trap
            | FailureKind::Exit
            | FailureKind::NoAnswer
            | FailureKind::Unfinished
            | FailureKind::GuestError
            | FailureKind::Host => "the handler failed\n",
        }
    }
}

/// The log text: the kind's name, then the details.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_is_500_and_its_detail_stays_in_the_log() {
        let failure = Failure::new(FailureKind::Trap, "integer divide by zero in `secret::function`");
        assert_eq!(failure.status(), 500);
        assert!(!failure.public_text().contains("secret"));
        assert_eq!(failure.to_string(), "trap: integer divide by zero in `secret::function`");
        assert_eq!(failure.retry_after(), None);
    }

    #[test]
    fn details_are_cut() {
        let failure = Failure::new(FailureKind::GuestError, format_args!("{:?}", "\u{1}".repeat(1 << 20)));
        let text = failure.to_string();
        assert!(text.starts_with(r#"guest_error: "\u{1}\u{1}"#) && text.ends_with('…'), "{text}");
        assert!(text.len() < 1100, "{}", text.len());
    }

    #[test]
    fn limits_ask_the_client_to_come_back() {
        for kind in [FailureKind::Cpu, FailureKind::Memory, FailureKind::Overload] {
            let failure = Failure::new(kind, "");
            assert_eq!(failure.status(), 503);
            assert!(failure.retry_after().is_some());
        }
        let killed = Failure::new(FailureKind::Killed, "");
        assert_eq!((killed.status().as_u16(), killed.retry_after()), (503, None), "it would be ended again");
        assert_eq!(Failure::new(FailureKind::Deadline, "").status(), 504);
    }
}
