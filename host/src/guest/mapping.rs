//! Address space that one owner has: mapped when it is made, given back when it is dropped.
//!
//! Knows nothing of what it is for. Whoever has it may change what is mapped within it, and reads and writes it by pointers.

use std::{io, os::fd::OwnedFd, ptr};

use rustix::mm::{self, MapFlags, ProtFlags};

/// Some pages of the process's address space.
pub(super) struct Mapping {
    start: *mut u8,
    length: usize,
}

// SAFETY: the address space is the mapping's alone, and does not depend on the thread.
#[allow(unsafe_code, reason = "for a pointer to what only this has")]
unsafe impl Send for Mapping {}
// SAFETY: as above; through a shared reference no memory is read or written.
#[allow(unsafe_code, reason = "for a pointer to what only this has")]
unsafe impl Sync for Mapping {}

impl Mapping {
    /// So many bytes of zeros, which are whole pages and can be accessed like this.
    ///
    /// # Errors
    /// There is no address space, or no memory.
    pub(super) fn anonymous(length: usize, access: ProtFlags, flags: MapFlags) -> io::Result<Self> {
        // SAFETY: the kernel chooses a place where nothing is.
        #[allow(unsafe_code, reason = "mmap")]
        let start = unsafe { mm::mmap_anonymous(ptr::null_mut(), length, access, flags) }?;
        Ok(Self { start: start.cast(), length })
    }

    /// The first bytes of a file, which are whole pages, to be read.
    ///
    /// # Errors
    /// There is no address space, or the file cannot be mapped.
    pub(super) fn of_file(file: &OwnedFd, length: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses a place where nothing is.
        #[allow(unsafe_code, reason = "mmap")]
        let start = unsafe { mm::mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, file, 0) }?;
        Ok(Self { start: start.cast(), length })
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start
    }

    /// Bytes.
    pub(super) fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: all of it was mapped when this was made, and nobody has it any more. If the kernel cannot take it apart (it may not
        // have room for more mappings), it stays, and is nobody's.
        #[allow(unsafe_code, reason = "munmap")]
        let _ = unsafe { mm::munmap(self.start.cast(), self.length) };
    }
}
