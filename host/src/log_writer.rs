//! Where every log line goes: one thread that writes, behind a bounded buffer. Logging never blocks who logs.
//!
//! A line is formatted by the thread that has something to say and appended to a buffer under a short lock. The writer swaps
//! the buffer for an empty one and writes it out in one call, at most 200 times a second: the first line after a pause
//! goes out at once, and a busy host does not pay a thread switch for each line. When whoever reads the output is too
//! slow, lines are dropped and counted, and the writer says how many as soon as it catches up.
//!
//! Also the [`log::Log`] for what astra-server, wasmtime and this crate report.

use std::{
    cell::RefCell,
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{log_line::LogFormat, short_text::shortened};

/// Bytes that may wait to be written.
const BUFFER: usize = 1 << 20;

/// Bytes that may wait before guests' own lines are dropped: a guest that prints without end does not cost us the
/// access lines.
const BUFFER_FOR_GUESTS: usize = BUFFER / 2;

/// The longest message of the host's own, before anything in it is escaped: what errors say may be a guest's or a client's text.
const MESSAGE: usize = 8 * 1024;

/// What a thread keeps of the room that its lines have taken.
const KEPT: usize = 4 * 1024;

/// The pause after each write, in which lines gather.
const PAUSE: Duration = Duration::from_millis(5);

/// How long an ending host waits for a reader of the log that has stopped reading.
const PATIENCE: Duration = Duration::from_secs(2);

/// A place to log to. Cheap to clone; whoever owns the [`LogWriter`] decides how long it lasts, later lines are lost.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    format: LogFormat,
    access: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Written by everyone who logs; emptied by the writer.
#[derive(Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    /// The writer waits for a line: only then is waking it worth a system call.
    idle: bool,
    closed: bool,
    /// The writer has written everything and is about to end.
    finished: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who may fill how much of the buffer.
#[derive(Clone, Copy)]
pub(crate) enum Origin {
    Host,
    Guest,
}

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Log {
    /// Whether there is an access log: if not, nobody needs to collect what would be in it.
    pub(crate) fn has_access_lines(&self) -> bool {
        self.access
    }

    pub(crate) fn format(&self) -> LogFormat {
        self.format
    }

    /// Formats a line on this thread and leaves it to the writer. `format` adds no line feed.
    pub(crate) fn line(&self, origin: Origin, format: impl FnOnce(&mut String)) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            format(line);
            line.push('\n');
            self.append(origin, line.as_bytes());
            line.clear();
            line.shrink_to(KEPT);
        });
    }

    fn append(&self, origin: Origin, line: &[u8]) {
        let room = match origin {
            Origin::Host => BUFFER,
            Origin::Guest => BUFFER_FOR_GUESTS,
        };
        let mut state = self.shared.lock();
        if state.closed {
            return;
        }
        if state.lines.len() + line.len() > room {
            state.dropped += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        if mem::take(&mut state.idle) {
            drop(state);
            self.shared.changed.notify_all();
        }
    }
}

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // Of others, such as those that make machine code, only what an operator would want.
        let most =
            if metadata.target().starts_with("astra") { log::LevelFilter::Trace } else { log::LevelFilter::Info };
        metadata.level() <= log::max_level().min(most)
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Formatted before the line's own buffer is borrowed: an argument's `Display` may log too.
        let message = shortened(record.args(), MESSAGE);
        self.line(Origin::Host, |line| {
            self.format.host_line(line, record.level(), record.target(), &message);
        });
    }

    fn flush(&self) {}
}

/// Owns the writing thread; dropping it writes what is left and joins the thread.
pub struct LogWriter {
    log: Log,
    thread: Option<JoinHandle<()>>,
}

impl LogWriter {
    /// Starts the thread that writes to `output`. Access lines are written when `access` says so.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(format: LogFormat, access: bool, output: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let log = Log { shared, format, access };
        let thread = thread::Builder::new().name("log".to_owned()).spawn({
            let log = log.clone();
            move || write_lines(&log, output)
        })?;
        Ok(Self { log, thread: Some(thread) })
    }

    /// The place to log to.
    #[must_use]
    pub fn log(&self) -> Log {
        self.log.clone()
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let mut state = self.log.shared.lock();
        state.closed = true;
        self.log.shared.changed.notify_all();
        let waited = self.log.shared.changed.wait_timeout_while(state, PATIENCE, |state| !state.finished);
        let finished = waited.unwrap_or_else(PoisonError::into_inner).0.finished;
        // A writer that is stuck because nobody reads the output must not keep the process from ending.
        if let Some(thread) = self.thread.take().filter(|_| finished) {
            let _ = thread.join();
        }
    }
}

fn write_lines(log: &Log, mut output: impl Write) {
    let mut batch = Vec::new();
    let mut lost = None;
    loop {
        let mut state = log.shared.lock();
        while state.lines.is_empty() && state.dropped == 0 && !state.closed {
            state.idle = true;
            state = log.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        if state.lines.is_empty() && state.dropped == 0 {
            break;
        }
        mem::swap(&mut state.lines, &mut batch);
        let dropped = mem::take(&mut state.dropped);
        let closed = state.closed;
        drop(state);

        write(log, &mut output, &batch, &mut lost);
        batch.clear();
        if dropped > 0 {
            let mut line = Vec::new();
            own_line(log, &mut line, &format!("{dropped} log lines dropped: whoever reads the log is too slow"));
            write(log, &mut output, &line, &mut lost);
        }
        if !closed {
            thread::sleep(PAUSE);
        }
    }
    let mut state = log.shared.lock();
    state.finished = true;
    log.shared.changed.notify_all();
}

/// Lines that could not be written, and why not.
struct Lost {
    lines: usize,
    error: io::Error,
    /// The last line of the output has no end.
    is_torn: bool,
}

/// Writes lines, after one that says how many were lost before, if any were. Those that cannot be written are lost: a full disk may have
/// room again, and if nobody reads any more there is no one to tell.
fn write(log: &Log, output: &mut impl Write, lines: &[u8], lost: &mut Option<Lost>) {
    let mut before = Vec::new();
    let mut was_torn = false;
    if let Some(Lost { lines, error, is_torn }) = lost {
        was_torn = *is_torn;
        before.extend(is_torn.then_some(b'\n'));
        own_line(log, &mut before, &format!("{lines} log lines lost: the log could not be written: {error}"));
    }
    let count = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    let so_far = lost.as_ref().map_or(0, |lost| lost.lines);
    let is_torn = |text: &[u8], length: usize| text[..length].last().map(|last| *last != b'\n');
    *lost = match write_part(output, &before) {
        Err((written, error)) => {
            let is_torn = is_torn(&before, written).unwrap_or(was_torn);
            Some(Lost { lines: so_far + count(lines), error, is_torn })
        }
        Ok(()) => match write_part(output, lines).and_then(|()| output.flush().map_err(|error| (lines.len(), error))) {
            Ok(()) => None,
            Err((written, error)) => {
                Some(Lost { lines: count(&lines[written..]), error, is_torn: is_torn(lines, written).unwrap_or(false) })
            }
        },
    };
}

/// As `write_all`; an error says how much was written.
fn write_part(output: &mut impl Write, text: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < text.len() {
        match output.write(&text[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

fn own_line(log: &Log, out: &mut Vec<u8>, message: &str) {
    let mut line = String::new();
    log.format.host_line(&mut line, log::Level::Warn, "astra_host::log", message);
    line.push('\n');
    out.extend_from_slice(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output that tells of each write and waits for permission to go on when it has a gate.
    struct Output {
        written: Arc<Mutex<Vec<u8>>>,
        gate: Option<mpsc::Receiver<()>>,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(gate) = &self.gate {
                let _ = gate.recv();
            }
            self.written.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn text(written: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(written.lock().expect("not poisoned").clone()).expect("is text")
    }

    #[test]
    fn every_line_is_written_before_the_writer_is_gone() {
        let written = Arc::default();
        let writer = LogWriter::start(LogFormat::Text, true, Output { written: Arc::clone(&written), gate: None })
            .expect("starts");
        thread::scope(|scope| {
            for _ in 0..4 {
                let log = writer.log();
                scope
                    .spawn(move || (0..250).for_each(|n| log.line(Origin::Host, |line| line.push_str(&n.to_string()))));
            }
        });
        let log = writer.log();
        drop(writer);
        assert_eq!(text(&written).lines().count(), 1000);
        log.line(Origin::Host, |line| line.push_str("too late"));
        assert!(!text(&written).contains("too late"));
    }

    #[test]
    fn a_line_is_never_so_long_that_others_have_no_room_and_nobody_keeps_its_memory() {
        let written = Arc::default();
        let writer = LogWriter::start(LogFormat::Text, true, Output { written: Arc::clone(&written), gate: None })
            .expect("starts");
        let long = "\u{1}".repeat(BUFFER);
        log::set_max_level(log::LevelFilter::Info);
        let mut record = log::Record::builder();
        log::Log::log(&writer.log(), &record.target("astra_host").args(format_args!("it said {long}")).build());
        assert!(LINE.with_borrow(String::capacity) <= KEPT);
        drop(writer);
        let text = text(&written);
        assert!(text.contains("it said \\u{1}\\u{1}") && text.ends_with("…\n"), "{} bytes", text.len());
        assert!(text.len() < 6 * MESSAGE, "{} bytes", text.len());
    }

    /// A disk that is full until it is told to have room.
    struct Disk {
        has_room: Arc<Mutex<bool>>,
        written: Arc<Mutex<Vec<u8>>>,
        tried: mpsc::Sender<()>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let has_room = *self.has_room.lock().expect("not poisoned");
            self.tried.send(()).expect("the test listens");
            if !has_room {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_has_cost_are_told_when_there_is_room_again() {
        let (has_room, written) = (Arc::new(Mutex::new(false)), Arc::default());
        let (tried, tries) = mpsc::channel();
        let disk = Disk { has_room: Arc::clone(&has_room), written: Arc::clone(&written), tried };
        let writer = LogWriter::start(LogFormat::Text, true, disk).expect("starts");
        for line in ["one", "two"] {
            writer.log().line(Origin::Host, |out| out.push_str(line));
            tries.recv().expect("it is tried");
        }
        *has_room.lock().expect("not poisoned") = true;
        writer.log().line(Origin::Host, |out| out.push_str("three"));
        drop(writer);
        let text = text(&written);
        let (told, rest) = text.split_once('\n').expect("two lines");
        assert!(told.contains("2 log lines lost: the log could not be written: "), "{told}");
        assert_eq!(rest, "three\n");
    }

    /// A disk on which there is room for so much more.
    struct Filling {
        room: Arc<Mutex<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
        tried: mpsc::Sender<()>,
    }

    impl Write for Filling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut room = self.room.lock().expect("not poisoned");
            let length = bytes.len().min(*room);
            *room -= length;
            self.written.lock().expect("not poisoned").extend_from_slice(&bytes[..length]);
            if length > 0 {
                return Ok(length);
            }
            self.tried.send(()).expect("the test listens");
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_follows_a_line_that_a_full_disk_has_torn_is_a_line_of_its_own() {
        let (room, written) = (Arc::new(Mutex::new("one\ntw".len())), Arc::default());
        let (tried, tries) = mpsc::channel();
        let disk = Filling { room: Arc::clone(&room), written: Arc::clone(&written), tried };
        let writer = LogWriter::start(LogFormat::Text, true, disk).expect("starts");
        for _ in 0..2 {
            writer.log().line(Origin::Host, |out| out.push_str("one\ntwo"));
            tries.recv().expect("it is tried");
        }
        *room.lock().expect("not poisoned") = usize::MAX;
        writer.log().line(Origin::Host, |out| out.push_str("three"));
        drop(writer);
        let text = text(&written);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[1], lines[3], lines.len()), ("one", "tw", "three", 4), "{text}");
        // The torn one, and both of the second time.
        assert!(lines[2].contains("3 log lines lost: the log could not be written: "), "{text}");
    }

    #[test]
    fn a_slow_reader_costs_lines_but_never_blocks_and_is_told() {
        let written = Arc::default();
        let (open, gate) = mpsc::channel();
        let output = Output { written: Arc::clone(&written), gate: Some(gate) };
        let writer = LogWriter::start(LogFormat::Text, true, output).expect("starts");
        let log = writer.log();
        let long = "x".repeat(1023);
        for _ in 0..5000 {
            log.line(Origin::Guest, |line| line.push_str(&long));
        }
        log.line(Origin::Host, |line| line.push_str("the host still has room"));
        drop(open);
        drop(writer);
        let written = text(&written);
        let kept = written.lines().filter(|line| *line == long).count();
        assert!((512..=1024).contains(&kept), "{kept}");
        assert!(written.contains("the host still has room"));
        let reports = written.lines().filter_map(|line| line.split_once(" log lines dropped")?.0.rsplit(' ').next());
        let told: usize = reports.map(|number| number.parse::<usize>().expect("is a number")).sum();
        assert_eq!(kept + told, 5000);
    }
}
