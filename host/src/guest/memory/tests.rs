//! What a guest leaves in its memory is gone for the next one, whichever way it is made fresh, and what is kept is bounded.

use std::slice;

use rustix::param::page_size;
use wasmtime::{LinearMemory, MemoryCreator as _, MemoryType};

use super::{InitialMemory, MOST_FREE, MOST_KEPT_EACH, Memories, ModuleMemories, PageMap};

const SIZE: usize = 4 * 65536;
const RESERVED: usize = 4 << 30;
const GUARD: usize = 32 << 20;

fn memory(memories: &Memories, module: &ModuleMemories, size: usize) -> Box<dyn LinearMemory> {
    let ty = MemoryType::new(u32::try_from(size / 65536).expect("small"), None);
    let memory = module.during(|| memories.new_memory(ty, size, None, Some(RESERVED), GUARD));
    memory.expect("there is memory")
}

fn bytes(memory: &mut dyn LinearMemory) -> &mut [u8] {
    // SAFETY: so many bytes are accessible there, and nobody else has them while `memory` is borrowed.
    #[allow(unsafe_code, reason = "what compiled code does")]
    unsafe {
        slice::from_raw_parts_mut(memory.as_ptr(), memory.byte_size())
    }
}

/// With both ways, where the kernel tells what was written.
fn each_way(budget: u64, test: impl Fn(Memories)) {
    test(Memories::new(budget, None));
    if let pages @ Some(_) = PageMap::open() {
        test(Memories::new(budget, pages));
    }
}

/// Something at the start, something that is not at the start of a page, and nothing after.
fn image() -> InitialMemory<'static> {
    InitialMemory { size: SIZE, segments: vec![(10, b"one"), (3 * page_size() + 100, b"two")] }
}

fn is_image(found: &[u8]) -> bool {
    let mut expected = vec![0; SIZE];
    for (at, segment) in image().segments {
        expected[at..at + segment.len()].copy_from_slice(segment);
    }
    found == expected
}

#[test]
fn the_kernel_tells_what_was_written_where_it_is_new_enough() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let is_new = (numbers.next(), numbers.next()) >= (Some(6), Some(7));
    assert_eq!(PageMap::open().is_some(), is_new, "Linux {release}");
}

#[test]
fn a_guest_finds_the_image_wherever_the_one_before_it_has_written() {
    each_way(1 << 30, |memories| {
        let module = memories.of_module(Some(&image())).expect("there is memory");
        let mut first = memory(&memories, &module, SIZE);
        assert!(is_image(bytes(&mut *first)));
        let place = first.as_ptr();
        drop(first);
        // Within a segment, beside one, in a page between two, in the first page after the image, at the end; and all of it. More often than pages are kept.
        for at in [10, 200, 2 * page_size(), 3 * page_size() + 102, 4 * page_size(), SIZE - 1, usize::MAX].repeat(100) {
            let mut dirty = memory(&memories, &module, SIZE);
            assert_eq!(dirty.as_ptr(), place, "it is the same memory again");
            assert!(is_image(bytes(&mut *dirty)), "before {at}");
            match bytes(&mut *dirty).get_mut(at) {
                Some(byte) => *byte = 0xff,
                None => bytes(&mut *dirty).fill(0xff),
            }
        }
        assert!(is_image(bytes(&mut *memory(&memories, &module, SIZE))));
    });
}

#[test]
fn what_a_guest_has_grown_by_is_zero_for_the_next_that_grows() {
    each_way(1 << 30, |memories| {
        let module = memories.of_module(Some(&image())).expect("there is memory");
        for _ in 0..300 {
            let mut grown = memory(&memories, &module, SIZE);
            grown.grow_to(2 * SIZE).expect("there is memory");
            assert!(is_image(&bytes(&mut *grown)[..SIZE]));
            assert!(bytes(&mut *grown)[SIZE..].iter().all(|byte| *byte == 0));
            bytes(&mut *grown)[SIZE - 1..].fill(0xff);
        }
    });
}

#[test]
fn memories_without_an_image_are_zero_whatever_their_sizes() {
    each_way(1 << 30, |memories| {
        let module = memories.of_module(None).expect("nothing is needed");
        for size in [SIZE, 65536, 3 * SIZE, 0, 2 * SIZE, SIZE].repeat(5) {
            let mut dirty = memory(&memories, &module, size);
            assert_eq!(dirty.byte_size(), size);
            assert!(bytes(&mut *dirty).iter().all(|byte| *byte == 0), "{size}");
            bytes(&mut *dirty).fill(0xff);
        }
    });
}

#[test]
fn only_the_first_memory_of_an_instance_is_the_one_with_the_image() {
    let memories = Memories::new(1 << 30, PageMap::open());
    let module = memories.of_module(Some(&image())).expect("there is memory");
    let ty = || MemoryType::new(4, None);
    module.during(|| {
        let make = || memories.new_memory(ty(), SIZE, None, Some(RESERVED), GUARD).expect("there is memory");
        let (mut first, mut second) = (make(), make());
        assert!(is_image(bytes(&mut *first)));
        assert!(bytes(&mut *second).iter().all(|byte| *byte == 0));
    });
    assert!(is_image(bytes(&mut *memory(&memories, &module, SIZE))));
    assert!(memories.new_memory(ty(), SIZE, None, Some(RESERVED), GUARD).is_err(), "of no module");
}

#[test]
fn no_more_is_accessible_than_a_guest_has() {
    let memories = Memories::new(1 << 30, PageMap::open());
    let module = memories.of_module(Some(&image())).expect("there is memory");
    let mut grown = memory(&memories, &module, SIZE);
    let (base, ends) = (grown.as_ptr(), [2 * SIZE, SIZE]);
    grown.grow_to(2 * SIZE).expect("there is memory");
    assert!(grown.grow_to(RESERVED + 1).is_err());
    // The kernel reads for a pipe what this process may read.
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    let can_read = |offset: usize| {
        // SAFETY: the kernel looks whether it can be read; nothing here does.
        #[allow(unsafe_code, reason = "an address that may not be one")]
        let byte = unsafe { slice::from_raw_parts(base.wrapping_add(offset), 1) };
        rustix::io::write(&writer, byte).is_ok()
    };
    for end in ends {
        assert!(can_read(0) && can_read(end - 1) && !can_read(end), "{end}");
        assert!(!can_read(RESERVED) && !can_read(0_usize.wrapping_sub(1)));
        drop(grown);
        grown = memory(&memories, &module, SIZE);
        assert_eq!(grown.as_ptr(), base);
    }
}

#[test]
fn free_memories_keep_no_more_than_they_may_and_each_no_more_than_its_share() {
    each_way(40 << 20, |memories| {
        let kept = || memories.0.kept.bytes.load(std::sync::atomic::Ordering::Relaxed);
        let module = memories.of_module(Some(&image())).expect("there is memory");
        for _ in 0..2 {
            let mut guests: Vec<_> = (0..20).map(|_| memory(&memories, &module, SIZE)).collect();
            assert_eq!(kept(), 0, "all are in use");
            for guest in &mut guests {
                bytes(&mut **guest)[..100 * 1024].fill(0xff);
            }
            drop(guests);
            assert!((1..=4 << 20).contains(&kept()), "{}", kept());
        }
        memories.0.give_up_free();
        let mut large = memory(&memories, &module, SIZE);
        large.grow_to(1 << 20).expect("there is memory");
        bytes(&mut *large).fill(0xff);
        drop(large);
        assert_eq!(kept(), 0);
        assert!(is_image(bytes(&mut *memory(&memories, &module, SIZE))));
    });
    assert_eq!(Memories::new(u64::MAX, None).0.most_kept_each, MOST_KEPT_EACH);
}

/// Bytes of the process's own pages that are mapped within a reservation from there on.
#[cfg(target_os = "linux")]
fn resident(base: usize) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux has it");
    let mut is_within = false;
    let mut bytes = 0;
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        if let Some((start, _)) = range
            && let Ok(start) = usize::from_str_radix(start, 16)
        {
            is_within = (base..base + RESERVED).contains(&start);
        } else if let Some(kib) = line.strip_prefix("Anonymous:")
            && is_within
        {
            bytes += kib.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10;
        }
    }
    bytes
}

#[cfg(target_os = "linux")]
#[test]
fn what_one_guest_has_grown_by_is_not_kept_beside_those_that_do_not_grow() {
    each_way(1 << 30, |memories| {
        let module = memories.of_module(Some(&image())).expect("there is memory");
        for grown_by in [64 << 10, 8 << 20] {
            let mut large = memory(&memories, &module, SIZE);
            large.grow_to(SIZE + grown_by).expect("there is memory");
            bytes(&mut *large).fill(0xff);
            drop(large);
            let mut small = memory(&memories, &module, SIZE);
            let resident = resident(small.as_ptr().addr());
            assert!(resident <= SIZE + super::slot::MOST_GROWN, "{resident} after {grown_by}");
            assert!(is_image(bytes(&mut *small)));
            drop(small);
            let kept = memories.0.kept.bytes.load(std::sync::atomic::Ordering::Relaxed);
            assert!(kept >= resident, "{kept} of {resident}");
        }
    });
}

#[test]
fn pages_that_are_copied_back_for_ever_are_given_back() {
    each_way(1 << 40, |memories| {
        let module = memories.of_module(Some(&InitialMemory { size: 8 << 20, segments: vec![(5, b"five")] }));
        let module = module.expect("there is memory");
        let kept = || memories.0.kept.bytes.load(std::sync::atomic::Ordering::Relaxed);
        bytes(&mut *memory(&memories, &module, 8 << 20)).fill(0xff);
        assert_eq!(kept(), 8 << 20);
        let given_back = (0..100).any(|_| {
            bytes(&mut *memory(&memories, &module, 8 << 20))[0] = 0xff;
            kept() == 0
        });
        assert!(given_back);
        assert_eq!(&bytes(&mut *memory(&memories, &module, 8 << 20))[..10], b"\0\0\0\0\0five\0");
    });
}

#[test]
fn no_more_memories_are_free_than_there_may_be() {
    let memories = Memories::new(1 << 40, PageMap::open());
    let module = memories.of_module(None).expect("nothing is needed");
    let guests: Vec<_> = (0..MOST_FREE + 10).map(|_| memory(&memories, &module, 65536)).collect();
    drop(guests);
    assert_eq!(memories.0.kept.slots.load(std::sync::atomic::Ordering::Relaxed), 9, "all but those after the last");
}

#[test]
fn a_module_that_is_gone_keeps_nothing() {
    let memories = Memories::new(1 << 30, PageMap::open());
    let module = memories.of_module(Some(&image())).expect("there is memory");
    let mut guest = memory(&memories, &module, SIZE);
    bytes(&mut *guest).fill(0xff);
    let gone = std::sync::Arc::downgrade(module.first.as_ref().expect("it has an image"));
    drop(module);
    assert!(gone.upgrade().is_some(), "until its last guest has ended");
    drop(guest);
    assert!(gone.upgrade().is_none());
    assert_eq!(memories.0.kept.bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
}
