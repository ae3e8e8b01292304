//! The linear memories of guests: where they come from, and how one is made fresh for the next guest.
//!
//! wasmtime asks [`Memories`] for each memory that it makes, on the worker that makes the instance, and drops it there when the guest has
//! ended. Each module has [`Slots`] of its own, which know what its memory starts with (`image.rs`): a slot never goes from one module to another, so
//! it only has to be made what it was, which is done when it comes back (`slot.rs`). Free slots keep what their guests have written to, up
//! to a tenth of what all guests may have. wasmtime's own pool would copy back all of a memory, or ask the kernel in a way that misses
//! pages that are being moved or swapped out (bytecodealliance/wasmtime#14357).

use std::{
    cell::Cell,
    io, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use wasmtime::{LinearMemory, MemoryCreator, MemoryType, Result};

mod data_segments;
mod image;
mod page_map;
mod slot;

use data_segments::InitialMemory;
pub(crate) use data_segments::split;
use image::Image;
use page_map::PageMap;
use slot::Slot;

/// What wasmtime is told when there is no memory for a memory; it takes nothing but text.
pub(crate) const NO_MEMORY: &str = "no memory for a linear memory";

/// Whether the kernel tells what was written.
pub(crate) fn can_scan() -> bool {
    PageMap::open().is_some()
}

/// Most bytes that a slot keeps between two guests. What is more is given back, which costs the next guest a page fault a page.
const MOST_KEPT_EACH: usize = 16 << 20;

thread_local! {
    /// Whose memory is asked for next on this thread.
    static NEXT: Cell<Option<Arc<Slots>>> = const { Cell::new(None) };
}

/// The memories of all guests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Memories {
    host: Arc<Host>,
    /// For memories that no image is known of: of precompiled modules, or of guests with more than one.
    blank: Arc<Slots>,
}

/// What all slots share.
struct Host {
    pages: Option<PageMap>,
    /// Bytes that all free slots may keep, and each.
    most_kept: usize,
    most_kept_each: usize,
    /// Bytes that they keep now. Changed by whoever takes or brings a slot.
    kept: AtomicUsize,
    modules: Mutex<Vec<Weak<Slots>>>,
}

/// The slots of one module that no guest has.
pub(crate) struct Slots {
    host: Arc<Host>,
    image: Option<Image>,
    free: Mutex<Vec<Slot>>,
}

impl Memories {
    /// `budget` is what all guests may have, in bytes. With `scan` the kernel is asked what was written, if it can tell.
    pub(crate) fn new(budget: u64, scan: bool) -> Self {
        let most_kept = usize::try_from(budget / 10).unwrap_or(usize::MAX);
        let host = Arc::new(Host {
            pages: if scan { PageMap::open() } else { None },
            most_kept,
            most_kept_each: MOST_KEPT_EACH.min(most_kept / 8),
            kept: AtomicUsize::new(0),
            modules: Mutex::default(),
        });
        let blank = Slots::new(&host, None);
        Self { host, blank }
    }

    /// Slots for a module whose instances' memory starts like this.
    ///
    /// # Errors
    /// There is no memory for its image.
    pub(crate) fn of_module(&self, memory: &InitialMemory<'_>) -> io::Result<Arc<Slots>> {
        Ok(Slots::new(&self.host, Some(Image::new(memory)?)))
    }
}

#[allow(unsafe_code, reason = "wasmtime trusts it with what compiled code accesses without looking")]
// SAFETY: a memory is a slot, which nobody else has until it is dropped: so many bytes reserved as asked for, with guards around them that are never
// accessible. Its contents are zero but for what the module says itself.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let slots = NEXT.take().unwrap_or_else(|| Arc::clone(&self.blank));
        // Without a reservation there would have to be room for any memory, which no limit of ours allows.
        let reserved = reserved.ok_or("memories need a reservation")?;
        match slots.take(minimum, reserved, guard) {
            Ok(slot) => Ok(Box::new(GuestMemory { slot: Some(slot), size: minimum, slots })),
            Err(_) => Err(NO_MEMORY.to_owned()),
        }
    }
}

impl Slots {
    fn new(host: &Arc<Host>, image: Option<Image>) -> Arc<Self> {
        let slots = Arc::new(Self { host: Arc::clone(host), image, free: Mutex::default() });
        let mut modules = host.modules();
        modules.retain(|module| module.strong_count() > 0);
        modules.push(Arc::downgrade(&slots));
        slots
    }

    /// Runs `instantiate`; the first memory that it makes on this thread is the one that the image is of.
    pub(crate) fn during<R>(slots: Option<&Arc<Self>>, instantiate: impl FnOnce() -> R) -> R {
        NEXT.set(slots.cloned());
        let instantiated = instantiate();
        NEXT.set(None);
        instantiated
    }

    fn take(&self, size: usize, reserved: usize, guard: usize) -> io::Result<Slot> {
        let free = self.free().pop();
        // Relaxed: nothing else is published with the number, here and below.
        self.host.kept.fetch_sub(free.as_ref().map_or(0, Slot::kept), Ordering::Relaxed);
        let new = || Slot::new(self.image.as_ref(), reserved, guard);
        // All engines reserve the same. If one did not, its memories would not fit the code.
        let mut slot = match free.filter(|slot| slot.is_of(reserved, guard)) {
            Some(slot) => slot,
            None => new().or_else(|_| {
                self.host.give_up_free();
                new()
            })?,
        };
        slot.resize(size)?;
        Ok(slot)
    }

    fn bring_back(&self, mut slot: Slot) {
        if let Err(error) = slot.reset(self.image.as_ref(), self.host.pages.as_ref(), self.host.most_kept_each) {
            // What could not be made fresh is not used any more.
            return log::warn!("a guest's memory is given back whole: {error}");
        }
        let kept = self.host.kept.fetch_add(slot.kept(), Ordering::Relaxed) + slot.kept();
        self.free().push(slot);
        if kept > self.host.most_kept {
            self.host.give_up_free();
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let kept: usize = self.free().iter().map(Slot::kept).sum();
        self.host.kept.fetch_sub(kept, Ordering::Relaxed);
    }
}

impl Host {
    /// Gives back all slots that no guest has.
    fn give_up_free(&self) {
        let modules: Vec<_> = self.modules().iter().filter_map(Weak::upgrade).collect();
        for module in modules {
            let free = mem::take(&mut *module.free());
            self.kept.fetch_sub(free.iter().map(Slot::kept).sum(), Ordering::Relaxed);
        }
    }

    fn modules(&self) -> MutexGuard<'_, Vec<Weak<Slots>>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest's linear memory. Goes back to where it came from when it is dropped.
struct GuestMemory {
    /// There until then.
    slot: Option<Slot>,
    size: usize,
    slots: Arc<Slots>,
}

impl GuestMemory {
    fn slot(&self) -> &Slot {
        // Only `drop` takes it.
        self.slot.as_ref().unwrap_or_else(|| unreachable!("a memory has its slot until it is dropped"))
    }
}

#[allow(unsafe_code, reason = "wasmtime trusts it with what compiled code accesses without looking")]
// SAFETY: see `Memories`; the memory begins and ends at pages, and does not move.
unsafe impl LinearMemory for GuestMemory {
    fn byte_size(&self) -> usize {
        self.size
    }

    fn byte_capacity(&self) -> usize {
        self.slot().reserved()
    }

    fn grow_to(&mut self, size: usize) -> Result<()> {
        if let Some(slot) = &mut self.slot {
            slot.resize(size)?;
        }
        self.size = size;
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.slot().base()
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.slots.bring_back(slot);
        }
    }
}

#[cfg(test)]
mod tests;
