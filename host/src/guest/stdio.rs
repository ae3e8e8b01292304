//! A guest's standard output and error, line by line.
//!
//! What a guest prints is cut into lines and given to the host's log, which adds the handler's name and the request's id: no
//! guest can write another one's line. A line is bounded; the last one needs no line end. Used by the worker that runs
//! the guest; nothing here blocks.

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
    /// One line, without its end; called on the worker that runs the guest, so it must not block. The text is the guest's:
    /// control characters are not escaped yet, invalid UTF-8 is replaced.
    fn line(&self, stream: Stream, line: &str);
}

/// One output stream of one request. Clones write to the same line.
#[derive(Clone)]
pub(crate) struct Lines {
    stream: Stream,
    output: Arc<dyn GuestOutput>,
    pending: Arc<Mutex<Vec<u8>>>,
}

impl Lines {
    pub(crate) fn new(stream: Stream, output: Arc<dyn GuestOutput>) -> Self {
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
        self.output.line(self.stream, &String::from_utf8_lossy(line));
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
    }

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let seen = Arc::new(Seen::default());
        let lines = Lines::new(Stream::Stdout, seen.clone());
        for piece in pieces {
            lines.write(piece);
        }
        lines.finish();
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
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(lines_of(&[b"\xff!\n"]), ["\u{fffd}!"]);
    }
}
