//! The stand-in for Pyroscope: an http or https server that does what a test tells it and keeps what it got.
//!
//! One thread per connection, blocking. When a request's first byte has come, and before anything of it is
//! read, the script says what to do with it: the next [`Play`] that was queued, else what the rule says
//! ([`Pyroscope::always`]), else read it and answer 200. An answer takes [`LATENCY`], as it does in production,
//! unless the stand-in is [`quick`](Pyroscope::quick), the play [`at_once`](Play::at_once) or behind a gate. Every request is kept from its head on, so a request
//! that was cut off is there too, with `complete` false.
//!
//! The port stays ours while nothing listens on it: a second socket is bound to it and never listens.
//! So [`Pyroscope::refuse`] and [`Pyroscope::accept`] can be played in turn without losing the port.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::server::{ServerConfig, ServerConnection};
use rustls::{HandshakeKind, ProtocolVersion, StreamOwned, SupportedProtocolVersion};
use socket2::{Domain, SockRef, Socket, Type};

use super::certificates::{Authority, Leaf, OUR_NAMES};
use super::message::{Body, Head, Messages};
use super::monitor::Monitor;
use super::pieces::FarQueue;
use super::play::{Gate, Play, Step};

/// How long the server takes for a push, from the last byte of the request to the first of the answer. A server in
/// production took 467 to 532 ms. Each connection has its own: others are served meanwhile.
pub const LATENCY: Duration = Duration::from_millis(500);

/// One request as received.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which connection brought it, counted from 0 in the order of accepting.
    pub connection: usize,
    /// Its place on that connection, from 0.
    pub place: usize,
    pub head: Head,
    pub body: Body,
    /// Head and body were read to their end.
    pub complete: bool,
    /// All of an answer was written.
    pub answered: bool,
    pub head_at: Instant,
    /// When the body's last byte had been read.
    pub body_at: Option<Instant>,
    /// When all of an answer had been written, or its connection ended without one.
    pub ended_at: Option<Instant>,
}

impl Request {
    pub fn method(&self) -> String {
        self.head
            .start_line()
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    /// Path and query as they stand in the request line.
    pub fn target(&self) -> String {
        self.head
            .start_line()
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    }

    pub fn path(&self) -> String {
        self.target()
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    pub fn query(&self) -> Option<String> {
        self.target()
            .split_once('?')
            .map(|(_, query)| query.to_owned())
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.header(name)
    }

    /// The body, with any chunking taken off.
    pub fn payload(&self) -> &[u8] {
        &self.body.decoded
    }
}

/// One connection as seen from here.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// How its TLS handshake went; `None` before, and without TLS.
    pub handshake: Option<HandshakeKind>,
    pub version: Option<ProtocolVersion>,
    /// Requests whose first byte came.
    pub requests: usize,
    /// Why it ended, when it has.
    pub ended: Option<String>,
    /// It waits for the first byte of a request.
    idle: bool,
    /// Its ClientHello has come, and waits for an answer.
    hello: bool,
}

/// How to speak TLS.
pub struct Tls {
    pub leaf: Leaf,
    pub versions: Vec<&'static SupportedProtocolVersion>,
}

impl Tls {
    /// A certificate by `authority` for the names the stand-in is reached under; TLS 1.2 and 1.3.
    pub fn by(authority: &Authority) -> Self {
        Self::with(authority.leaf(&OUR_NAMES))
    }

    pub fn with(leaf: Leaf) -> Self {
        Self {
            leaf,
            versions: rustls::ALL_VERSIONS.to_vec(),
        }
    }

    pub fn only(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    fn config(self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .expect("versions that the provider has")
            .with_no_client_auth()
            .with_single_cert(self.leaf.chain, self.leaf.key)
            .expect("a certificate that fits its key")
    }
}

/// The server. Ends its connections and frees its port when dropped.
pub struct Pyroscope {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Bound to our port and never listening.
    _holder: Socket,
}

struct Shared {
    tls: Option<Arc<ServerConfig>>,
    state: Monitor<State>,
}

type Rule = Box<dyn FnMut(Turn) -> Play + Send>;

/// Which request it is that wants to know what will be done with it.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// From 0, over all connections, in the order in which first bytes came.
    pub request: usize,
    pub connection: usize,
    /// From 0, on this connection.
    pub place: usize,
}

#[derive(Default)]
struct State {
    listener: Option<TcpListener>,
    queue: VecDeque<Play>,
    /// Answers take no time.
    quick: bool,
    rule: Option<Rule>,
    turns: usize,
    requests: Vec<Request>,
    connections: Vec<Connection>,
    /// Of the connections that are open: a handle to end each from outside.
    handles: Vec<Option<TcpStream>>,
    /// How a connection is to end, once said from outside.
    verdicts: Vec<Option<Verdict>>,
    /// Before which gate a connection waits.
    gates: Vec<Option<Gate>>,
    /// Before which gate each TLS handshake waits, once its ClientHello has been read.
    greeting: Option<Gate>,
    /// Closed by us with more to come from the other side: kept, since to let go of them would reset them.
    half_closed: Vec<TcpStream>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Close,
    Reset,
}

impl Pyroscope {
    pub fn http() -> Self {
        let server = Self::refusing(None);
        server.accept();
        server
    }

    pub fn https(tls: Tls) -> Self {
        let server = Self::refusing(Some(tls));
        server.accept();
        server
    }

    /// A server that has a port and refuses connections, until [`Pyroscope::accept`].
    pub fn refusing(tls: Option<Tls>) -> Self {
        let holder = bound(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into());
        let addr = holder
            .local_addr()
            .expect("a bound socket has an address")
            .as_socket()
            .expect("an IP address");
        let tls = tls.map(|tls| Arc::new(tls.config()));
        let shared = Arc::new(Shared {
            tls,
            state: Monitor::new(State::default()),
        });
        Self {
            addr,
            shared,
            _holder: holder,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT` or `https://localhost:PORT`.
    pub fn url(&self) -> String {
        match self.shared.tls {
            None => format!("http://{}", self.addr),
            Some(_) => format!("https://localhost:{}", self.addr.port()),
        }
    }

    /// What the Host header must say.
    pub fn host(&self) -> String {
        let url = self.url();
        url.split_once("//")
            .map(|(_, host)| host.to_owned())
            .unwrap_or_default()
    }

    // Scripting.

    /// Answers at once: for tests whose subject is the time something takes, or that send very many profiles.
    pub fn quick(self) -> Self {
        self.shared.state.change(|state| state.quick = true);
        self
    }

    /// Queues what to do with the next request that has nothing queued for it yet.
    pub fn next(&self, play: Play) {
        self.shared
            .state
            .change(|state| state.queue.push_back(play));
    }

    /// What to do with every request for which nothing is queued.
    pub fn always(&self, play: Play) {
        self.rule(move |_| play.clone());
    }

    pub fn rule(&self, rule: impl FnMut(Turn) -> Play + Send + 'static) {
        self.shared
            .state
            .change(|state| state.rule = Some(Box::new(rule)));
    }

    /// From now on reads each ClientHello, and answers it when the gate is opened.
    pub fn hold_greetings(&self, gate: &Gate) {
        self.shared
            .state
            .change(|state| state.greeting = Some(gate.clone()));
    }

    /// Takes connections (again).
    pub fn accept(&self) {
        self.accept_on(bound(self.addr));
    }

    /// Listens and has no room for another connection: the next one asks the kernel in vain until
    /// [`Crowd::leave`]. For a server that refuses connections so far.
    pub fn crowd(&self) -> Crowd<'_> {
        let socket = bound(self.addr);
        // To the kernel this means one.
        socket.listen(0).expect("the port is ours");
        let only = TcpStream::connect(self.addr).expect("room for one connection");
        let handle = socket.try_clone().expect("another handle to the listener");
        self.shared
            .state
            .change(|state| state.listener = Some(handle.into()));
        Crowd {
            server: self,
            socket,
            only,
        }
    }

    fn accept_on(&self, socket: Socket) {
        socket.listen(256).expect("the port is ours");
        let listener = TcpListener::from(socket);
        let accepting = listener
            .try_clone()
            .expect("another handle to the listener");
        self.shared
            .state
            .change(|state| state.listener = Some(listener));
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || shared.accept_all(&accepting));
    }

    /// Refuses connections from now on; those that are open stay.
    pub fn refuse(&self) {
        if let Some(listener) = self.shared.state.change(|state| state.listener.take()) {
            // On a listening socket this wakes `accept` and ends the listening at once.
            SockRef::from(&listener)
                .shutdown(Shutdown::Both)
                .expect("a listener to stop");
        }
    }

    /// Closes, with a FIN, every connection that waits for a request, and returns when they are closed.
    pub fn close_idle(&self) {
        self.end(Verdict::Close, |connection| connection.idle);
    }

    /// Closes, with a FIN, every connection, in whatever it is, and returns when they are closed.
    pub fn close_all(&self) {
        self.end(Verdict::Close, |_| true);
    }

    /// Resets every connection, in whatever it is, and returns when they are gone.
    pub fn reset_all(&self) {
        self.end(Verdict::Reset, |_| true);
    }

    fn end(&self, verdict: Verdict, which: impl Fn(&Connection) -> bool) {
        let doomed = self.shared.state.change(|state| {
            let open = |index: &usize| {
                state.connections[*index].ended.is_none() && which(&state.connections[*index])
            };
            let doomed: Vec<usize> = (0..state.connections.len()).filter(open).collect();
            for &index in &doomed {
                state.verdicts[index] = Some(verdict);
                if let Some(handle) = &state.handles[index] {
                    // Wakes a thread that reads, and tells the other end nothing.
                    let _ = handle.shutdown(Shutdown::Read);
                }
                if let Some(gate) = &state.gates[index] {
                    gate.doom(index);
                }
            }
            doomed
        });
        self.shared.state.wait("connections to end", |state| {
            doomed
                .iter()
                .all(|&index| state.connections[index].ended.is_some())
                .then_some(())
        });
    }

    // What came.

    /// Every request so far, complete or not, in the order in which their heads came.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state.look(|state| state.requests.clone())
    }

    /// The requests that came whole.
    pub fn complete(&self) -> Vec<Request> {
        self.shared.state.look(State::complete)
    }

    /// Waits until `count` requests have come whole, and returns them.
    #[track_caller]
    pub fn wait_complete(&self, count: usize) -> Vec<Request> {
        let what = format!("{count} whole requests at the server");
        self.shared.state.wait(&what, |state| {
            let complete = state
                .requests
                .iter()
                .filter(|request| request.complete)
                .count();
            (complete >= count).then(|| state.complete())
        })
    }

    /// Waits until `count` requests have been answered, and returns those.
    #[track_caller]
    pub fn wait_answered(&self, count: usize) -> Vec<Request> {
        let what = format!("{count} answered requests at the server");
        self.shared.state.wait(&what, |state| {
            let answered: Vec<&Request> = state
                .requests
                .iter()
                .filter(|request| request.answered)
                .collect();
            (answered.len() >= count).then(|| answered.into_iter().cloned().collect())
        })
    }

    /// Like [`Pyroscope::wait_answered`], without copying what came.
    #[track_caller]
    pub fn wait_answered_count(&self, count: usize) {
        let what = format!("{count} answered requests at the server");
        self.shared.state.wait(&what, |state| {
            let answered = state
                .requests
                .iter()
                .filter(|request| request.answered)
                .count();
            (answered >= count).then_some(())
        });
    }

    /// Waits until each request has ended, answered or not.
    #[track_caller]
    pub fn wait_all_ended(&self) {
        self.shared
            .state
            .wait("each request at the server to end", |state| {
                let mut requests = state.requests.iter();
                requests
                    .all(|request| request.ended_at.is_some())
                    .then_some(())
            });
    }

    /// Waits for the only request there is to be whole, and returns it.
    #[track_caller]
    pub fn wait_only(&self) -> Request {
        let mut all = self.wait_complete(1);
        assert_eq!(all.len(), 1, "more requests than one came");
        all.remove(0)
    }

    /// Waits until the first byte of `count` requests has come, read or not.
    #[track_caller]
    pub fn wait_begun(&self, count: usize) {
        let what = format!("{count} requests to begin at the server");
        self.shared
            .state
            .wait(&what, |state| (state.turns >= count).then_some(()));
    }

    /// Waits until `count` connections have sent their ClientHello, which waits before a gate.
    #[track_caller]
    pub fn wait_hellos(&self, count: usize) {
        let what = format!("{count} ClientHellos at the server");
        self.shared.state.wait(&what, |state| {
            let waiting = |connection: &&Connection| connection.hello;
            (state.connections.iter().filter(waiting).count() >= count).then_some(())
        });
    }

    pub fn connections(&self) -> Vec<Connection> {
        self.shared.state.look(|state| state.connections.clone())
    }

    /// Waits until `count` connections have been accepted (and greeted, with TLS).
    #[track_caller]
    pub fn wait_connections(&self, count: usize) -> Vec<Connection> {
        let what = format!("{count} connections to the server");
        self.shared.state.wait(&what, |state| {
            (state.connections.len() >= count).then(|| state.connections.clone())
        })
    }

    /// Waits until that connection has ended, and says why it did.
    #[track_caller]
    pub fn wait_ended(&self, connection: usize) -> String {
        let what = format!("the end of connection {connection}");
        self.shared.state.wait(&what, |state| {
            state.connections.get(connection)?.ended.clone()
        })
    }

    /// Waits until `count` connections are open and have nothing to do but wait for a request.
    #[track_caller]
    pub fn wait_idle(&self, count: usize) {
        let what = format!("{count} idle connections at the server");
        self.shared.state.wait(&what, |state| {
            let idle = state
                .connections
                .iter()
                .filter(|connection| connection.idle)
                .count();
            (idle >= count).then_some(())
        });
    }

    /// Waits until the other side has read everything that was written to it.
    pub fn wait_read(&self) {
        let open = self.shared.state.look(|state| {
            let handles = state.handles.iter().flatten();
            handles
                .filter_map(|handle| FarQueue::of(handle).ok())
                .collect::<Vec<_>>()
        });
        open.iter().for_each(FarQueue::wait_until_taken);
    }

    /// How many TLS handshakes were made in full, and how many resumed a session.
    pub fn handshakes(&self) -> (usize, usize) {
        let kinds: Vec<HandshakeKind> = self
            .connections()
            .iter()
            .filter_map(|connection| connection.handshake)
            .collect();
        let resumed = kinds
            .iter()
            .filter(|kind| matches!(kind, HandshakeKind::Resumed))
            .count();
        (kinds.len() - resumed, resumed)
    }
}

/// See [`Pyroscope::crowd`].
pub struct Crowd<'a> {
    server: &'a Pyroscope,
    socket: Socket,
    only: TcpStream,
}

impl Crowd<'_> {
    /// Makes room: who asks again gets through.
    pub fn leave(self) {
        drop(self.only);
        self.server.accept_on(self.socket);
    }
}

impl Drop for Pyroscope {
    fn drop(&mut self) {
        self.refuse();
        self.shared.state.change(|state| {
            for index in 0..state.connections.len() {
                state.verdicts[index] = Some(Verdict::Close);
                if let Some(handle) = &state.handles[index] {
                    let _ = handle.shutdown(Shutdown::Both);
                }
                if let Some(gate) = &state.gates[index] {
                    gate.doom(index);
                }
            }
        });
    }
}

impl State {
    fn complete(&self) -> Vec<Request> {
        self.requests
            .iter()
            .filter(|request| request.complete)
            .cloned()
            .collect()
    }

    fn play(&mut self, connection: usize) -> Play {
        let place = self.connections[connection].requests;
        let turn = Turn {
            request: self.turns,
            connection,
            place,
        };
        self.turns += 1;
        self.connections[connection].requests += 1;
        self.connections[connection].idle = false;
        match (self.queue.pop_front(), &mut self.rule) {
            (Some(play), _) => play,
            (None, Some(rule)) => rule(turn),
            (None, None) => Play::answer(200),
        }
    }
}

impl Shared {
    fn accept_all(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            let handle = stream.try_clone().ok();
            let index = self.state.change(|state| {
                state.connections.push(Connection::default());
                state.handles.push(handle);
                state.verdicts.push(None);
                state.gates.push(None);
                state.connections.len() - 1
            });
            let shared = Arc::clone(self);
            thread::spawn(move || shared.serve(index, stream));
        }
    }

    /// Plays one connection to its end, and notes the end.
    fn serve(self: Arc<Self>, index: usize, stream: TcpStream) {
        let socket = stream.try_clone().expect("another handle to the socket");
        let why = match self.greet(index, stream) {
            Ok(line) => Player {
                shared: &self,
                index,
                socket: &socket,
                messages: Messages::new(line),
            }
            .play_all(),
            Err(error) => Err(error),
        };
        let why = match why {
            Ok(why) => why.to_owned(),
            Err(error) => error.to_string(),
        };
        self.state.change(|state| {
            match state.verdicts[index] {
                Some(Verdict::Reset) => {
                    let _ = SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO));
                }
                // With bytes unread, or more to come, to let go of it would be a RST.
                Some(Verdict::Close) if !state.connections[index].idle => {
                    let _ = socket.shutdown(Shutdown::Write);
                    state.half_closed.extend(socket.try_clone());
                }
                _ => {}
            }
            // The socket is closed, by FIN or RST, when its last handle goes: before anyone is told.
            state.handles[index] = None;
            drop(socket);
            state.connections[index].ended = Some(why);
            let mut requests = state.requests.iter_mut();
            if let Some(cut) = requests.find(|cut| cut.connection == index && !cut.answered) {
                cut.ended_at = Some(Instant::now());
            }
            state.connections[index].idle = false;
        });
    }

    fn greet(&self, index: usize, mut stream: TcpStream) -> io::Result<Line> {
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else {
            return Ok(Line::Plain(stream));
        };
        let mut tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        if let Some(gate) = self.state.look(|state| state.greeting.clone()) {
            tls.read_tls(&mut stream)?;
            self.state.change(|state| {
                state.connections[index].hello = true;
                state.gates[index] = Some(gate.clone());
            });
            let doomed = self.state.look(|state| state.verdicts[index].is_some());
            if doomed || !gate.pass(index) {
                return Err(io::Error::other("ended from outside in the handshake"));
            }
            self.state.change(|state| state.gates[index] = None);
            tls.process_new_packets().map_err(io::Error::other)?;
        }
        while tls.is_handshaking() {
            let (read, _) = tls.complete_io(&mut stream)?;
            if read == 0 && tls.is_handshaking() {
                return Err(io::Error::other("ended by the other side in the handshake"));
            }
        }
        self.state.change(|state| {
            state.connections[index].handshake = tls.handshake_kind();
            state.connections[index].version = tls.protocol_version();
        });
        let mut stream = StreamOwned::new(tls, stream);
        stream.flush()?;
        Ok(Line::Tls(Box::new(stream)))
    }
}

/// A connection's byte stream, in clear or through TLS.
enum Line {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

/// Plays the script on one connection.
struct Player<'a> {
    shared: &'a Shared,
    index: usize,
    socket: &'a TcpStream,
    messages: Messages<Line>,
}

/// The connection goes on, or it has ended for this reason.
type Next = Option<&'static str>;

impl Player<'_> {
    fn play_all(mut self) -> io::Result<&'static str> {
        loop {
            self.shared
                .state
                .change(|state| state.connections[self.index].idle = true);
            if !self.begins()? {
                let from_outside = self.shared.state.look(|state| state.verdicts[self.index]);
                if from_outside == Some(Verdict::Close) {
                    self.say_goodbye();
                }
                return Ok(if from_outside.is_some() {
                    "ended from outside"
                } else {
                    "ended by the other side"
                });
            }
            let play = self.shared.state.change(|state| state.play(self.index));
            let mut request = None;
            for step in play.0 {
                if let Some(why) = self.play(step, &mut request)? {
                    return Ok(why);
                }
            }
        }
    }

    /// Waits for a request's first byte and leaves it unread where that can be; `false` at the stream's end.
    fn begins(&mut self) -> io::Result<bool> {
        if !self.messages.ahead().is_empty() {
            return Ok(true);
        }
        match &self.messages.stream {
            Line::Plain(stream) => Ok(stream.peek(&mut [0])? > 0),
            // One byte read here, one record at most taken from the socket.
            Line::Tls(_) => self.messages.read_some(1),
        }
    }

    fn play(&mut self, step: Step, request: &mut Option<usize>) -> io::Result<Next> {
        match step {
            Step::ReadHead => {
                let Some(head) = self.messages.head()? else {
                    return Ok(Some("ended before a head"));
                };
                *request = Some(self.note(head));
            }
            Step::ReadBody => {
                self.read_body(request.expect("a play reads the head before the body"))?
            }
            Step::Work => {
                if !self.work() {
                    return Ok(Some("ended from outside while at work"));
                }
            }
            Step::Hold(gate) => {
                self.shared
                    .state
                    .change(|state| state.gates[self.index] = Some(gate.clone()));
                let doomed = self
                    .shared
                    .state
                    .look(|state| state.verdicts[self.index].is_some());
                if doomed || !gate.pass(self.index) {
                    return Ok(Some("ended from outside while held"));
                }
                self.shared
                    .state
                    .change(|state| state.gates[self.index] = None);
            }
            Step::Write(bytes) => {
                self.messages.stream.write(&bytes)?;
                self.answered(*request);
            }
            Step::WriteBytewise(bytes) => {
                let queue = FarQueue::of(self.socket)?;
                for byte in bytes {
                    self.messages.stream.write(&[byte])?;
                    queue.wait_until_taken();
                }
                self.answered(*request);
            }
            Step::WriteThenGarbage(bytes) => {
                self.write_with(&bytes, |_| (), b"\x17\x03\x03\x00\x04junk")?;
                self.answered(*request);
            }
            Step::WriteThenAlert(bytes) => {
                self.write_with(&bytes, refuse_a_record, b"")?;
                self.answered(*request);
            }
            Step::WriteThenCloseNotify(bytes) => {
                self.write_with(&bytes, |tls| tls.send_close_notify(), b"")?;
                self.answered(*request);
            }
            Step::Close => {
                self.say_goodbye();
                return Ok(Some("closed"));
            }
            Step::Reset => {
                self.shared
                    .state
                    .change(|state| state.verdicts[self.index] = Some(Verdict::Reset));
                return Ok(Some("reset"));
            }
        }
        Ok(None)
    }

    /// Lets the latency pass; `false` when the connection was ended meanwhile.
    fn work(&self) -> bool {
        let state = &self.shared.state;
        let latency = state.look(|state| if state.quick { Duration::ZERO } else { LATENCY });
        let ended = |state: &mut State| state.verdicts[self.index].map(|_| ());
        state.wait_within(latency, ended).is_none()
    }

    /// Writes `bytes` over TLS, what TLS has to say after them, and bytes that are not TLS: all at once.
    fn write_with(
        &mut self,
        bytes: &[u8],
        say: impl FnOnce(&mut ServerConnection),
        raw: &[u8],
    ) -> io::Result<()> {
        let Line::Tls(stream) = &mut self.messages.stream else {
            panic!("this is about TLS");
        };
        stream.conn.writer().write_all(bytes)?;
        say(&mut stream.conn);
        let mut all = Vec::new();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut all)?;
        }
        all.extend_from_slice(raw);
        stream.sock.write_all(&all)
    }

    /// What TLS says before a FIN.
    fn say_goodbye(&mut self) {
        if let Line::Tls(stream) = &mut self.messages.stream {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }

    fn note(&self, head: Head) -> usize {
        self.shared.state.change(|state| {
            let (connection, place) = (self.index, state.connections[self.index].requests - 1);
            let (body, head_at) = (Body::default(), Instant::now());
            let request = Request {
                connection,
                place,
                head,
                body,
                complete: false,
                answered: false,
                head_at,
                body_at: None,
                ended_at: None,
            };
            state.requests.push(request);
            state.requests.len() - 1
        })
    }

    fn read_body(&mut self, request: usize) -> io::Result<()> {
        let framing = self
            .shared
            .state
            .look(|state| state.requests[request].head.request_framing());
        let mut body = Body::default();
        let outcome = self.messages.body(framing, &mut body);
        self.shared.state.change(|state| {
            let request = &mut state.requests[request];
            request.body = body;
            request.complete = outcome.is_ok();
            request.body_at = outcome.is_ok().then(Instant::now);
        });
        outcome
    }

    fn answered(&self, request: Option<usize>) {
        if let Some(request) = request {
            self.shared.state.change(|state| {
                let request = &mut state.requests[request];
                request.answered = true;
                request.ended_at = Some(Instant::now());
            });
        }
    }
}

/// Has the server read a damaged record, so that it says with an alert that it goes no further.
fn refuse_a_record(tls: &mut ServerConnection) {
    let damaged = [b"\x17\x03\x03\x00\x20".as_slice(), &[0; 32]].concat();
    tls.read_tls(&mut damaged.as_slice())
        .expect("read from memory");
    tls.process_new_packets()
        .expect_err("a record that cannot be read");
}

/// A socket bound to `addr` that shares its port with another one of ours, as long as one of both listens.
pub(super) fn bound(addr: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&addr.into()).expect("a port of our own");
    socket
}
