//! Makes the kernel move pages while guests run, as root: by compaction, and by taking blocks of memory offline, whose pages must all go
//! elsewhere, and bringing them back. Compaction alone moves pages up to where memory is free and gives up at the first large folio that finds
//! no room there: on a machine with much free memory or a large page cache none of the host's pages are ever among them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::server::Server;

const COMPACT: &str = "/proc/sys/vm/compact_memory";
const BLOCKS: &str = "/sys/devices/system/memory";

/// As many blocks (of 128 MiB on most machines) are for pages that can be moved, and take turns at being emptied.
const TURNS: usize = 8;

/// Seconds: the kernel goes on trying to empty a block until it is interrupted.
const PATIENCE: &str = "10";

/// Blocks of memory that have been emptied once and take only pages that can be moved since then; given back when dropped.
pub(super) struct Blocks {
    numbers: Vec<u64>,
    /// Bytes of each.
    size: u64,
}

/// What was moved.
#[derive(Default)]
pub(super) struct Moves {
    pub(super) compactions: u64,
    pub(super) emptied: u64,
    /// Pages, of whomever.
    pub(super) pages: u64,
    /// Of the host's pages those that were elsewhere after a turn.
    pub(super) of_host: u64,
}

/// Whether pages may be moved here at all.
pub(super) fn is_allowed() -> bool {
    fs::write(COMPACT, "1").is_ok()
}

impl Blocks {
    /// The last ones that can be emptied; none where the kernel cannot.
    pub(super) fn take() -> Blocks {
        let size = fs::read_to_string(format!("{BLOCKS}/block_size_bytes")).unwrap_or_default();
        let size = u64::from_str_radix(size.trim(), 16).unwrap_or(u64::MAX);
        let names = fs::read_dir(BLOCKS).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut all: Vec<u64> = names.filter_map(|name| name.to_str()?.strip_prefix("memory")?.parse().ok()).collect();
        all.sort_unstable();
        let mut blocks = Blocks { numbers: Vec::new(), size };
        for number in all.into_iter().rev() {
            if blocks.numbers.len() < TURNS && set(number, "offline") {
                blocks.numbers.push(number);
                set(number, "online_movable");
            }
        }
        blocks
    }

    /// Moves pages until it is over.
    pub(super) fn turn(&self, host: &Server, is_over: &AtomicBool) -> Result<Moves> {
        let mut moves = Moves::default();
        let before = migrated()?;
        let mut there = pages(host.pid())?;
        while !is_over.load(Ordering::Relaxed) {
            if let Some(number) = self.fullest(&there) {
                moves.emptied += u64::from(set(number, "offline"));
                set(number, "online_movable");
            }
            moves.compactions += u64::from(fs::write(COMPACT, "1").is_ok());
            let now = pages(host.pid())?;
            moves.of_host +=
                now.iter().filter(|(at, page)| there.get(at).is_some_and(|old| old != *page)).count() as u64;
            there = now;
        }
        moves.pages = migrated()? - before;
        Ok(moves)
    }

    /// The block with the most pages of the host.
    fn fullest(&self, pages: &HashMap<u64, u64>) -> Option<u64> {
        let page_size = rustix::param::page_size() as u64;
        let count = |number: &u64| pages.values().filter(|page| **page * page_size / self.size == *number).count();
        self.numbers.iter().copied().max_by_key(count)
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for number in &self.numbers {
            set(*number, "offline");
            set(*number, "online_kernel");
        }
    }
}

/// Sets the state of a block of memory; says whether that was done.
fn set(number: u64, state: &str) -> bool {
    // In another process, which can be interrupted.
    let command = format!("echo {state} > {BLOCKS}/memory{number}/state");
    let mut timeout = Command::new("timeout");
    timeout.args(["--signal=KILL", PATIENCE, "sh", "-c", &command]).stderr(Stdio::null());
    timeout.status().is_ok_and(|status| status.success())
}

/// Pages that the kernel has moved since it was started.
fn migrated() -> Result<u64> {
    let vmstat = fs::read_to_string("/proc/vmstat")?;
    let line = vmstat.lines().find_map(|line| line.strip_prefix("pgmigrate_success "));
    Ok(line.context("no pgmigrate_success")?.parse()?)
}

/// Where the pages of memory that a process may write are: their numbers, by address.
fn pages(pid: u32) -> Result<HashMap<u64, u64>> {
    /// Bits of an entry (Documentation/admin-guide/mm/pagemap.rst).
    const PRESENT: u64 = 1 << 63;
    const NUMBER: u64 = (1 << 55) - 1;
    let page_size = rustix::param::page_size() as u64;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut pages = HashMap::new();
    for line in maps.lines() {
        let mut fields = line.split(' ');
        let (Some(range), Some("rw-p")) = (fields.next(), fields.next()) else { continue };
        let (start, end) = range.split_once('-').context("a range")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        let mut entries = vec![0; ((end - start) / page_size * 8) as usize];
        // A range may have gone meanwhile.
        let read = pagemap.read_at(&mut entries, start / page_size * 8).unwrap_or_default();
        for (n, entry) in entries[..read].as_chunks().0.iter().enumerate() {
            let entry = u64::from_ne_bytes(*entry);
            if entry & PRESENT != 0 {
                pages.insert(start + n as u64 * page_size, entry & NUMBER);
            }
        }
    }
    Ok(pages)
}
