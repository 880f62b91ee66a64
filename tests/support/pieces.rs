//! Writes bytes so that the reader at the other end sees them piece by piece.
//!
//! Setting TCP_NODELAY is not enough: a reader that is late finds several pieces at once. So after each
//! piece we ask the kernel whether the other end, which is on this machine, has taken everything out of its
//! receive queue, and only then write the next one. That is an event, not a pause. We ask by sock_diag(7), which
//! looks up one socket; `/proc/net/tcp` tells the same, but walks all of them for milliseconds.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

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
    kernel: Socket,
    question: Vec<u8>,
}

impl FarQueue {
    pub fn of(stream: &TcpStream) -> io::Result<Self> {
        let (near, far) = (stream.local_addr()?, stream.peer_addr()?);
        let kernel = Socket::new(
            AF_NETLINK.into(),
            Type::DGRAM,
            Some(Protocol::from(NETLINK_SOCK_DIAG)),
        )?;
        Ok(Self {
            kernel,
            question: question(far, near),
        })
    }

    /// Returns when the queue is empty, or the other end is gone; panics when that takes too long.
    pub fn wait_until_taken(&self) {
        let since = Instant::now();
        while self
            .bytes()
            .expect("an answer by the kernel")
            .is_some_and(|bytes| bytes > 0)
        {
            assert!(
                since.elapsed() < GUARD,
                "the other end has not read for {GUARD:?}"
            );
            thread::yield_now();
        }
    }

    /// How many bytes are in it; `None` when there is no such socket any more.
    fn bytes(&self) -> io::Result<Option<u32>> {
        self.kernel.send(&self.question)?;
        let mut answer = [0; 1024];
        let length = (&self.kernel).read(&mut answer)?;
        let word =
            |at: usize| u32::from_ne_bytes(answer[at..at + 4].try_into().expect("four bytes"));
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        match kind {
            SOCK_DIAG_BY_FAMILY if length >= RECEIVE_QUEUE_AT + 4 => {
                Ok(Some(word(RECEIVE_QUEUE_AT)))
            }
            NLMSG_ERROR if word(NETLINK_HEADER_BYTES) as i32 == -ENOENT => Ok(None),
            _ => Err(io::Error::other(format!(
                "sock_diag answered with message {kind}"
            ))),
        }
    }
}

/// A netlink message that asks for the socket with these addresses: `nlmsghdr`, then `inet_diag_req_v2`.
fn question(local: SocketAddr, server: SocketAddr) -> Vec<u8> {
    const REQUEST_BYTES: u32 = 56;
    const REQUEST: u16 = 1;
    const TCP: u8 = 6;
    const NO_COOKIE: u32 = u32::MAX;
    let mut message = Vec::new();
    message.extend((NETLINK_HEADER_BYTES as u32 + REQUEST_BYTES).to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    let family = Domain::for_address(local);
    message.extend([
        u8::try_from(i32::from(family)).expect("an address family"),
        TCP,
        0,
        0,
    ]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(local.port().to_be_bytes());
    message.extend(server.port().to_be_bytes());
    message.extend(sixteen_bytes(local.ip()));
    message.extend(sixteen_bytes(server.ip()));
    message.extend(0_u32.to_ne_bytes());
    message.extend([NO_COOKIE, NO_COOKIE].map(u32::to_ne_bytes).concat());
    message
}

fn sixteen_bytes(ip: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match ip {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes = v6.octets(),
    }
    bytes
}

// From linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const NETLINK_HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const ENOENT: i32 = 2;
/// `idiag_rqueue` in the answer: behind the header, four bytes, the socket's id and a timer.
const RECEIVE_QUEUE_AT: usize = NETLINK_HEADER_BYTES + 4 + 48 + 4;
