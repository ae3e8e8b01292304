//! WASI 0.1 (`wasi_snapshot_preview1`) for programs that are core modules.
//!
//! wasmtime-wasi's functions, each behind [`wait`], so that such programs wait as all guests do: with the same
//! deadlines, and with their output sent on first. Sleeping is ours: wasmtime-wasi's would block the thread. They are
//! not made components with wasmtime's adapter, as everywhere else in the field: that keeps its state in a page which
//! it lets the program's memory grow by, and Go's allocator takes all such pages for its own. Called on the worker that
//! runs the guest.

use std::time::{Duration, Instant};

use wasmtime::{Caller, Extern, Linker, Result};
use wasmtime_wasi::p1::{
    WasiP1Ctx,
    types::{
        Errno, Event, EventFdReadwrite, Eventrwflags, Eventtype, Filetype, Lookupflags, Subclockflags, Subscription,
        SubscriptionU,
    },
    wasi_snapshot_preview1::{self as p1, WasiSnapshotPreview1 as _},
};
use wiggle::{GuestMemory, GuestPtr};

use super::{blocking::wait, descriptors::Opened, granted::Granted, instance::State, monotonic};

/// The one module that such programs import from.
pub(super) const MODULE: &str = "wasi_snapshot_preview1";

/// What is read or written at once. A file call cannot be cut, and wasmtime-wasi refuses buffers of more than a guest's
/// `hostcall` bytes.
const MOST: u32 = 64 * 1024;
/// Buffers that are looked at to find one that is not empty: what POSIX allows in one call.
const MOST_BUFFERS: u32 = 1024;

/// A function of wasmtime-wasi's for each, and their names.
macro_rules! functions {
    (
        at once { $($now:ident($($n:ident: $n_type:ty),*);)* }
        may wait { $($later:ident($($l:ident: $l_type:ty),*);)* }
        of buffers { $($io:ident($($i:ident: $i_type:ty),*);)* }
    ) => {
        const NAMES: &[&str] = &[
            $(stringify!($now),)* $(stringify!($later),)* $(stringify!($io),)*
            "fd_close", "fd_renumber", "path_filestat_set_times", "path_open", "poll_oneoff", "proc_exit",
        ];

        fn link_plain(linker: &mut Linker<State>) -> Result<()> {
            $(linker.func_wrap(MODULE, stringify!($now), |mut caller: Caller<'_, State>, $($n: $n_type),*| {
                call(&mut caller, async |context, memory, _| p1::$now(context, memory, $($n),*))
            })?;)*
            $(linker.func_wrap(MODULE, stringify!($later), |mut caller: Caller<'_, State>, $($l: $l_type),*| {
                call(&mut caller, async |context, memory, _| p1::$later(context, memory, $($l),*).await)
            })?;)*
            $(linker.func_wrap(
                MODULE,
                stringify!($io),
                |mut caller: Caller<'_, State>, fd: i32, buffers: i32, count: i32, $($i: $i_type),*| {
                    call(&mut caller, async |context, memory, _| {
                        let length = too_long(memory, buffers, count);
                        if let Some((at, _)) = length {
                            memory.write(at, MOST)?;
                        }
                        let result = p1::$io(context, memory, fd, buffers, count, $($i),*).await;
                        if let Some((at, length)) = length {
                            memory.write(at, length)?;
                        }
                        result
                    })
                },
            )?;)*
            Ok(())
        }
    };
}

functions! {
    at once {
    args_get(argv: i32, buffer: i32);
    args_sizes_get(count: i32, size: i32);
    environ_get(environ: i32, buffer: i32);
    environ_sizes_get(count: i32, size: i32);
    clock_res_get(id: i32, resolution: i32);
    clock_time_get(id: i32, precision: i64, time: i32);
    fd_allocate(fd: i32, offset: i64, length: i64);
    fd_fdstat_set_flags(fd: i32, flags: i32);
    fd_fdstat_set_rights(fd: i32, base: i64, inheriting: i64);
    fd_prestat_get(fd: i32, prestat: i32);
    fd_prestat_dir_name(fd: i32, path: i32, length: i32);
    fd_tell(fd: i32, offset: i32);
    proc_raise(signal: i32);
    random_get(buffer: i32, length: i32);
    sched_yield();
    sock_accept(fd: i32, flags: i32, accepted: i32);
    sock_recv(fd: i32, data: i32, count: i32, flags: i32, length: i32, flags_out: i32);
    sock_send(fd: i32, data: i32, count: i32, flags: i32, length: i32);
    sock_shutdown(fd: i32, how: i32);
    }
    may wait {
    fd_advise(fd: i32, offset: i64, length: i64, advice: i32);
    fd_datasync(fd: i32);
    fd_fdstat_get(fd: i32, fdstat: i32);
    fd_filestat_get(fd: i32, filestat: i32);
    fd_filestat_set_size(fd: i32, size: i64);
    fd_filestat_set_times(fd: i32, accessed: i64, modified: i64, flags: i32);
    fd_readdir(fd: i32, buffer: i32, length: i32, cookie: i64, used: i32);
    fd_seek(fd: i32, offset: i64, whence: i32, position: i32);
    fd_sync(fd: i32);
    path_create_directory(fd: i32, path: i32, length: i32);
    path_filestat_get(fd: i32, flags: i32, path: i32, length: i32, filestat: i32);
    path_link(fd: i32, flags: i32, old: i32, old_length: i32, new_fd: i32, new: i32, new_length: i32);
    path_readlink(fd: i32, path: i32, length: i32, buffer: i32, buffer_length: i32, used: i32);
    path_remove_directory(fd: i32, path: i32, length: i32);
    path_rename(fd: i32, old: i32, old_length: i32, new_fd: i32, new: i32, new_length: i32);
    path_symlink(old: i32, old_length: i32, fd: i32, new: i32, new_length: i32);
    path_unlink_file(fd: i32, path: i32, length: i32);
    }
    of buffers {
    fd_pread(offset: i64, read: i32);
    fd_pwrite(offset: i64, written: i32);
    fd_read(read: i32);
    fd_write(written: i32);
    }
}

/// Whether a program may import that: `wasi_snapshot_preview1::fd_write`.
pub(crate) fn provides(import: &str) -> bool {
    import.strip_prefix(MODULE).and_then(|name| name.strip_prefix("::")).is_some_and(|name| NAMES.contains(&name))
}

/// A linker with everything that such programs may import.
pub(crate) fn linker(engine: &wasmtime::Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    link_plain(&mut linker)?;
    linker.func_wrap(MODULE, "proc_exit", |mut caller: Caller<'_, State>, code: i32| {
        call(&mut caller, async |context, memory, _| p1::proc_exit(context, memory, code)).map(drop)
    })?;
    linker.func_wrap(
        MODULE,
        "poll_oneoff",
        |mut caller: Caller<'_, State>, subscriptions: i32, events: i32, count: i32, ready: i32| {
            call(&mut caller, async |context, memory, _| match sleep(context, memory, subscriptions, count).await {
                Some(Ok(event)) => {
                    memory.write(GuestPtr::new(events as u32), event)?;
                    memory.write(GuestPtr::new(ready as u32), 1)?;
                    Ok(Errno::Success as i32)
                }
                Some(Err(errno)) => Ok(errno as i32),
                None => p1::poll_oneoff(context, memory, subscriptions, events, count, ready).await,
            })
        },
    )?;
    linker.func_wrap(MODULE, "fd_close", |mut caller: Caller<'_, State>, fd: i32| {
        call(&mut caller, async |context, memory, files| {
            let result = p1::fd_close(context, memory, fd).await?;
            if result == Errno::Success as i32 {
                files.opened.close(fd as u32);
            }
            Ok(result)
        })
    })?;
    linker.func_wrap(MODULE, "fd_renumber", |mut caller: Caller<'_, State>, from: i32, to: i32| {
        call(&mut caller, async |context, memory, files| {
            let result = p1::fd_renumber(context, memory, from, to).await?;
            if result == Errno::Success as i32 && from != to {
                files.opened.renumber(from as u32, to as u32);
            }
            Ok(result)
        })
    })?;
    linker.func_wrap(
        MODULE,
        "path_filestat_set_times",
        |mut caller: Caller<'_, State>,
         dir: i32,
         lookup: i32,
         path: i32,
         length: i32,
         accessed: i64,
         modified: i64,
         flags: i32| {
            call(&mut caller, async |context, memory, _| {
                if !is_file(context, memory, dir, lookup, (path, length)).await {
                    return Ok(Errno::Perm as i32);
                }
                p1::path_filestat_set_times(context, memory, dir, lookup, path, length, accessed, modified, flags).await
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "path_open",
        |mut caller: Caller<'_, State>,
         dir: i32,
         lookup: i32,
         path: i32,
         length: i32,
         open: i32,
         base: i64,
         inheriting: i64,
         flags: i32,
         opened: i32| {
            call(&mut caller, async |context, memory, files| {
                let Some(place) = files.granted.place(files.opened) else { return Ok(Errno::Mfile as i32) };
                if !is_file(context, memory, dir, lookup, (path, length)).await {
                    return Ok(Errno::Perm as i32);
                }
                let result =
                    p1::path_open(context, memory, dir, lookup, path, length, open, base, inheriting, flags, opened);
                let result = result.await?;
                if result == Errno::Success as i32 {
                    let fd: u32 = memory.read(GuestPtr::new(opened as u32))?;
                    // The lowest free one, so that is how many there are.
                    if fd >= files.most {
                        p1::fd_close(context, memory, fd as i32).await?;
                        return Ok(Errno::Mfile as i32);
                    }
                    files.opened.open_as(fd, place);
                }
                Ok(result)
            })
        },
    )?;
    Ok(linker)
}

/// The length of the first buffer that is not empty, which is the only one that wasmtime-wasi uses, and where it
/// stands: if that is too long for one call. It may read and write less than it is asked to.
fn too_long(memory: &GuestMemory<'_>, buffers: i32, count: i32) -> Option<(GuestPtr<u32>, u32)> {
    // Each is an address and a length. Those that cannot be read are for wasmtime-wasi to complain of.
    let mut lengths = (0..(count as u32).min(MOST_BUFFERS)).map_while(|index| {
        let at = GuestPtr::new((buffers as u32).checked_add(8 * index + 4)?);
        Some((at, memory.read(at).ok()?))
    });
    lengths.find(|(_, length)| *length > 0).filter(|(_, length)| *length > MOST)
}

/// Sleeps, if that is what a program polls for: one clock and nothing else.
async fn sleep(
    context: &mut WasiP1Ctx,
    memory: &mut GuestMemory<'_>,
    subscriptions: i32,
    count: i32,
) -> Option<Result<Event, Errno>> {
    let first: GuestPtr<Subscription> = GuestPtr::new(subscriptions as u32);
    let Subscription { userdata, u: SubscriptionU::Clock(clock) } = memory.read(first).ok().filter(|_| count == 1)?
    else {
        return None;
    };
    let Ok(now) = context.clock_time_get(memory, clock.id, clock.precision) else { return Some(Err(Errno::Inval)) };
    let is_absolute = clock.flags.contains(Subclockflags::SUBSCRIPTION_CLOCK_ABSTIME);
    let nanoseconds = if is_absolute { clock.timeout.saturating_sub(now) } else { clock.timeout };
    monotonic::sleep_until(Instant::now().checked_add(Duration::from_nanos(nanoseconds))).await;
    let fd_readwrite = EventFdReadwrite { nbytes: 0, flags: Eventrwflags::empty() };
    Some(Ok(Event { userdata, error: Errno::Success, type_: Eventtype::Clock, fd_readwrite }))
}

/// Regular files and directories can be opened only, for the reasons that `opening.rs` gives. What is not there can be
/// created. This looks before wasmtime-wasi opens, which for WASI 0.1 cannot be told not to wait, and keeps the table
/// of handles to itself: whoever puts a FIFO in the place of a file in between still blocks one worker, until the
/// FIFO's other end is opened.
async fn is_file(
    context: &mut WasiP1Ctx,
    memory: &mut GuestMemory<'_>,
    dir: i32,
    lookup: i32,
    (path, length): (i32, i32),
) -> bool {
    let Ok(lookup) = Lookupflags::try_from(lookup as u32) else { return true };
    let path = GuestPtr::new((path as u32, length as u32));
    match context.path_filestat_get(memory, dir.into(), lookup, path).await {
        Ok(found) => matches!(found.filetype, Filetype::RegularFile | Filetype::Directory | Filetype::SymbolicLink),
        Err(_) => true,
    }
}

/// What a program has open, and may have.
struct Files<'a> {
    opened: &'a mut Opened,
    granted: &'a Granted,
    /// So many handles.
    most: u32,
}

/// Calls a function with the program's memory, and waits for it.
fn call<R>(
    caller: &mut Caller<'_, State>,
    function: impl AsyncFnOnce(&mut WasiP1Ctx, &mut GuestMemory<'_>, Files<'_>) -> Result<R>,
) -> Result<R> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("the program exports no `memory`");
    };
    let (bytes, state) = memory.data_and_store_mut(caller);
    let Some(context) = &mut state.preview1 else { wasmtime::bail!("the program runs before it is given a request") };
    context.set_hostcall_fuel(state.limits.hostcall_bytes);
    let (opened, granted) = (&mut state.opened, &*state.hooks.granted);
    let files = Files { opened, granted, most: state.limits.handles };
    let mut memory = GuestMemory::Unshared(bytes);
    wait(&mut state.answer, &mut state.clock, function(context, &mut memory, files))?
}
