//! What becomes of a connection's answers, for those who want to be told. On HTTP/1 hyper lets go of a body before it has written the last of
//! it, so that is told at its next flush, or when the connection is gone. On HTTP/2 it is told when h2 has let go, once h2 holds no locks.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::slot::Gone;
use crate::sync::lock;

/// Told what became of an answer, see [`Responder::send_and_tell`](crate::Responder::send_and_tell).
pub type Told = Box<dyn FnOnce(Result<u64, Cut>) + Send>;

/// An answer that did not go out whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// About so many bytes of its body have gone out.
    pub bytes: u64,
    /// Whose doing it was; of a body that has ended with an error, `Left`.
    pub why: Gone,
}

/// An answer of HTTP/1 of which hyper has taken all that it will, and not yet written it.
struct Unwritten {
    told: Told,
    length: u64,
    /// Why hyper did not take all of it.
    cut: Option<Gone>,
    /// What `taken` was at its end.
    end: u64,
}

/// Of a body of which hyper has taken so much, and written that.
pub(crate) fn as_taken(bytes: u64, cut: Option<Gone>) -> Result<u64, Cut> {
    cut.map_or(Ok(bytes), |why| Err(Cut { bytes, why }))
}

/// Those of one connection. Relaxed: whoever polls the connection is the one who writes, or looks again at its end.
#[derive(Default)]
pub(crate) struct Answers {
    /// Bytes of bodies that hyper has taken so far.
    taken: AtomicU64,
    /// Bytes written that were no bodies (heads, chunk sizes), as of the last flush.
    framing: AtomicU64,
    unwritten: Mutex<Vec<Unwritten>>,
    has_unwritten: AtomicBool,
    /// What became of answers of HTTP/2.
    let_go: Mutex<Vec<(Told, Result<u64, Cut>)>>,
    has_let_go: AtomicBool,
}

impl Answers {
    /// hyper has taken so many bytes of a body.
    pub(crate) fn took(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// hyper has let go of a body of HTTP/1 of which it had taken `length` bytes, and if those were not all, for this reason.
    pub(crate) fn ended(&self, told: Told, length: u64, cut: Option<Gone>) {
        let end = self.taken.load(Ordering::Relaxed);
        lock(&self.unwritten).push(Unwritten { told, length, cut, end });
        self.has_unwritten.store(true, Ordering::Relaxed);
    }

    /// h2 has let go of an answer. That is told when the connection has run: h2 holds locks now, and what is called is code of others.
    pub(crate) fn let_go(&self, told: Told, length: u64, cut: Option<Gone>) {
        lock(&self.let_go).push((told, as_taken(length, cut)));
        self.has_let_go.store(true, Ordering::Relaxed);
    }

    /// The connection has run.
    pub(crate) fn tell_let_go(&self) {
        if self.has_let_go.load(Ordering::Relaxed) {
            self.has_let_go.store(false, Ordering::Relaxed);
            let let_go = std::mem::take(&mut *lock(&self.let_go));
            for (told, became) in let_go {
                told(became);
            }
        }
    }

    /// hyper has written all that it had taken, which makes `written` bytes so far.
    pub(crate) fn flushed(&self, written: u64) {
        self.framing.store(written.wrapping_sub(self.taken.load(Ordering::Relaxed)), Ordering::Relaxed);
        if self.has_unwritten.load(Ordering::Relaxed) {
            self.has_unwritten.store(false, Ordering::Relaxed);
            self.tell(|answer| as_taken(answer.length, answer.cut));
        }
    }

    /// hyper's connection is gone, and with it what is not among the `written` bytes; `why`, unless it was let go of for another reason.
    pub(crate) fn lost(&self, written: u64, why: Gone) {
        let written = written.wrapping_sub(self.framing.load(Ordering::Relaxed));
        self.tell(|answer| {
            let bytes = answer.length.saturating_sub(answer.end.saturating_sub(written));
            Err(Cut { bytes, why: answer.cut.unwrap_or(why) })
        });
        self.tell_let_go();
    }

    /// Tells what became of the answers that were not written until now. Not under the lock: what is called is code of others.
    fn tell(&self, became: impl Fn(&Unwritten) -> Result<u64, Cut>) {
        let unwritten = std::mem::take(&mut *lock(&self.unwritten));
        for answer in unwritten {
            let became = became(&answer);
            (answer.told)(became);
        }
    }
}
