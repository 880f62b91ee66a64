//! Do clients that mean harm, or are merely broken, get in the way of one that uploads, or leave anything behind?
//!
//! Beside each attack a well-behaved client uploads again and again, each time on a new connection, and gets its 200 every
//! time. Afterwards the memory was within its bound all the while, and no descriptor is left over.

#![expect(
    clippy::disallowed_methods,
    reason = "clients that come at once need threads"
)]

mod support;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use support::client::{Client, post};
use support::monitor::GUARD;
use support::pyroscope::Pyroscope;
use support::sandbox::{Extension, Sandbox};

/// The ring of these tests.
const RING_BYTES: usize = 8 << 20;

/// What may come on top: 64 inlets with a buffer of 64 KiB each, an answer's buffer, and what the allocator wastes.
const BESIDES_BYTES: usize = 64 * (64 << 10) + (2 << 20);

/// Clients served at once, and those accepted in one turn before others give way.
const CLIENTS_MAX: usize = 64 + 16;

static TURN: Mutex<()> = Mutex::new(());

/// Connections made before the next upload is waited for. More than 63 between its connecting and its request may push
/// it out, and a backlog that overflows costs a second, by TCP's clock.
const BURST: usize = 32;

/// Connections an attacker holds open: the test has a limit on its own descriptors.
const HELD: usize = 700;

#[test]
fn connections_opened_and_abandoned() {
    beside_uploads(|addr, uploads| {
        let mut held = VecDeque::new();
        for count in 0..10_000 {
            let mut stream = TcpStream::connect(addr).expect("the extension takes connections");
            // Some of them begin something.
            let begun: &[u8] = match count % 4 {
                0 => b"",
                1 => b"POST /ingest HT",
                2 => b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\nabc",
                _ => b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            };
            let _ = stream.write_all(begun);
            held.push_back(stream);
            if held.len() > HELD {
                held.pop_front();
            }
            if count % BURST == 0 {
                uploads.more(1);
            }
        }
        held
    });
}

/// Each sends a byte now and then, and comes back when it was thrown out.
#[test]
fn slow_clients() {
    const HEAD: &[u8] =
        b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nX-Slow: and slower still\r\n\r\n";
    let (clients, rounds) = (1000, 30);
    // Taken in turns where the test has too few descriptors.
    let at_once = clients.min(HELD);
    beside_uploads(|addr, uploads| {
        for _ in 0..clients.div_ceil(at_once) {
            let mut slow: Vec<(Option<TcpStream>, usize)> =
                (0..at_once).map(|_| (None, 0)).collect();
            for _ in 0..rounds {
                for (count, (stream, sent)) in slow.iter_mut().enumerate() {
                    if count % BURST == 0 {
                        uploads.more(1);
                    }
                    let open = stream.take().or_else(|| TcpStream::connect(addr).ok());
                    *stream =
                        open.filter(|mut stream| stream.write_all(&HEAD[*sent..=*sent]).is_ok());
                    *sent = if stream.is_some() { *sent + 1 } else { 0 };
                }
            }
        }
    });
}

/// They ask without end and never listen.
#[test]
fn clients_that_stop_reading() {
    beside_uploads(|addr, uploads| {
        let requests = post("/ingest", b"unheard").repeat(100);
        let mut deaf: Vec<TcpStream> = (0..64).map(|_| deaf_client(addr)).collect();
        // What the kernel keeps for both is full before long: then nobody's requests are taken any more.
        let mut is_stuck = false;
        for _ in 0..100 {
            let mut taken = 0;
            for stream in &mut deaf {
                while let Ok(n) = stream.write(&requests) {
                    taken += n;
                }
            }
            is_stuck = taken == 0;
            if is_stuck {
                break;
            }
            uploads.more(2);
        }
        assert!(is_stuck, "nobody listens, but requests are taken");
        deaf
    });
}

#[test]
fn a_body_of_two_gigabytes() {
    beside_uploads(|addr, _| {
        let mut stream = TcpStream::connect(addr).expect("the extension takes connections");
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2147483648\r\n\r\n")
            .expect("the extension reads a head");
        let taken = pour(&mut stream, &[0x55; 64 << 10], 2 << 30);
        assert!(taken < 600 << 20, "{taken} bytes were taken");
        expect_413(stream);
    });
}

/// Nothing says how long it will be: it is taken while it fits, then for a while so that the client sees the answer.
#[test]
fn a_body_of_two_gigabytes_in_chunks() {
    beside_uploads(|addr, _| {
        let mut stream = TcpStream::connect(addr).expect("the extension takes connections");
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
            .expect("the extension reads a head");
        let chunk = [b"10000\r\n".as_slice(), &[0x55; 0x10000], b"\r\n"].concat();
        let taken = pour(&mut stream, &chunk, 2 << 30);
        assert!(taken < 600 << 20, "{taken} bytes were taken");
        expect_413(stream);
    });
}

#[test]
fn a_body_of_one_byte_chunks() {
    beside_uploads(|addr, _| {
        let mut client = Client::connect(addr);
        client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..1000 {
            client.send(b"1\r\nx\r\n".repeat(1000));
        }
        client.send("0\r\n\r\n");
        client.expect_ok();
    });
}

#[test]
fn requests_in_one_long_pipeline() {
    beside_uploads(|addr, _| {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let count = 100_000;
        let stream = TcpStream::connect(addr).expect("the extension takes connections");
        let mut writer = stream.try_clone().expect("another handle to the socket");
        let writing = thread::spawn(move || {
            let requests = post("/ingest", b"one of many").repeat(100);
            (0..count / 100).for_each(|_| writer.write_all(&requests).expect("a request is read"));
        });
        let mut answers = vec![0; ANSWER.len()];
        for _ in 0..count {
            (&stream).read_exact(&mut answers).expect("an answer");
            assert_eq!(answers, ANSWER);
        }
        writing.join().expect("all requests were read");
    });
}

/// With segments and buffers so small that the kernel, too, keeps little for it.
fn deaf_client(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
    socket.set_tcp_mss(536).expect("small segments");
    socket
        .set_recv_buffer_size(2048)
        .expect("a small buffer for answers");
    socket
        .set_send_buffer_size(65_536)
        .expect("and for requests");
    socket
        .connect(&addr.into())
        .expect("the extension takes connections");
    socket.set_nonblocking(true).expect("a socket");
    socket.into()
}

/// By default, nobody but this machine may connect: not even another of its addresses leads here.
#[test]
fn listens_on_loopback_alone() {
    let server = Pyroscope::http();
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_LISTEN_ADDRESS", "localhost:0")
        .listening();
    let port = extension.addr().port();
    let mut found = 0;
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/{}/net/{table}", extension.pid());
        let lines = std::fs::read_to_string(path).unwrap_or_default();
        for line in lines.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (address, at) = words[1].split_once(':').expect("an address and a port");
            // 0A: it listens. Addresses as the kernel writes them, in the machine's byte order.
            if words[3] == "0A" && at == format!("{port:04X}") {
                let loopback = ["0100007F", "00000000000000000000000001000000"];
                assert!(loopback.contains(&address), "it listens on {address}");
                found += 1;
            }
        }
    }
    assert!(found > 0, "it listens nowhere");
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], port));
    let refused = TcpStream::connect(elsewhere).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
}

/// Runs `attack` while a well-behaved client uploads, and sees that nothing came of it. What it returns is kept open
/// until some uploads have been answered after its end.
fn beside_uploads<T>(attack: impl FnOnce(SocketAddr, &Uploads) -> T) {
    // Each wants the machine for itself.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Pyroscope::http().quick();
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_BUFFER_BYTES", RING_BYTES.to_string())
        .set("PYROSCOPE_NUM_WORKERS", "1")
        .set("PYROSCOPE_LOG_LEVEL", "info")
        .listening();
    extension.post("/warm-up", &[7; 2000]);
    server.wait_answered(1);
    let (descriptors, memory) = (descriptors(&extension), kib(&extension, "VmHWM:"));
    let uploads = Uploads::start(extension.addr());

    let since = Instant::now();
    let leavings = attack(extension.addr(), &uploads);
    let took = since.elapsed();
    uploads.more(20);
    let used = self::descriptors(&extension) - descriptors;
    assert!(
        used <= CLIENTS_MAX,
        "{used} descriptors are used for clients"
    );
    drop(leavings);
    let count = uploads.stop();

    let peak = kib(&extension, "VmHWM:");
    let bound = memory + (RING_BYTES + BESIDES_BYTES) / 1024;
    eprintln!("{count} uploads beside it in {took:?}; peak {peak} KiB of {bound}, {memory} before");
    assert!(peak <= bound, "{peak} KiB at most, the bound is {bound}");
    let since = Instant::now();
    while self::descriptors(&extension) > descriptors {
        assert!(since.elapsed() < GUARD, "descriptors are left open");
        thread::yield_now();
    }
}

/// A client that uploads again and again.
struct Uploads {
    thread: JoinHandle<()>,
    done: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Uploads {
    fn start(addr: SocketAddr) -> Self {
        let (done, stop) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (counted, stopped) = (Arc::clone(&done), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut client = Client::connect(addr);
                client.send(post("/normal", &[7; 2000]));
                client.expect_ok();
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { thread, done, stop }
    }

    /// Waits for so many more.
    fn more(&self, count: usize) {
        let until = self.done.load(Ordering::Relaxed) + count;
        while self.done.load(Ordering::Relaxed) < until {
            assert!(!self.thread.is_finished(), "an upload did not get its 200");
            thread::yield_now();
        }
    }

    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every upload gets its 200");
        self.done.load(Ordering::Relaxed)
    }
}

/// Writes `piece` again and again for as long as it is taken, `limit` bytes at most. Says how many were.
fn pour(stream: &mut TcpStream, piece: &[u8], limit: usize) -> usize {
    let mut taken = 0;
    while taken < limit && stream.write_all(piece).is_ok() {
        taken += piece.len();
    }
    taken
}

/// The answer was there to be read, though we did not stop to read it.
fn expect_413(mut stream: TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    // A reset may have thrown the answer away: the price of never stopping.
    if stream.read_to_end(&mut answer).is_ok() {
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    }
}

fn descriptors(extension: &Extension) -> usize {
    let folder = format!("/proc/{}/fd", extension.pid());
    std::fs::read_dir(folder).expect("a process").count()
}

fn kib(extension: &Extension, field: &str) -> usize {
    let value = extension.status(field);
    let number = value.split_whitespace().next().unwrap_or_default();
    number.parse().expect("a number of KiB")
}
