//! Sets the times of what the query names, below the first directory that was granted, to the year 2001; answers `done` or the error's code.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::{
    clocks::wall_clock::Datetime,
    filesystem::{
        preopens::get_directories,
        types::{NewTimestamp, PathFlags},
    },
    http::types::{IncomingRequest, ResponseOutparam},
};

test_guests::export!(touch);

fn touch(request: &IncomingRequest, responder: ResponseOutparam) {
    let path = request.path_with_query().unwrap_or_default();
    let (_, name) = path.split_once('?').expect("a name");
    let (dir, _) = get_directories().into_iter().next().expect("a directory");
    let time = NewTimestamp::Timestamp(Datetime { seconds: 1_000_000_000, nanoseconds: 0 });
    let answer = match dir.set_times_at(PathFlags::SYMLINK_FOLLOW, name, time, time) {
        Ok(()) => "done".to_owned(),
        Err(code) => code.name().to_owned(),
    };
    test_guests::answer(responder, &answer);
}
