//! Log lines: whatever clients, guests and operators put into them, each stays one line that can be taken apart again, and moves no terminal's
//! cursor. The parts are separated by lines of `--`.

#![no_main]

use astra_host::{fuzzing, log_line::LogFormat};
use serde_json::Value;

/// Access lines have no more bytes of what a client may choose.
const CUT: usize = 1024;

/// What ends lines, commands terminals or reorders text (Unicode's `Bidi_Control` among others).
fn is_harmful(c: char) -> bool {
    c.is_control() && c != '\t'
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn words(line: &str) -> usize {
    assert!(!line.contains(is_harmful), "{line:?}");
    line.split(char::is_whitespace).count()
}

fn json(line: &str, expected: &[(&str, &str)]) {
    assert!(!line.contains('\n'));
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    for (key, text) in expected {
        let found = value[*key].as_str().expect("a text");
        let is_cut = found.strip_suffix('…').is_some_and(|start| start.len() >= CUT - 3 && text.starts_with(start));
        assert!(found == *text || text.len() > CUT && is_cut, "{key}: {found:?}");
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut parts = text.split("\n--\n");
    let mut next = || parts.next().unwrap_or_default();
    let (handler, path, client_id, said) = (next(), next(), next(), next());
    let line = fuzzing::access_line(LogFormat::Text, handler, Some(client_id), "GET", path);
    assert_eq!(words(&line), 17, "{line:?}");
    json(
        &fuzzing::access_line(LogFormat::Json, handler, Some(client_id), "GET", path),
        &[("handler", handler), ("path", path), ("client_id", client_id)],
    );
    let line = fuzzing::guest_line(LogFormat::Text, handler, said);
    words(&line);
    assert_eq!(line.split(' ').take_while(|word| *word != "stdout:").count(), 4, "{line:?}");
    json(&fuzzing::guest_line(LogFormat::Json, handler, said), &[("handler", handler), ("text", said)]);
    words(&fuzzing::host_line(LogFormat::Text, "target", said));
    json(&fuzzing::host_line(LogFormat::Json, path, said), &[("target", path), ("message", said)]);
});
