//! The `astra-host` command: everything it does is in the library next door, but for the allocator, which is a program's choice.
//!
//! jemalloc, since glibc's malloc costs a hello 5 % of the host's CPU time, and 7 % more beside 10,000 idle connections, whose memory
//! it does not give back as well (86 MiB, jemalloc 66).

/// A thread holds 8 free pieces of a size at the most, not 200: hundreds of threads wait here, and each would keep 110 KiB more.
#[cfg(feature = "jemalloc")]
#[expect(unsafe_code, reason = "jemalloc reads its settings from a symbol")]
// SAFETY: jemalloc declares it as `const char *malloc_conf`, here with the prefix of its crate, and wants a C string that stays.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 62] = b"tcache_nslots_small_max:8,tcache_nslots_small_min:4,narenas:2\0";

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    astra_host::cli::main()
}
