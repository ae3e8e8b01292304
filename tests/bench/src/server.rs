//! A server under test: started with its command line, found by the address it prints, watched through /proc, killed by pid.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::Pin;

/// How to start one server. `{addr}` in an argument stands for the address to listen on.
#[derive(Clone)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// The file its standard error goes to, if not to this program.
    pub(crate) log: Option<PathBuf>,
}

impl Contender {
    /// The command line a person would type, for the report.
    pub(crate) fn shown(&self) -> String {
        format!("{} {}", self.program.display(), self.arguments.join(" "))
    }

    fn command(&self, addr: &str, pin: Pin) -> Command {
        let mut command = match pin {
            // taskset replaces itself with the server: the pid is the server's.
            Pin::On => {
                let mut taskset = Command::new("taskset");
                taskset.args(["-c", "0"]).arg(&self.program);
                taskset
            }
            Pin::Off => Command::new(&self.program),
        };
        command.args(self.arguments.iter().map(|argument| argument.replace("{addr}", addr)));
        command.stdin(Stdio::null());
        command
    }
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
    /// It speaks TLS.
    pub(crate) is_tls: bool,
}

impl Server {
    /// Starts `contender` on a free port and waits until it says where it listens.
    pub(crate) fn start(contender: &Contender, pin: Pin) -> Result<Server> {
        let stderr = match &contender.log {
            Some(log) => File::create(log)?.into(),
            None => Stdio::piped(),
        };
        let mut child = contender
            .command("127.0.0.1:0", pin)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {}", contender.shown()))?;
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().context("piped")?;
        forward(stdout, sender.clone());
        if let Some(stderr) = child.stderr.take() {
            forward(stderr, sender);
        }

        // From here on an early return kills the child.
        let mut server = Server { child, addr: SocketAddr::from(([127, 0, 0, 1], 0)), is_tls: false };
        let mut output = String::new();
        loop {
            match lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) => {
                    if let Some(addr) = address_in(&line) {
                        (server.addr, server.is_tls) = (addr, line.contains("https://"));
                        return Ok(server);
                    }
                    output.push_str(&line);
                    output.push('\n');
                }
                Err(_) => bail!("{} did not say where it listens:\n{output}", contender.shown()),
            }
        }
    }

    /// Starts `contender` on the given address and does not wait.
    pub(crate) fn spawn(contender: &Contender, addr: SocketAddr) -> Result<Server> {
        let child = contender
            .command(&addr.to_string(), Pin::Off)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", contender.shown()))?;
        Ok(Server { child, addr, is_tls: false })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB.
    pub(crate) fn rss(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most resident memory there has been, in KiB.
    pub(crate) fn peak_rss(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    pub(crate) fn threads(&self) -> Result<u64> {
        self.status("Threads:")
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> Result<u64> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count() as u64)
    }

    /// CPU time that it has used.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu(self.child.id())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Ends it as an operator would; says whether it ended in order, which it has `time` for.
    pub(crate) fn stop(mut self, time: Duration) -> Result<bool> {
        self.signal(Signal::TERM)?;
        let started = Instant::now();
        while started.elapsed() < time {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }

    fn status(&self, key: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        value.with_context(|| format!("no {key} in /proc"))?.parse().map_err(Into::into)
    }

    /// One whole exchange on a connection of its own; the answer must be 200.
    pub(crate) fn ask(&self, path: &str) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.addr)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "not 200: {}", String::from_utf8_lossy(&answer));
        Ok(answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time that a process has used.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    // User and system time (proc(5)), without the two fields up to the name; in hundredths of a second on every Linux.
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// Reads lines for as long as there are any, also when nobody wants them: a full pipe would stop the server.
fn forward(output: impl Read + Send + 'static, lines: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
}

/// `Serving HTTP on http://127.0.0.1:8080/` or workerd's `{"event":"listen","socket":"http","port":8080}` → `127.0.0.1:8080`
fn address_in(line: &str) -> Option<SocketAddr> {
    let port = ["127.0.0.1:", "\"port\":"].iter().find_map(|before| line.split_once(before))?.1;
    let end = port.find(|c: char| !c.is_ascii_digit()).unwrap_or(port.len());
    let port = port[..end].parse().ok().filter(|port| *port != 0)?;
    Some(SocketAddr::from(([127, 0, 0, 1], port)))
}

#[cfg(test)]
mod tests {
    use super::address_in;

    #[test]
    fn the_address_is_found_in_what_servers_print() {
        let found = |line| address_in(line).map(|addr| addr.to_string());
        assert_eq!(found("Serving HTTP on http://127.0.0.1:8080/").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(found("listening on 127.0.0.1:81").as_deref(), Some("127.0.0.1:81"));
        assert_eq!(found(r#"{"event":"listen","socket":"http","port":82}"#).as_deref(), Some("127.0.0.1:82"));
        assert_eq!(found("will listen on 127.0.0.1:0"), None);
        assert_eq!(found("control socket /run/hello.sock"), None);
    }
}
