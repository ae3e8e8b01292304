//! What is in a directory, as a stream for guests of WASI 0.3: a descriptor of its own that is open until the last of it is read.
//!
//! wasmtime-wasi's is the same, but for the [`Place`] that it does not have. Read on the worker that runs the guest.

use std::{
    iter,
    pin::Pin,
    task::{Context, Poll},
};

use cap_primitives::fs::{DirEntry, FileType, FileTypeExt as _, ReadDir, read_base_dir};
use tokio::sync::oneshot;
use wasmtime::{
    Result, StoreContextMut,
    component::{Destination, FutureReader, Resource, StreamProducer, StreamReader, StreamResult, VecBuffer},
};
use wasmtime_wasi::{
    filesystem::Descriptor,
    p3::bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode},
};

use super::{descriptors::Place, instance::State};

/// Entries that are read at once.
const MOST: usize = 128;

type Told = Result<(), ErrorCode>;

/// `descriptor.read-directory`: the entries, and how they ended.
pub(crate) fn read_directory(
    mut store: StoreContextMut<'_, State>,
    dir: &Resource<Descriptor>,
) -> Result<(StreamReader<DirectoryEntry>, FutureReader<Told>)> {
    let (tell, told) = oneshot::channel();
    let state = store.data_mut();
    let entries = match state.table.get(dir)? {
        Descriptor::File(_) => Err(ErrorCode::NotDirectory),
        Descriptor::Dir(dir) => {
            // There is no other code for too many open files.
            let place = state.hooks.granted.place(&mut state.opened);
            let place = place.ok_or(ErrorCode::InsufficientMemory);
            place.and_then(|place| Ok((read_base_dir(&dir.dir)?, place)))
        }
    };
    let entries = match entries {
        Ok((entries, place)) => StreamReader::new(&mut store, Listing { entries, tell: Some(tell), _place: place })?,
        Err(code) => {
            // Whether the guest wants to know is its own affair, here and below.
            let _ = tell.send(Err(code));
            StreamReader::new(&mut store, iter::empty())?
        }
    };
    Ok((entries, FutureReader::new(&mut store, told)?))
}

struct Listing {
    entries: ReadDir,
    tell: Option<oneshot::Sender<Told>>,
    _place: Place,
}

impl Listing {
    fn end(&mut self, told: Told) -> StreamResult {
        if let Some(tell) = self.tell.take() {
            let _ = tell.send(told);
        }
        StreamResult::Dropped
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.end(Ok(()));
    }
}

impl StreamProducer<State> for Listing {
    type Item = DirectoryEntry;
    type Buffer = VecBuffer<DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut store: StoreContextMut<'a, State>,
        mut to: Destination<'a, Self::Item, Self::Buffer>,
        _: bool,
    ) -> Poll<Result<StreamResult>> {
        // None asks whether there is something to read, and there always is.
        let most = to.remaining(&mut store).unwrap_or(MOST).min(MOST);
        let mut entries = Vec::new();
        let result = loop {
            if entries.len() == most {
                break StreamResult::Completed;
            }
            match self.entries.next().map(|found| entry(&found?)) {
                Some(Ok(entry)) => entries.push(entry),
                Some(Err(code)) => break self.end(Err(code)),
                None => break self.end(Ok(())),
            }
        };
        to.set_buffer(entries.into());
        Poll::Ready(Ok(result))
    }
}

fn entry(found: &DirEntry) -> Result<DirectoryEntry, ErrorCode> {
    let name = found.file_name().into_string().map_err(|_| ErrorCode::IllegalByteSequence)?;
    Ok(DirectoryEntry { type_: kind(found.metadata()?.file_type()), name })
}

fn kind(found: FileType) -> DescriptorType {
    match found {
        _ if found.is_file() => DescriptorType::RegularFile,
        _ if found.is_dir() => DescriptorType::Directory,
        _ if found.is_symlink() => DescriptorType::SymbolicLink,
        _ if found.is_block_device() => DescriptorType::BlockDevice,
        _ if found.is_char_device() => DescriptorType::CharacterDevice,
        _ => DescriptorType::Other(None),
    }
}
