//! One connection to the server, and the attempt it carries: HTTP only.
//!
//! ```text
//! Opening ─▶ Exchange ── answered ──▶ Finished ──▶ Ready
//!    │           │ ▲                      │          │
//!    │           │ └──────────────────────┼── next payload
//!    └── failed ─┴── died ──▶ Finished ───┴──▶ Closed
//! ```
//!
//! The [`Transport`] does everything below HTTP. An uplink reports what happened ([`Finished`]), and how its connection
//! died ([`Death`]); [`super::outcome`] decides what that means for the payload and for the server.
//!
//! After a freeze a connection can be dead without a sign. So each wake of the sandbox makes a busy uplink *suspect*:
//! its peer has [`SUSPECT_MAX`] of awake time to show that it is alive.

mod attempt;
mod ending;
mod exchange;
mod finished;

use std::net::SocketAddr;
use std::time::Instant;

use crate::contract::{ConnId, End, Now};
use crate::http1::buffer::ReceiveBuffer;
use crate::http1::response::ResponseReader;
use crate::log::{Level, Log};

use super::ring::{PayloadId, Ring};
use super::transport::{Path, Stage, Transport};
use super::wakes::Wakes;

pub(super) use attempt::SUSPECT_MAX;
use attempt::{Attempt, Suspicion};
use exchange::Exchange;
pub(super) use finished::{Answer, Death, Finished, Outcome};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Uplink {
    transport: Transport,
    state: State,
    /// Plaintext of the answer that is not processed yet.
    inbox: ReceiveBuffer,
    /// Exchanges completed on this connection.
    served: u32,
    suspicion: Option<Suspicion>,
    /// The payload's head with credentials, if the head in the ring has none.
    head: Vec<u8>,
    /// The version of these credentials.
    credentials: u32,
}

#[derive(Debug)]
enum State {
    /// The transport is being opened.
    Opening(Attempt),
    Exchange(Exchange),
    Finished(Finished),
    Ready {
        since: Now,
    },
    Closed,
}

impl Uplink {
    /// An uplink that must connect, for that payload.
    pub(super) const fn new(payload: PayloadId, deadline: Instant, wakes: Wakes) -> Self {
        let attempt = Attempt {
            payload,
            deadline,
            share: None,
            wakes,
        };
        Self {
            transport: Transport::new(),
            state: State::Opening(attempt),
            inbox: ReceiveBuffer::new(),
            served: 0,
            suspicion: None,
            head: Vec::new(),
            credentials: 0,
        }
    }

    /// Uses this head, which contains that version of the credentials, for the attempt that has just begun.
    pub(super) fn authorize(&mut self, head: Vec<u8>, credentials: u32) {
        self.head = head;
        self.credentials = credentials;
    }

    /// Whether that connection belongs to this uplink, or is being made for it.
    pub(super) fn owns(&self, id: ConnId) -> bool {
        self.transport.owns(id)
    }

    /// How many connections it has, or is making.
    pub(super) fn connections(&self) -> usize {
        self.transport.connections()
    }

    /// The server's address it is connected to.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.transport.address()
    }

    /// Whether it waits for the server's addresses.
    pub(super) fn awaits_address(&self) -> bool {
        self.is_opening() && self.transport.stage() == Stage::NameLookup
    }

    /// Whether it has not reached the server yet.
    pub(super) const fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening(_))
    }

    /// Whether it has reached the server, for its current payload.
    pub(super) const fn is_exchanging(&self) -> bool {
        matches!(self.state, State::Exchange(_))
    }

    /// Whether it carries an attempt.
    pub(super) const fn is_busy(&self) -> bool {
        !matches!(self.state, State::Ready { .. } | State::Closed)
    }

    /// Whether a freeze may have killed it, and it has not shown yet that it is alive.
    pub(super) const fn is_suspect(&self) -> bool {
        self.suspicion.is_some()
    }

    /// Since when it is idle, if it is.
    pub(super) const fn ready_since(&self) -> Option<Now> {
        match self.state {
            State::Ready { since } => Some(since),
            _ => None,
        }
    }

    /// Whether an attempt ended that is not recorded yet.
    pub(super) const fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished(_))
    }

    /// Whether it has ended.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Closes it; its result no longer matters.
    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }

    /// The next connection to close.
    pub(super) fn next_to_close(&mut self) -> Option<ConnId> {
        if self.is_closed() {
            self.transport.close();
        }
        self.transport.next_to_close()
    }

    /// The payload it is busy with.
    pub(super) const fn payload(&self) -> Option<PayloadId> {
        match &self.state {
            State::Opening(attempt) => Some(attempt.payload),
            State::Exchange(exchange) => Some(exchange.attempt.payload),
            _ => None,
        }
    }

    /// The server's addresses are known, in the order in which they are tried.
    pub(super) fn resolved(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        self.transport.resolved(addresses, now);
    }

    /// Whether a connection to another address is due, to be made with [`Uplink::connecting`].
    pub(super) fn is_connection_due(&self, now: Instant) -> bool {
        self.is_opening() && self.transport.is_connection_due(now)
    }

    /// Starts the connection that is due, under that id: returns its address.
    pub(super) fn connecting(&mut self, id: ConnId, now: Instant) -> Option<SocketAddr> {
        self.transport.connecting(id, now)
    }

    /// The addresses are not available, or cannot be used.
    pub(super) fn unresolved(&mut self, cause: &str) {
        if self.awaits_address() {
            self.finish(Outcome::GivenUp(Death::BeforeSending, cause.to_owned()));
        }
    }

    /// That connection is open: to the proxy, if there is one.
    pub(super) fn connected(&mut self, id: ConnId, path: Path, ring: &Ring, now: Now) {
        let State::Opening(attempt) = &mut self.state else {
            return;
        };
        attempt.share = self.transport.share(attempt.deadline, now.mono);
        match self.transport.connected(id, path) {
            Ok(()) => self.begin_if_open(ring),
            Err(cause) => self.fail(cause, now),
        }
        self.clear_suspicion(now.mono);
    }

    /// Begins the exchange once the transport is open.
    fn begin_if_open(&mut self, ring: &Ring) {
        if let State::Opening(attempt) = self.state
            && self.transport.stage() == Stage::Open
        {
            self.begin(attempt, ring);
        }
    }

    /// Sends a payload on an idle connection.
    pub(super) fn send(
        &mut self,
        payload: PayloadId,
        deadline: Instant,
        wakes: Wakes,
        ring: &Ring,
    ) {
        let attempt = Attempt {
            payload,
            deadline,
            share: None,
            wakes,
        };
        self.suspicion = None;
        self.begin(attempt, ring);
    }

    fn begin(&mut self, attempt: Attempt, ring: &Ring) {
        self.inbox.clear();
        self.state = State::Exchange(Exchange {
            attempt,
            sent: 0,
            reader: ResponseReader::new(ring.to_head_request(attempt.payload)),
            answer: Answer::default(),
            body_bytes: 0,
            answer_begun: false,
            early: false,
            is_sent: false,
        });
    }

    /// Whether bytes from the server are wanted.
    pub(super) const fn wants(&self) -> bool {
        !matches!(self.state, State::Closed | State::Finished(_))
    }

    /// Where the next bytes from the server are read to.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.wants() {
            self.transport.space(&mut self.inbox)
        } else {
            &mut []
        }
    }

    /// `n` bytes of [`Uplink::space`] have been read.
    pub(super) fn received(&mut self, n: usize, path: Path, ring: &Ring, log: &mut Log, now: Now) {
        let before = self.transport.stage();
        let result = self.transport.received(n, &mut self.inbox, path);
        if before == Stage::Handshake
            && let Some(tls) = self.transport.tls()
        {
            let kind = if tls.is_resumed() { "resumed" } else { "full" };
            log.line(
                Level::Debug,
                now.unix_ms,
                "TLS handshake done",
                &[("handshake", kind.into()), super::SVC],
            );
        }
        self.clear_suspicion(now.mono);
        if before != Stage::Open {
            match result {
                Ok(()) if self.transport.is_half_closed() => {
                    self.connection_died(End::Eof.words().to_owned(), now);
                }
                Ok(()) => self.begin_if_open(ring),
                Err(cause) => self.fail(cause, now),
            }
            return;
        }
        // Bytes before an error count: they may be the whole answer.
        match self.state {
            State::Exchange(_) if !self.inbox.is_empty() => self.read_answer(ring, now),
            // A server that speaks without a request cannot be trusted with one.
            State::Ready { .. } if !self.inbox.is_empty() => self.state = State::Closed,
            _ => {}
        }
        match result {
            // The server said in TLS that it sends no more.
            Ok(()) if self.transport.is_half_closed() => {
                self.connection_died(End::Eof.words().to_owned(), now);
            }
            Ok(()) => {}
            Err(cause) => self.fail(cause, now),
        }
    }

    /// A connection ended.
    pub(super) fn ended(&mut self, id: ConnId, why: End, now: Now) {
        if self.transport.stage() == Stage::Connect {
            if self.transport.ended(id, now.mono) {
                self.connection_died(why.words().to_owned(), now);
            }
        } else {
            self.connection_died(why.words().to_owned(), now);
        }
    }

    /// Bytes to write: from the ring, as they are or encrypted.
    pub(super) fn pending<'b>(&'b mut self, ring: &'b Ring) -> [&'b [u8]; 2] {
        if let State::Exchange(exchange) = &mut self.state
            && self.transport.tls().is_some()
        {
            match self.transport.seal(exchange.unsent(&self.head, ring)) {
                Ok(n) => exchange.sent += n,
                Err(cause) => self.finish_failed(cause, Outcome::GivenUp),
            }
        }
        match &self.state {
            State::Exchange(exchange) => self.transport.pending(exchange.unsent(&self.head, ring)),
            // TLS messages of its own, for example after a server's KeyUpdate; and the request to the proxy.
            State::Opening(_) | State::Ready { .. } => self.transport.pending([&[], &[]]),
            State::Finished(_) | State::Closed => [&[], &[]],
        }
    }

    /// `n` bytes of [`Uplink::pending`] have been written.
    pub(super) fn sent(&mut self, n: usize, now: Now) {
        let plain = self.transport.sent(n);
        if let State::Exchange(exchange) = &mut self.state {
            exchange.sent += plain;
        }
        // Bytes that the system accepts do not show a living peer, but the peer gets new time to answer them.
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.until = now.mono + SUSPECT_MAX;
        }
    }

    /// Frees the buffers while they are empty.
    pub(super) fn trim(&mut self) {
        if let State::Ready { .. } = self.state {
            self.inbox.release();
            self.transport.trim();
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a made-up clock has to start somewhere"
)]
mod tests;
