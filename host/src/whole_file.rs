//! Files as a whole: writing one so that nobody ever sees half of it, whatever ends us in between (under another name first, in the same
//! directory), and reading one that is no longer than it should be. Blocks on the disk, and on nothing else.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    path::Path,
};

/// What unfinished files begin with; the rest is the name to be and our process.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// Makes or replaces the file. When this returns it is on the disk, under its name.
///
/// # Errors
/// `write` fails, or the file cannot be made or renamed, or something else has its name (a device), and nothing has changed; or the disk
/// fails after that.
pub(crate) fn write(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    if let Ok(found) = fs::symlink_metadata(path)
        && !found.is_symlink()
    {
        require_file(&found)?;
    }
    let unfinished = path.with_file_name(format!("{UNFINISHED}{}-{}", name.to_string_lossy(), std::process::id()));
    let written = File::create_new(&unfinished)
        .and_then(|mut file| write(&mut file).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written?;
    // The name is in the directory, which has to reach the disk too.
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// The largest file that [`read`] reads.
const MOST: u64 = 1 << 20;

/// What is in a regular file of at most 1 MiB.
///
/// # Errors
/// It is longer, something else (opening a pipe would wait for its other end), or cannot be read.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    require_file(&fs::metadata(path)?)?;
    let mut bytes = Vec::new();
    match File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)? as u64 {
        0..=MOST => Ok(bytes),
        _ => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1MiB")),
    }
}

fn require_file(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    let found = if found.is_dir() { "it is a directory" } else { "it is a pipe, a socket or a device" };
    Err(io::Error::new(io::ErrorKind::InvalidInput, found))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_over() {
        let dir = std::env::temp_dir().join(format!("astra-host-whole-file-{}", std::process::id()));
        fs::create_dir(&dir).expect("is new");
        let path = dir.join("app.cwasm");
        write(&path, |file| file.write_all(b"old and long")).expect("writes");
        write(&path, |file| file.write_all(b"new")).expect("writes");
        let half = write(&path, |file| file.write_all(b"half").and(Err(io::ErrorKind::StorageFull.into())));
        assert_eq!(half.expect_err("is passed on").kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).expect("reads"), b"new");
        assert!(write(&dir.join("none/app.cwasm"), |_| Ok(())).is_err());
        let socket = dir.join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("binds");
        assert_eq!(
            write(&socket, |_| Ok(())).expect_err("is no file").to_string(),
            "it is a pipe, a socket or a device"
        );
        assert!(!fs::metadata(&socket).expect("is there").is_file());
        assert_eq!(fs::read_dir(&dir).expect("lists").count(), 2);
        fs::remove_dir_all(&dir).expect("removes");
    }

    #[test]
    fn what_is_no_regular_file_of_a_reasonable_length_is_not_read() {
        let dir = std::env::temp_dir().join(format!("astra-host-read-file-{}", std::process::id()));
        fs::create_dir(&dir).expect("is new");
        let (file, fifo) = (dir.join("file"), dir.join("fifo"));
        fs::write(&file, vec![0; 1 << 20]).expect("ours");
        assert_eq!(read(&file).expect("reads").len(), 1 << 20);
        fs::write(&file, vec![0; (1 << 20) + 1]).expect("ours");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("POSIX has it");
        assert!(made.success());
        let error = |path: &Path| read(path).expect_err("is refused").to_string();
        let told = [&*file, &fifo, &dir, Path::new("/dev/zero")].map(error);
        let device = "it is a pipe, a socket or a device";
        assert_eq!(told, ["it is longer than 1MiB", device, "it is a directory", device]);
        fs::remove_dir_all(&dir).expect("removes");
    }
}
