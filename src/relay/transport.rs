//! One connection to the server below HTTP: plain or TLS, direct or through a proxy's tunnel. It takes plaintext and
//! returns plaintext.
//!
//! ```text
//! Resolve ──▶ Connect ──▶ Tunnel ──▶ Handshake ──▶ Open ──▶ Closed
//!                ▲   │   (a proxy)    (https)  │
//!                └───┴── failed: the next address
//! ```
//!
//! Several addresses are tried as in RFC 8305: the families alternate, a new address is started every 250 ms, and the
//! first that connects is used. If the tunnel or the handshake fails, the addresses not tried yet follow.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::proxy::Proxy;
use crate::contract::ConnId;
use crate::http1::HEAD_BYTES_MAX;
use crate::http1::buffer::ReceiveBuffer;
use crate::tls::{self, Tls};

use super::tunnel::Tunnel;

/// How long one address is tried alone (RFC 8305 section 5, "Connection Attempt Delay").
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// First size of the buffer for plaintext: Pyroscope's answers have a head of 200 bytes and no body.
const PLAIN_START: usize = 2048;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Transport {
    state: State,
    /// Addresses not tried yet, the next one last.
    untried: Vec<SocketAddr>,
    /// Connections that must be closed.
    to_close: Vec<ConnId>,
}

#[derive(Debug)]
enum State {
    /// Waiting for the server's addresses.
    Resolve,
    /// Waiting for the first of these to connect; at that time, another address may be started in parallel.
    Connect(Vec<Link>, Instant),
    /// Waiting for the proxy to open a tunnel to the server.
    Tunnel(Link, Box<Tunnel>),
    Handshake(Link, Box<Tls>),
    Plain(Link),
    Tls(Link, Box<Tls>),
    Closed,
}

/// One connection, and its address.
#[derive(Debug, Clone, Copy)]
struct Link {
    id: ConnId,
    address: SocketAddr,
}

/// What lies between us and the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'r> {
    pub(super) proxy: Option<&'r Proxy>,
    /// Present for https.
    pub(super) client: Option<&'r tls::Client>,
}

/// What a transport is waiting for; a timeout names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    NameLookup,
    Connect,
    Proxy,
    Handshake,
    Open,
}

impl Stage {
    /// As text for the log.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::NameLookup => "name lookup",
            Self::Connect => "connect",
            Self::Proxy => "the proxy's answer",
            Self::Handshake => "TLS handshake",
            Self::Open => "answer",
        }
    }
}

impl Transport {
    /// A transport that waits for the server's addresses.
    pub(super) const fn new() -> Self {
        Self {
            state: State::Resolve,
            untried: Vec::new(),
            to_close: Vec::new(),
        }
    }

    pub(super) fn owns(&self, id: ConnId) -> bool {
        match &self.state {
            State::Connect(racing, _) => racing.iter().any(|link| link.id == id),
            _ => self.link().is_some_and(|link| link.id == id),
        }
    }

    /// How many connections it has, or is making.
    pub(super) fn connections(&self) -> usize {
        match &self.state {
            State::Connect(racing, _) => racing.len(),
            _ => usize::from(self.link().is_some()),
        }
    }

    /// The connection that is used, once one is open.
    const fn link(&self) -> Option<Link> {
        match &self.state {
            State::Tunnel(link, _)
            | State::Handshake(link, _)
            | State::Plain(link)
            | State::Tls(link, _) => Some(*link),
            State::Resolve | State::Connect(..) | State::Closed => None,
        }
    }

    /// Its address, once it is connected.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.link().map(|link| link.address)
    }

    pub(super) const fn stage(&self) -> Stage {
        match self.state {
            State::Resolve => Stage::NameLookup,
            State::Connect(..) => Stage::Connect,
            State::Tunnel(..) => Stage::Proxy,
            State::Handshake(..) => Stage::Handshake,
            State::Plain(_) | State::Tls(..) | State::Closed => Stage::Open,
        }
    }

    pub(super) const fn tls(&self) -> Option<&Tls> {
        match &self.state {
            State::Tls(_, tls) => Some(tls),
            _ => None,
        }
    }

    /// Whether the server has said that it sends no more, though the connection is open.
    pub(super) fn is_half_closed(&self) -> bool {
        self.tls().is_some_and(Tls::is_closed)
    }

    /// The server's addresses, in the order in which they are tried.
    pub(super) fn resolved(&mut self, mut addresses: Vec<SocketAddr>, now: Instant) {
        addresses.reverse();
        self.untried = addresses;
        self.state = State::Connect(Vec::new(), now);
    }

    /// Whether a connection to another address is due, to be reported by [`Transport::connecting`].
    pub(super) fn is_connection_due(&self, now: Instant) -> bool {
        self.next_at().is_some_and(|at| at <= now)
    }

    /// When a connection to another address is due.
    pub(super) const fn next_at(&self) -> Option<Instant> {
        match self.state {
            State::Connect(_, at) if !self.untried.is_empty() => Some(at),
            _ => None,
        }
    }

    /// Starts the connection that is due, under that id: returns its address.
    pub(super) fn connecting(&mut self, id: ConnId, now: Instant) -> Option<SocketAddr> {
        let State::Connect(racing, next_at) = &mut self.state else {
            return None;
        };
        let address = self.untried.pop()?;
        racing.push(Link { id, address });
        *next_at = now + CONNECTION_ATTEMPT_DELAY;
        Some(address)
    }

    /// Until when the connected address may take for a tunnel and a handshake, if others are left. Each gets a share of
    /// the time, so that a silent one does not use it up.
    pub(super) fn share(&self, deadline: Instant, now: Instant) -> Option<Instant> {
        let others = u32::try_from(self.untried.len()).ok().filter(|n| *n > 0)?;
        Some(now + deadline.saturating_duration_since(now) / (others + 1))
    }

    /// That connection is open; others that were started in parallel are closed.
    ///
    /// # Errors
    /// TLS cannot begin, and why.
    pub(super) fn connected(&mut self, id: ConnId, path: Path) -> Result<(), String> {
        let State::Connect(racing, _) = &self.state else {
            return Ok(());
        };
        let Some(link) = racing.iter().copied().find(|link| link.id == id) else {
            return Ok(());
        };
        let losers = racing.iter().map(|link| link.id).filter(|own| *own != id);
        self.to_close.extend(losers);
        match path.proxy {
            None => self.reach(link, path),
            Some(proxy) => {
                self.state = State::Tunnel(link, Box::new(Tunnel::new(proxy)));
                Ok(())
            }
        }
    }

    /// The other end is the server.
    fn reach(&mut self, link: Link, path: Path) -> Result<(), String> {
        self.state = match path.client {
            None => State::Plain(link),
            Some(client) => {
                // Whatever happens, the connection is closed together with the state.
                self.state = State::Plain(link);
                State::Handshake(link, Box::new(Tls::new(client)?))
            }
        };
        Ok(())
    }

    /// A connection ended. Returns whether nothing is left to wait for: no other is being made, and none is due.
    pub(super) fn ended(&mut self, id: ConnId, now: Instant) -> bool {
        if let State::Connect(racing, next_at) = &mut self.state {
            racing.retain(|link| link.id != id);
            self.to_close.push(id);
            *next_at = now;
            return racing.is_empty() && self.untried.is_empty();
        }
        true
    }

    /// Gives up the connected address for one not tried yet, if there is one.
    pub(super) fn falls_back(&mut self, now: Instant) -> bool {
        if self.untried.is_empty() || matches!(self.state, State::Resolve) {
            return false;
        }
        self.give_up();
        self.state = State::Connect(Vec::new(), now);
        true
    }

    /// Where the next bytes from the server are read to.
    pub(super) fn space<'b>(&'b mut self, plain: &'b mut ReceiveBuffer) -> &'b mut [u8] {
        match &mut self.state {
            State::Handshake(_, tls) | State::Tls(_, tls) => tls.space(),
            State::Plain(_) | State::Tunnel(..) => plain.space(PLAIN_START, HEAD_BYTES_MAX),
            State::Resolve | State::Connect(..) | State::Closed => &mut [],
        }
    }

    /// `n` bytes of [`Transport::space`] have been read: plaintext is appended to `plain`, even if an error follows it.
    ///
    /// # Errors
    /// Why the connection cannot continue, as text.
    pub(super) fn received(
        &mut self,
        n: usize,
        plain: &mut ReceiveBuffer,
        path: Path,
    ) -> Result<(), String> {
        match &mut self.state {
            State::Handshake(_, tls) => {
                tls.received(n, plain)?;
                if tls.may_send() {
                    self.open();
                }
                Ok(())
            }
            State::Tls(_, tls) => tls.received(n, plain),
            State::Tunnel(link, tunnel) => {
                plain.received(n);
                let link = *link;
                if tunnel.read(plain)? {
                    self.reach(link, path)?;
                }
                Ok(())
            }
            State::Plain(_) => {
                plain.received(n);
                Ok(())
            }
            State::Resolve | State::Connect(..) | State::Closed => Ok(()),
        }
    }

    /// The handshake is done.
    fn open(&mut self) {
        if let State::Handshake(link, tls) = std::mem::replace(&mut self.state, State::Closed) {
            self.state = State::Tls(link, tls);
        }
    }

    /// Encrypts the next part of `plain`, if there is TLS and everything before has been written. Returns how many
    /// bytes of `plain` were used.
    ///
    /// # Errors
    /// Why it is not possible, as text.
    pub(super) fn seal(&mut self, plain: [&[u8]; 2]) -> Result<usize, String> {
        let mut taken = 0;
        if let State::Tls(_, tls) = &mut self.state
            && tls.pending().is_empty()
        {
            for part in plain {
                // TLS is not called without data, for example while the answer is awaited.
                let sealed = if part.is_empty() { 0 } else { tls.seal(part)? };
                taken += sealed;
                if sealed < part.len() {
                    break;
                }
            }
        }
        Ok(taken)
    }

    /// Bytes to write: `plain` itself, or its encrypted form, or what must be sent before it.
    pub(super) fn pending<'b>(&'b self, plain: [&'b [u8]; 2]) -> [&'b [u8]; 2] {
        match &self.state {
            State::Plain(_) => plain,
            State::Handshake(_, tls) | State::Tls(_, tls) => [tls.pending(), &[]],
            State::Tunnel(_, tunnel) => [tunnel.pending(), &[]],
            State::Resolve | State::Connect(..) | State::Closed => [&[], &[]],
        }
    }

    /// `n` bytes of [`Transport::pending`] have been written. Returns how many of them were plaintext.
    pub(super) fn sent(&mut self, n: usize) -> usize {
        match &mut self.state {
            State::Plain(_) => return n,
            State::Handshake(_, tls) | State::Tls(_, tls) => tls.sent(n),
            State::Tunnel(_, tunnel) => tunnel.sent(n),
            State::Resolve | State::Connect(..) | State::Closed => {}
        }
        0
    }

    /// Frees the buffers while they are empty.
    pub(super) fn trim(&mut self) {
        if let State::Tls(_, tls) = &mut self.state {
            tls.trim();
        }
    }

    /// Frozen time does not count.
    pub(super) fn thawed(&mut self, frozen: Duration) {
        if let State::Connect(_, next_at) = &mut self.state {
            *next_at += frozen;
        }
    }

    /// Closes it.
    pub(super) fn close(&mut self) {
        self.give_up();
        self.untried = Vec::new();
        self.state = State::Closed;
    }

    fn give_up(&mut self) {
        let one = self.link().map(|link| link.id);
        self.to_close.extend(one);
        if let State::Connect(racing, _) = &self.state {
            self.to_close.extend(racing.iter().map(|link| link.id));
        }
    }

    /// The next connection to close.
    pub(super) fn next_to_close(&mut self) -> Option<ConnId> {
        self.to_close.pop()
    }
}

/// The first of these times after `now`.
#[inline(never)]
pub(super) fn next_after(all: &[Option<Instant>], now: Instant) -> Option<Instant> {
    let all = all.iter().copied().flatten();
    all.filter(|at| *at > now).min()
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a made-up clock has to start somewhere"
)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_by_now_does_not_hide_what_comes_later() {
        let now = Instant::now();
        let [before, soon, late] = [
            now.checked_sub(Duration::from_secs(1)),
            Some(now + Duration::from_secs(1)),
            Some(now + Duration::from_secs(2)),
        ];
        assert_eq!(
            next_after(&[Some(now), late, before, soon, None], now),
            soon
        );
        assert_eq!(next_after(&[Some(now), before, None], now), None);
    }
}
