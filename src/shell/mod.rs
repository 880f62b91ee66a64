//! The only code that touches sockets, clocks and threads.
//!
//! One turn of the loop: execute the core's commands and write its bytes until nothing moves; sleep; read the clock
//! once; report what happened, time last. Sockets are registered once, for both directions, edge-triggered; their
//! readiness is remembered. Hang-up flags are hints, `read` decides: so a client that closes its side after its request
//! is served.

pub mod check;
mod dns;
mod freeze;
mod listeners;
pub(crate) mod roots;
mod signals;
mod sockets;
mod stages;
mod stderr;

use std::io::{ErrorKind, IsTerminal as _, stderr};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpListener;
use mio::{Events, Poll, Token};

use crate::config::Config;
use crate::contract::{Command, End, Now, error_words};
use crate::log::{Level, Log, SVC};
use crate::profile::Stage;
use crate::relay::Relay;
use crate::tls;

use dns::Dns;
use freeze::Turn;
use signals::Signals;
use sockets::Socket;
use stages::Stages;

/// Most events taken from the system at once; the rest stays for the next turn.
const EVENTS_PER_TURN: usize = 64;

/// Longest wait while there is a connection to the server: a wait that takes longer shows a freeze, and its length.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// Longest wait for space for the last lines. Lambda kills us soon after.
const LAST_LINES_MAX: Duration = Duration::from_millis(50);

/// Lambda delivers telemetry to `sandbox.localdomain`, which is not always a loopback address.
const TELEMETRY_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Most listening addresses: those of `PYROSCOPE_LISTEN_ADDRESS`, and one for telemetry.
const LISTENERS: usize = 16;
const SIGNALS: Token = Token(LISTENERS);
const DNS: Token = Token(LISTENERS + 1);
const FIRST_SOCKET: usize = LISTENERS + 2;

/// Runs the extension until it must exit; returns the exit status.
///
/// # Errors
/// The system provides no event queue.
pub fn run(config: Config, name: String) -> std::io::Result<u8> {
    let listen = config.listen.clone();
    let mut now = clock();
    let mut shell = Shell {
        poll: Poll::new()?,
        stages: Stages::new(config.self_profiling),
        relay: Relay::new(config, name, tls::random),
        listeners: Vec::new(),
        accepting: [false; LISTENERS],
        telemetry: None,
        starved: false,
        sockets: Vec::new(),
        next_token: FIRST_SOCKET,
        dns: None,
        signals: None,
        asked: now,
    };
    shell.listen(&listen, now);
    let mut events = Events::with_capacity(EVENTS_PER_TURN);
    loop {
        if let Some(status) = shell.act(now) {
            shell.write_log(Some(clock().mono + LAST_LINES_MAX));
            return Ok(status);
        }
        // Work that may wait is done after registering.
        if !shell.relay.is_registering() {
            shell.watch_signals(now);
            shell.write_log(None);
        }
        now = shell.sleep(&mut events, now)?;
        shell.report(&events, now);
    }
}

/// Prints why nothing can run, before there is a relay and a log. `to_person`: a person reads it, as on a terminal.
pub fn print_error(problem: &str, to_person: bool) {
    let mut log = Log::new(Level::Error);
    if to_person || stderr().is_terminal() {
        log.take()
            .extend_from_slice(&[problem.as_bytes(), b"\n"].concat());
    } else {
        log.line(Level::Error, clock().unix_ms, problem, &[SVC]);
    }
    stderr::write(&mut log, Some(clock().mono + LAST_LINES_MAX));
}

struct Shell {
    poll: Poll,
    relay: Relay,
    listeners: Vec<TcpListener>,
    /// Which listeners may have more connections to accept.
    accepting: [bool; LISTENERS],
    /// The listener for Lambda's telemetry.
    telemetry: Option<usize>,
    /// No descriptor was left for the last connection: it waits, and no new edge will report it.
    starved: bool,
    /// In the order in which they were made.
    sockets: Vec<Socket>,
    next_token: usize,
    dns: Option<Dns>,
    signals: Option<Signals>,
    stages: Stages,
    /// When the system was last asked for events. Only what was due by then is late: later events are not known yet,
    /// and after a freeze there can be many.
    asked: Now,
}

impl Shell {
    /// Executes the core's commands and moves bytes, until nothing moves. Returns the exit status if it is over.
    fn act(&mut self, now: Now) -> Option<u8> {
        loop {
            // Write waiting answers first: no function should wait for the work that `step` begins.
            let mut moved = self.write_all(now);
            loop {
                self.stages.enter(Stage::Step);
                let Some(command) = self.relay.step(now) else {
                    break;
                };
                moved = true;
                if let Command::Exit(status) = command {
                    self.write_all(now);
                    return Some(status);
                }
                self.stages.enter(Stage::Perform);
                self.perform(command, now);
            }
            moved |= self.write_all(now);
            if !moved && !self.relay.has_finished() {
                return None;
            }
        }
    }

    fn perform(&mut self, command: Command, now: Now) {
        match command {
            Command::Exit(_) => {}
            Command::LookOnceMore => self.look_once_more(now),
            Command::Close(id) => self.sockets.retain(|socket| socket.id != id),
            Command::HalfClose(id) => {
                if let Some(socket) = self.sockets.iter().find(|socket| socket.id == id) {
                    // A failure shows at the next read.
                    let _ = socket.stream.shutdown(Shutdown::Write);
                }
            }
            Command::Connect(id, address) => {
                if let Err(error) = self.connect(id, address) {
                    self.relay.ended(id, End::Io(error.kind()), now);
                }
            }
            Command::Resolve(peer, name) => {
                let dns = match &mut self.dns {
                    Some(dns) => Ok(dns),
                    none => Dns::new(self.poll.registry(), DNS).map(|dns| none.insert(dns)),
                };
                if let Err(cause) = dns.and_then(|dns| dns.resolve(peer, name)) {
                    self.relay.resolved(peer, Err(cause), now);
                }
            }
            Command::Listen(addresses) => self.listen(&addresses, now),
            Command::ListenForTelemetry => {
                let at = self.listeners.len();
                let bound = self.bind(TELEMETRY_ADDRESS);
                self.telemetry = bound.is_ok().then_some(at);
                let port = bound.map(|address| address.port());
                self.relay
                    .telemetry_bound(port.map_err(|error| error.kind()));
            }
            Command::ReadRoots(file, directories) => {
                self.relay.roots(roots::read(file, &directories), now);
            }
            Command::ReadFile(path) => {
                let read = roots::bounded(path.as_ref()).map_err(|error| error.kind());
                self.relay.file_read(read, now);
            }
        }
    }

    /// Ends the turn that began at `turn`: waits for events, reads the clock, and detects a freeze.
    fn sleep(&mut self, events: &mut Events, turn: Now) -> std::io::Result<Now> {
        self.stages.enter(Stage::Sleep);
        let unread = self
            .sockets
            .iter()
            .any(|socket| socket.readable && self.relay.wants(socket.id));
        let mut timeout = match self.relay.deadline(self.asked) {
            _ if unread || self.accepting.contains(&true) => Some(Duration::ZERO),
            deadline => deadline.map(|at| at.saturating_duration_since(clock().mono)),
        };
        let unwritten = !self.relay.log().take().is_empty();
        if self.relay.has_connections() || self.starved || unwritten {
            timeout = Some(timeout.unwrap_or(WATCH_EVERY).min(WATCH_EVERY));
        }
        let before = clock();
        self.asked = before;
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let now = clock();
        let turn = Turn {
            began: turn,
            slept: before,
            woke: now,
            timeout,
        };
        if let Some(frozen) = turn.frozen() {
            self.relay.thawed(frozen, now);
        }
        Ok(now)
    }

    /// Reports to the core what happened: arrivals first, time last.
    fn report(&mut self, events: &Events, now: Now) {
        for event in events {
            match event.token() {
                Token(listener) if listener < LISTENERS => self.accepting[listener] = true,
                SIGNALS => {
                    if self.signals.as_mut().is_some_and(Signals::arrived) {
                        self.relay.terminated(now);
                    }
                }
                DNS => {
                    while let Some((peer, result)) = self.dns.as_ref().and_then(Dns::answer) {
                        let result = result.map_err(|cause| "name lookup: ".to_owned() + &cause);
                        self.relay.resolved(peer, result, now);
                    }
                }
                token => {
                    let Ok(at) = self
                        .sockets
                        .binary_search_by_key(&token, |socket| socket.token)
                    else {
                        continue;
                    };
                    let socket = &mut self.sockets[at];
                    socket.readable |=
                        event.is_readable() || event.is_read_closed() || event.is_error();
                    socket.writable |= event.is_writable() || event.is_write_closed();
                    socket.hung_up |= event.is_read_closed() || event.is_error();
                    if socket.connecting && (socket.writable || event.is_error()) {
                        self.finish_connect(at, now);
                    }
                }
            }
        }
        for at in (0..self.sockets.len()).rev() {
            self.read(at, now);
        }
        self.accept(now);
        self.stages.enter(Stage::Step);
        if let Some(spent) = self.stages.take() {
            self.relay.cpu_used(&spent);
        }
        self.relay.expire(self.asked);
    }

    /// Registers the signal handler, once.
    fn watch_signals(&mut self, now: Now) {
        if self.signals.is_none() {
            match Signals::new(self.poll.registry(), SIGNALS) {
                Ok(signals) => self.signals = Some(signals),
                Err(error) => {
                    let fields = [("cause", error_words(error.kind()).into()), SVC];
                    self.relay.log().line(
                        Level::Debug,
                        now.unix_ms,
                        "Cannot watch for signals",
                        &fields,
                    );
                }
            }
        }
    }

    /// Writes the log as far as there is space for it, and waits for space until `until`.
    fn write_log(&mut self, until: Option<Instant>) {
        if !self.relay.log().take().is_empty() {
            self.stages.enter(Stage::Log);
            stderr::write(self.relay.log(), until);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clocks"
)]
fn clock() -> Now {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        mono: Instant::now(),
        unix_ms: unix.as_millis() as u64,
    }
}
