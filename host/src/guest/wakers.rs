//! All who wait for the same thing. A guest of WASI 0.3 may have several tasks that print, or read, at once.
//!
//! Used on the worker that runs the guest, and woken from anywhere. Nothing here blocks for longer than a list takes.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::{Wake, Waker},
};

/// More than the handles that a guest may have, each of which can wait for one thing.
const MOST: usize = 8 * 1024;

/// Those who wait. Who waits no longer stays in the list until the next time that all are woken.
#[derive(Default)]
pub(crate) struct Wakers(Vec<Waker>);

impl Wakers {
    pub(crate) fn add(&mut self, waker: &Waker) {
        if self.0.iter().any(|waiting| waiting.will_wake(waker)) {
            return;
        }
        if self.0.len() == MOST {
            self.take().wake();
        }
        self.0.push(waker.clone());
    }

    /// Those who wait, to be woken.
    pub(crate) fn take(&mut self) -> Self {
        mem::take(self)
    }

    pub(crate) fn wake(self) {
        for waker in self.0 {
            waker.wake();
        }
    }
}

/// One waker for all who wait, for what keeps but one.
#[derive(Default)]
pub(crate) struct Everyone(Mutex<Wakers>);

impl Everyone {
    pub(crate) fn add(&self, waker: &Waker) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(waker);
    }

    pub(crate) fn wake_all(&self) {
        let wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        wakers.wake();
    }
}

impl Wake for Everyone {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// How often it was woken.
    #[derive(Default)]
    pub(in crate::guest) struct Counts(pub(in crate::guest) AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn each_is_woken_once() {
        let everyone = Arc::<Everyone>::default();
        let counts: [Arc<Counts>; 2] = Default::default();
        for count in counts.iter().chain(&counts) {
            everyone.add(&Waker::from(Arc::clone(count)));
        }
        let waker = Waker::from(everyone);
        waker.wake_by_ref();
        waker.wake();
        assert_eq!(counts.map(|count| count.0.load(Ordering::SeqCst)), [1, 1]);
    }

    #[test]
    fn there_are_never_too_many() {
        let (mut wakers, first) = (Wakers::default(), Arc::<Counts>::default());
        wakers.add(&Waker::from(Arc::clone(&first)));
        let others: Vec<_> = (0..MOST).map(|_| Waker::from(Arc::<Counts>::default())).collect();
        others.iter().for_each(|waker| wakers.add(waker));
        assert_eq!((wakers.0.len(), first.0.load(Ordering::SeqCst)), (1, 1));
    }
}
