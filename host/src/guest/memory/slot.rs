//! A place for one linear memory: as much address space as 32 bits reach, of which as much is accessible as the guest has.
//!
//! Between guests it is made what it was at the start, which is the boundary between them: the pages that were written are found
//! (`page_map.rs`) and have their first contents copied back. So they stay the process's own, and the next guest writes to them without a
//! page fault. Used by one thread at a time.

use std::{io, ops::Range};

use rustix::{
    mm::{self, MapFlags, MprotectFlags, ProtFlags},
    param::page_size,
};

use super::{image::Image, page_map::PageMap};
use crate::guest::mapping::Mapping;

/// Once so many bytes were copied back, all pages are given back: those that only one guest of many has written are not copied for ever.
const RENEWED: usize = 128 << 20;
/// Of what a guest's memory has grown by, so many bytes stay the process's own, for the next that grows. They are not counted while a
/// guest has the slot that does not.
pub(super) const MOST_GROWN: usize = 256 << 10;

/// One linear memory's address space, and what is mapped there.
pub(crate) struct Slot {
    /// A guard, what is reserved for the linear memory, and another guard. Neither guard can ever be accessed.
    mapping: Mapping,
    guard: usize,
    /// Bytes that its guest has started with, and that it can access now, from the first on. Whole pages.
    start: usize,
    accessible: usize,
    /// Bytes that any guest could access since all was mapped anew. Nothing beyond them was ever written.
    touched: usize,
    /// Bytes of pages that are the process's own, at most.
    kept: usize,
    /// Bytes that were copied back since all was mapped anew.
    copied: usize,
}

impl Slot {
    /// `reserved` and `guard` are whole pages.
    ///
    /// # Errors
    /// There is no address space, or no memory.
    pub(crate) fn new(image: Option<&Image>, reserved: usize, guard: usize) -> io::Result<Self> {
        let whole = reserved.checked_add(2 * guard).ok_or(rustix::io::Errno::NOMEM)?;
        let mapping = Mapping::anonymous(whole, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE)?;
        let mut slot = Self { mapping, guard, start: 0, accessible: 0, touched: 0, kept: 0, copied: 0 };
        slot.lay_out(image)?;
        Ok(slot)
    }

    /// The first byte of the linear memory.
    pub(crate) fn base(&self) -> *mut u8 {
        self.at(0)
    }

    /// Bytes that it can have.
    pub(crate) fn reserved(&self) -> usize {
        self.mapping.length() - 2 * self.guard
    }

    /// Whether it has so much address space, and such guards.
    pub(crate) fn is_of(&self, reserved: usize, guard: usize) -> bool {
        (self.reserved(), self.guard) == (reserved, guard)
    }

    /// Bytes of memory that it takes while no guest has it, at most.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    /// Lends it to a guest that starts with so many bytes.
    ///
    /// # Errors
    /// As [`resize`](Self::resize).
    pub(crate) fn begin(&mut self, bytes: usize) -> io::Result<()> {
        self.resize(bytes)?;
        self.start = self.accessible;
        Ok(())
    }

    /// Makes exactly so many bytes accessible, and whole pages of them.
    ///
    /// # Errors
    /// There is no memory, or not so much address space. Nothing has changed then.
    pub(crate) fn resize(&mut self, bytes: usize) -> io::Result<()> {
        let wanted = bytes.checked_next_multiple_of(page_size()).filter(|wanted| *wanted <= self.reserved());
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
        self.touched = self.touched.max(wanted);
        Ok(())
    }

    /// Makes it what it was before the first guest. It keeps up to `most` bytes of memory for the next one; all that is accessible is
    /// copied back where the kernel does not tell what was written.
    ///
    /// # Errors
    /// Then it must not be used any more.
    pub(crate) fn reset(&mut self, image: Option<&Image>, pages: Option<&PageMap>, most: usize) -> io::Result<()> {
        let (base, start, accessible, touched) = (self.base().addr(), self.start, self.accessible, self.touched);
        let (mut kept, mut grown) = (0, 0);
        let mut written = |range: Range<usize>| {
            kept += range.len();
            grown += range.end.saturating_sub(range.start.max(start));
            if kept <= most {
                // What is beyond was made zero when it was last accessible.
                self.restore(range.start.min(accessible)..range.end.min(accessible), image);
            }
        };
        match pages {
            Some(pages) => {
                let image = image.map_or(0..0, Image::range);
                pages.written(base..base + touched, |range, zero| {
                    let range = range.start - base..range.end - base;
                    // Zeros are what belongs there, but within the image.
                    written(if zero { intersection(&range, &image) } else { range });
                })?;
            }
            None => written(0..touched),
        }
        self.kept = kept;
        self.copied += kept;
        if kept > most || self.copied > RENEWED {
            return self.lay_out(image);
        }
        if grown > MOST_GROWN {
            self.kept -= grown;
            self.unmap(start)
        } else {
            self.resize(start)
        }
    }

    /// Maps all of it anew, and gives back what was there: zeros that are not accessible, and the image, which is.
    fn lay_out(&mut self, image: Option<&Image>) -> io::Result<()> {
        self.unmap(0)?;
        (self.kept, self.copied) = (0, 0);
        let Some(image) = image else { return Ok(()) };
        self.resize(image.size())?;
        if let Some(file) = image.file() {
            let (range, access) = (image.range(), ProtFlags::READ | ProtFlags::WRITE);
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
            // SAFETY: the image is within its memory's first size, which has just been made accessible.
            #[allow(unsafe_code, reason = "mmap")]
            unsafe { mm::mmap(self.at(range.start).cast(), range.len(), access, flags, file, 0) }?;
        }
        Ok(())
    }

    /// Gives back what is beyond this offset: zeros that are not accessible.
    fn unmap(&mut self, from: usize) -> io::Result<()> {
        let length = self.touched.saturating_sub(from);
        if length > 0 {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
            // SAFETY: within the slot, which no guest has now.
            #[allow(unsafe_code, reason = "mmap")]
            unsafe { mm::mmap_anonymous(self.at(from).cast(), length, ProtFlags::empty(), flags) }?;
        }
        // A huge page would be written as a whole for one byte, and copied back as a whole. Where there are none it is an error.
        // SAFETY: it changes nothing that can be seen.
        #[cfg(target_os = "linux")]
        #[allow(unsafe_code, reason = "madvise")]
        let _ = unsafe { mm::madvise(self.base().cast(), self.reserved(), mm::Advice::LinuxNoHugepage) };
        (self.accessible, self.touched) = (from.min(self.accessible), from.min(self.touched));
        Ok(())
    }

    /// Writes what stood between these two offsets at the start. They are accessible.
    fn restore(&mut self, range: Range<usize>, image: Option<&Image>) {
        let (place, bytes) = image.map_or((0..0, &[][..]), |image| (image.range(), image.bytes()));
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
        self.mapping.start().wrapping_add(self.guard + offset)
    }
}

/// What is in both, or nothing somewhere.
fn intersection(one: &Range<usize>, other: &Range<usize>) -> Range<usize> {
    let start = one.start.max(other.start);
    start..one.end.min(other.end).max(start)
}
