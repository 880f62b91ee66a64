//! The server: takes whatever comes, answers 200, counts.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

use crate::GUARD;
use crate::certificates::{Authority, Leaf, OUR_NAMES};
use crate::lambda::content_length;

/// Connections served at once: more than any load has clients, or any relay opens.
const THREADS: usize = 80;

const READ_BYTES_MAX: usize = 256 << 10;

pub struct Server {
    address: SocketAddr,
    secure: bool,
    pub arrivals: Arc<Arrivals>,
    sessions: Arc<Sessions>,
}

/// The TLS connections of a server.
#[derive(Default)]
struct Sessions {
    open: Mutex<Vec<TcpStream>>,
    opened: AtomicUsize,
    closed: Arrivals,
    resumed: AtomicUsize,
}

/// How a server speaks.
#[derive(Clone, Default)]
struct Manner {
    tls: Option<Arc<ServerConfig>>,
    /// How long it takes for a request, having read it.
    pause: Duration,
    hold: Option<Arc<Hold>>,
}

/// Requests that get no answer, but in the end their connection closed.
#[derive(Default)]
pub struct Hold {
    /// Those before it are answered.
    first: usize,
    count: usize,
    seen: AtomicUsize,
    pub held: Arrivals,
    dropped: Arrivals,
    closed: Arrivals,
}

impl Hold {
    /// Ends the connections of what is held, and waits until they have ended.
    pub fn drop_all(&self) {
        self.dropped.add(Instant::now());
        assert!(self.closed.wait(self.count, GUARD), "they do not end");
    }

    /// Whether this request was one of them. Then its connection has to be dropped now.
    fn held(&self) -> bool {
        let number = self.seen.fetch_add(1, SeqCst);
        let mine = (self.first..self.first + self.count).contains(&number);
        if mine {
            self.held.add(Instant::now());
            self.dropped.wait(1, GUARD);
        }
        mine
    }
}

impl Server {
    pub fn http() -> Self {
        Self::slow(Duration::ZERO)
    }

    /// One that takes so long for each request, several at once.
    pub fn slow(pause: Duration) -> Self {
        let manner = Manner {
            pause,
            ..Manner::default()
        };
        Self::serve(port(), manner)
    }

    /// One that answers the first request, and holds so many after it.
    pub fn holding(count: usize) -> (Self, Arc<Hold>) {
        let hold = Arc::new(Hold {
            first: 1,
            count,
            ..Hold::default()
        });
        let manner = Manner {
            hold: Some(Arc::clone(&hold)),
            ..Manner::default()
        };
        (Self::serve(port(), manner), hold)
    }

    /// One whose certificate is by `authority`.
    pub fn https(authority: &Authority) -> Self {
        Self::https_as(server_config(authority.leaf(&OUR_NAMES)))
    }

    pub fn https_as(config: Arc<ServerConfig>) -> Self {
        let manner = Manner {
            tls: Some(config),
            ..Manner::default()
        };
        Self::serve(port(), manner)
    }

    /// Ends every TLS connection as a server does that has waited long enough, and waits until they have ended.
    pub fn hang_up(&self) {
        let open = self.sessions.open.lock();
        for connection in open.unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Its thread, which reads, finds the end and says goodbye. The client may have gone before.
            let _ = connection.shutdown(Shutdown::Read);
        }
        let all = self.sessions.opened.load(SeqCst);
        assert!(self.sessions.closed.wait(all, GUARD), "they do not end");
    }

    /// How many of the connections that have ended took up an earlier session.
    pub fn resumed(&self) -> usize {
        self.sessions.resumed.load(SeqCst)
    }

    pub fn url(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    fn serve(listener: TcpListener, manner: Manner) -> Self {
        LazyLock::force(&BEGINNING);
        let server = Self {
            address: listener
                .local_addr()
                .expect("a bound socket has an address"),
            secure: manner.tls.is_some(),
            arrivals: Arc::default(),
            sessions: Arc::default(),
        };
        // All there from the beginning: none is made while something is measured.
        let listener = Arc::new(listener);
        for _ in 0..THREADS {
            let (listener, manner) = (Arc::clone(&listener), manner.clone());
            let arrivals = Arc::clone(&server.arrivals);
            let sessions = Arc::clone(&server.sessions);
            thread::spawn(move || accept_all(&listener, &manner, &arrivals, &sessions));
        }
        server
    }
}

fn port() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of our own")
}

/// A TLS server that shows this certificate.
pub fn server_config(leaf: Leaf) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions that the provider has")
        .with_no_client_auth()
        .with_single_cert(leaf.chain, leaf.key);
    Arc::new(config.expect("a certificate that fits its key"))
}

fn accept_all(listener: &TcpListener, manner: &Manner, arrivals: &Arrivals, sessions: &Sessions) {
    let mut buffer = vec![0; READ_BYTES_MAX];
    for connection in listener.incoming().flatten() {
        // A measured program is killed in the end: its connections may end anyhow.
        let _ = connection.set_nodelay(true);
        if let Some(config) = &manner.tls {
            let kept = connection.try_clone().expect("one more descriptor");
            let mut open = sessions.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.push(kept);
            sessions.opened.fetch_add(1, SeqCst);
            drop(open);
            serve_secure(connection, config, manner, &mut buffer, arrivals, sessions);
        } else {
            serve(&mut &connection, manner, &mut buffer, arrivals);
        }
        if let Some(hold) = &manner.hold {
            hold.closed.add(Instant::now());
        }
    }
}

fn serve_secure(
    connection: TcpStream,
    config: &Arc<ServerConfig>,
    manner: &Manner,
    buffer: &mut [u8],
    arrivals: &Arrivals,
    sessions: &Sessions,
) {
    let session = ServerConnection::new(Arc::clone(config)).expect("a TLS session");
    let mut stream = StreamOwned::new(session, connection);
    serve(&mut stream, manner, buffer, arrivals);
    if stream.conn.handshake_kind() == Some(HandshakeKind::Resumed) {
        sessions.resumed.fetch_add(1, SeqCst);
    }
    stream.conn.send_close_notify();
    // The client may have gone before.
    let _ = stream.flush();
    let _ = stream.sock.shutdown(Shutdown::Both);
    sessions.closed.add(Instant::now());
}

fn serve(
    connection: &mut (impl Read + Write),
    manner: &Manner,
    buffer: &mut [u8],
    arrivals: &Arrivals,
) {
    while read_request(connection, buffer).is_some() {
        let at = Instant::now();
        if manner.hold.as_ref().is_some_and(|hold| hold.held()) {
            return;
        }
        if !manner.pause.is_zero() {
            thread::sleep(manner.pause);
        }
        let answered = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        if answered.and_then(|()| connection.flush()).is_err() {
            return;
        }
        arrivals.add(at);
    }
}

/// Reads one request and forgets it. Its end is the end of what has come: nobody sends two without an answer.
fn read_request(connection: &mut impl Read, buffer: &mut [u8]) -> Option<()> {
    let mut filled = 0;
    let body = loop {
        filled += read(connection, &mut buffer[filled..])?;
        if let Some(end) = buffer[..filled]
            .windows(4)
            .position(|seen| seen == b"\r\n\r\n")
        {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..body]);
    if let Some(length) = content_length(&head) {
        let mut left = (body + length).checked_sub(filled)?;
        while left > 0 {
            left = left.checked_sub(read(connection, buffer)?)?;
        }
    } else {
        // Chunked: what is posted here never holds its last chunk.
        while !buffer[..filled].ends_with(b"0\r\n\r\n") {
            let kept = filled.min(4);
            buffer.copy_within(filled - kept..filled, 0);
            filled = kept + read(connection, &mut buffer[kept..])?;
        }
    }
    Some(())
}

fn read(connection: &mut impl Read, buffer: &mut [u8]) -> Option<usize> {
    connection.read(buffer).ok().filter(|&length| length > 0)
}

/// What [`Arrivals::last`] is counted from.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How many payloads have come and were answered, and news of it.
#[derive(Default)]
pub struct Arrivals {
    count: AtomicUsize,
    last_ns: AtomicU64,
    waiting: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Arrivals {
    fn add(&self, at: Instant) {
        let since = at.saturating_duration_since(*BEGINNING).as_nanos();
        self.last_ns
            .store(u64::try_from(since).unwrap_or(u64::MAX), SeqCst);
        self.count.fetch_add(1, SeqCst);
        // Nobody is woken for nothing.
        if self.waiting.load(SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }

    pub fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// When all of the last one was there.
    pub fn last(&self) -> Instant {
        *BEGINNING + Duration::from_nanos(self.last_ns.load(SeqCst))
    }

    /// Waits until there are `count`, at most for `limit`; whether there are.
    pub fn wait(&self, count: usize, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        self.waiting.fetch_add(1, SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.count() < count
            && let Some(left) = until.checked_duration_since(Instant::now())
        {
            let waited = self.changed.wait_timeout(guard, left);
            guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.waiting.fetch_sub(1, SeqCst);
        self.count() >= count
    }
}

/// A port that refuses every connection, for as long as this lives: bound, but not listened on.
pub struct Refusing(socket2::Socket);

impl Refusing {
    pub fn start() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&address.into()).expect("a port of our own");
        Self(socket)
    }

    pub fn url(&self) -> String {
        let address = self
            .0
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket());
        format!("http://{}", address.expect("a bound socket has an address"))
    }

    /// It is back.
    pub fn recover(self) -> Server {
        self.0.listen(128).expect("a socket to listen on");
        Server::serve(self.0.into(), Manner::default())
    }
}

/// A server that takes connections and bytes, and never says a word.
pub struct Silent(TcpListener);

impl Silent {
    pub fn start() -> Self {
        Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of our own"))
    }

    pub fn url(&self) -> String {
        format!(
            "http://{}",
            self.0.local_addr().expect("a bound socket has an address")
        )
    }
}
