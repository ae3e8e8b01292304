//! What log lines look like: one line of text or one JSON object for each access, guest line and host record. Pure.
//!
//! Everything that a client or a guest can choose is escaped, so that neither can end its line and begin one of its own, or
//! send commands to a terminal.

use std::{
    borrow::Cow,
    fmt::{self, Display, Write},
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use crate::request_id::RequestId;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people: time, what it is, `key=value` pairs.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// What the access log says about one request. The time of its line is when the request had ended.
pub(crate) struct AccessLine<'a> {
    pub(crate) handler: &'a str,
    /// The number of the handler's revision; 0 when none was reached.
    pub(crate) revision: u32,
    pub(crate) id: RequestId,
    pub(crate) client_id: Option<&'a str>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// 0 when no head was sent.
    pub(crate) status: u16,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) queued: Duration,
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) peak_memory: u64,
    pub(crate) outcome: &'a str,
}

/// One line that a guest printed.
pub(crate) struct GuestLine<'a> {
    pub(crate) handler: &'a str,
    pub(crate) id: RequestId,
    pub(crate) stream: &'a str,
    pub(crate) text: &'a str,
}

/// Bytes that an access line has of what a client may choose.
const MOST: usize = 1024;

/// The text, or so much of it with a mark.
fn cut(text: &str) -> Cow<'_, str> {
    match text.len() {
        ..=MOST => Cow::Borrowed(text),
        _ => Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(MOST)])),
    }
}

// Writing to a `String` does not fail, so these functions drop the results of `write!`.
impl LogFormat {
    pub(crate) fn access_line(self, out: &mut String, access: &AccessLine<'_>) {
        let AccessLine { revision, id, status, bytes_in, bytes_out, peak_memory, outcome, .. } = access;
        let (method, path, client_id) = (cut(access.method), cut(access.path), access.client_id.map(cut));
        let time = now();
        // Printing a number of 128 bits takes as long as all the others.
        let short = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
        let [queued, wall, cpu] =
            [access.queued.as_millis(), access.wall.as_micros(), access.cpu.as_micros()].map(short);
        match self {
            Self::Text => {
                let (handler, path) = (Escaped::word(access.handler), Escaped::word(&path));
                let _ = write!(out, "{time} access id={id} peer=");
                let _ = match access.peer {
                    Some(peer) => write!(out, "{peer}"),
                    None => write!(out, "-"),
                };
                let _ = write!(
                    out,
                    " handler={handler} revision={revision} method={method} path={path} status={status} in={bytes_in} out={bytes_out} \
                     queue_ms={queued} wall_us={wall} cpu_us={cpu} memory={peak_memory} outcome={outcome}"
                );
                if let Some(client_id) = client_id {
                    let _ = write!(out, " client_id={}", Escaped::word(&client_id));
                }
            }
            Self::Json => {
                let (handler, path) = (Json(access.handler), Json(&path));
                let _ = write!(out, r#"{{"time":"{time}","kind":"access","id":"{id}","peer":"#);
                let _ = match access.peer {
                    Some(peer) => write!(out, "\"{peer}\""),
                    None => write!(out, "null"),
                };
                let _ = write!(
                    out,
                    r#","handler":{handler},"revision":{revision},"method":"{method}","path":{path},"status":{status},"bytes_in":{bytes_in},"bytes_out":{bytes_out},"queue_ms":{queued},"wall_us":{wall},"cpu_us":{cpu},"peak_memory":{peak_memory},"outcome":"{outcome}""#
                );
                if let Some(client_id) = client_id {
                    let _ = write!(out, r#","client_id":{}"#, Json(&client_id));
                }
                out.push('}');
            }
        }
    }

    pub(crate) fn guest_line(self, out: &mut String, line: &GuestLine<'_>) {
        let GuestLine { id, stream, .. } = line;
        let time = now();
        let _ = match self {
            Self::Text => {
                let (handler, text) = (Escaped::word(line.handler), Escaped::text(line.text));
                write!(out, "{time} guest id={id} handler={handler} {stream}: {text}")
            }
            Self::Json => {
                let (handler, text) = (Json(line.handler), Json(line.text));
                write!(
                    out,
                    r#"{{"time":"{time}","kind":"guest","id":"{id}","handler":{handler},"stream":"{stream}","text":{text}}}"#
                )
            }
        };
    }

    pub(crate) fn host_line(self, out: &mut String, level: log::Level, target: &str, message: &str) {
        let time = now();
        let _ = match self {
            Self::Text => write!(out, "{time} {} {target}: {}", Lower(level), Escaped::text(message)),
            Self::Json => write!(
                out,
                r#"{{"time":"{time}","kind":"host","level":"{}","target":{},"message":{}}}"#,
                Lower(level),
                Json(target),
                Json(message)
            ),
        };
    }
}

/// RFC 3339, UTC, milliseconds.
pub(crate) fn now() -> impl Display {
    humantime::format_rfc3339_millis(SystemTime::now())
}

struct Lower(log::Level);

impl Display for Lower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            log::Level::Error => "error",
            log::Level::Warn => "warn",
            log::Level::Info => "info",
            log::Level::Debug => "debug",
            log::Level::Trace => "trace",
        })
    }
}

/// Text in which nothing can end the line, move the cursor, reorder what stands before it or hide; as a word it has no white
/// space either, so that no other `key=value` can hide in it.
pub(crate) struct Escaped<'a> {
    text: &'a str,
    as_word: bool,
}

impl<'a> Escaped<'a> {
    pub(crate) fn text(text: &'a str) -> Self {
        Self { text, as_word: false }
    }

    pub(crate) fn word(text: &'a str) -> Self {
        Self { text, as_word: true }
    }

    fn is_harmless(&self, c: char) -> bool {
        match c {
            '\t' | ' ' => !self.as_word,
            '\u{20}'..='\u{7e}' => true,
            // Line and paragraph separators.
            '\u{2028}' | '\u{2029}' => false,
            // Joiners and variation selectors are invisible too, but emoji and some languages cannot be written without.
            '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' => !self.as_word,
            // Marks and overrides of writing direction, and the rest of what has no look of its own: Unicode's properties
            // `Bidi_Control` and `Default_Ignorable_Code_Point`.
            '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' => false,
            '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}' => false,
            '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}' => false,
            other => !(other.is_control() || self.as_word && other.is_whitespace()),
        }
    }
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.text;
        while let Some(at) = rest.find(|c| !self.is_harmless(c)) {
            f.write_str(&rest[..at])?;
            let mut chars = rest[at..].chars();
            match chars.next() {
                Some(c @ ('\t' | '\n' | '\r')) => write!(f, "{}", c.escape_default())?,
                Some(c) => write!(f, "{}", c.escape_unicode())?,
                None => {}
            }
            rest = chars.as_str();
        }
        f.write_str(rest)
    }
}

/// A JSON string. DEL and what [`Escaped`] escapes beyond JSON's own rules stays: programs do not mind.
struct Json<'a>(&'a str);

impl Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut rest = self.0;
        while let Some(at) = rest.find(|c| matches!(c, '"' | '\\' | '\u{0}'..='\u{1f}')) {
            f.write_str(&rest[..at])?;
            match rest.as_bytes()[at] {
                b'"' => f.write_str("\\\"")?,
                b'\\' => f.write_str("\\\\")?,
                b'\n' => f.write_str("\\n")?,
                b'\t' => f.write_str("\\t")?,
                control => write!(f, "\\u{control:04x}")?,
            }
            rest = &rest[at + 1..];
        }
        f.write_str(rest)?;
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_id::RequestIds;

    fn guest_line(format: LogFormat, text: &str) -> String {
        let mut line = String::new();
        let id = RequestIds::new().next();
        format.guest_line(&mut line, &GuestLine { handler: "hello", id, stream: "stdout", text });
        line
    }

    #[test]
    fn a_guest_cannot_begin_a_line_of_its_own() {
        let forged = "hi\r\n2026-01-01T00:00:00.000Z access id=1\u{1b}[2Jx\u{85}y\u{2028}z\u{202e}\0";
        let line = guest_line(LogFormat::Text, forged);
        assert!(line.chars().all(|c| !c.is_control() && !"\u{2028}\u{202e}".contains(c)), "{line}");
        let escaped = r"stdout: hi\r\n2026-01-01T00:00:00.000Z access id=1\u{1b}[2Jx\u{85}y\u{2028}z\u{202e}\u{0}";
        assert!(line.ends_with(escaped), "{line}");
    }

    #[test]
    fn nothing_in_a_line_is_invisible_or_changes_the_direction() {
        let line = guest_line(LogFormat::Text, "a\u{61c}b\u{200b}c\u{feff}d\u{ad}e\u{2060}f\u{e0041}g\u{2067}h");
        assert!(line.ends_with(r"stdout: a\u{61c}b\u{200b}c\u{feff}d\u{ad}e\u{2060}f\u{e0041}g\u{2067}h"), "{line}");
        assert_eq!(Escaped::text("👩\u{200d}💻❤\u{fe0f}").to_string(), "👩\u{200d}💻❤\u{fe0f}");
        assert_eq!(Escaped::word("a\u{200d}b\u{fe0f}").to_string(), r"a\u{200d}b\u{fe0f}");
    }

    #[test]
    fn what_a_client_chooses_is_cut_and_marked() {
        let access = AccessLine {
            handler: "hello",
            revision: 1,
            id: RequestIds::new().next(),
            client_id: Some(&"i".repeat(MOST + 1)),
            peer: None,
            method: &"M".repeat(60_000),
            // The cut is in the middle of a character.
            path: &format!("/{}", "é".repeat(30_000)),
            status: 200,
            bytes_in: 0,
            bytes_out: 0,
            queued: Duration::ZERO,
            wall: Duration::ZERO,
            cpu: Duration::ZERO,
            peak_memory: 0,
            outcome: "ok",
        };
        let (mut text, mut json) = (String::new(), String::new());
        LogFormat::Text.access_line(&mut text, &access);
        assert!(text.len() < 4 * MOST, "{}", text.len());
        assert!(text.contains("é… status=200") && text.contains("M… path=/é") && text.ends_with("i…"), "{text}");
        LogFormat::Json.access_line(&mut json, &access);
        let value: serde_json::Value = serde_json::from_str(&json).expect("is JSON");
        assert_eq!(value["path"], format!("/{}…", "é".repeat(MOST / 2 - 1)));
        assert_eq!(value["method"], format!("{}…", "M".repeat(MOST)));
        assert_eq!(value["client_id"], format!("{}…", "i".repeat(MOST)));
        assert_eq!(value["status"], 200);
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        assert!(
            guest_line(LogFormat::Text, "Grüße,\twörld 🎉 \"quoted\" \\")
                .ends_with("stdout: Grüße,\twörld 🎉 \"quoted\" \\")
        );
    }

    #[test]
    fn json_lines_are_json_whatever_the_guest_prints() {
        let every_control: String = (0..0x20_u8).map(char::from).chain("\"\\é\u{7f}\u{2028}".chars()).collect();
        let line = guest_line(LogFormat::Json, &every_control);
        assert!(!line.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&line).expect("is JSON");
        assert_eq!(value["text"], every_control);
        assert_eq!(value["kind"], "guest");
    }

    #[test]
    fn access_lines_have_every_field_in_both_formats() {
        let id = RequestIds::new().next();
        let access = AccessLine {
            handler: "hello",
            revision: 8,
            id,
            client_id: Some("c-1"),
            peer: Some("127.0.0.1:4711".parse().expect("an address")),
            method: "GET",
            path: "/a b\"c",
            status: 200,
            bytes_in: 1,
            bytes_out: 12,
            queued: Duration::from_millis(3),
            wall: Duration::from_micros(345),
            cpu: Duration::from_micros(120),
            peak_memory: 1 << 20,
            outcome: "ok",
        };
        let mut text = String::new();
        LogFormat::Text.access_line(&mut text, &access);
        let expected = format!(
            " access id={id} peer=127.0.0.1:4711 handler=hello revision=8 method=GET path=/a\\u{{20}}b\"c status=200 in=1 out=12 \
             queue_ms=3 wall_us=345 cpu_us=120 memory=1048576 outcome=ok client_id=c-1"
        );
        assert!(text.ends_with(&expected), "{text}");

        let mut json = String::new();
        LogFormat::Json.access_line(&mut json, &access);
        let value: serde_json::Value = serde_json::from_str(&json).expect("is JSON");
        assert_eq!(value["id"], id.as_str());
        assert_eq!(value["path"], "/a b\"c");
        assert_eq!(value["peak_memory"], 1 << 20);
        assert_eq!(value["client_id"], "c-1");
        assert_eq!(value.as_object().expect("is an object").len(), 17);
    }
}
