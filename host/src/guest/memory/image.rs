//! What the memory of a module's instances starts with: a file in memory that is mapped copy-on-write by each of them.
//!
//! Made once for a module that is loaded, on the thread that loads it. Never changes: it is sealed.

use std::{io, ops::Range, os::fd::OwnedFd, slice};

use rustix::{fs, param::page_size};

use super::data_segments::InitialMemory;
use crate::guest::mapping::Mapping;

/// The first bytes of a linear memory.
pub(crate) struct Image {
    /// Bytes that the memory has at its start. Those that the image does not have are zero.
    size: usize,
    /// Whole pages, from the first byte of any segment to the last of any; none if there is no segment.
    range: Range<usize>,
    /// What is there, unless that is nothing: to be mapped, and the same to copy from.
    contents: Option<(OwnedFd, Mapping)>,
}

impl Image {
    /// # Errors
    /// There is no memory for it.
    pub(crate) fn new(memory: &InitialMemory<'_>) -> io::Result<Self> {
        let segments = || memory.segments.iter().filter(|(_, bytes)| !bytes.is_empty());
        let start = segments().map(|(offset, _)| *offset).min().unwrap_or(0);
        let end = segments().map(|(offset, bytes)| offset + bytes.len()).max().unwrap_or(0);
        let range = start / page_size() * page_size()..end.next_multiple_of(page_size());
        let mut image = Self { size: memory.size, range, contents: None };
        if !image.range.is_empty() {
            let file = anonymous_file(image.range.len())?;
            for (offset, bytes) in segments() {
                write_all_at(&file, bytes, offset - image.range.start)?;
            }
            seal(&file)?;
            let copy = Mapping::of_file(&file, image.range.len())?;
            image.contents = Some((file, copy));
        }
        Ok(image)
    }

    /// Bytes that a memory has at its start.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The part of the memory that it has: all that is not zero for sure.
    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// What is to be mapped there.
    pub(crate) fn file(&self) -> Option<&OwnedFd> {
        self.contents.as_ref().map(|(file, _)| file)
    }

    /// What is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        let Some((_, copy)) = &self.contents else { return &[] };
        // SAFETY: so many bytes are mapped there as long as the image is, and nobody can write to them.
        #[allow(unsafe_code, reason = "memory that the kernel gave us")]
        unsafe {
            slice::from_raw_parts(copy.start(), copy.length())
        }
    }
}

fn write_all_at(file: &OwnedFd, mut bytes: &[u8], offset: usize) -> io::Result<()> {
    let mut offset = offset as u64;
    while !bytes.is_empty() {
        let written = rustix::io::pwrite(file, bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn anonymous_file(length: usize) -> io::Result<OwnedFd> {
    let flags = fs::MemfdFlags::CLOEXEC | fs::MemfdFlags::ALLOW_SEALING;
    let create = |flags| fs::memfd_create("guest memory", flags);
    // Linux before 6.3 does not know that it will never be executed, and newer ones may insist on that.
    let file = create(flags | fs::MemfdFlags::NOEXEC_SEAL).or_else(|_| create(flags))?;
    fs::ftruncate(&file, length as u64)?;
    Ok(file)
}

#[cfg(target_os = "linux")]
fn seal(file: &OwnedFd) -> io::Result<()> {
    use fs::SealFlags;
    Ok(fs::fcntl_add_seals(file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::WRITE | SealFlags::SEAL)?)
}

/// A file without a name.
#[cfg(not(target_os = "linux"))]
fn anonymous_file(length: usize) -> io::Result<OwnedFd> {
    use std::{
        env, process,
        sync::atomic::{AtomicU64, Ordering},
    };
    static FILES: AtomicU64 = AtomicU64::new(0);
    let name = format!("astra-host-{}-{}", process::id(), FILES.fetch_add(1, Ordering::Relaxed));
    let path = env::temp_dir().join(name);
    let flags = fs::OFlags::RDWR | fs::OFlags::CREATE | fs::OFlags::EXCL | fs::OFlags::CLOEXEC;
    let file = fs::open(&path, flags, fs::Mode::RUSR | fs::Mode::WUSR)?;
    fs::unlink(&path)?;
    fs::ftruncate(&file, length as u64)?;
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn seal(_file: &OwnedFd) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_what_the_segments_say_the_later_ones_over_the_earlier() {
        let page = page_size();
        let segments = vec![(page + 3, &b"hello"[..]), (page + 5, b"LLO"), (2 * page, b"x"), (9 * page, b"")];
        let image = Image::new(&InitialMemory { size: 16 * page, segments }).expect("there is memory");
        let bytes = image.bytes();
        assert_eq!((image.size(), image.range()), (16 * page, page..3 * page));
        assert_eq!(&bytes[..10], b"\0\0\0heLLO\0\0");
        assert_eq!((bytes[page], bytes.iter().filter(|byte| **byte != 0).count()), (b'x', 6));
    }

    #[test]
    fn a_memory_without_segments_has_no_file() {
        let image = Image::new(&InitialMemory { size: 0, segments: Vec::new() }).expect("nothing is needed");
        assert!(image.file().is_none() && image.range() == (0..0) && image.bytes().is_empty());
    }

    #[test]
    fn nobody_can_write_to_an_image() {
        let image = Image::new(&InitialMemory { size: 65536, segments: vec![(0, b"a")] }).expect("there is memory");
        let file = image.file().expect("there is a segment");
        if cfg!(target_os = "linux") {
            assert_eq!(rustix::io::pwrite(file, b"b", 0), Err(rustix::io::Errno::PERM));
        }
    }
}
