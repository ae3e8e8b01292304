//! Compiling in a process of its own, so that a module that comes while the host serves cannot take its memory, its time or its life.
//!
//! The process is our own program, `astra-host compile --for-host`: low priority, bounded memory, killed with us. It reads the module
//! from its standard input and writes the machine code to its standard output, pipes that nobody else has. Everything here runs on
//! the thread that loads the module, which is no worker, and on three more that feed the pipes and are joined. Knows nothing of wasmtime.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{config::CompileConfig, guest::CacheMode};

/// Of what the process says when it fails, so many bytes are read; the last line is the reason.
const MAX_COMPLAINT: u64 = 16 * 1024;
/// Longer reasons are cut.
const MAX_REASON: usize = 500;
/// `nice` for what can wait: a thirtieth of a core that a busy host has to share with it, which its p99 does not notice. At 10 it would be
/// a tenth, which doubles the p99; at 19 a seventieth, and a module of 8 MiB would take four minutes.
const PRIORITY: i32 = 15;
/// The first line of the output when the machine code was in the cache.
pub(crate) const CACHED: &str = "cached\n";
/// The first line of the output when it had to be made.
pub(crate) const COMPILED: &str = "compiled\n";

/// Compiles modules for one host, one at a time.
#[derive(Debug)]
pub(crate) struct Compiler {
    program: PathBuf,
    arguments: Vec<OsString>,
    timeout: Duration,
    memory: u64,
    one_at_a_time: Mutex<()>,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    /// Tells whoever waits for a process that it is not wanted any more.
    cancel: Option<Sender<Event>>,
    stopped: bool,
}

#[derive(Debug)]
enum Event {
    /// The process has closed its output.
    Written(io::Result<Vec<u8>>),
    Stop,
}

/// What came of a module.
#[derive(Debug)]
pub(crate) struct MachineCode {
    pub(crate) code: Vec<u8>,
    /// It was in the cache.
    pub(crate) cached: bool,
    /// From the start of the process to its end.
    pub(crate) took: Duration,
}

/// Why a module was not compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CompileError {
    /// It took longer than this.
    Timeout(Duration),
    /// It needs more memory than this, in bytes.
    Memory(u64),
    /// Anything else.
    Other(String),
}

impl Compiler {
    /// `None`: there is no program to run.
    pub(crate) fn new(config: &CompileConfig, cache: CacheMode) -> Option<Self> {
        let program = config.program.clone()?;
        let mut arguments = vec!["compile".into(), "--for-host".into(), config.memory.to_string().into()];
        if cache == CacheMode::Off {
            arguments.push("--no-cache".into());
        }
        let (one_at_a_time, running) = Default::default();
        Some(Self { program, arguments, timeout: config.timeout, memory: config.memory, one_at_a_time, running })
    }

    /// The host is about to end: what is being compiled is given up, and nothing more is.
    pub(crate) fn stop(&self) {
        let mut running = self.running();
        running.stopped = true;
        if let Some(cancel) = running.cancel.take() {
            // Nobody listens if it is done already.
            let _ = cancel.send(Event::Stop);
        }
    }

    /// Compiles a module. Takes as long as that takes, behind those who came before.
    ///
    /// # Errors
    /// Why not; no process is left.
    pub(crate) fn compile(&self, module: &[u8]) -> Result<MachineCode, CompileError> {
        let _turn = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let (events, received) = mpsc::channel();
        {
            let mut running = self.running();
            if running.stopped {
                return Err(stopping());
            }
            running.cancel = Some(events.clone());
        }
        let started = Instant::now();
        let mut process = self
            .start()
            .map_err(|error| CompileError::Other(format!("`{}` cannot be run: {error}", self.program.display())))?;
        let (stdin, stdout, stderr) = (process.0.stdin.take(), process.0.stdout.take(), process.0.stderr.take());
        let most = self.memory; // no machine code is larger than what it took to make it
        thread::scope(|scope| {
            // A process that does not read all of it says why.
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(module)));
            let complaint = scope.spawn(move || stderr.map(complaint).unwrap_or_default());
            scope.spawn(move || {
                let mut code = Vec::new();
                let read = stdout.map_or(Ok(0), |stdout| stdout.take(most).read_to_end(&mut code));
                let _ = events.send(Event::Written(read.map(|_| code)));
            });
            let event = received.recv_timeout(self.timeout);
            if !matches!(event, Ok(Event::Written(_))) {
                process.kill(); // which ends the three threads
            }
            let status = process.wait();
            let complaint = complaint.join().unwrap_or_default();
            match event {
                Ok(Event::Written(Ok(output))) if status.as_ref().is_ok_and(ExitStatus::success) => {
                    unpack(output, started.elapsed())
                }
                Ok(Event::Written(_)) => Err(self.explain(status, &complaint)),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => Err(stopping()),
                Err(RecvTimeoutError::Timeout) => Err(CompileError::Timeout(self.timeout)),
            }
        })
    }

    fn start(&self) -> io::Result<Process> {
        let mut command = Command::new(&self.program);
        // Printing a backtrace takes memory and a lock: who runs out of memory over it would wait for itself.
        command.env("RUST_BACKTRACE", "0").env("RUST_LIB_BACKTRACE", "0");
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map(Process)
    }

    fn explain(&self, status: io::Result<ExitStatus>, complaint: &str) -> CompileError {
        let says = |line: &&str| !line.trim().is_empty() && !line.starts_with("note: "); // a panic ends with a note
        let last = complaint.lines().rev().find(says).unwrap_or_default();
        let status = match status {
            Ok(status) => status,
            Err(error) => return CompileError::Other(format!("nobody knows what became of the compiler: {error}")),
        };
        // Rust's words when an allocation fails, the system's when a mapping does, glibc's when there is no room for a thread's data, rayon's
        // when there is none for its stack; a kill that is not ours is the system's too.
        let out_of_memory = ["memory allocation of", "annot allocate memory", "out of memory", "ThreadPoolBuildError"];
        let is_killed = status.signal() == Some(9);
        if is_killed || out_of_memory.iter().any(|words| complaint.contains(words)) {
            return CompileError::Memory(self.memory);
        }
        let reason = last.trim().trim_start_matches("astra-host: ").trim_start_matches("error: ");
        CompileError::Other(match reason {
            "" => format!("the compiler ended with {status}"),
            reason => reason.chars().take(MAX_REASON).collect(),
        })
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // Nothing panics while the lock is held.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stopping() -> CompileError {
    CompileError::Other("the host is stopping".to_owned())
}

/// The end of what the process says.
fn complaint(stderr: impl Read) -> String {
    let mut said = Vec::new();
    // What was read until an error is all there is.
    let _ = stderr.take(MAX_COMPLAINT).read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

fn unpack(mut output: Vec<u8>, took: Duration) -> Result<MachineCode, CompileError> {
    let cached = output.starts_with(CACHED.as_bytes());
    if !cached && !output.starts_with(COMPILED.as_bytes()) {
        return Err(CompileError::Other("the program to compile with is not this astra-host".to_owned()));
    }
    output.drain(..if cached { CACHED.len() } else { COMPILED.len() });
    Ok(MachineCode { code: output, cached, took })
}

/// A process that does not outlive this.
struct Process(Child);

impl Process {
    fn kill(&mut self) {
        // Fails only when it has been waited for.
        let _ = self.0.kill();
    }

    fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.wait();
    }
}

/// What the process does to itself before it compiles, while it has no other thread: low priority, so that serving goes first;
/// `memory` bytes of its own, no core file, and no life after its host's.
///
/// # Errors
/// The system refuses: then nothing is bounded.
pub(crate) fn confine(memory: u64) -> io::Result<()> {
    let limit = |resource, bytes: u64| {
        let bytes = Some(getrlimit(resource).maximum.map_or(bytes, |most| most.min(bytes)));
        setrlimit(resource, Rlimit { current: bytes, maximum: bytes })
    };
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    rustix::process::setpriority_process(None, PRIORITY)?;
    limit(Resource::Core, 0)?;
    // Not the address space, of which wasmtime and the allocator take far more than they use.
    limit(Resource::Data, memory)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;

    /// Compiles with a program that does as `script` says.
    fn compiler(script: &str, timeout: Duration) -> Compiler {
        Compiler {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            timeout,
            memory: 1 << 20,
            one_at_a_time: Mutex::default(),
            running: Mutex::default(),
        }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn the_module_goes_in_and_machine_code_comes_out() {
        let module = vec![b'x'; 1 << 19];
        let made = compiler("echo compiled; cat", LONG).compile(&module).expect("compiles");
        assert_eq!((made.code.len(), made.cached), (module.len(), false));
        let made = compiler("echo cached; echo code", LONG).compile(&module).expect("need not read it");
        assert_eq!((made.code.as_slice(), made.cached), (b"code\n".as_slice(), true));
    }

    #[test]
    fn what_it_says_when_it_fails_is_the_reason() {
        let reason = |script: &str| match compiler(script, LONG).compile(b"module").expect_err("fails") {
            CompileError::Other(reason) => reason,
            error => panic!("another error: {error:?}"),
        };
        assert_eq!(reason("echo careful >&2; echo 'astra-host: error: no export' >&2; exit 1"), "no export");
        assert_eq!(reason("echo panicked >&2; echo 'note: run with' >&2; exit 101"), "panicked");
        assert_eq!(reason("echo compiled; exit 3"), "the compiler ended with exit status: 3");
        assert!(reason("echo usage").contains("not this astra-host"));
        assert_eq!(reason("printf '%1000s\n' x | tr ' ' y >&2; exit 1").len(), MAX_REASON);
        assert!(reason("yes >&2").len() < MAX_REASON, "who never ends to complain is not listened to");
        let nobody = Compiler { program: "/nobody".into(), ..compiler("", LONG) };
        assert!(
            matches!(nobody.compile(b"").expect_err("fails"), CompileError::Other(reason) if reason.contains("/nobody"))
        );
    }

    #[test]
    fn too_little_memory_is_told_from_other_failures() {
        for script in ["echo 'memory allocation of 64 bytes failed' >&2; kill -ABRT $$", "kill -KILL $$"] {
            assert_eq!(compiler(script, LONG).compile(b"").expect_err(script), CompileError::Memory(1 << 20));
        }
    }

    #[test]
    fn output_without_end_is_not_kept() {
        assert!(matches!(compiler("yes compiled", LONG).compile(b"").expect_err("fails"), CompileError::Other(_)));
    }

    #[test]
    fn what_takes_too_long_is_killed() {
        let timeout = Duration::from_millis(50);
        let error = compiler("exec sleep 3600", timeout).compile(&[0; 1 << 20]).expect_err("takes too long");
        assert_eq!(error, CompileError::Timeout(timeout));
    }

    #[test]
    fn a_host_that_stops_leaves_no_process() {
        let pid_file = std::env::temp_dir().join(format!("astra-host-compiler-{}", std::process::id()));
        let shown = pid_file.display();
        let compiler =
            Arc::new(compiler(&format!("echo $$ > {shown}.new; mv {shown}.new {shown}; exec sleep 3600"), LONG));
        let compiling = thread::spawn({
            let compiler = Arc::clone(&compiler);
            move || compiler.compile(b"")
        });
        while !pid_file.exists() {
            thread::park_timeout(Duration::from_millis(1));
        }
        let pid: i32 = fs::read_to_string(&pid_file).expect("is whole").trim().parse().expect("a number");
        fs::remove_file(&pid_file).expect("ours");
        compiler.stop();
        assert_eq!(compiling.join().expect("ends").expect_err("was given up"), stopping());
        let pid = rustix::process::Pid::from_raw(pid).expect("not zero");
        assert_eq!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH), "killed and reaped");
        assert_eq!(compiler.compile(b"").expect_err("none is begun"), stopping());
    }
}
