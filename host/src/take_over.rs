//! How a new host takes the place of a running one, so that no client notices: what is passed on, and what the two say to each other.
//!
//! The new one asks over the control socket of the old one (`POST /v1/take-over`), and listens meanwhile on a socket beside it,
//! `CONTROL.new`, which is for its owner only. There the old one connects and sends its sockets and locks (SCM_RIGHTS). The new one loads its
//! modules, accepts connections, and says `ready PID`; only then the old one closes its own share and answers what it was asked, which
//! lets the new one stay. Or the new one says `failed WHY`, or just ends: then nothing has happened. Descriptors name open sockets and locks, so what is in a
//! backlog stays there, and a lock is never free in between. Used at start-up, and by [`Operator`](crate::operator::Operator).

use std::{
    io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Duration,
};

use astra_server::ListeningSocket;
use http::Method;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::ServerConfig,
    control::{
        client::{Client, ClientError, Question},
        socket::{ControlSocket, SocketError},
    },
    unix_socket::SocketFile,
};

/// Descriptors that are passed on at the most.
const MOST: usize = 64;

/// What is said is a line, and short.
const LONGEST: u64 = 64 << 10;

/// How long the old host may take to answer what it does at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the new one looks whether it has been answered.
const LOOK: Duration = Duration::from_millis(5);

#[cfg(target_os = "linux")]
const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const RECEIVE: RecvFlags = RecvFlags::empty();

/// What a host passes on.
#[derive(Debug, Default)]
pub(crate) struct Estate {
    /// Where requests come in.
    pub(crate) sockets: Vec<ListeningSocket>,
    /// The files of those that a host has made.
    pub(crate) files: Vec<SocketFile>,
    /// Where it was told to be; none if there is nothing to pass on.
    pub(crate) places: Option<Places>,
    /// The control socket, which listens, and the lock of its path.
    pub(crate) control: Option<(OwnedFd, OwnedFd)>,
    /// Where operators come in over TCP.
    pub(crate) control_tcp: Vec<OwnedFd>,
    /// The state directory, and its lock.
    pub(crate) state: Option<(PathBuf, OwnedFd)>,
}

/// Where a host was told to be, as it is configured: who takes its place is there, and nowhere else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Places {
    /// Where it listens; not known if its sockets were passed on to it.
    pub(crate) listen: Option<Vec<String>>,
    pub(crate) control: Option<PathBuf>,
    /// Where operators come in over TCP.
    pub(crate) control_tcp: Option<String>,
}

impl Places {
    /// Those of `config`, which counts for `listen` unless sockets were passed on.
    pub(crate) fn of(config: &ServerConfig, were_passed: bool) -> Self {
        let listen = config.addresses().into_iter().map(str::to_owned).collect();
        Self {
            listen: (!were_passed).then_some(listen),
            control: config.control.socket.clone(),
            control_tcp: config.control.tcp.as_ref().map(|(address, _)| address.clone()),
        }
    }

    /// What `config` says otherwise, key by key.
    pub(crate) fn differences(&self, config: &ServerConfig) -> Vec<String> {
        let new = Self::of(config, self.listen.is_none());
        // In whatever order.
        let shown = |addresses: &Option<Vec<String>>| {
            addresses.clone().map(|mut addresses| {
                addresses.sort_unstable();
                addresses.join("`, `")
            })
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        // It comes with an address or without: who has none any more lets go of what it gets.
        let control_tcp = new.control_tcp.clone().filter(|_| self.control_tcp.is_some());
        [
            ("listen", shown(&self.listen), shown(&new.listen)),
            ("control", path(&self.control), path(&new.control)),
            ("control_tcp", self.control_tcp.clone().filter(|_| control_tcp.is_some()), control_tcp),
        ]
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(key, old, new)| {
            let shown = |value: Option<String>| value.map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
            format!("`{key}` was {} and is {} now", shown(old), shown(new))
        })
        .collect()
    }
}

/// Which descriptors there are, in this order, and what belongs to them.
#[derive(Serialize, Deserialize)]
struct Inventory {
    /// For each whether TLS is spoken there.
    sockets: Vec<bool>,
    #[serde(default)]
    files: Vec<SocketFile>,
    places: Places,
    has_control: bool,
    control_tcp: usize,
    state: Option<PathBuf>,
}

/// Why a host could not take another one's place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeOverError {
    #[error("cannot take over")]
    Socket(#[from] SocketError),
    #[error("cannot take over: another process{holder} is about to; wait until it has, or has failed")]
    UnderWay { holder: String },
    #[error("cannot take over")]
    Refused(#[from] ClientError),
    #[error("the running host cannot be understood: it may be of another version of astra-host")]
    Io(#[from] io::Error),
    #[error("the running host did not answer in time")]
    Late,
}

impl Estate {
    fn send(&self, mut stream: &UnixStream) -> io::Result<()> {
        let Self { sockets, files, places, control, control_tcp, state } = self;
        let inventory = Inventory {
            sockets: sockets.iter().map(|socket| socket.speaks_tls).collect(),
            files: files.clone(),
            places: places.clone().unwrap_or_default(),
            has_control: control.is_some(),
            control_tcp: control_tcp.len(),
            state: state.as_ref().map(|(path, _)| path.clone()),
        };
        let control = control.iter().flat_map(|(socket, lock)| [socket, lock]);
        let state = state.iter().map(|(_, lock)| lock);
        let passed = sockets.iter().map(|socket| &socket.fd).chain(control).chain(control_tcp).chain(state);
        let passed: Vec<_> = passed.map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if passed.len() > MOST || !ancillary.push(SendAncillaryMessage::ScmRights(&passed)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there are more sockets than can be passed on"));
        }
        let mut text = serde_json::to_vec(&inventory)?;
        text.push(b'\n');
        // They go with the first byte, and arrive with it.
        sendmsg(stream, &[IoSlice::new(&text[..1])], &mut ancillary, SendFlags::empty())?;
        stream.write_all(&text[1..])
    }

    fn receive(stream: &UnixStream) -> io::Result<Self> {
        let mut first = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        if recvmsg(stream, &mut [IoSliceMut::new(&mut first)], &mut ancillary, RECEIVE)?.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let received = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(received) => Some(received),
            _ => None,
        });
        let mut received = received.flatten();
        let mut text = first.to_vec();
        BufReader::new(stream.take(LONGEST)).read_until(b'\n', &mut text)?;
        let Inventory { sockets, files, places, has_control, control_tcp, state } = serde_json::from_slice(&text)?;
        let mut next = || received.next().ok_or(io::ErrorKind::UnexpectedEof);
        Ok(Self {
            sockets: sockets
                .into_iter()
                .map(|speaks_tls| Ok::<_, io::ErrorKind>(ListeningSocket { fd: next()?, speaks_tls }))
                .collect::<Result<_, _>>()?,
            files,
            places: Some(places),
            control: has_control.then(|| Ok::<_, io::ErrorKind>((next()?, next()?))).transpose()?,
            control_tcp: (0..control_tcp).map(|_| next()).collect::<Result<_, _>>()?,
            state: state.map(|path| Ok::<_, io::ErrorKind>((path, next()?))).transpose()?,
        })
    }
}

/// The new host's end, until it has said what became of it.
pub(crate) struct TakeOver {
    stream: UnixStream,
    answer: JoinHandle<Result<String, ClientError>>,
}

impl TakeOver {
    /// Asks the host at `control` for all that it has.
    ///
    /// # Errors
    /// There is none, it refuses, or it cannot be understood.
    pub(crate) fn ask(control: &Path) -> Result<(Self, Estate), TakeOverError> {
        let (listener, _socket) = ControlSocket::bind(&meeting_place(control)).map_err(|error| match error {
            // It is no control socket, and nothing to stop.
            SocketError::InUse { holder, .. } => TakeOverError::UnderWay { holder },
            error => error.into(),
        })?;
        listener.set_nonblocking(true)?;
        let client = Client::find(Some(control))?;
        let question = Question::new(Method::POST, &["v1", "take-over"]);
        let answer = thread::Builder::new().name("astra-take-over".to_owned()).spawn(move || client.ask(question))?;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                Err(_) if answer.is_finished() => {
                    return Err(joined(answer).map_or_else(TakeOverError::from, |_| TakeOverError::Late));
                }
                Err(_) => thread::sleep(LOOK),
            }
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        match Estate::receive(&stream) {
            Ok(estate) => Ok((Self { stream, answer }, estate)),
            // It has hung up without a word, and says why where it was asked.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                drop(stream);
                Err(joined(answer).map_or_else(TakeOverError::from, |_| error.into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says that this process serves, and waits until the old host has let go.
    ///
    /// # Errors
    /// It has not: it serves on.
    pub(crate) fn ready(self) -> Result<(), TakeOverError> {
        // If it does not hear this, it says so.
        let _ = writeln!(&self.stream, "ready {}", std::process::id());
        match joined(self.answer) {
            // Without an answer it is gone, and there is nobody else to serve.
            Ok(_) | Err(ClientError::Lost(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Says why this process will not serve.
    pub(crate) fn failed(self, why: &str) {
        // If it is gone, it need not know.
        let _ = writeln!(&self.stream, "failed {}", why.replace('\n', " "));
        let _ = joined(self.answer);
    }
}

fn joined(answer: JoinHandle<Result<String, ClientError>>) -> Result<String, ClientError> {
    // It does nothing that panics.
    answer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn meeting_place(control: &Path) -> PathBuf {
    let mut name = control.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// The old host's end: passes everything on to who has asked, if that is `expected` (or nobody is).
///
/// # Errors
/// It is not there, is another user, or is not who is expected.
pub(crate) fn offer(control: &Path, estate: &Estate, expected: Option<u32>) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(meeting_place(control))?;
    // Elsewhere it is known only who has taken over, by what that one says.
    #[cfg(not(target_os = "linux"))]
    let _ = expected;
    #[cfg(target_os = "linux")]
    {
        let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        if peer.uid != rustix::process::geteuid() {
            return refused("what listens there is another user's".to_owned());
        }
        let pid = peer.pid.as_raw_nonzero().get().unsigned_abs();
        if let Some(expected) = expected.filter(|expected| *expected != pid) {
            return refused(format!(
                "an upgrade is under way (process {expected}), and process {pid} is not it: a script that starts a host has to `exec` it"
            ));
        }
    }
    stream.set_write_timeout(Some(PATIENCE))?;
    estate.send(&stream)?;
    Ok(stream)
}

/// What became of the new host: the process that serves now, or why it does not.
pub(crate) fn verdict(stream: &UnixStream, within: Duration) -> Result<u32, String> {
    let mut said = String::new();
    let read =
        stream.set_read_timeout(Some(within)).and_then(|()| BufReader::new(stream.take(LONGEST)).read_line(&mut said));
    let said = said.trim_end();
    match (read, said.split_once(' ')) {
        (Ok(_), Some(("ready", pid))) => pid.parse().map_err(|_| format!("it says `{said}`")),
        (Ok(_), Some(("failed", why))) => Err(why.to_owned()),
        (Ok(_), _) => Err("it has ended before it was ready".to_owned()),
        (Err(_), _) => Err("it was not ready in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixListener};

    use super::*;

    fn bound() -> (OwnedFd, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("is bound").to_string();
        (listener.into(), address)
    }

    #[test]
    fn everything_arrives_where_it_belongs() {
        let (one, two) = UnixStream::pair().expect("a pair");
        let ((first, first_address), (second, second_address)) = (bound(), bound());
        let (tcp, tcp_address) = bound();
        let path = std::env::temp_dir().join(format!("astra-take-over-{}.sock", std::process::id()));
        let control = OwnedFd::from(UnixListener::bind(&path).expect("binds"));
        std::fs::remove_file(&path).expect("ours");
        let lock = || OwnedFd::from(std::fs::File::open("/dev/null").expect("is there"));
        let sent = Estate {
            sockets: vec![
                ListeningSocket { fd: first, speaks_tls: false },
                ListeningSocket { fd: second, speaks_tls: true },
            ],
            files: vec![SocketFile::at(Path::new("/")).expect("is there")],
            places: Some(Places { listen: Some(vec!["localhost:0".to_owned()]), ..Places::default() }),
            control: Some((control, lock())),
            control_tcp: vec![tcp],
            state: Some((PathBuf::from("/var/lib/astra"), lock())),
        };
        sent.send(&one).expect("sends");
        let Estate { sockets, files, places, control, control_tcp, state } = Estate::receive(&two).expect("receives");
        assert_eq!((files, places), (sent.files, sent.places));
        let address = |fd: OwnedFd| TcpListener::from(fd).local_addr().expect("is bound").to_string();
        let sockets: Vec<_> = sockets.into_iter().map(|socket| (socket.speaks_tls, address(socket.fd))).collect();
        assert_eq!(sockets, [(false, first_address), (true, second_address)]);
        assert_eq!(control_tcp.into_iter().map(address).collect::<Vec<_>>(), [tcp_address]);
        let control = UnixListener::from(control.expect("is passed on").0);
        assert_eq!(control.local_addr().expect("is bound").as_pathname(), Some(&*path));
        assert_eq!(state.expect("is passed on").0, Path::new("/var/lib/astra"));
    }

    #[test]
    fn what_a_configuration_says_otherwise_is_told_by_key() {
        let listen = vec!["127.0.0.1:80".to_owned(), "unix:/run/app.sock".to_owned()];
        let mut config = ServerConfig { listen, ..ServerConfig::default() };
        config.control.socket = Some("/run/a".into());
        config.control.tcp = Some(("127.0.0.1:9000".to_owned(), "token".into()));
        let (bound, passed) = (Places::of(&config, false), Places::of(&config, true));
        assert!(bound.differences(&config).is_empty() && passed.differences(&config).is_empty());
        config.listen.reverse();
        assert!(bound.differences(&config).is_empty());
        config.listen[1] = "https://127.0.0.1:80".to_owned();
        let listen =
            "`listen` was `127.0.0.1:80`, `unix:/run/app.sock` and is `https://127.0.0.1:80`, `unix:/run/app.sock` now";
        assert_eq!(bound.differences(&config), [listen]);
        assert_eq!(passed.differences(&config), [""; 0], "what was passed on is elsewhere");
        config.control.socket = None;
        config.control.tcp = Some(("127.0.0.1:9001".to_owned(), "token".into()));
        let control = "`control` was `/run/a` and is none now";
        assert_eq!(
            passed.differences(&config),
            [control, "`control_tcp` was `127.0.0.1:9000` and is `127.0.0.1:9001` now"]
        );
        // One that is let go of, or new, is as it should be.
        config.control.tcp = None;
        assert_eq!(passed.differences(&config), [control]);
        assert!(Places::of(&config, true).differences(&ServerConfig::default()).is_empty());
    }

    #[test]
    fn what_cannot_be_understood_is_an_error() {
        for text in ["", "\n", "{}\n", "{\"sockets\":[true],\"has_control\":false,\"control_tcp\":0,\"state\":null}\n"]
        {
            let (one, two) = UnixStream::pair().expect("a pair");
            (&one).write_all(text.as_bytes()).expect("writes");
            drop(one);
            assert!(Estate::receive(&two).is_err(), "{text}");
        }
    }

    /// A new host before an old one that hands on nothing, hears that it is ready, and then gives this answer or none.
    fn taken(name: &str, answer: Option<&str>) -> Result<(), TakeOverError> {
        let control = std::env::temp_dir().join(format!("astra-take-over-{}-{name}", std::process::id()));
        let listener = UnixListener::bind(&control).expect("binds");
        let taken = thread::scope(|scope| {
            scope.spawn(|| {
                let (asked, _) = listener.accept().expect("the new one asks");
                let mut reader = BufReader::new(&asked);
                let mut line = String::new();
                while line != "\r\n" {
                    line.clear();
                    reader.read_line(&mut line).expect("reads");
                }
                let stream = offer(&control, &Estate::default(), None).expect("the new one listens");
                assert_eq!(verdict(&stream, PATIENCE), Ok(std::process::id()));
                if let Some(answer) = answer {
                    (&asked).write_all(answer.as_bytes()).expect("writes");
                }
            });
            let (new, estate) = TakeOver::ask(&control).expect("is answered");
            assert!(estate.sockets.is_empty() && estate.control.is_none());
            new.ready()
        });
        std::fs::remove_file(&control).expect("ours");
        assert!(!meeting_place(&control).exists());
        taken
    }

    #[test]
    fn a_new_host_serves_unless_the_old_one_says_that_it_does() {
        taken("let-go", Some("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}\n")).expect("it has let go");
        taken("killed", None).expect("it is gone");
        let refusal = "HTTP/1.1 409 Conflict\r\ncontent-length: 18\r\n\r\n{\"error\":\"stays\"}\n";
        assert!(matches!(taken("stays", Some(refusal)), Err(TakeOverError::Refused(ClientError::Refused { .. }))));
    }

    #[test]
    fn who_does_not_say_that_it_serves_does_not() {
        for (said, expected) in [
            ("ready 7\n", Ok(7)),
            ("ready\n", Err("it has ended before it was ready")),
            ("ready x\n", Err("it says `ready x`")),
            ("failed the port is gone\n", Err("the port is gone")),
            ("", Err("it has ended before it was ready")),
        ] {
            let (one, two) = UnixStream::pair().expect("a pair");
            (&one).write_all(said.as_bytes()).expect("writes");
            drop(one);
            assert_eq!(verdict(&two, PATIENCE), expected.map_err(str::to_owned), "{said}");
        }
        let (_one, two) = UnixStream::pair().expect("a pair");
        let late = verdict(&two, Duration::from_millis(1));
        assert_eq!(late, Err("it was not ready in time".to_owned()));
    }
}
