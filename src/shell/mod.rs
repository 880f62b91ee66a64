//! The only code that touches sockets, clocks and threads.
//!
//! One turn of the loop: do what the core says and write what it has until nothing moves; sleep; read the clock
//! once; report what happened, time last. Sockets are registered once, for both directions, edge-triggered;
//! whether one can be read or written is remembered. Hang-up flags are hints, `read` decides: so a client that
//! closes its side behind its request is served.

pub mod check;
mod dns;
mod freeze;
pub(crate) mod roots;
mod signals;
mod stages;
mod stderr;

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::config::Config;
use crate::contract::{Command, ConnId, End, Ends, Now, error_words};
use crate::log::{Level, Log, SVC};
use crate::profile::Stage;
use crate::relay::Relay;
use crate::tls;

use dns::Dns;
use freeze::Turn;
use signals::Signals;
use stages::Stages;

/// Events taken from the system at once; what is left stays for the next turn.
const EVENTS_PER_TURN: usize = 64;

/// While there is a connection to the remote, no wait is longer: a wait that oversleeps shows a freeze, and how long it
/// was.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// Longest wait for room for the last lines. Lambda's patience ends soon after.
const LAST_LINES_MAX: Duration = Duration::from_millis(50);

/// Most connections accepted in one turn, so that those accepted are served before others push them out.
const ACCEPTS_PER_TURN: usize = 16;

/// Most bytes read from one connection in one turn, so that a busy client does not hold up the others.
const READ_BYTES_PER_TURN: usize = 1 << 20;

/// Lambda delivers telemetry to `sandbox.localdomain`, which is not a loopback address everywhere.
const TELEMETRY_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Most addresses listened on: what `PYROSCOPE_LISTEN_ADDRESS` stands for, and one for telemetry.
const LISTENERS: usize = 16;
const SIGNALS: Token = Token(LISTENERS);
const DNS: Token = Token(LISTENERS + 1);
const FIRST_SOCKET: usize = LISTENERS + 2;

/// Runs the extension until it is told to leave; gives the exit status.
///
/// # Errors
/// The system refuses what nothing works without: an event queue.
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
        // What could come before registering, and need not, comes after.
        if !shell.relay.is_registering() {
            shell.watch_signals(now);
            shell.write_log(None);
        }
        now = shell.sleep(&mut events, now)?;
        shell.report(&events, now);
    }
}

/// Says why there is nothing to run, where there is no relay and no log.
pub fn complain(problem: &str) {
    let mut log = Log::new(Level::Error);
    log.line(Level::Error, clock().unix_ms, problem, &[SVC]);
    stderr::write(&mut log, Some(clock().mono + LAST_LINES_MAX));
}

struct Shell {
    poll: Poll,
    relay: Relay,
    listeners: Vec<TcpListener>,
    /// Which listeners may have more connections to accept.
    accepting: [bool; LISTENERS],
    /// Which of them Lambda delivers telemetry to.
    telemetry: Option<usize>,
    /// No descriptor was left for the last connection: it waits, and no edge will tell of it again.
    starved: bool,
    /// In the order they were made.
    sockets: Vec<Socket>,
    next_token: usize,
    dns: Option<Dns>,
    signals: Option<Signals>,
    stages: Stages,
    /// When the system was last asked what has happened. Only what was due by then is late: what has come since is not
    /// known yet, and after a freeze that can be much.
    asked: Now,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "what the system said, bit by bit"
)]
struct Socket {
    id: ConnId,
    token: Token,
    stream: TcpStream,
    connecting: bool,
    readable: bool,
    writable: bool,
    /// The peer may have closed its side: a short read then does not mean that all is read.
    hung_up: bool,
}

impl Socket {
    /// Both ends, if it is connected.
    fn ends(&self) -> std::io::Result<Ends> {
        Ok(Ends {
            peer: self.stream.peer_addr()?,
            local: self.stream.local_addr()?,
        })
    }
}

impl Shell {
    /// Binds what can be bound; with port 0, all to the port the first was given.
    fn listen(&mut self, addresses: &[SocketAddr], now: Now) {
        let mut bound: Vec<SocketAddr> = Vec::new();
        let mut failed = Vec::new();
        for address in addresses.iter().take(LISTENERS - 1) {
            let mut address = *address;
            if let (0, Some(first)) = (address.port(), bound.first()) {
                address.set_port(first.port());
            }
            match self.bind(address) {
                Ok(local) => bound.push(local),
                // Lambda has no IPv6 everywhere; one address is enough.
                Err(error) if !bound.is_empty() && is_absent(&error) => {}
                Err(error) => failed.push((address, error.kind())),
            }
        }
        self.relay.unbound(&failed, now);
        self.relay.started(&bound, now);
    }

    fn bind(&mut self, address: SocketAddr) -> std::io::Result<SocketAddr> {
        let mut listener = TcpListener::bind(address)?;
        self.poll.registry().register(
            &mut listener,
            Token(self.listeners.len()),
            Interest::READABLE,
        )?;
        let local = listener.local_addr()?;
        self.listeners.push(listener);
        Ok(local)
    }

    /// Does what the core says, and moves bytes, until nothing moves. Gives the exit status if it is over.
    fn act(&mut self, now: Now) -> Option<u8> {
        loop {
            // First the answers that wait: nobody's function waits for what `step` begins.
            let mut moved = self.write_all(now);
            self.stages.enter(Stage::Step);
            while let Some(command) = self.relay.step(now) {
                moved = true;
                if let Command::Exit(status) = command {
                    self.write_all(now);
                    return Some(status);
                }
                self.stages.enter(Stage::Perform);
                self.perform(command, now);
                self.stages.enter(Stage::Step);
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
        }
    }

    fn connect(&mut self, id: ConnId, address: SocketAddr) -> std::io::Result<()> {
        let stream = TcpStream::connect(address)?;
        // A request's last segment must not wait for the answer to its first.
        stream.set_nodelay(true)?;
        self.add(id, stream, true)
    }

    fn add(&mut self, id: ConnId, mut stream: TcpStream, connecting: bool) -> std::io::Result<()> {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.poll.registry().register(
            &mut stream,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let (readable, writable) = (false, !connecting);
        self.sockets.push(Socket {
            id,
            token,
            stream,
            connecting,
            readable,
            writable,
            hung_up: false,
        });
        Ok(())
    }

    /// Writes everything the core has, as far as the sockets take it. Whether anything moved.
    fn write_all(&mut self, now: Now) -> bool {
        let mut moved = false;
        self.stages.enter(Stage::Write);
        for at in (0..self.sockets.len()).rev() {
            while self.sockets[at].writable && !self.sockets[at].connecting {
                let socket = &mut self.sockets[at];
                self.stages
                    .enter_with(|| self.relay.stage_of_pending(socket.id));
                let [head, body] = self.relay.pending(socket.id);
                self.stages.enter(Stage::Write);
                if head.is_empty() && body.is_empty() {
                    break;
                }
                let written = match (head.is_empty(), body.is_empty()) {
                    (_, true) => socket.stream.write(head),
                    (true, _) => socket.stream.write(body),
                    _ => socket
                        .stream
                        .write_vectored(&[IoSlice::new(head), IoSlice::new(body)]),
                };
                let id = socket.id;
                match written {
                    Ok(n) => {
                        // Less than all means that the socket is full.
                        socket.writable = n == head.len() + body.len();
                        self.relay.sent(id, n, now);
                        moved = true;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => socket.writable = false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => {
                        moved = true;
                        self.drop_broken(at, error.kind(), now);
                        break;
                    }
                }
            }
        }
        moved
    }

    /// A write failed. What the peer said before it closed is still to be heard.
    fn drop_broken(&mut self, at: usize, kind: ErrorKind, now: Now) {
        let id = self.sockets[at].id;
        self.sockets[at].writable = false;
        self.sockets[at].readable = true;
        self.sockets[at].hung_up = true;
        self.read(at, now);
        if let Some(still) = self.sockets.iter().position(|socket| socket.id == id) {
            self.sockets.remove(still);
            self.relay.ended(id, End::Io(kind), now);
        }
    }

    /// Ends the turn that began at `turn`: waits for something to happen, reads the clock, and notices a freeze.
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

    /// Tells the core what happened; what has arrived first, time last.
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
            self.relay.spent(&spent);
        }
        self.relay.expire(self.asked);
    }

    /// Watches for signals, once.
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

    /// Accepts what waits on every listener that may have something, up to a number.
    fn accept(&mut self, now: Now) {
        if std::mem::take(&mut self.starved) {
            self.accepting[..self.listeners.len()].fill(true);
        }
        for listener in 0..self.listeners.len() {
            let mut left = ACCEPTS_PER_TURN;
            while self.accepting[listener] && left > 0 {
                left -= 1;
                self.stages.enter(Stage::Accept);
                match self.listeners[listener].accept() {
                    Ok((stream, _)) => {
                        let id = if self.telemetry == Some(listener) {
                            self.relay.telemetry_accepted()
                        } else {
                            self.relay.accepted(now)
                        };
                        self.serve(id, stream, now);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.accepting[listener] = false;
                    }
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                        ) => {}
                    // No descriptor is left. Tried again when some time has passed.
                    Err(_) => {
                        self.accepting[listener] = false;
                        self.starved = true;
                    }
                }
            }
        }
    }

    fn serve(&mut self, id: ConnId, stream: TcpStream, now: Now) {
        if let Err(error) = self.add(id, stream, false) {
            self.relay.ended(id, End::Io(error.kind()), now);
        } else {
            // The request is usually there already.
            let at = self.sockets.len() - 1;
            self.sockets[at].readable = true;
            self.read(at, now);
        }
    }

    /// A connection attempt came to an end: `take_error` and `peer_addr` tell which.
    fn finish_connect(&mut self, at: usize, now: Now) {
        self.stages.enter(Stage::Connect);
        let socket = &mut self.sockets[at];
        let ends = match socket.stream.take_error() {
            Ok(Some(error)) | Err(error) => Err(error),
            Ok(None) => socket.ends(),
        };
        let id = socket.id;
        match ends {
            Ok(ends) => {
                socket.connecting = false;
                self.relay.connected(id, ends, now);
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(error) => {
                self.sockets.remove(at);
                self.relay.ended(id, End::Io(error.kind()), now);
            }
        }
    }

    /// Reads what is there, as far as the core wants it.
    fn read(&mut self, at: usize, now: Now) {
        let mut budget = READ_BYTES_PER_TURN;
        while self.sockets[at].readable && !self.sockets[at].connecting && budget > 0 {
            let socket = &mut self.sockets[at];
            let space = self.relay.space(socket.id);
            if space.is_empty() {
                return;
            }
            let id = socket.id;
            self.stages.enter(Stage::Read);
            let end = match socket.stream.read(space) {
                Ok(0) => End::Eof,
                Ok(n) => {
                    // With edges, a short read has emptied the socket, unless it hides the peer's end.
                    socket.readable = n == space.len() || socket.hung_up;
                    budget = budget.saturating_sub(n);
                    self.stages.enter_with(|| self.relay.stage_of_received(id));
                    self.relay.received(id, n, now);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    socket.readable = false;
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => End::Io(error.kind()),
            };
            socket.readable = false;
            self.relay.ended(id, end, now);
            // A client that only closed its side still gets its answer: the core closes.
            if end != End::Eof {
                self.sockets.remove(at);
            }
            return;
        }
    }

    /// Writes the log as far as there is room for it, waiting for room until then.
    fn write_log(&mut self, until: Option<Instant>) {
        if !self.relay.log().take().is_empty() {
            self.stages.enter(Stage::Log);
            stderr::write(self.relay.log(), until);
        }
    }
}

/// Whether an address could not be bound because this machine has no such family or address.
fn is_absent(error: &std::io::Error) -> bool {
    const NO_SUCH_FAMILY: i32 = 97;
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_SUCH_FAMILY)
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
