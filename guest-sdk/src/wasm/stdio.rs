//! Standard output and error without wasi-libc's table of file descriptors. Only compiled without the feature `files`.
//!
//! Every Rust program can panic, and the message goes through libc's `write`. That brings files, sockets and terminals with it: fourteen
//! imports more, which the host links anew for every request. A definition in the
//! program takes the place of libc's (System V ABI, as for any POSIX function), and this one knows two descriptors.

#![expect(unsafe_code, reason = "C functions, under their C names")]

use std::{
    ffi::{c_int, c_void},
    slice,
};

use wasip2::cli::{stderr, stdout};

/// Of wasi-libc's `errno.h`.
const EBADF: c_int = 8;

/// `blocking-write-and-flush` takes no more at a time (WASI 0.2 `wasi:io/streams`).
const MOST: usize = 4096;

#[repr(C)]
struct IoVec {
    base: *const u8,
    length: usize,
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// POSIX `write`.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(descriptor: c_int, bytes: *const c_void, length: usize) -> isize {
    // SAFETY: `IoVec` is what `writev` expects, and the caller vouches for `length` readable bytes at `bytes`.
    unsafe { writev(descriptor, &IoVec { base: bytes.cast(), length }, 1) }
}

/// POSIX `writev`.
#[unsafe(no_mangle)]
unsafe extern "C" fn writev(descriptor: c_int, vectors: *const IoVec, count: c_int) -> isize {
    let stream = match descriptor {
        1 => stdout::get_stdout(),
        2 => stderr::get_stderr(),
        _ => {
            let hint = b"guest-sdk: only a guest with guest-sdk's feature `files` can write files and sockets\n";
            let _ = stderr::get_stderr().blocking_write_and_flush(hint);
            // SAFETY: libc's `errno` is always there, and a guest has one thread.
            unsafe { *__errno_location() = EBADF };
            return -1;
        }
    };
    let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else { return 0 };
    // SAFETY: the caller vouches for `count` vectors at `vectors`, and there are some.
    let vectors = unsafe { slice::from_raw_parts(vectors, count) };
    let mut written = 0;
    for vector in vectors.iter().filter(|vector| vector.length > 0) {
        // SAFETY: the caller vouches for `length` readable bytes at `base`.
        let bytes = unsafe { slice::from_raw_parts(vector.base, vector.length) };
        for chunk in bytes.chunks(MOST) {
            // A log that is closed is no reason to fail: std ignores EBADF of these two as well.
            let _ = stream.blocking_write_and_flush(chunk);
        }
        written += vector.length;
    }
    written as isize
}
