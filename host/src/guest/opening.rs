//! How guests of WASI 0.2 and 0.3 open what is below a granted directory: regular files and directories only, without
//! waiting, and not more than there are descriptors for (`descriptors.rs`).
//!
//! Opening a FIFO waits for its other end, where no deadline reaches, and devices and sockets are no files.
//! wasmtime-wasi opens whatever is there, as `open` does and to set times by a path, so both are ours. What a path
//! leads to is looked at before it is opened, since opening a device may do something, and again afterwards, since
//! another guest may have put something else there; nothing is waited for in between. Paths are resolved by cap-std, as
//! wasmtime-wasi does it. Called on the worker that runs the guest.

use std::io::{self, ErrorKind};

use cap_fs_ext::{OpenOptionsFollowExt as _, OpenOptionsSyncExt as _};
use cap_primitives::fs::{FollowSymlinks, OpenOptions};
use rustix::io::Errno;
use wasmtime::{
    Result, StoreContextMut,
    component::{Accessor, Linker, Resource, ResourceTable, ResourceTableError},
};
use wasmtime_wasi::{
    OpenMode,
    filesystem::{Descriptor, Dir, File, WasiFilesystem, WasiFilesystemCtxView, WasiFilesystemView as _},
    p2::{
        FsError, FsResult,
        bindings::sync::filesystem::types::{self as types02, Host as _, HostDescriptor as _},
    },
    p3::{
        bindings::filesystem::types::{self as types03, HostDescriptorWithStore as _},
        filesystem::{FilesystemError, FilesystemResult},
    },
};

use super::{instance::State, listing};

/// File calls keep their worker and its seat, rather than hop to a thread of Tokio's and back.
pub(crate) const ON_WORKER: bool = true;

/// How something is to be opened, in the words of either line.
#[derive(Default)]
struct How {
    follow: bool,
    create: bool,
    exclusive: bool,
    truncate: bool,
    directory: bool,
    read: bool,
    write: bool,
    sync: bool,
}

impl How {
    fn reads(&self) -> bool {
        self.read || !self.write
    }

    fn writes(&self) -> bool {
        self.create || self.truncate || self.write
    }

    fn follows(&self) -> FollowSymlinks {
        if self.follow { FollowSymlinks::Yes } else { FollowSymlinks::No }
    }
}

macro_rules! how {
    ($types:ident, $path_flags:expr, $open_flags:expr, $flags:expr) => {
        How {
            follow: $path_flags.contains($types::PathFlags::SYMLINK_FOLLOW),
            create: $open_flags.contains($types::OpenFlags::CREATE),
            exclusive: $open_flags.contains($types::OpenFlags::EXCLUSIVE),
            truncate: $open_flags.contains($types::OpenFlags::TRUNCATE),
            directory: $open_flags.contains($types::OpenFlags::DIRECTORY),
            read: $flags.contains($types::DescriptorFlags::READ),
            write: $flags.contains($types::DescriptorFlags::WRITE),
            sync: $flags.contains($types::DescriptorFlags::FILE_INTEGRITY_SYNC)
                || $flags.contains($types::DescriptorFlags::DATA_INTEGRITY_SYNC)
                || $flags.contains($types::DescriptorFlags::REQUESTED_WRITE_SYNC),
        }
    };
}

/// Opens what is there under a path, or creates it.
///
/// # Errors
/// What wasmtime-wasi would say, and `EPERM` for what is neither a regular file nor a directory.
fn open(dir: &Dir, path: &str, how: &How) -> io::Result<Descriptor> {
    if how.sync {
        return Err(Errno::NOTSUP.into());
    }
    if how.directory && (how.create || how.exclusive || how.truncate) {
        return Err(Errno::INVAL.into());
    }
    if how.writes() && dir.perms.write_not_permitted() {
        return Err(Errno::PERM.into());
    }
    // Not there, or not to be seen: opening says so, or creates it.
    if let Ok(found) = cap_primitives::fs::stat(&dir.dir, path.as_ref(), how.follows())
        && !(found.is_file() || found.is_dir() || found.is_symlink())
    {
        return Err(Errno::PERM.into());
    }
    open_at_once(dir, path, how)
}

/// Opens what is there, whatever it is now.
fn open_at_once(dir: &Dir, path: &str, how: &How) -> io::Result<Descriptor> {
    let mut options = OpenOptions::new();
    options.read(how.reads()).write(how.writes()).truncate(how.truncate);
    options.follow(how.follows()).nonblock(true);
    options.create(how.create).create_new(how.create && how.exclusive);
    let file = cap_primitives::fs::open(&dir.dir, path.as_ref(), &options).map_err(|error| {
        // A FIFO that nobody reads, or a socket.
        if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) { Errno::PERM.into() } else { error }
    })?;
    let found = file.metadata()?;
    let mut mode = OpenMode::empty();
    mode.set(OpenMode::READ, how.reads());
    mode.set(OpenMode::WRITE, how.writes());
    if found.is_dir() {
        Ok(Descriptor::Dir(Dir::new(file, dir.perms, mode, ON_WORKER)))
    } else if !found.is_file() {
        Err(Errno::PERM.into())
    } else if how.directory {
        Err(Errno::NOTDIR.into())
    } else {
        Ok(Descriptor::File(File::new(file, dir.perms, mode, ON_WORKER)))
    }
}

/// Opens something to set its times, for which any way of opening it will do.
fn open_to_touch(dir: &Dir, path: &str) -> io::Result<Descriptor> {
    let reads = How { follow: true, read: true, ..How::default() };
    let writes = How { follow: true, write: true, ..How::default() };
    match open(dir, path, &reads) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => open(dir, path, &writes),
        opened => opened,
    }
}

/// A handle to what `open` opens.
fn push<E: From<io::Error> + From<ResourceTableError>>(
    table: &mut ResourceTable,
    dir: &Resource<Descriptor>,
    open: impl FnOnce(&Dir) -> io::Result<Descriptor>,
) -> Result<Resource<Descriptor>, E> {
    let Descriptor::Dir(dir) = table.get(dir)? else { return Err(io::Error::from(Errno::NOTDIR).into()) };
    let opened = open(dir)?;
    Ok(table.push(opened)?)
}

/// What a guest has open from then on.
fn open_for<E: From<io::Error> + From<ResourceTableError>>(
    state: &mut State,
    dir: &Resource<Descriptor>,
    open: impl FnOnce(&Dir) -> io::Result<Descriptor>,
) -> Result<Resource<Descriptor>, E> {
    // There is no other code for too many open files.
    let place = state.place().ok_or(io::Error::from(Errno::NOMEM))?;
    let opened = push::<E>(&mut state.table, dir, open)?;
    let (Descriptor::File(File { file, .. }) | Descriptor::Dir(Dir { dir: file, .. })) = state.table.get(&opened)?;
    state.opened.open(file, place);
    Ok(opened)
}

/// Replaces `descriptor.open-at` and `descriptor.set-times-at` in a linker that has wasmtime-wasi's
/// `wasi:filesystem/types` of 0.2.
pub(crate) fn link(linker: &mut Linker<State>) -> Result<()> {
    type Open = (Resource<Descriptor>, types02::PathFlags, String, types02::OpenFlags, types02::DescriptorFlags);
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    types.func_wrap(
        "[method]descriptor.open-at",
        |mut store: StoreContextMut<'_, State>, (dir, path_flags, path, open_flags, flags): Open| {
            let how = how!(types02, path_flags, open_flags, flags);
            let state = store.data_mut();
            Ok((match open_for::<FsError>(state, &dir, |dir| open(dir, &path, &how)) {
                Ok(descriptor) => Ok(descriptor),
                Err(error) => Err(error.downcast()?),
            },))
        },
    )?;
    types.func_wrap(
        "[method]descriptor.set-times-at",
        |mut store: StoreContextMut<'_, State>, times: SetTimes02| {
            let mut files = store.data_mut().filesystem();
            Ok((match set_times_at(&mut files, times) {
                Ok(()) => Ok(()),
                Err(error) => Err(files.convert_error_code(error)?),
            },))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

type SetTimes02 = (Resource<Descriptor>, types02::PathFlags, String, types02::NewTimestamp, types02::NewTimestamp);

fn set_times_at(
    files: &mut WasiFilesystemCtxView<'_>,
    (dir, path_flags, path, accessed, modified): SetTimes02,
) -> FsResult<()> {
    if !path_flags.contains(types02::PathFlags::SYMLINK_FOLLOW) {
        return files.set_times_at(dir, path_flags, path, accessed, modified);
    }
    let opened = push::<FsError>(files.table, &dir, |dir| open_to_touch(dir, &path))?;
    let set = files.set_times(Resource::new_borrow(opened.rep()), accessed, modified);
    files.table.delete(opened)?;
    set
}

/// The same of 0.3, and `descriptor.read-directory`.
pub(crate) fn link_03(linker: &mut Linker<State>) -> Result<()> {
    type Open = (Resource<Descriptor>, types03::PathFlags, String, types03::OpenFlags, types03::DescriptorFlags);
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:filesystem/types@0.3.0")?;
    types.func_wrap_concurrent(
        "[method]descriptor.open-at",
        |accessor: &Accessor<State>, (dir, path_flags, path, open_flags, flags): Open| {
            let how = how!(types03, path_flags, open_flags, flags);
            Box::pin(async move {
                let open = |dir: &Dir| open(dir, &path, &how);
                Ok((match accessor.with(|mut access| open_for::<FilesystemError>(access.get(), &dir, open)) {
                    Ok(descriptor) => Ok(descriptor),
                    Err(error) => Err(error.downcast()?),
                },))
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.set-times-at",
        |accessor: &Accessor<State>, times: SetTimes03| {
            let files = accessor.with_getter::<WasiFilesystem>(State::filesystem);
            Box::pin(async move {
                Ok((match set_times_at_03(&files, times).await {
                    Ok(()) => Ok(()),
                    Err(error) => Err(error.downcast()?),
                },))
            })
        },
    )?;
    types.func_wrap(
        "[method]descriptor.read-directory",
        |store: StoreContextMut<'_, State>, (dir,): (Resource<Descriptor>,)| {
            Ok((listing::read_directory(store, &dir)?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

type SetTimes03 = (Resource<Descriptor>, types03::PathFlags, String, types03::NewTimestamp, types03::NewTimestamp);

async fn set_times_at_03(
    files: &Accessor<State, WasiFilesystem>,
    (dir, path_flags, path, accessed, modified): SetTimes03,
) -> FilesystemResult<()> {
    if !path_flags.contains(types03::PathFlags::SYMLINK_FOLLOW) {
        return WasiFilesystem::set_times_at(files, dir, path_flags, path, accessed, modified).await;
    }
    let open = |dir: &Dir| open_to_touch(dir, &path);
    let opened = files.with(|mut files| push::<FilesystemError>(files.get().table, &dir, open))?;
    let set = WasiFilesystem::set_times(files, Resource::new_borrow(opened.rep()), accessed, modified).await;
    files.with(|mut files| files.get().table.delete(opened))?;
    set
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use wasmtime_wasi::FsPerms;

    use super::*;

    /// Somebody has put a FIFO there after it was looked at.
    #[test]
    fn nothing_is_waited_for() {
        let path = std::env::temp_dir().join(format!("astra-opening-{}", std::process::id()));
        fs::create_dir_all(&path).expect("can be made");
        assert!(Command::new("mkfifo").arg(path.join("fifo")).status().expect("a Unix").success());
        let dir = fs::File::open(&path).expect("is there");
        let dir = Dir::new(dir, FsPerms::ReadWrite, OpenMode::READ, ON_WORKER);
        for (read, write) in [(true, false), (false, true), (true, true)] {
            let error = open_at_once(&dir, "fifo", &How { read, write, ..How::default() }).err().expect("no file");
            assert_eq!(error.raw_os_error(), Some(Errno::PERM.raw_os_error()), "{read} {write}");
        }
        fs::remove_dir_all(&path).expect("ours");
    }
}
