//! The descriptors of this process that guests may have: for files, directories and sockets of theirs, and for connections of outgoing HTTP.
//!
//! Without a bound a handler's guests could have them all, and no client could connect any more. A [`Place`] is taken by whoever opens
//! something, before that, and held for as long as it is open. Used on the workers that run guests, and by tasks that connect.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{Arc, LazyLock, Weak},
};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the guests of one handler may have, and no more than half of what there is for all.
const OF_ONE_HANDLER: usize = 4096;
/// What one guest may have open, connections of outgoing HTTP aside, which belong to its handler.
const OF_ONE_GUEST: usize = 256;

/// What all guests may have.
static OF_ALL: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(of_all())));

/// Three sixteenths of what this process may have: clients have three quarters (`host.rs`), and the rest is for the host itself.
fn of_all() -> usize {
    let most = getrlimit(Resource::Nofile).current.and_then(|most| usize::try_from(most).ok());
    (most.unwrap_or(usize::MAX) / 16 * 3).min(Semaphore::MAX_PERMITS)
}

/// Places for descriptors, within larger rooms that others have a share of.
#[derive(Debug, Clone)]
pub(crate) struct Room(Vec<Arc<Semaphore>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Room {
    pub(crate) fn of_one_handler() -> Self {
        Self(vec![Arc::clone(&OF_ALL)]).within(OF_ONE_HANDLER.min(of_all() / 2))
    }

    /// A room of so many places, which are places of this one as well.
    pub(crate) fn within(&self, places: usize) -> Self {
        Self(self.0.iter().cloned().chain([Arc::new(Semaphore::new(places))]).collect())
    }

    /// None if all are taken, in one of the rooms.
    pub(crate) fn take(&self) -> Option<Place> {
        let permits = self.0.iter().map(|room| Arc::clone(room).try_acquire_owned().ok());
        Some(Place { _permits: permits.collect::<Option<_>>()? })
    }
}

/// What one guest has open. The places are given back with it at the latest, so it must outlive what they are for.
#[derive(Default)]
pub(crate) struct Opened {
    /// Made when first asked for.
    room: Option<Room>,
    /// Files and directories of components, which their streams may keep open after their handles.
    files: Vec<(Weak<File>, Place)>,
    /// What is open for as long as its number or handle is: files of WASI 0.1, or sockets of 0.2.
    numbered: BTreeMap<u32, Place>,
    /// Sockets of 0.3: nobody sees when the last of their streams ends.
    kept: Vec<Place>,
}

impl Opened {
    /// A place for one descriptor more, if there is any.
    pub(crate) fn place(&mut self, of_handler: &Room) -> Option<Place> {
        self.files.retain(|(file, _)| file.strong_count() > 0);
        self.room.get_or_insert_with(|| of_handler.within(OF_ONE_GUEST)).take()
    }

    /// It is this file's, or this directory's.
    pub(crate) fn open(&mut self, file: &Arc<File>, place: Place) {
        self.files.push((Arc::downgrade(file), place));
    }

    /// It is of what has this number.
    pub(crate) fn open_as(&mut self, number: u32, place: Place) {
        self.numbered.insert(number, place);
    }

    /// What had this number is closed.
    pub(crate) fn close(&mut self, number: u32) {
        self.numbered.remove(&number);
    }

    /// It has another number from now on, and what had that is closed.
    pub(crate) fn renumber(&mut self, from: u32, to: u32) {
        let place = self.numbered.remove(&from);
        self.close(to);
        if let Some(place) = place {
            self.open_as(to, place);
        }
    }

    /// It is taken until the guest has ended.
    pub(crate) fn keep(&mut self, place: Place) {
        self.kept.push(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler(places: usize) -> Room {
        Room(Vec::new()).within(places)
    }

    #[test]
    fn a_place_is_one_of_all_rooms_and_free_again_when_it_is_dropped() {
        let all = handler(3);
        let (one, other) = (all.within(2), all.within(2));
        let mut places = vec![one.take(), one.take(), other.take()];
        assert!(places.iter().all(Option::is_some));
        assert!(one.take().is_none() && other.take().is_none());
        places.swap_remove(0);
        let again = other.take();
        assert!(again.is_some() && one.take().is_none());
        drop(places);
        assert!(one.take().is_some() && other.take().is_some());
    }

    #[test]
    fn one_guest_has_not_all_places_of_its_handler() {
        let (room, mut guest) = (handler(2 * OF_ONE_GUEST), Opened::default());
        while let Some(place) = guest.place(&room) {
            guest.keep(place);
        }
        assert_eq!(guest.kept.len(), OF_ONE_GUEST);
        assert!(Opened::default().place(&room).is_some());
        drop(guest);
        assert_eq!(room.0[0].available_permits(), 2 * OF_ONE_GUEST);
    }

    #[test]
    fn a_file_has_its_place_for_as_long_as_something_has_it_open() {
        let (room, mut guest) = (handler(1), Opened::default());
        let file = Arc::new(File::open("/dev/null").expect("every Unix has it"));
        let place = guest.place(&room).expect("the first");
        guest.open(&file, place);
        let stream = Arc::clone(&file);
        drop(file);
        assert!(guest.place(&room).is_none());
        drop(stream);
        assert!(guest.place(&room).is_some());
    }

    #[test]
    fn what_has_a_number_has_its_place_until_that_is_closed_or_anothers() {
        let (room, mut guest) = (handler(2), Opened::default());
        for number in [4, 5] {
            let place = guest.place(&room).expect("one of two");
            guest.open_as(number, place);
        }
        assert!(guest.place(&room).is_none());
        guest.renumber(5, 4);
        assert!(guest.place(&room).is_some(), "what was 4 is closed");
        guest.close(5);
        guest.renumber(0, 4);
        assert_eq!(room.0[0].available_permits(), 2);
    }
}
