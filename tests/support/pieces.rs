//! Writes bytes so that the reader at the other end sees them piece by piece.
//!
//! Setting TCP_NODELAY is not enough: a reader that is late finds several pieces at once. So after each
//! piece we ask the kernel (`/proc/net/tcp`) whether the other end, which is on this machine, has taken
//! everything out of its receive queue, and only then write the next one. That is an event, not a pause.

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use super::monitor::GUARD;

/// Writes `bytes` in pieces of `size`, each read by the other end before the next is written.
pub fn write_in_pieces(stream: &TcpStream, bytes: &[u8], size: usize) -> io::Result<()> {
    write_each(stream, bytes.chunks(size))
}

/// Writes the given pieces, each read by the other end before the next is written.
pub fn write_each<'a>(
    stream: &TcpStream,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let queue = FarQueue::of(stream)?;
    for piece in pieces {
        (&*stream).write_all(piece)?;
        queue.wait_until_taken();
    }
    Ok(())
}

/// The receive queue of the socket at the other end of a connection within this machine.
pub struct FarQueue {
    table: &'static str,
    /// Local and remote address as the other end's line in the table spells them.
    addresses: String,
}

impl FarQueue {
    pub fn of(stream: &TcpStream) -> io::Result<Self> {
        let (near, far) = (stream.local_addr()?, stream.peer_addr()?);
        let table = if far.is_ipv4() {
            "/proc/net/tcp"
        } else {
            "/proc/net/tcp6"
        };
        Ok(Self {
            table,
            addresses: format!(" {} {} ", kernel_spelling(far), kernel_spelling(near)),
        })
    }

    /// Returns when the queue is empty, or the other end is gone; panics when that takes too long.
    pub fn wait_until_taken(&self) {
        let since = Instant::now();
        while self.bytes().is_some_and(|bytes| bytes > 0) {
            assert!(
                since.elapsed() < GUARD,
                "the other end has not read for {GUARD:?}"
            );
            thread::yield_now();
        }
    }

    fn bytes(&self) -> Option<u64> {
        let table = fs::read_to_string(self.table).expect("the kernel's socket table");
        let line = table.lines().find(|line| line.contains(&self.addresses))?;
        let queues = line.split_whitespace().nth(4)?;
        let (_, received) = queues.split_once(':')?;
        u64::from_str_radix(received, 16).ok()
    }
}

/// `127.0.0.1:4040` is `0100007F:0FC8` there: 32-bit words in the machine's byte order.
fn kernel_spelling(addr: SocketAddr) -> String {
    let words: Vec<[u8; 4]> = match addr {
        SocketAddr::V4(v4) => vec![v4.ip().octets()],
        SocketAddr::V6(v6) => v6
            .ip()
            .octets()
            .chunks(4)
            .map(|word| word.try_into().expect("four bytes"))
            .collect(),
    };
    let ip: String = words
        .into_iter()
        .map(|word| format!("{:08X}", u32::from_ne_bytes(word)))
        .collect();
    format!("{ip}:{:04X}", addr.port())
}
