//! Which pages of a memory were written, as the kernel tells it (`PAGEMAP_SCAN`, Linux 6.7; Documentation/admin-guide/mm/pagemap.rst).
//!
//! A page that was written is no page of the file any more that is mapped there: it is anonymous, wherever it is just then, in memory,
//! swapped out, or on its way elsewhere, which the kernel tells of as swapped; so both count. (wasmtime 48 asks for those in memory
//! only: bytecodealliance/wasmtime#14357.) Anonymous pages stay what they are until they are unmapped, so this is all pages that were
//! ever written. Where no file is mapped, a page that was only read is the page of zeros that all share; but so may be one in which
//! the kernel found nothing but zeros (KSM), which is told apart by what belongs there.

use std::{ffi::c_void, fs::File, io, mem::MaybeUninit, ops::Range, ptr};

use rustix::{
    ioctl::{self, Ioctl, IoctlOutput, Opcode},
    mm::{MapFlags, ProtFlags},
    param::page_size,
};

use crate::guest::mapping::Mapping;

const FILE: u64 = 1 << 2;
const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;
const ZERO: u64 = 1 << 5;

/// Ranges of pages that one call tells of: as many as a guest with many pages has.
const RANGES: usize = 256;

/// The kernel's view of this process's pages.
#[derive(Debug)]
pub(crate) struct PageMap(File);

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    ranges: u64,
    ranges_length: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

impl PageMap {
    /// `None` where the kernel cannot tell, or does not tell what is expected of it.
    pub(crate) fn open() -> Option<Self> {
        let map = Self(File::open("/proc/self/pagemap").ok()?);
        map.tells_the_truth().ok().filter(|truth| *truth).map(|_| map)
    }

    /// Calls `written` with each range of pages that may have been written, between two addresses that are multiples of the page size, in order;
    /// and with whether it is zeros, shared with everyone.
    ///
    /// # Errors
    /// The kernel's. Not all may have been told then.
    pub(crate) fn written(
        &self,
        addresses: Range<usize>,
        mut written: impl FnMut(Range<usize>, bool),
    ) -> io::Result<()> {
        let mut found = [MaybeUninit::<PageRegion>::uninit(); RANGES];
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            flags: 0,
            start: addresses.start as u64,
            end: addresses.end as u64,
            walk_end: 0,
            ranges: found.as_mut_ptr().addr() as u64,
            ranges_length: RANGES as u64,
            max_pages: 0,
            category_inverted: FILE,
            category_mask: FILE,
            category_anyof_mask: PRESENT | SWAPPED,
            return_mask: ZERO,
        };
        while scan.start < scan.end {
            // SAFETY: `Scan` is what the kernel expects of `PAGEMAP_SCAN`, and it writes no more than so many ranges to where `found` is,
            // which nobody else has.
            #[allow(unsafe_code, reason = "an ioctl that rustix does not know")]
            let count = unsafe { ioctl::ioctl(&self.0, ScanCall(&mut scan)) }?;
            for range in &found[..count] {
                // SAFETY: the kernel has written as many as it says.
                #[allow(unsafe_code, reason = "so that the array need not be filled first")]
                let range = unsafe { range.assume_init_ref() };
                // Addresses of ours are of this size.
                written(range.start as usize..range.end as usize, range.categories & ZERO != 0);
            }
            if scan.walk_end <= scan.start {
                return Err(io::Error::other("the scan of pages does not advance"));
            }
            scan.start = scan.walk_end;
        }
        Ok(())
    }

    /// Whether a page that was written is told, one that was only read is told as zeros, and one that nobody has touched is not.
    fn tells_the_truth(&self) -> io::Result<bool> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let pages = Mapping::anonymous(4 * page_size(), access, MapFlags::PRIVATE)?;
        let at = |page| pages.start().wrapping_add(page * page_size());
        // SAFETY: both are within what is mapped and can be accessed.
        #[allow(unsafe_code, reason = "a few pages to try")]
        unsafe {
            at(1).write_volatile(1);
            at(2).read_volatile();
        }
        let mut found = Vec::new();
        self.written(at(0).addr()..at(4).addr(), |range, zero| found.push((range, zero)))?;
        Ok(found == [(at(1).addr()..at(2).addr(), false), (at(2).addr()..at(3).addr(), true)])
    }
}

struct ScanCall<'a>(&'a mut Scan);

// SAFETY: the number is that of `PAGEMAP_SCAN`, which reads and writes a `struct pm_scan_arg` and returns how many ranges it has written.
#[allow(unsafe_code, reason = "an ioctl that rustix does not know")]
unsafe impl Ioctl for ScanCall<'_> {
    type Output = usize;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::read_write::<Scan>(b'f', 16)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(count: IoctlOutput, _: *mut c_void) -> rustix::io::Result<usize> {
        usize::try_from(count).map_err(|_| rustix::io::Errno::RANGE)
    }
}
