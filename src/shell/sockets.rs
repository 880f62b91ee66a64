//! Connections: opened, read and written as far as their sockets allow.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use mio::net::TcpStream;
use mio::{Interest, Token};

use crate::contract::{ConnId, End, Ends, Now};
use crate::profile::Stage;

use super::Shell;

/// Most bytes read from one connection in one turn, so that a busy client does not delay the others.
const READ_BYTES_PER_TURN: usize = 1 << 20;

#[expect(
    clippy::struct_excessive_bools,
    reason = "what the system said, bit by bit"
)]
pub(super) struct Socket {
    pub(super) id: ConnId,
    pub(super) token: Token,
    pub(super) stream: TcpStream,
    pub(super) connecting: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer may have closed its side: a short read then does not mean that everything is read.
    pub(super) hung_up: bool,
}

impl Socket {
    /// Both ends, if it is connected.
    fn ends(&self, listening: &[SocketAddr]) -> std::io::Result<Ends> {
        ends(self.stream.peer_addr()?, listening, || {
            self.stream.local_addr()
        })
    }
}

/// The ends of a connection. Our end is looked up only if the peer's port is one of the `listening` ports, because
/// otherwise it does not matter. To another address of this machine the system connects from its first one, so it is
/// also looked up whether the peer's address is ours: only our own addresses can be bound.
pub(super) fn ends(
    peer: SocketAddr,
    listening: &[SocketAddr],
    local: impl FnOnce() -> std::io::Result<SocketAddr>,
) -> std::io::Result<Ends> {
    let mut ends = Ends {
        local: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        peer,
    };
    if listening.iter().any(|own| own.port() == peer.port()) {
        ends.local = local()?;
        if UdpSocket::bind((peer.ip(), 0)).is_ok() {
            ends.local.set_ip(peer.ip());
        }
    }
    Ok(ends)
}

impl Shell {
    pub(super) fn connect(&mut self, id: ConnId, address: SocketAddr) -> std::io::Result<()> {
        let stream = TcpStream::connect(address)?;
        // A request's last segment must not wait for the acknowledgement of its first.
        stream.set_nodelay(true)?;
        self.add(id, stream, true)
    }

    pub(super) fn add(
        &mut self,
        id: ConnId,
        mut stream: TcpStream,
        connecting: bool,
    ) -> std::io::Result<()> {
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

    /// Writes all bytes of the core, as far as the sockets accept them. Returns whether anything moved.
    pub(super) fn write_all(&mut self, now: Now) -> bool {
        let mut moved = false;
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
                        // A partial write means that the socket is full.
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

    /// A write failed. What the peer sent before it closed can still be read.
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

    /// A connection attempt has ended: `take_error` and `peer_addr` say how.
    pub(super) fn finish_connect(&mut self, at: usize, now: Now) {
        self.stages.enter(Stage::Connect);
        let socket = &mut self.sockets[at];
        let ends = match socket.stream.take_error() {
            Ok(Some(error)) | Err(error) => Err(error),
            Ok(None) => socket.ends(self.relay.listening()),
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
    pub(super) fn read(&mut self, at: usize, now: Now) {
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
                    // With edges, a short read has emptied the socket, unless the peer's end is still to be read.
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
            // A client that closed only its side still gets its answer: the core closes.
            if end != End::Eof {
                self.sockets.remove(at);
            }
            return;
        }
    }
}
