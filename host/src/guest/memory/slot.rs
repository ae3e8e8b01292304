//! A place for one linear memory: as much address space as 32 bits reach, of which as much is accessible as the guest has.
//!
//! Between guests it is made what it was at the start, which is the boundary between them: the pages that were written are found
//! (`page_map.rs`) and have their first contents copied back. So they stay the process's own, and the next guest writes to them without a
//! page fault. Used by one thread at a time.

use std::{io, ops::Range, ptr};

use rustix::mm::{self, Advice, MapFlags, MprotectFlags, ProtFlags};
use rustix::param::page_size;

use super::{image::Image, page_map::PageMap};

/// So often pages are kept before all are given back once: those that only one guest of many has written are not copied back for ever.
const RENEWED: u32 = 256;

/// One linear memory's address space, and what is mapped there.
pub(crate) struct Slot {
    /// The first byte of the linear memory. Before it, and after what is reserved, is nothing that can be accessed.
    base: *mut u8,
    reserved: usize,
    guard: usize,
    /// Bytes from the first on that can be accessed. Whole pages.
    accessible: usize,
    /// Bytes of pages that are the process's own, at most.
    kept: usize,
    /// Guests that have had it.
    guests: u32,
}

// SAFETY: the address space is the slot's alone, and does not depend on the thread.
#[allow(unsafe_code, reason = "for a pointer to what only this has")]
unsafe impl Send for Slot {}
// SAFETY: as above; through a shared reference nothing is read or written.
#[allow(unsafe_code, reason = "for a pointer to what only this has")]
unsafe impl Sync for Slot {}

impl Slot {
    /// `reserved` and `guard` are whole pages.
    ///
    /// # Errors
    /// There is no address space, or no memory.
    pub(crate) fn new(image: Option<&Image>, reserved: usize, guard: usize) -> io::Result<Self> {
        let whole = reserved.checked_add(2 * guard).ok_or(rustix::io::Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses a place where nothing is.
        #[allow(unsafe_code, reason = "mmap")]
        let start = unsafe { mm::mmap_anonymous(ptr::null_mut(), whole, ProtFlags::empty(), flags) }?;
        let base = start.cast::<u8>().wrapping_add(guard);
        let mut slot = Self { base, reserved, guard, accessible: 0, kept: 0, guests: 0 };
        slot.lay_out(image)?;
        Ok(slot)
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    /// Whether it has so much address space, and such guards.
    pub(crate) fn is_of(&self, reserved: usize, guard: usize) -> bool {
        (self.reserved, self.guard) == (reserved, guard)
    }

    /// Bytes that it can have.
    pub(crate) fn reserved(&self) -> usize {
        self.reserved
    }

    /// Bytes of memory that it takes while no guest has it, at most.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    /// Makes exactly so many bytes accessible, and whole pages of them.
    ///
    /// # Errors
    /// There is no memory, or not so much address space. Nothing has changed then.
    pub(crate) fn resize(&mut self, bytes: usize) -> io::Result<()> {
        let wanted = bytes.checked_next_multiple_of(page_size()).filter(|wanted| *wanted <= self.reserved);
        let wanted = wanted.ok_or(rustix::io::Errno::NOMEM)?;
        let (from, to, access) = match wanted > self.accessible {
            true => (self.accessible, wanted, MprotectFlags::READ | MprotectFlags::WRITE),
            false => (wanted, self.accessible, MprotectFlags::empty()),
        };
        if from < to {
            // SAFETY: within the slot, which nobody else has. Nobody has references into its memory while it shrinks, which is
            // between guests.
            #[allow(unsafe_code, reason = "mprotect")]
            unsafe { mm::mprotect(self.at(from).cast(), to - from, access) }?;
        }
        self.accessible = wanted;
        Ok(())
    }

    /// Makes it what it was before the first guest. It keeps up to `most` bytes of memory for the next one; all that is accessible is
    /// copied back where the kernel does not tell what was written.
    ///
    /// # Errors
    /// Then it must not be used any more.
    pub(crate) fn reset(&mut self, image: Option<&Image>, pages: Option<&PageMap>, most: usize) -> io::Result<()> {
        self.guests = self.guests.wrapping_add(1);
        if self.guests.is_multiple_of(RENEWED) {
            return self.lay_out(image);
        }
        let base = self.base.addr();
        let mut kept = 0;
        match pages {
            Some(pages) => pages.written(base..base + self.accessible, |written| {
                kept += written.len();
                if kept <= most {
                    self.restore(written.start - base..written.end - base, image);
                }
            })?,
            None => {
                kept = self.accessible;
                if kept <= most {
                    self.restore(0..kept, image);
                }
            }
        }
        self.kept = kept;
        if kept > most { self.lay_out(image) } else { Ok(()) }
    }

    /// Maps all of it anew, and gives back what was there: zeros that are not accessible, and the image, which is.
    fn lay_out(&mut self, image: Option<&Image>) -> io::Result<()> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        if self.accessible > 0 {
            // SAFETY: within the slot, which no guest has now.
            #[allow(unsafe_code, reason = "mmap")]
            unsafe { mm::mmap_anonymous(self.base.cast(), self.accessible, ProtFlags::empty(), flags) }?;
        }
        (self.accessible, self.kept) = (0, 0);
        if cfg!(target_os = "linux") {
            // A huge page would be written as a whole for one byte, and copied back as a whole. Where there are none it is an error.
            // SAFETY: it changes nothing that can be seen.
            #[allow(unsafe_code, reason = "madvise")]
            let _ = unsafe { mm::madvise(self.base.cast(), self.reserved, Advice::LinuxNoHugepage) };
        }
        let Some(image) = image else { return Ok(()) };
        self.resize(image.size())?;
        if let Some((range, file)) = image.file() {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: the image is within its memory's first size, which has just been made accessible.
            #[allow(unsafe_code, reason = "mmap")]
            unsafe { mm::mmap(self.at(range.start).cast(), range.len(), access, flags, file, 0) }?;
        }
        Ok(())
    }

    /// Writes what stood between these two offsets at the start. They are accessible.
    fn restore(&self, range: Range<usize>, image: Option<&Image>) {
        let (place, bytes) = image.map_or((0..0, &[][..]), Image::bytes);
        // The image's part of the range, empty and within it if there is none; before and after it are zeros.
        let start = place.start.clamp(range.start, range.end);
        let end = place.end.clamp(start, range.end);
        // SAFETY: all three are within the range, which is accessible and which no guest has now. What is copied is within the image:
        // it is empty, or `start` is no less than its start and `end` no more than its end.
        #[allow(unsafe_code, reason = "memory that only this slot has")]
        unsafe {
            self.at(range.start).write_bytes(0, start - range.start);
            if start < end {
                let from = &bytes[start - place.start..end - place.start];
                self.at(start).copy_from_nonoverlapping(from.as_ptr(), from.len());
            }
            self.at(end).write_bytes(0, range.end - end);
        }
    }

    fn at(&self, offset: usize) -> *mut u8 {
        self.base.wrapping_add(offset)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let start = self.base.wrapping_sub(self.guard);
        // SAFETY: all of it was mapped by `new`, and nobody has it any more. It cannot fail but for bad arguments.
        #[allow(unsafe_code, reason = "munmap")]
        let _ = unsafe { mm::munmap(start.cast(), self.reserved + 2 * self.guard) };
    }
}
