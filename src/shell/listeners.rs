//! Listening, and accepting connections.

use std::io::ErrorKind;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};

use crate::contract::{ConnId, End, Now};
use crate::profile::Stage;

use super::{LISTENERS, Shell};

/// Most connections accepted in one turn, so that accepted ones are served before new ones replace them.
const ACCEPTS_PER_TURN: usize = 16;

impl Shell {
    /// Binds all possible addresses; with port 0, all use the port that the first one got.
    pub(super) fn listen(&mut self, addresses: &[SocketAddr], now: Now) {
        let mut bound: Vec<SocketAddr> = Vec::new();
        let mut failed = Vec::new();
        for address in addresses.iter().take(LISTENERS - 1) {
            let mut address = *address;
            if let (0, Some(first)) = (address.port(), bound.first()) {
                address.set_port(first.port());
            }
            match self.bind(address) {
                Ok(local) => bound.push(local),
                // Lambda does not have IPv6 everywhere; one address is enough.
                Err(error) if !bound.is_empty() && is_absent(&error) => {}
                Err(error) => failed.push((address, error.kind())),
            }
        }
        self.relay.unbound(&failed, now);
        self.relay.started(&bound, now);
    }

    pub(super) fn bind(&mut self, address: SocketAddr) -> std::io::Result<SocketAddr> {
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

    /// Reports what has arrived since the last poll: a client that uploads while we exit is still served.
    pub(super) fn look_once_more(&mut self, now: Now) {
        for at in (0..self.sockets.len()).rev() {
            self.sockets[at].readable = true;
            self.read(at, now);
        }
        self.accepting[..self.listeners.len()].fill(true);
        self.accept(now);
    }

    /// Accepts waiting connections on every listener that may have some, up to a limit.
    pub(super) fn accept(&mut self, now: Now) {
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
                    // No descriptor is left. Try again later.
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
            // The request has usually arrived already.
            let at = self.sockets.len() - 1;
            self.sockets[at].readable = true;
            self.read(at, now);
        }
    }
}

/// Whether an address could not be bound because this machine has no such family or address.
fn is_absent(error: &std::io::Error) -> bool {
    const NO_SUCH_FAMILY: i32 = 97;
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_SUCH_FAMILY)
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::*;

    #[test]
    fn only_an_address_that_this_machine_lacks_is_absent() {
        for (error, absent) in [
            (Error::from_raw_os_error(97), true),
            (ErrorKind::AddrNotAvailable.into(), true),
            (ErrorKind::AddrInUse.into(), false),
            (ErrorKind::PermissionDenied.into(), false),
            (Error::from_raw_os_error(98), false),
        ] {
            assert_eq!(is_absent(&error), absent, "{error}");
        }
    }
}
