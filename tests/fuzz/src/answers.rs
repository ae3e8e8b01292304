//! What a server has answered: a reader of its answers, which are to be without fault, and whether they go with the requests.

use crate::{
    requests::{End, Request, Verdict},
    server::{Mode, unhex},
};

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// What the handler has seen; none if it was not asked.
    pub seen: Option<Vec<String>>,
    pub closes: bool,
    pub body: Vec<u8>,
    /// None: the end of the connection is its end.
    pub is_whole: Option<bool>,
}

/// # Panics
/// If it is not as RFC 9112 has it.
#[must_use]
pub fn read(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status: u16 = status_line["HTTP/1.1 ".len()..][..3].parse().expect("a status");
        if status < 200 {
            continue;
        }
        let fields: Vec<(&str, &str)> =
            lines.map(|line| line.split_once(": ").or(line.split_once(':')).expect("a field")).collect();
        let value = |name: &str| fields.iter().find(|field| field.0 == name).map(|field| field.1);
        let seen: Option<Vec<String>> = value("x-seen").map(|seen| seen.split(' ').map(str::to_owned).collect());
        let is_head = seen.as_ref().is_some_and(|seen| unhex(&seen[0]) == b"HEAD");
        let mut answer = Answer {
            status,
            closes: value("connection").is_some_and(|options| options.eq_ignore_ascii_case("close")),
            body: Vec::new(),
            is_whole: Some(true),
            seen,
        };
        let length: Option<usize> = value("content-length").map(|length| length.parse().expect("a number"));
        let is_chunked = value("transfer-encoding") == Some("chunked");
        assert!(length.is_none() || !is_chunked, "framed twice: {head}");
        if is_head || (answer.seen.is_none() && bytes.is_empty()) {
            // A refusal may be one of a HEAD too.
        } else if is_chunked {
            answer.is_whole = Some(read_chunks(&mut bytes, &mut answer.body));
        } else if let Some(length) = length {
            let there = length.min(bytes.len());
            answer.body = bytes[..there].to_vec();
            answer.is_whole = Some(there == length);
            bytes = &bytes[there..];
        } else {
            answer.is_whole = None;
            answer.body = std::mem::take(&mut bytes).to_vec();
        }
        answers.push(answer);
    }
    answers
}

/// Whether they are all there.
fn read_chunks(bytes: &mut &[u8], body: &mut Vec<u8>) -> bool {
    loop {
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return false };
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.expect("a size");
        *bytes = &bytes[end + 2..];
        let there = size.min(bytes.len());
        body.extend_from_slice(&bytes[..there]);
        *bytes = &bytes[there..];
        let Some(after) = bytes.strip_prefix(b"\r\n") else {
            assert!(b"\r\n".starts_with(bytes), "no CRLF after a chunk");
            *bytes = b"";
            return false;
        };
        *bytes = after;
        if size == 0 {
            return true;
        }
    }
}

/// # Panics
/// If the answers are none to these requests.
pub fn check(requests: &[Request], answers: &[Answer], mode: Mode) {
    for (at, answer) in answers.iter().enumerate() {
        let is_last = at + 1 == answers.len();
        let request = requests.get(at).expect("an answer to what is no request");
        let Some(seen) = &answer.seen else {
            assert!(matches!(answer.status, 400 | 405 | 413 | 414 | 417 | 431 | 501), "failed");
            assert!(request.verdict != Verdict::Accept || request.end != End::Whole, "a good request was refused");
            assert!(is_last, "answered after a refusal");
            return;
        };
        assert_eq!(answer.status, 200);
        assert!(request.verdict != Verdict::Refuse, "a request that must be refused was not");
        request.was_seen(seen, mode);
        if mode == Mode::Echo {
            was_echoed(request, answer);
        }
        let ends = request.end != End::Whole
            || request.persists == Some(false)
            || answer.closes
            || answer.is_whole != Some(true);
        assert!(is_last || !ends, "answered after the end");
        if ends {
            return;
        }
    }
    let Some(next) = requests.get(answers.len()) else { return };
    let may_end = |last: &Request| mode == Mode::Ignore && last.has_body || last.persists.is_none();
    let was_left = answers.len().checked_sub(1).is_some_and(|last| may_end(&requests[last]));
    let must_answer = next.verdict == Verdict::Accept && next.end == End::Whole;
    assert!(!must_answer || was_left, "a good request was lost");
}

impl Request {
    fn was_seen(&self, seen: &[String], mode: Mode) {
        assert_eq!(unhex(&seen[0]), self.method);
        if self.is_plain_target {
            assert_eq!(unhex(&seen[1]), self.target);
        }
        let [_, _, end, body, trailers @ ..] = seen else {
            assert_ne!(mode, Mode::Read);
            return;
        };
        let body = unhex(body);
        match self.end {
            End::Whole => {
                assert_eq!((end.as_str(), &body), ("whole", &self.body));
                if let Some(expected) = &self.trailers {
                    let pair = |text: &String| text.split_once(':').map(|(name, value)| (unhex(name), unhex(value)));
                    let mut found: Vec<_> = trailers.iter().filter_map(pair).collect();
                    let mut expected = expected.clone();
                    // A map of fields keeps the order of those of one name only.
                    found.sort_by(|one, other| one.0.cmp(&other.0));
                    expected.sort_by(|one, other| one.0.cmp(&other.0));
                    assert_eq!(found, expected);
                }
            }
            End::Cut => {
                assert_eq!(end, "cut");
                assert!(self.body.starts_with(&body));
            }
            End::Malformed => panic!("a malformed body was taken for one"),
        }
    }
}

/// No echo of what is not whole may look whole.
fn was_echoed(request: &Request, answer: &Answer) {
    if request.method == b"HEAD" {
        return;
    }
    assert!(request.body.starts_with(&answer.body), "another body was echoed");
    let is_same = answer.is_whole != Some(false) && answer.body == request.body;
    match request.end {
        // What need not be accepted may show only when the head is out.
        End::Whole => assert!(is_same || request.verdict == Verdict::Either, "a whole body was cut"),
        End::Cut | End::Malformed => assert_ne!(answer.is_whole, Some(true), "a body that was cut looks whole"),
    }
}
