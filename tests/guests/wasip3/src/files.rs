//! `wasi:filesystem`: reads, lists, writes, removes, dates and hoards the path that is the query, below one of the directories that were granted.

use wasip3::{
    filesystem::{
        preopens,
        types::{Descriptor, DescriptorFlags, ErrorCode, Instant, NewTimestamp, OpenFlags, PathFlags},
    },
    http::types::{ErrorCode as HttpError, Fields, Response},
};

use crate::answers::{say, stream, with};

pub(crate) async fn answer(what: &str, path: &str) -> Result<Response, HttpError> {
    let told = match what {
        // Through no task of the guest's.
        "streams" => match open(path, OpenFlags::empty(), DescriptorFlags::READ).await {
            Ok(file) => return Ok(with(Fields::new(), file.read_via_stream(0).0)),
            Err(code) => Err(code),
        },
        "reads" => read(path).await,
        "lists" => list(path).await,
        "writes" => write(path, OpenFlags::CREATE).await,
        "truncates" => write(path, OpenFlags::TRUNCATE).await,
        "appends" => append(path).await,
        "removes" => remove(path).await,
        "touches" => touch(path).await,
        "hoards" => hoard(path).await,
        "hoards-lists" => hoard_lists(path).await,
        "rereads" => reread(path).await,
        _ => Ok(preopens::get_directories().into_iter().map(|(_, name)| name + "\n").collect()),
    };
    Ok(say(told.unwrap_or_else(|code| format!("{code:?}"))))
}

/// The directory that was granted under the start of a path, and the rest of the path.
fn split(path: &str) -> Result<(Descriptor, String), ErrorCode> {
    let below = |name: &str| path.strip_prefix(name).map(|rest| rest.trim_start_matches('/').to_owned());
    let mut all = preopens::get_directories().into_iter();
    all.find_map(|(dir, name)| Some((dir, below(&name)?))).ok_or(ErrorCode::NoEntry)
}

async fn open(path: &str, how: OpenFlags, flags: DescriptorFlags) -> Result<Descriptor, ErrorCode> {
    let (dir, rest) = split(path)?;
    dir.open_at(PathFlags::SYMLINK_FOLLOW, rest, how, flags).await
}

async fn read(path: &str) -> Result<String, ErrorCode> {
    let (contents, ended) = open(path, OpenFlags::empty(), DescriptorFlags::READ).await?.read_via_stream(0);
    let contents = contents.collect().await;
    ended.await?;
    Ok(String::from_utf8_lossy(&contents).into_owned())
}

async fn list(path: &str) -> Result<String, ErrorCode> {
    let (dir, rest) = split(path)?;
    let dir = match rest.as_str() {
        "" => dir,
        _ => dir.open_at(PathFlags::empty(), rest, OpenFlags::DIRECTORY, DescriptorFlags::READ).await?,
    };
    let (entries, ended) = dir.read_directory();
    let mut names: Vec<_> = entries.collect().await.into_iter().map(|entry| entry.name + "\n").collect();
    ended.await?;
    names.sort();
    Ok(names.concat())
}

/// How many files it can have open, and why not more.
async fn hoard(path: &str) -> Result<String, ErrorCode> {
    let mut all = Vec::new();
    loop {
        match open(path, OpenFlags::empty(), DescriptorFlags::READ).await {
            Ok(file) => all.push(file),
            Err(code) => return Ok(format!("{}, then {code:?}", all.len())),
        }
    }
}

/// The same of lists that are not read to their ends.
async fn hoard_lists(path: &str) -> Result<String, ErrorCode> {
    let (dir, _) = split(path)?;
    let mut all = Vec::new();
    loop {
        let (mut entries, ended) = dir.read_directory();
        if entries.next().await.is_none() {
            let code = ended.await.expect_err("there are entries");
            return Ok(format!("{}, then {code:?}", all.len()));
        }
        all.push((entries, ended));
    }
}

/// Reads and lists far more often than it could have open.
async fn reread(path: &str) -> Result<String, ErrorCode> {
    for _ in 0..200 {
        read(path).await?;
        list("/data").await?;
    }
    Ok("done".to_owned())
}

async fn write(path: &str, how: OpenFlags) -> Result<String, ErrorCode> {
    let file = open(path, how, DescriptorFlags::WRITE).await?;
    file.write_via_stream(stream("written"), 0).await?;
    Ok("done".to_owned())
}

async fn append(path: &str) -> Result<String, ErrorCode> {
    let file = open(path, OpenFlags::empty(), DescriptorFlags::WRITE).await?;
    file.append_via_stream(stream(", and more")).await?;
    Ok("done".to_owned())
}

async fn remove(path: &str) -> Result<String, ErrorCode> {
    let (dir, rest) = split(path)?;
    dir.unlink_file_at(rest).await?;
    Ok("done".to_owned())
}

/// Sets its times to the year 2001.
async fn touch(path: &str) -> Result<String, ErrorCode> {
    let (dir, rest) = split(path)?;
    let time = NewTimestamp::Timestamp(Instant { seconds: 1_000_000_000, nanoseconds: 0 });
    dir.set_times_at(PathFlags::SYMLINK_FOLLOW, rest, time, time).await?;
    Ok("done".to_owned())
}
