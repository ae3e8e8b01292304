//! One request's answer: from `response-outparam.set` until it is handed to the server.
//!
//! A response is held back for a moment: until the guest waits, has 64 KiB buffered, has computed through a tick (1 ms), or
//! ends. Handing it over at once would wake another worker to write the head while the guest is still writing a
//! twelve-byte body: a thread switch per request, chunked framing, and no way to answer 500 if the guest traps on the
//! next line. Guests that stream see nothing of it: whatever they wait for, their output goes out first.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, header};
use wasmtime_wasi_http::Error;

use super::{
    body::{BodyStream, BodyWatch, BodyWriter, GuestBody, WeakBodyWatch},
    cgi::{Head, Stdout},
    instance::Upload,
    limits::Phase,
};
use crate::failure::{Failure, FailureKind};

/// What hands a response to the server. Called at most once.
pub(crate) type Respond = Box<dyn FnOnce(Response<GuestBody>) + Send>;

/// Used by the worker that runs the guest only.
pub(crate) struct Answer {
    respond: Option<Respond>,
    /// The request was HEAD: a response has no body on the wire.
    to_head: bool,
    /// Bodies by the handle of the response they belong to, which keeps them. A guest rarely makes more than one.
    bodies: Vec<(u32, WeakBodyWatch)>,
    upload: Arc<Upload>,
    /// What a CGI program prints, which is its answer.
    printed: Option<Stdout>,
    /// The end to write to of a body that the guest does not hold itself (0.3). A guest that fails leaves it here, and it breaks when it is
    /// known why.
    writer: Option<BodyWriter>,
    stage: Stage,
}

enum Stage {
    /// The guest has not answered.
    Nothing,
    /// It has; the server does not know yet.
    Held { head: Response<()>, body: Option<BodyWatch> },
    /// The server has the response.
    Sent { body: Option<BodyWatch> },
    /// The guest answered with an error, or with something that cannot be sent.
    Refused(Failure),
}

impl Answer {
    /// `upload` is the request's body, which the server may refuse on its own; then that is the answer.
    pub(crate) fn new(to_head: bool, upload: Arc<Upload>, respond: Respond) -> Self {
        Self {
            respond: Some(respond),
            to_head,
            bodies: Vec::new(),
            upload,
            printed: None,
            writer: None,
            stage: Stage::Nothing,
        }
    }

    /// The answer is what a CGI program prints.
    pub(crate) fn print_to(&mut self, stdout: Stdout) {
        self.printed = Some(stdout);
    }

    /// What a CGI program has printed is no answer. That it could not print on is what it may have failed from.
    pub(crate) fn is_unprintable(&mut self) -> bool {
        self.look_at_printed();
        matches!(self.stage, Stage::Refused(_))
    }

    /// The CGI program, if it is one, has ended well.
    pub(crate) fn finish_printed(&mut self) {
        self.look_at_printed();
        if let Some(stdout) = &self.printed {
            stdout.finish();
            self.look_at_printed();
        }
    }

    /// Takes the head that a CGI program has printed since.
    fn look_at_printed(&mut self) {
        let (Some(stdout), Stage::Nothing) = (&self.printed, &self.stage) else { return };
        match stdout.take_head() {
            Ok(None) => {}
            Ok(Some(Head { status, headers, body })) => self.set(Some(body), status, headers),
            Err(failure) => self.stage = Stage::Refused(failure),
        }
    }

    /// Remembers the body of the response with handle `response`.
    pub(crate) fn add_body(&mut self, response: u32, body: &BodyWatch) {
        self.bodies.retain(|(handle, body)| *handle != response && !body.is_gone()); // handles are used again
        self.bodies.push((response, body.downgrade()));
    }

    /// The body of the response with handle `response`, while that response lives.
    pub(crate) fn body(&self, response: u32) -> Option<BodyWatch> {
        self.bodies.iter().find(|(handle, _)| *handle == response)?.1.upgrade()
    }

    /// The guest's response, and its body if it has taken one.
    pub(crate) fn set(&mut self, body: Option<BodyWatch>, status: StatusCode, mut headers: HeaderMap) {
        let bodiless = self.to_head || has_no_content(status);
        // An interim one is no answer, and beyond 599 there are none (RFC 9110 section 15).
        if !(200..600).contains(&status.as_u16()) {
            self.stage = Stage::Refused(Failure::new(
                FailureKind::GuestError,
                format_args!("a response cannot have the status {}", status.as_u16()),
            ));
            return;
        }
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
            headers.remove(header::CONTENT_LENGTH); // with 204 there is none (RFC 9110 section 8.6), with 205 it is 0
        }
        if body.is_none() && !bodiless && !matches!(content_length(&headers), Ok(None | Some(0))) {
            self.stage =
                Stage::Refused(Failure::new(FailureKind::Unfinished, "the response has a content-length and no body"));
            return;
        }
        if let Some(body) = &body {
            body.set();
            if bodiless {
                body.discard();
            }
        }
        let mut head = Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = headers;
        self.stage = Stage::Held { head, body };
    }

    /// The guest's answer is that it failed.
    pub(crate) fn refuse(&mut self, code: &Error) {
        self.stage = Stage::Refused(Failure::new(kind_of(code), format_args!("the guest answered with {code:?}")));
    }

    /// Lets out what is there: the head if it is held, and what the guest has written since. Says whether there was anything.
    pub(crate) fn send_out(&mut self) -> bool {
        self.look_at_printed();
        match &self.stage {
            Stage::Held { .. } => {
                self.hand_over();
                true
            }
            Stage::Sent { body: Some(body) } => body.send_out(),
            Stage::Sent { body: None } | Stage::Nothing | Stage::Refused(_) => false,
        }
    }

    /// How far the response is.
    pub(crate) fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Nothing | Stage::Refused(_) => Phase::Head,
            Stage::Held { body, .. } | Stage::Sent { body } if body.as_ref().is_none_or(BodyWatch::is_complete) => {
                Phase::Complete
            }
            Stage::Held { .. } => Phase::Head,
            Stage::Sent { .. } => Phase::Streaming,
        }
    }

    /// The server has the guest's response.
    pub(crate) fn is_sent(&self) -> bool {
        matches!(self.stage, Stage::Sent { .. })
    }

    /// The guest's response, whose body is written through the stream that is returned.
    pub(crate) fn begin(
        &mut self,
        mut writer: BodyWriter,
        status: StatusCode,
        headers: HeaderMap,
    ) -> Option<BodyStream> {
        let stream = writer.stream();
        self.set(Some(writer.watch()), status, headers);
        self.writer = Some(writer);
        stream
    }

    /// Ends that body in order; see [`BodyWriter::finish`].
    pub(crate) fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), u64> {
        self.writer.take().map_or(Ok(()), |writer| writer.finish(trailers))
    }

    /// The guest breaks it off.
    pub(crate) fn break_off(&mut self) {
        self.writer = None;
    }

    /// The guest has broken its response's body off, which ends the connection.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(&self.stage, Stage::Sent { body: Some(body) } if body.is_broken())
    }

    /// The response's body was given up by its reader before it was complete.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(&self.stage, Stage::Sent { body: Some(body) } if body.is_refused())
    }

    /// The guest has ended. A complete response that is still held goes out; an incomplete one does not, so that the client
    /// gets a proper error.
    ///
    /// # Errors
    /// What was wrong with the answer, seen by itself.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        let complete = self.phase() == Phase::Complete;
        match std::mem::replace(&mut self.stage, Stage::Nothing) {
            Stage::Nothing => Err(Failure::new(FailureKind::NoAnswer, "the guest ended without a response")),
            Stage::Refused(failure) => Err(failure),
            held @ Stage::Held { .. } if complete => {
                self.stage = held;
                self.hand_over();
                match std::mem::replace(&mut self.stage, Stage::Nothing) {
                    Stage::Refused(failure) => Err(failure),
                    _ => Ok(()),
                }
            }
            Stage::Sent { .. } if complete => Ok(()),
            Stage::Held { .. } | Stage::Sent { .. } => {
                Err(Failure::new(FailureKind::Unfinished, "the guest ended without finishing its response body"))
            }
        }
    }

    fn hand_over(&mut self) {
        let Stage::Held { head, body } = std::mem::replace(&mut self.stage, Stage::Nothing) else { return };
        if let Some(failure) = self.upload.refusal() {
            // The server puts its own answer in the place of this one: nobody will read the guest's body.
            drop(body.map(|body| body.reader()));
            let mut head = Response::new(GuestBody::nothing(None));
            *head.status_mut() = failure.status();
            self.stage = Stage::Refused(failure);
            if let Some(respond) = self.respond.take() {
                respond(head);
            }
            return;
        }
        let content = match &body {
            None if self.to_head => GuestBody::nothing(content_length(head.headers()).unwrap_or(None)),
            None => GuestBody::nothing(None),
            Some(body) if self.to_head => {
                let promised = content_length(head.headers()).unwrap_or(None);
                GuestBody::nothing(promised.or_else(|| body.is_finished().then(|| body.written())))
            }
            Some(_) if has_no_content(head.status()) => GuestBody::nothing(None),
            Some(body) => body.reader(),
        };
        self.stage = Stage::Sent { body };
        if let Some(respond) = self.respond.take() {
            respond(head.map(|()| content));
        }
    }
}

/// Whether an answer with that status has none, whatever its guest writes (RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5).
fn has_no_content(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The one `content-length` of these headers (RFC 9110 section 8.6: digits only).
///
/// # Errors
/// There are several, or it is not a number.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() || !value.as_bytes().iter().all(u8::is_ascii_digit) {
        return Err(());
    }
    value.to_str().map_err(drop)?.parse().map(Some).map_err(drop)
}

/// Who is to blame for an error code that a guest answers with: us and the client, a server behind it, or itself.
fn kind_of(code: &Error) -> FailureKind {
    match code {
        Error::HttpRequestBodySize(_) => FailureKind::BodyTooLarge,
        Error::DnsTimeout
        | Error::ConnectionTimeout
        | Error::ConnectionReadTimeout
        | Error::ConnectionWriteTimeout
        | Error::HttpResponseTimeout => FailureKind::GatewayTimeout,
        Error::InternalError(_)
        | Error::ConfigurationError
        | Error::LoopDetected
        | Error::HttpResponseBodySize(_)
        | Error::HttpProtocolError => FailureKind::GuestError,
        _ => FailureKind::BadGateway,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http_body::Body as _;

    use super::*;
    use crate::guest::{body::Budget, instance::UploadEnd};

    type Sent = Arc<Mutex<Option<Response<GuestBody>>>>;

    fn answer(to_head: bool) -> (Answer, Sent) {
        let sent = Sent::default();
        let slot = Arc::clone(&sent);
        let respond = move |response| *slot.lock().expect("not poisoned") = Some(response);
        (Answer::new(to_head, Arc::default(), Box::new(respond)), sent)
    }

    fn take(sent: &Sent) -> Option<Response<GuestBody>> {
        sent.lock().expect("not poisoned").take()
    }

    #[test]
    fn a_complete_response_goes_out_at_the_end_with_its_length() {
        let (mut answer, sent) = answer(false);
        let mut writer = BodyWriter::new(None, &Budget::new());
        answer.set(Some(writer.watch()), StatusCode::OK, HeaderMap::new());
        let mut stream = writer.stream().expect("first stream");
        wasmtime_wasi::p2::OutputStream::write(&mut stream, "Hello".into()).expect("room");
        assert!(take(&sent).is_none());
        writer.finish(None).expect("no length was promised");
        answer.end().expect("complete");
        let response = take(&sent).expect("handed over");
        assert_eq!(response.body().size_hint().exact(), Some(5));
    }

    #[test]
    fn an_unfinished_response_that_is_still_held_is_not_sent() {
        let (mut answer, sent) = answer(false);
        let writer = BodyWriter::new(None, &Budget::new());
        answer.set(Some(writer.watch()), StatusCode::OK, HeaderMap::new());
        drop(writer);
        assert_eq!(answer.end().expect_err("unfinished").kind(), FailureKind::Unfinished);
        drop(answer);
        assert!(take(&sent).is_none());
    }

    #[test]
    fn a_head_goes_out_when_the_guest_waits() {
        let (mut answer, sent) = answer(false);
        let writer = BodyWriter::new(None, &Budget::new());
        answer.set(Some(writer.watch()), StatusCode::OK, HeaderMap::new());
        assert_eq!(answer.phase(), Phase::Head);
        answer.send_out();
        assert!(take(&sent).is_some());
        assert_eq!(answer.phase(), Phase::Streaming);
    }

    #[test]
    fn a_response_to_head_has_a_length_and_no_bytes() {
        let (mut answer, sent) = answer(true);
        let mut writer = BodyWriter::new(None, &Budget::new());
        answer.set(Some(writer.watch()), StatusCode::OK, HeaderMap::new());
        let mut stream = writer.stream().expect("first stream");
        wasmtime_wasi::p2::OutputStream::write(&mut stream, "Hello".into()).expect("room");
        writer.finish(None).expect("no length was promised");
        answer.end().expect("complete");
        let mut body = take(&sent).expect("handed over").into_body();
        assert_eq!(body.size_hint().exact(), Some(5));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(matches!(std::pin::Pin::new(&mut body).poll_frame(&mut cx), std::task::Poll::Ready(None)));
    }

    #[test]
    fn no_content_has_no_content_length() {
        let (mut answer, sent) = answer(false);
        let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, http::HeaderValue::from_static("5"))]);
        answer.set(None, StatusCode::NO_CONTENT, headers);
        answer.end().expect("complete");
        assert!(take(&sent).expect("handed over").headers().is_empty());
    }

    #[test]
    fn a_length_without_a_body_is_refused() {
        let (mut answer, sent) = answer(false);
        let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, http::HeaderValue::from_static("5"))]);
        answer.set(None, StatusCode::OK, headers);
        assert_eq!(answer.end().expect_err("contradiction").kind(), FailureKind::Unfinished);
        assert!(take(&sent).is_none());
    }

    #[test]
    fn a_body_lives_as_long_as_its_response() {
        let (mut answer, _) = answer(false);
        let writer = BodyWriter::new(None, &Budget::new());
        answer.add_body(7, &writer.watch());
        assert!(answer.body(7).is_some());
        assert!(answer.body(8).is_none());
        drop(writer);
        assert!(answer.body(7).is_none());
        answer.add_body(9, &BodyWriter::new(None, &Budget::new()).watch());
        assert_eq!(answer.bodies.len(), 1, "what is gone is forgotten");
    }

    #[test]
    fn an_upload_that_the_server_refuses_is_the_answer() {
        for (end, kind, status) in [
            (UploadEnd::TooLarge, FailureKind::BodyTooLarge, StatusCode::PAYLOAD_TOO_LARGE),
            (UploadEnd::TooSlow, FailureKind::ClientTooSlow, StatusCode::REQUEST_TIMEOUT),
        ] {
            let (mut answer, sent) = answer(false);
            answer.upload.end(end);
            answer.set(None, StatusCode::OK, HeaderMap::new());
            assert_eq!(answer.end().expect_err("refused").kind(), kind);
            assert_eq!(take(&sent).expect("handed over").status(), status);
        }
    }
}
