//! A guest's standard output and error, line by line.
//!
//! What a guest prints is cut into lines and given to the host's log, which adds the handler's name and the request's
//! id: no guest can write another one's line. A line is bounded, and so is what a request may print in all; the last
//! line needs no line end. Used by the worker that runs the guest; nothing here blocks.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

/// Longer lines are cut here.
const MAX_LINE: usize = 8 * 1024;
/// What a guest may write at once.
const MAX_WRITE: usize = 64 * 1024;
/// What the lines of one request may come to.
const MAX_OUTPUT: usize = 1024 * 1024;
/// What a line counts for beside its text: in the log there is more of it.
const LINE: usize = 64;

/// One of a guest's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where the lines go that a guest prints.
pub trait GuestOutput: Send + Sync {
    /// One line, without its end; called on the worker that runs the guest, so it must not block. The text is the
    /// guest's: control characters are not escaped yet, invalid UTF-8 is replaced.
    fn line(&self, stream: Stream, line: &str);

    /// The request has ended, and so many lines of it, with so many bytes, came after the most that one may print.
    fn dropped(&self, lines: u64, bytes: u64);
}

/// Where the lines of one request go, of both streams: the first of them to the log.
pub(crate) struct Bounded {
    output: Arc<dyn GuestOutput>,
    count: Mutex<Count>,
}

#[derive(Default)]
struct Count {
    passed_on: usize,
    dropped_lines: u64,
    dropped_bytes: u64,
}

impl Bounded {
    pub(crate) fn new(output: Arc<dyn GuestOutput>) -> Self {
        Self { output, count: Mutex::default() }
    }

    fn line(&self, stream: Stream, line: &[u8]) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        // A line that is too much is the last one, however short those are that follow.
        if count.dropped_lines > 0 || count.passed_on + line.len() + LINE > MAX_OUTPUT {
            count.dropped_lines += 1;
            count.dropped_bytes += line.len() as u64;
            return;
        }
        count.passed_on += line.len() + LINE;
        drop(count);
        self.output.line(stream, &String::from_utf8_lossy(line));
    }

    /// The guest has ended.
    pub(crate) fn finish(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if count.dropped_lines > 0 {
            self.output.dropped(count.dropped_lines, count.dropped_bytes);
        }
    }
}

/// One output stream of one request. Clones write to the same line.
#[derive(Clone)]
pub(crate) struct Lines {
    stream: Stream,
    output: Arc<Bounded>,
    pending: Arc<Mutex<Vec<u8>>>,
}

impl Lines {
    pub(crate) fn new(stream: Stream, output: Arc<Bounded>) -> Self {
        Self { stream, output, pending: Arc::default() }
    }

    fn write(&self, mut bytes: &[u8]) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        while !bytes.is_empty() {
            let room = MAX_LINE - pending.len();
            let near = &bytes[..bytes.len().min(room)];
            match near.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    pending.extend_from_slice(&near[..end]);
                    bytes = &bytes[end + 1..];
                    self.emit(&mut pending);
                }
                None => {
                    pending.extend_from_slice(near);
                    bytes = &bytes[near.len()..];
                    if pending.len() == MAX_LINE {
                        self.emit(&mut pending);
                    }
                }
            }
        }
    }

    fn emit(&self, pending: &mut Vec<u8>) {
        let line = pending.strip_suffix(b"\r").unwrap_or(pending);
        self.output.line(self.stream, line);
        pending.clear();
    }

    /// The guest has ended: what it has printed last is a line too.
    pub(crate) fn finish(&self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if !pending.is_empty() {
            self.emit(&mut pending);
        }
    }
}

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        Lines::write(self, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE)
    }
}

/// For guests of WASI 0.3.
impl AsyncWrite for Lines {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Lines::write(&self, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);

    impl GuestOutput for Seen {
        fn line(&self, _stream: Stream, line: &str) {
            self.0.lock().expect("not poisoned").push(line.to_owned());
        }

        fn dropped(&self, lines: u64, bytes: u64) {
            self.0.lock().expect("not poisoned").push(format!("{lines} lines, {bytes} bytes"));
        }
    }

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let seen = Arc::new(Seen::default());
        let output = Arc::new(Bounded::new(seen.clone()));
        let lines = Lines::new(Stream::Stdout, Arc::clone(&output));
        for piece in pieces {
            lines.write(piece);
        }
        lines.finish();
        output.finish();
        let seen = seen.0.lock().expect("not poisoned");
        seen.clone()
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(lines_of(&[b"a", b"b\nc\r\n", b"\nlast"]), ["ab", "c", "", "last"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let lines = lines_of(&[&[b'x'; MAX_LINE + 10]]);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE, 10]);
    }

    #[test]
    fn what_is_too_much_is_dropped_and_counted() {
        let lines = lines_of(&[&b"\n".repeat(MAX_OUTPUT / LINE), b"one\nmore"]);
        assert_eq!(lines.len(), MAX_OUTPUT / LINE + 1);
        assert_eq!(lines.last().map(String::as_str), Some("2 lines, 7 bytes"));
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(lines_of(&[b"\xff!\n"]), ["\u{fffd}!"]);
    }
}
