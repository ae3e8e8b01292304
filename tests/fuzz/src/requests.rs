//! Which requests bytes contain, and where each ends: a strict reading of RFC 9112, written for comparison and not for use. What the RFC
//! leaves to the recipient, or a server is free to be stricter in, is [`Verdict::Either`]: but when it is accepted, it has to be framed as it is here.

use std::fmt;

/// What a server has to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Accept,
    Either,
    /// Answer with an error, or nothing, and close.
    Refuse,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Whole,
    /// The bytes end before it does.
    Cut,
    /// It is no body; refused once that shows.
    Malformed,
}

pub struct Request {
    pub verdict: Verdict,
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    /// Others may be written in another way.
    pub is_plain_target: bool,
    /// Whether there is one to be read, even an empty one.
    pub has_body: bool,
    pub body: Vec<u8>,
    pub end: End,
    /// As sent; none if that is not for certain.
    pub trailers: Option<Vec<(Vec<u8>, Vec<u8>)>>,
    /// Whether another may follow; none if that is not for certain.
    pub persists: Option<bool>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, method, target, body, end, persists, .. } = self;
        let [method, target, body] = [method, target, body].map(|text| text.escape_ascii());
        write!(f, "{verdict:?} `{method} {target}` with `{body}` {end:?}, persists: {persists:?}")
    }
}

/// All up to the first that certainly ends the connection. The last may be incomplete in its head: then it is [`Verdict::Refuse`].
#[must_use]
pub fn read(bytes: &[u8]) -> Vec<Request> {
    let mut rest = Rest(bytes);
    let mut requests = Vec::new();
    while let Some(request) = read_one(&mut rest) {
        let goes_on =
            request.verdict != Verdict::Refuse && request.end == End::Whole && request.persists != Some(false);
        requests.push(request);
        if !goes_on {
            break;
        }
    }
    requests
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> Result<u8, End> {
        let (byte, rest) = self.0.split_first().ok_or(End::Cut)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn expect(&mut self, expected: u8) -> Result<(), End> {
        if self.byte()? == expected { Ok(()) } else { Err(End::Malformed) }
    }

    /// Up to a LF, without it and one CR before it, and whether that was there.
    fn line(&mut self) -> Option<(&'a [u8], bool)> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(line.strip_suffix(b"\r").map_or((line, false), |line| (line, true)))
    }
}

/// `None`: there is no more.
fn read_one(rest: &mut Rest<'_>) -> Option<Request> {
    let mut request = Request {
        verdict: Verdict::Accept,
        method: Vec::new(),
        target: Vec::new(),
        is_plain_target: false,
        has_body: false,
        body: Vec::new(),
        end: End::Whole,
        trailers: Some(Vec::new()),
        persists: Some(true),
    };
    let mut fields = Vec::new();
    let mut line = b"".as_slice();
    // Section 2.2: empty lines before a request are ignored; a bare LF may end a line.
    while line.is_empty() {
        if rest.0.is_empty() {
            return None;
        }
        let Some(next) = rest.line() else { return Some(refused(request)) };
        request.at_least(if next.1 { Verdict::Accept } else { Verdict::Either });
        line = next.0;
    }
    let Some(minor) = request.read_line(line) else { return Some(refused(request)) };
    loop {
        let Some((line, ends_with_crlf)) = rest.line() else { return Some(refused(request)) };
        request.at_least(if ends_with_crlf { Verdict::Accept } else { Verdict::Either });
        if line.is_empty() {
            break;
        }
        match field(line) {
            Some((name, value, verdict)) => {
                request.at_least(verdict);
                fields.push((name, value));
            }
            None => return Some(refused(request)),
        }
    }
    if fields.len() > 100 {
        request.at_least(Verdict::Either);
    }
    request.check_host(minor, &fields);
    request.persists = persists(minor, &fields);
    match request.framing(minor, &fields) {
        None => return Some(refused(request)),
        Some(Framing::Length(length)) => {
            request.has_body = length > 0;
            let there = usize::try_from(length).unwrap_or(usize::MAX).min(rest.0.len());
            if (there as u64) < length {
                request.end = End::Cut;
            }
            request.body = rest.0[..there].to_vec();
            rest.0 = &rest.0[there..];
        }
        Some(Framing::Chunked) => {
            request.has_body = true;
            if let Err(end) = request.read_chunks(rest) {
                request.end = end;
            }
        }
    }
    Some(request)
}

fn refused(mut request: Request) -> Request {
    request.verdict = Verdict::Refuse;
    request
}

enum Framing {
    Length(u64),
    Chunked,
}

impl Request {
    fn at_least(&mut self, verdict: Verdict) {
        self.verdict = self.verdict.max(verdict);
    }

    /// The minor version.
    fn read_line(&mut self, line: &[u8]) -> Option<u8> {
        let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let &[method, target, version] = &parts[..] else { return None };
        (self.method, self.target) = (method.to_vec(), target.to_vec());
        let minor = match version {
            b"HTTP/1.1" => 1,
            b"HTTP/1.0" => 0,
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9'] => {
                // As 1.1, or refused.
                self.at_least(Verdict::Either);
                1
            }
            _ => return None,
        };
        // A server need not have these two; this one must not.
        if !is_token(method) || method == b"CONNECT" || method == b"TRACE" {
            return None;
        }
        if target.is_empty() || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
            return None;
        }
        match target {
            b"*" if method == b"OPTIONS" => self.is_plain_target = true,
            [b'/', path @ ..] if path.iter().all(|byte| is_in_path(*byte)) => self.is_plain_target = true,
            [b'/', ..] => self.at_least(Verdict::Either),
            _ if has_scheme(target) => self.at_least(Verdict::Either),
            _ => return None,
        }
        Some(minor)
    }

    /// Section 3.2: exactly one in HTTP/1.1, never two, and a valid one.
    fn check_host(&mut self, minor: u8, fields: &[(&[u8], &[u8])]) {
        let hosts: Vec<_> = values(fields, b"host").collect();
        match (&hosts[..], minor) {
            ([], 0) => {}
            ([host], _) => {
                let name = host.iter().position(|byte| *byte == b':').unwrap_or(host.len());
                let port = host.get(name + 1..).unwrap_or_default();
                let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
                let is_hopeless = |byte: &u8| !byte.is_ascii_graphic() || b"@/?#\\\"<>^`{|}".contains(byte);
                if host.iter().any(is_hopeless) {
                    self.at_least(Verdict::Refuse);
                } else if name == 0
                    || !host[..name].iter().all(is_plain)
                    || port.len() > 4
                    || !port.iter().all(u8::is_ascii_digit)
                {
                    self.at_least(Verdict::Either);
                }
            }
            _ => self.at_least(Verdict::Refuse),
        }
    }

    /// Section 6.3; none if it has to be refused.
    fn framing(&mut self, minor: u8, fields: &[(&[u8], &[u8])]) -> Option<Framing> {
        let lengths: Vec<&[u8]> = values(fields, b"content-length").collect();
        let codings: Vec<&[u8]> = values(fields, b"transfer-encoding").collect();
        if !codings.is_empty() {
            let elements: Vec<&[u8]> = codings.iter().flat_map(|value| elements(value)).collect();
            let named: Vec<&[u8]> = elements.iter().copied().filter(|coding| !coding.is_empty()).collect();
            if minor == 0 || !matches!(&named[..], [only] if only.eq_ignore_ascii_case(b"chunked")) {
                return None;
            }
            if elements.len() > 1 {
                self.at_least(Verdict::Either);
            }
            if !lengths.is_empty() {
                self.at_least(Verdict::Either);
                self.persists = Some(false);
            }
            return Some(Framing::Chunked);
        }
        if lengths.len() > 1 || lengths.iter().any(|length| length.contains(&b',')) {
            self.at_least(Verdict::Either);
        }
        let mut numbers = lengths.iter().flat_map(|value| elements(value)).map(|digits| {
            let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            is_number.then(|| {
                digits.iter().fold(0_u128, |number, digit| (number * 10 + u128::from(digit - b'0')).min(1 << 100))
            })
        });
        let Some(first) = numbers.next() else { return Some(Framing::Length(0)) };
        let first = first?;
        if !numbers.all(|number| number == Some(first)) {
            return None;
        }
        if first >= u128::from(u64::MAX) - 1 {
            self.at_least(Verdict::Either);
        }
        Some(Framing::Length(first.try_into().unwrap_or(u64::MAX)))
    }

    /// Section 7.1.
    fn read_chunks(&mut self, rest: &mut Rest<'_>) -> Result<(), End> {
        loop {
            let mut size = 0_u64;
            let mut digits = 0;
            let mut next = rest.byte()?;
            while let Some(digit) = char::from(next).to_digit(16) {
                size = size.checked_mul(16).ok_or(End::Malformed)? + u64::from(digit);
                digits += 1;
                next = rest.byte()?;
            }
            if digits == 0 {
                return Err(End::Malformed);
            }
            while matches!(next, b' ' | b'\t') {
                // It belongs before a `;`, which is not there to be looked at yet.
                self.at_least(Verdict::Either);
                next = rest.byte()?;
            }
            if next == b';' {
                while next != b'\r' {
                    match next {
                        b'\n' => return Err(End::Malformed),
                        byte if byte < b' ' => self.at_least(Verdict::Either),
                        // Neither names nor quotes are looked at: a CR ends them all.
                        _ => {}
                    }
                    next = rest.byte()?;
                }
            }
            if next != b'\r' {
                return Err(End::Malformed);
            }
            rest.expect(b'\n')?;
            if size == 0 {
                return self.read_trailers(rest);
            }
            let there = usize::try_from(size).unwrap_or(usize::MAX).min(rest.0.len());
            self.body.extend_from_slice(&rest.0[..there]);
            rest.0 = &rest.0[there..];
            rest.expect(b'\r')?;
            rest.expect(b'\n')?;
        }
    }

    /// Section 7.1.2.
    fn read_trailers(&mut self, rest: &mut Rest<'_>) -> Result<(), End> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            loop {
                match rest.byte()? {
                    b'\r' => break,
                    byte => line.push(byte),
                }
            }
            rest.expect(b'\n')?;
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        for line in &lines {
            // hyper's parser of fields and its search for their end differ in whether it ends a line; that loses requests, but makes none up.
            if line.contains(&b'\n') {
                self.at_least(Verdict::Either);
                self.trailers = None;
                return Ok(());
            }
        }
        if lines.len() > 100 {
            self.at_least(Verdict::Either);
        }
        for line in lines {
            let (name, value, verdict) = field(&line).ok_or(End::Malformed)?;
            self.at_least(verdict);
            self.trailers.iter_mut().for_each(|trailers| trailers.push((name.to_ascii_lowercase(), value.to_vec())));
        }
        Ok(())
    }
}

/// Section 5: name and value; none if it is no field line.
fn field(line: &[u8]) -> Option<(&[u8], &[u8], Verdict)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
    if !is_token(name) || value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return None;
    }
    let has_controls = value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    Some((name, value, if has_controls { Verdict::Either } else { Verdict::Accept }))
}

/// Section 9.3.
fn persists(minor: u8, fields: &[(&[u8], &[u8])]) -> Option<bool> {
    let options: Vec<&[u8]> =
        values(fields, b"connection").flat_map(elements).filter(|option| !option.is_empty()).collect();
    let has = |option: &[u8]| options.iter().any(|other| other.eq_ignore_ascii_case(option));
    if options.iter().any(|option| !is_token(option)) {
        return None;
    }
    Some(!has(b"close") && (minor == 1 || has(b"keep-alive")))
}

fn values<'a>(fields: &'a [(&[u8], &[u8])], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1)
}

/// Of a list.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn is_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?".contains(&byte)
}

fn has_scheme(target: &[u8]) -> bool {
    let at = target.windows(3).position(|three| three == b"://");
    at.is_some_and(|at| at > 0 && target[..at].iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)))
}
