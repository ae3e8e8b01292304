//! Thousands of slow clients, as slowhttptest has them in its four modes, and what hello does beside them.
//!
//! slowhttptest takes CPU time of the same machine. Once it has its connections it gets only what the load leaves (it is niced), or its appetite would
//! pass for the server's. What it takes is among the figures, and so is what hello does beside a slowhttptest whose connections lead to a socket
//! where nobody accepts: the difference to that is the server's doing.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::idle::raise_descriptors;
use crate::contenders::Contenders;
use crate::folder::Folder;
use crate::load::{self, Load, get};
use crate::report::{Figure, Report, median};
use crate::server::{self, Server};
use crate::{Options, Pin};

const CONNECTIONS: u64 = 4000;

/// After which slowhttptest would end by itself: it is ended before.
const SECONDS: &str = "600";

/// What is asked for by those that read slowly.
const FILE: usize = 1 << 20;

/// Seconds of hello while slow connections come.
const COMING: u32 = 2;

/// The server has settled when it uses less than a quarter of a core for as long as `LOOK`; it has until `SETTLE`.
const LOOK: Duration = Duration::from_millis(500);
const SETTLE: Duration = Duration::from_secs(20);

struct Attack {
    name: &'static str,
    flags: &'static [&'static str],
    path: &'static str,
    /// Connections are to stay open, so that all are there before hello is measured; else they come in ten seconds, while it is.
    stays: bool,
}

const ATTACKS: [Attack; 4] = [
    Attack { name: "head", flags: &["-H", "-i", "5"], path: "/hello", stays: true },
    Attack { name: "body", flags: &["-B", "-i", "5", "-s", "100000"], path: "/echo", stays: true },
    Attack {
        name: "read",
        flags: &["-X", "-w", "256", "-y", "512", "-n", "5", "-z", "32"],
        path: "/files/large",
        stays: true,
    },
    Attack { name: "range", flags: &["-R"], path: "/files/large", stays: false },
];

pub(crate) fn slow(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    if Command::new("slowhttptest").arg("-h").output().is_err() {
        report.note("not measured: no `slowhttptest` (Debian and Ubuntu: `apt install slowhttptest`)");
        return Ok(());
    }
    raise_descriptors(CONNECTIONS as usize)?;
    let folder = Folder::new()?;
    let www = folder.file("www/files/large", vec![b'x'; FILE])?;
    let mut config = "[server]\n".to_owned();
    for (guest, route) in [("hello", "/hello"), ("echo", "/echo"), ("files", "/files/*")] {
        let module = contenders.guest(guest);
        config.push_str(&format!("[[handler]]\nname = {guest:?}\nmodule = {module:?}\nroute = {route:?}\n"));
    }
    // A key of the last handler.
    let www = www.ancestors().nth(2).context("it is in two folders")?;
    config.push_str(&format!("dirs = {{ \"/www\" = {www:?} }}\n"));
    let config = folder.file("astra.toml", config)?;
    let contender = contenders.astra_host_of("astra-host", &config, &["--no-control", "--access-log", "off"]);

    let pin = options.pins()[0];
    for attack in &ATTACKS {
        let mut rounds = Rounds::default();
        for _ in 0..options.rounds {
            let server = Server::start(&contender, pin)?;
            rounds.add(&server, attack, options, pin)?;
        }
        let rate = median(&rounds.beside.rate) / median(&rounds.alone.rate);
        let p99 = median(&rounds.beside.p99_ms) / median(&rounds.alone.p99_ms);
        let coming = median(&rounds.coming.rate) / median(&rounds.alone.rate);
        let errors: f64 = rounds.beside.errors.iter().chain(&rounds.coming.errors).sum();
        report.row("slow", pin.name(), attack.name, &contender.shown(), &rounds.figures());
        let what = format!("slow {}: hello beside {CONNECTIONS} connections / alone", attack.name);
        report.at_least(what, rate, 0.9);
        if attack.stays {
            report.at_least(format!("slow {}: hello while they come / alone", attack.name), coming, 0.9);
        }
        report.at_most(format!("slow {}: p99 beside them / alone", attack.name), p99, 2.0);
        report.at_most(format!("slow {}: errors of hello", attack.name), errors, 0.0);
    }
    Ok(())
}

#[derive(Default)]
struct Rounds {
    /// Before and after.
    alone: Loads,
    beside: Loads,
    /// Beside a slowhttptest that talks to nobody.
    control: Loads,
    /// While its connections come.
    coming: Loads,
    /// Seconds until then that the server had its peace.
    settled: Vec<f64>,
    cpu: Vec<f64>,
    opened: Vec<f64>,
    left: Vec<f64>,
}

#[derive(Default)]
struct Loads {
    rate: Vec<f64>,
    p99_ms: Vec<f64>,
    errors: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, server: &Server, attack: &Attack, options: &Options, pin: Pin) -> Result<()> {
        let hello = |seconds| load::run(server, get("/hello", 32), seconds, pin);
        hello(1)?;
        self.alone.add(&hello(options.seconds)?);

        // The kernel takes the connections, as many as the backlog has room for.
        let nobody = TcpListener::bind("127.0.0.1:0")?;
        let attacker = Attacker::start(attack, nobody.local_addr()?, pin)?;
        if attack.stays {
            attacker.has_opened()?;
            attacker.yield_to_load()?;
        }
        self.control.add(&hello(options.seconds)?);
        drop((attacker, nobody));

        let started = Instant::now();
        let attacker = Attacker::start(attack, server.addr, pin)?;
        if attack.stays {
            self.coming.add(&hello(COMING)?);
            attacker.has_opened()?;
            attacker.yield_to_load()?;
            settle(server)?;
            self.settled.push(started.elapsed().as_secs_f64());
        }
        self.opened.push(attacker.connections()? as f64);
        let (cpu, started) = (attacker.cpu()?, Instant::now());
        self.beside.add(&hello(options.seconds)?);
        let cpu = attacker.cpu()?.saturating_sub(cpu);
        self.cpu.push(100.0 * cpu.as_secs_f64() / started.elapsed().as_secs_f64());
        self.left.push(attacker.connections()? as f64);
        drop(attacker);

        // What the attack has left behind is gone before hello is measured alone.
        std::thread::sleep(Duration::from_secs(2));
        self.alone.add(&hello(options.seconds)?);
        Ok(())
    }

    fn figures(self) -> Vec<Figure> {
        let mut figures = vec![
            Figure { name: "requests/s alone", rounds: self.alone.rate },
            Figure { name: "requests/s beside", rounds: self.beside.rate },
            Figure { name: "requests/s beside nothing", rounds: self.control.rate },
            Figure { name: "p99 ms alone", rounds: self.alone.p99_ms },
            Figure { name: "p99 ms beside", rounds: self.beside.p99_ms },
            Figure { name: "p99 ms beside nothing", rounds: self.control.p99_ms },
            Figure { name: "errors", rounds: self.beside.errors },
            Figure { name: "slow connections before", rounds: self.opened },
            Figure { name: "after", rounds: self.left },
            Figure { name: "slowhttptest % of a core", rounds: self.cpu },
        ];
        if !self.settled.is_empty() {
            figures.extend([
                Figure { name: "requests/s while they come", rounds: self.coming.rate },
                Figure { name: "p99 ms then", rounds: self.coming.p99_ms },
                Figure { name: "settled after s", rounds: self.settled },
            ]);
        }
        figures
    }
}

impl Loads {
    fn add(&mut self, load: &Load) {
        self.rate.push(load.requests_per_second);
        self.p99_ms.push(load.p99_ms);
        self.errors.push(load.errors as f64);
    }
}

/// Waits until the server is through with what the slow clients have asked for so far, and has only them to hold.
fn settle(server: &Server) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < SETTLE {
        let cpu = server.cpu()?;
        std::thread::sleep(LOOK);
        if server.cpu()?.saturating_sub(cpu) < LOOK / 4 {
            break;
        }
    }
    Ok(())
}

/// A running slowhttptest; killed when dropped.
struct Attacker(Child);

impl Attacker {
    /// Starts it, on the core of the load.
    fn start(attack: &Attack, addr: SocketAddr, pin: Pin) -> Result<Self> {
        let mut command = match pin {
            // taskset replaces itself with slowhttptest: the pid is its own.
            Pin::On => {
                let mut taskset = Command::new("taskset");
                taskset.args(["-c", "1", "slowhttptest"]);
                taskset
            }
            Pin::Off => Command::new("slowhttptest"),
        };
        let a_second = if attack.stays { CONNECTIONS } else { CONNECTIONS / 10 };
        command.args(attack.flags).args(["-c", &CONNECTIONS.to_string(), "-r", &a_second.to_string()]);
        command.args(["-l", SECONDS, "-u", &format!("http://{addr}{}", attack.path)]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().context("cannot start `slowhttptest`")?))
    }

    /// Waits until it has its connections. Some are refused, so there may never be all of them.
    fn has_opened(&self) -> Result<()> {
        let (mut most, mut grown) = (0, Instant::now());
        while most < CONNECTIONS && grown.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.connections()?;
            if now > most {
                (most, grown) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// From here on it runs when nothing else wants its core.
    fn yield_to_load(&self) -> Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        Ok(rustix::process::setpriority_process(pid, 19)?)
    }

    /// Its descriptors but those that every process has.
    fn connections(&self) -> Result<u64> {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.0.id()));
        // It has ended, or not begun.
        Ok(descriptors.map_or(0, |all| all.count().saturating_sub(3) as u64))
    }

    /// CPU time that it has used.
    fn cpu(&self) -> Result<Duration> {
        server::cpu(self.0.id())
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
