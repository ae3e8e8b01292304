//! The linear memories of guests: where they come from, and how one is made fresh for the next guest.
//!
//! wasmtime asks [`Memories`] for each memory that it makes, on the worker that makes the instance, and drops it there when the guest has
//! ended. Each module has slots of its own ([`ModuleMemories`]), which know what its memory starts with (`image.rs`): a slot never goes from
//! one module to another, so it only has to be made what it was, which is done when it comes back (`slot.rs`). Free slots keep what their
//! guests have written to, up to a tenth of what all guests may have. wasmtime's own pool would copy back all of a memory, or ask the
//! kernel in a way that misses pages that are being moved or swapped out (bytecodealliance/wasmtime#14357).

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
pub(crate) use data_segments::{Split, split};
use image::Image;
pub(crate) use page_map::PageMap;
use slot::Slot;

/// What wasmtime is told when there is no memory for a memory; it takes nothing but text.
pub(crate) const NO_MEMORY: &str = "no memory for a linear memory";

/// Most bytes that a slot keeps between two guests. What is more is given back, which costs the next guest a page fault a page.
const MOST_KEPT_EACH: usize = 16 << 20;

/// Most slots that no guest has. Each is some mappings, of which Linux lets a process have 65,530.
const MOST_FREE: usize = 4096;

thread_local! {
    /// Whose memories are asked for next on this thread.
    static NEXT: Cell<Option<ModuleMemories>> = const { Cell::new(None) };
}

/// The memories of all guests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Memories(Arc<Host>);

/// What all slots share.
struct Host {
    pages: Option<PageMap>,
    /// Bytes that all free slots may keep, and each.
    most_kept: usize,
    most_kept_each: usize,
    kept: Kept,
    slots: Mutex<Vec<Weak<Slots>>>,
}

/// What all free slots are and keep now. Changed by whoever takes or brings one; relaxed, since nothing else is published with the numbers.
#[derive(Default)]
struct Kept {
    slots: AtomicUsize,
    bytes: AtomicUsize,
}

impl Kept {
    fn add(&self, slot: &Slot) {
        self.slots.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(slot.kept(), Ordering::Relaxed);
    }

    fn remove(&self, slot: &Slot) {
        self.slots.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(slot.kept(), Ordering::Relaxed);
    }
}

/// The memories of one module's instances. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ModuleMemories {
    /// For the first memory of an instance, if it is known what that starts with.
    first: Option<Arc<Slots>>,
    /// For all others, which start with zeros.
    others: Arc<Slots>,
}

/// Slots with the same contents, and those of them that no guest has.
struct Slots {
    host: Arc<Host>,
    image: Option<Image>,
    free: Mutex<Vec<Slot>>,
}

impl Memories {
    /// `budget` is what all guests may have, in bytes. Without `pages` all of a memory is copied back.
    pub(crate) fn new(budget: u64, pages: Option<PageMap>) -> Self {
        let most_kept = usize::try_from(budget / 10).unwrap_or(usize::MAX);
        Self(Arc::new(Host {
            pages,
            most_kept,
            most_kept_each: MOST_KEPT_EACH.min(most_kept / 8),
            kept: Kept::default(),
            slots: Mutex::default(),
        }))
    }

    /// Memories for a module, the first of which starts like this, if that is known.
    ///
    /// # Errors
    /// There is no memory for its image.
    pub(crate) fn of_module(&self, first: Option<&InitialMemory<'_>>) -> io::Result<ModuleMemories> {
        let image = first.map(Image::new).transpose()?;
        let first = image.map(|image| Slots::new(&self.0, Some(image)));
        Ok(ModuleMemories { first, others: Slots::new(&self.0, None) })
    }
}

#[allow(unsafe_code, reason = "wasmtime trusts it with what compiled code accesses without looking")]
// SAFETY: a memory is a slot, which nobody else has until it is dropped: so many bytes reserved as asked for, with guards around them that
// are never accessible. Its contents are zero but for what the module says itself.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let mut module = NEXT.take().ok_or("instances are made within `ModuleMemories::during`")?;
        let slots = module.first.take().unwrap_or_else(|| Arc::clone(&module.others));
        NEXT.set(Some(module));
        // Without a reservation there would have to be room for any memory, which no limit of ours allows.
        let reserved = reserved.ok_or("memories need a reservation")?;
        match slots.take(minimum, reserved, guard) {
            Ok(slot) => Ok(Box::new(GuestMemory { slot: Some(slot), size: minimum, slots })),
            Err(_) => Err(NO_MEMORY.to_owned()),
        }
    }
}

impl ModuleMemories {
    /// Runs `instantiate`, which makes an instance of this module on this thread, and no other.
    pub(crate) fn during<R>(&self, instantiate: impl FnOnce() -> R) -> R {
        /// Also when it panics: a module that is gone is kept by nobody.
        struct End;
        impl Drop for End {
            fn drop(&mut self) {
                NEXT.set(None);
            }
        }
        NEXT.set(Some(self.clone()));
        let _end = End;
        instantiate()
    }
}

impl Slots {
    fn new(host: &Arc<Host>, image: Option<Image>) -> Arc<Self> {
        let slots = Arc::new(Self { host: Arc::clone(host), image, free: Mutex::default() });
        let mut all = host.slots();
        all.retain(|slots| slots.strong_count() > 0);
        all.push(Arc::downgrade(&slots));
        slots
    }

    fn take(&self, size: usize, reserved: usize, guard: usize) -> io::Result<Slot> {
        let free = self.free().pop().inspect(|slot| self.host.kept.remove(slot));
        // All engines reserve the same. If one did not, its memories would not fit the code.
        let mut slot = match free.filter(|slot| slot.is_of(reserved, guard)) {
            Some(slot) => slot,
            None => self.host.or_without_free(|| Slot::new(self.image.as_ref(), reserved, guard))?,
        };
        self.host.or_without_free(|| slot.begin(size))?;
        Ok(slot)
    }

    fn bring_back(&self, mut slot: Slot) {
        if let Err(error) = slot.reset(self.image.as_ref(), self.host.pages.as_ref(), self.host.most_kept_each) {
            // What could not be made fresh is not used any more.
            return log::warn!("a guest's memory is given back whole: {error}");
        }
        self.host.kept.add(&slot);
        self.free().push(slot);
        if self.host.keeps_too_much() {
            self.host.give_up_free();
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.free().iter().for_each(|slot| self.host.kept.remove(slot));
    }
}

impl Host {
    fn keeps_too_much(&self) -> bool {
        self.kept.bytes.load(Ordering::Relaxed) > self.most_kept || self.kept.slots.load(Ordering::Relaxed) > MOST_FREE
    }

    /// Tries it again without the slots that no guest has, if there is no memory for it with them.
    fn or_without_free<T>(&self, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        attempt().or_else(|_| {
            self.give_up_free();
            attempt()
        })
    }

    /// Gives back all slots that no guest has.
    fn give_up_free(&self) {
        let all: Vec<_> = self.slots().iter().filter_map(Weak::upgrade).collect();
        for slots in all {
            let free = mem::take(&mut *slots.free());
            free.iter().for_each(|slot| self.kept.remove(slot));
        }
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Weak<Slots>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
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
            self.slots.host.or_without_free(|| slot.resize(size))?;
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
