//! WASI 0.1 (`wasi_snapshot_preview1`) for programs that are core modules.
//!
//! wasmtime-wasi's functions, each behind [`wait`], so that such programs wait as all guests do: with the same deadlines, and with their output
//! sent on first. They are not made components with wasmtime's adapter, as everywhere else in the field: that keeps its state in a page which
//! it lets the program's memory grow by, and Go's allocator takes all such pages for its own. Called on the worker that runs the guest.

use wasmtime::{Caller, Extern, Linker, Result};
use wasmtime_wasi::p1::{
    WasiP1Ctx,
    types::{Errno, Filetype, Lookupflags},
    wasi_snapshot_preview1::{self as p1, WasiSnapshotPreview1 as _},
};
use wiggle::{GuestMemory, GuestPtr};

use super::{blocking::wait, instance::State};

/// The one module that such programs import from.
const MODULE: &str = "wasi_snapshot_preview1";

/// A function of wasmtime-wasi's for each, and their names.
macro_rules! functions {
    (at once { $($now:ident($($n:ident: $n_type:ty),*);)* } may wait { $($later:ident($($l:ident: $l_type:ty),*);)* }) => {
        const NAMES: &[&str] = &[$(stringify!($now),)* $(stringify!($later),)* "path_open", "proc_exit"];

        fn link_plain(linker: &mut Linker<State>) -> Result<()> {
            $(linker.func_wrap(MODULE, stringify!($now), |mut caller: Caller<'_, State>, $($n: $n_type),*| {
                call(&mut caller, async |context, memory, _| p1::$now(context, memory, $($n),*))
            })?;)*
            $(linker.func_wrap(MODULE, stringify!($later), |mut caller: Caller<'_, State>, $($l: $l_type),*| {
                call(&mut caller, async |context, memory, _| p1::$later(context, memory, $($l),*).await)
            })?;)*
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
    fd_close(fd: i32);
    fd_datasync(fd: i32);
    fd_fdstat_get(fd: i32, fdstat: i32);
    fd_filestat_get(fd: i32, filestat: i32);
    fd_filestat_set_size(fd: i32, size: i64);
    fd_filestat_set_times(fd: i32, accessed: i64, modified: i64, flags: i32);
    fd_pread(fd: i32, buffers: i32, count: i32, offset: i64, read: i32);
    fd_pwrite(fd: i32, buffers: i32, count: i32, offset: i64, written: i32);
    fd_read(fd: i32, buffers: i32, count: i32, read: i32);
    fd_readdir(fd: i32, buffer: i32, length: i32, cookie: i64, used: i32);
    fd_renumber(from: i32, to: i32);
    fd_seek(fd: i32, offset: i64, whence: i32, position: i32);
    fd_sync(fd: i32);
    fd_write(fd: i32, buffers: i32, count: i32, written: i32);
    path_create_directory(fd: i32, path: i32, length: i32);
    path_filestat_get(fd: i32, flags: i32, path: i32, length: i32, filestat: i32);
    path_filestat_set_times(fd: i32, lookup: i32, path: i32, length: i32, accessed: i64, modified: i64, flags: i32);
    path_link(fd: i32, flags: i32, old: i32, old_length: i32, new_fd: i32, new: i32, new_length: i32);
    path_readlink(fd: i32, path: i32, length: i32, buffer: i32, buffer_length: i32, used: i32);
    path_remove_directory(fd: i32, path: i32, length: i32);
    path_rename(fd: i32, old: i32, old_length: i32, new_fd: i32, new: i32, new_length: i32);
    path_symlink(old: i32, old_length: i32, fd: i32, new: i32, new_length: i32);
    path_unlink_file(fd: i32, path: i32, length: i32);
    poll_oneoff(subscriptions: i32, events: i32, count: i32, ready: i32);
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
            call(&mut caller, async |context, memory, handles| {
                if !is_file(context, memory, dir, lookup, (path, length)).await {
                    return Ok(Errno::Perm as i32);
                }
                let result =
                    p1::path_open(context, memory, dir, lookup, path, length, open, base, inheriting, flags, opened);
                let result = result.await?;
                if result == Errno::Success as i32 {
                    let fd: u32 = memory.read(GuestPtr::new(opened as u32))?;
                    // The lowest free one, so that is how many there are.
                    if fd >= handles {
                        p1::fd_close(context, memory, fd as i32).await?;
                        return Ok(Errno::Mfile as i32);
                    }
                }
                Ok(result)
            })
        },
    )?;
    Ok(linker)
}

/// Regular files and directories can be opened only, for the reasons that `grants.rs` gives. What is not there can be created.
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

/// Calls a function with the program's memory, and waits for it. It is told how many handles there may be.
fn call<R>(
    caller: &mut Caller<'_, State>,
    function: impl AsyncFnOnce(&mut WasiP1Ctx, &mut GuestMemory<'_>, u32) -> Result<R>,
) -> Result<R> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("the program exports no `memory`");
    };
    let (bytes, state) = memory.data_and_store_mut(caller);
    let Some(context) = &mut state.preview1 else { wasmtime::bail!("the program runs before it is given a request") };
    context.set_hostcall_fuel(state.limits.hostcall_bytes);
    let handles = state.limits.handles;
    let mut memory = GuestMemory::Unshared(bytes);
    wait(&mut state.answer, &mut state.clock, function(context, &mut memory, handles))?
}
