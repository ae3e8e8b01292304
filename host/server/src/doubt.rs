//! Whether what follows a request on HTTP/1 is one. A chunked body ends with an empty line, behind its trailers if it has any. With a bare LF for
//! that line hyper takes what follows for trailers too, up to the next empty line, and no word of it is left: a request could be lost there, and the
//! answer to the next one be taken for its. So where lines end with bare LFs, a connection ends with a request that has trailers.
//!
//! What a body's reader learns it learns on another thread, perhaps too late for the connection: whoever makes a request of what comes next asks
//! again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Written and read by the runner of the connection and by the readers of its bodies. Relaxed: each stands for itself, and who asks last does so
/// behind the locks that hand a body's parts over.
#[derive(Default)]
pub(crate) struct Doubt {
    /// A line has ended with LF alone, or a body had one: there is no telling here.
    bare_lf: AtomicBool,
    /// The number of the last request with a chunked body, until somebody has seen that end as it should; then 0.
    open: AtomicU64,
    /// The connection may end at once, but for the answer.
    certain: AtomicBool,
    /// What came since is not answered.
    refuses: AtomicBool,
}

impl Doubt {
    /// The chunked body of a request begins; requests are numbered from 1.
    pub(crate) fn begin(&self, request: u64) {
        self.open.store(request, Ordering::Relaxed);
    }

    pub(crate) fn note_bare_lf(&self) {
        self.bare_lf.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_bare_lf(&self) -> bool {
        self.bare_lf.load(Ordering::Relaxed)
    }

    /// The body of that request has been seen to its end, perhaps more than once: behind trailers hyper says again that it has ended. (If another
    /// follows already, all has been said.)
    pub(crate) fn end(&self, request: u64, has_trailers: bool) {
        if has_trailers && self.has_bare_lf() {
            self.leave(request);
        } else {
            let _ = self.open.compare_exchange(request, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Nobody reads that body any more, and whether it has trailers is not known.
    pub(crate) fn leave(&self, request: u64) {
        if self.open.load(Ordering::Relaxed) == request && self.has_bare_lf() {
            self.certain.store(true, Ordering::Relaxed);
        }
    }

    /// The connection ends with the answer that is under way.
    pub(crate) fn is_certain(&self) -> bool {
        self.certain.load(Ordering::Relaxed)
    }

    /// Whether to make no request of what has come, and no more of what comes.
    pub(crate) fn refuses_next(&self) -> bool {
        let refuses = self.is_certain() || (self.open.load(Ordering::Relaxed) != 0 && self.has_bare_lf());
        if refuses {
            self.refuses.store(true, Ordering::Relaxed);
        }
        refuses
    }

    pub(crate) fn has_refused(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }
}

/// Looks for LF without CR in front of it, in whatever pieces the bytes come.
#[derive(Default)]
pub(crate) struct LineEnds {
    last: u8,
}

impl LineEnds {
    /// Whether there is one in the next bytes.
    pub(crate) fn have_bare_lf(&mut self, bytes: &[u8]) -> bool {
        let Some(last) = bytes.last() else { return false };
        let first = std::mem::replace(&mut self.last, *last);
        let before = |at: usize| at.checked_sub(1).map_or(first, |at| bytes[at]);
        memchr::memchr_iter(b'\n', bytes).any(|at| before(at) != b'\r')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_lf_is_found_in_whatever_pieces_it_comes() {
        for (text, expected) in [
            ("", false),
            ("a\r\nb\r\n\r\n", false),
            ("a\r\nb\n", true),
            ("\n", true),
            ("a\r\r\n\n", true),
            ("\r\n\r\n", false),
        ] {
            assert_eq!(LineEnds::default().have_bare_lf(text.as_bytes()), expected, "{text:?}");
            let mut lines = LineEnds::default();
            let found = text.as_bytes().chunks(1).filter(|byte| lines.have_bare_lf(byte)).count();
            assert_eq!(found > 0, expected, "{text:?}, byte by byte");
        }
    }

    #[test]
    fn only_trailers_that_were_not_seen_or_not_trusted_leave_a_doubt() {
        let after = |bare_lf: bool, end: &dyn Fn(&Doubt)| {
            let doubt = Doubt::default();
            doubt.begin(1);
            if bare_lf {
                doubt.note_bare_lf();
            }
            end(&doubt);
            (doubt.is_certain(), doubt.refuses_next())
        };
        let ends: [&dyn Fn(&Doubt); 4] =
            [&|doubt| doubt.end(1, false), &|doubt| doubt.end(1, true), &|doubt| doubt.leave(1), &|_| ()];
        assert_eq!(ends.map(|end| after(false, end)), [(false, false); 4]);
        assert_eq!(ends.map(|end| after(true, end)), [(false, false), (true, true), (true, true), (false, true)]);
        assert!(!Doubt::default().refuses_next(), "there was no chunked body");
        let twice = |doubt: &Doubt| {
            doubt.end(1, true);
            doubt.end(1, false);
        };
        assert_eq!(after(true, &twice), (true, true), "what follows the trailers takes nothing back");
        let late = |doubt: &Doubt| {
            doubt.begin(2);
            doubt.end(1, false);
        };
        assert_eq!(after(true, &late), (false, true), "another body's end tells nothing");
    }
}
