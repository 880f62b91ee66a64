//! One request to one of AWS's stores, and its answer, on its own connection.
//!
//! ```text
//! the transport is made ──▶ request ──▶ answer ──▶ over
//!       └── failed, silent since a freeze, out of time ─▲
//! ```
//!
//! After a freeze the rule for uplinks applies: its peer has [`SUSPECT_MAX`] of awake time to show that it is alive.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::aws::store::ANSWER_BYTES_MAX;
use crate::contract::{ConnId, End};
use crate::http1::buffer::ReceiveBuffer;
use crate::http1::response::ResponseReader;

use super::transport::{Path, Stage, Transport, next_after};
use super::uplink::SUSPECT_MAX;
use super::wakes::Wakes;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Inquiry {
    transport: Transport,
    /// The connections made for it.
    ids: Vec<ConnId>,
    request: Vec<u8>,
    sent: usize,
    inbox: ReceiveBuffer,
    reader: ResponseReader,
    status: u16,
    body: Vec<u8>,
    deadline: Instant,
    /// Until when the current address must complete a tunnel and a handshake, if other addresses are left.
    share: Option<Instant>,
    suspicion: Option<Suspicion>,
    /// Number of wakes of the sandbox before it began.
    wakes: Wakes,
    /// How it ended.
    over: Option<Result<(), String>>,
}

/// A freeze may have killed the connection.
#[derive(Debug, Clone, Copy)]
struct Suspicion {
    /// Bytes read in the turn of the wake may have arrived before the freeze.
    since: Instant,
    until: Instant,
}

impl Inquiry {
    /// An inquiry with that request, to be answered by `deadline`.
    pub(super) const fn new(request: Vec<u8>, deadline: Instant, wakes: Wakes) -> Self {
        Self {
            transport: Transport::new(),
            ids: Vec::new(),
            request,
            sent: 0,
            inbox: ReceiveBuffer::new(),
            reader: ResponseReader::new(false),
            status: 0,
            body: Vec::new(),
            deadline,
            share: None,
            suspicion: None,
            wakes,
            over: None,
        }
    }

    /// Status and body of the answer, or why there is none; `None` until it has ended.
    pub(super) fn answer(&self) -> Option<Result<(u16, &[u8]), &str>> {
        Some(match self.over.as_ref()? {
            Ok(()) => Ok((self.status, &self.body)),
            Err(cause) => Err(cause),
        })
    }

    pub(super) const fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Whether the sandbox may have been frozen since it began.
    pub(super) fn was_frozen(&self, wakes: Wakes) -> bool {
        self.wakes != wakes
    }

    pub(super) fn owns(&self, id: ConnId) -> bool {
        self.ids.contains(&id)
    }

    /// Closes it; its result no longer matters.
    pub(super) fn close(&mut self) {
        self.transport.close();
    }

    /// The next connection to close.
    pub(super) fn next_to_close(&mut self) -> Option<ConnId> {
        self.transport.next_to_close()
    }

    /// Whether it waits for the store's addresses.
    pub(super) fn awaits_address(&self) -> bool {
        !self.is_over() && self.transport.stage() == Stage::NameLookup
    }

    pub(super) fn resolved(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        self.transport.resolved(addresses, now);
    }

    pub(super) fn is_connection_due(&self, now: Instant) -> bool {
        !self.is_over() && self.transport.is_connection_due(now)
    }

    pub(super) fn connecting(&mut self, id: ConnId, now: Instant) -> Option<SocketAddr> {
        self.ids.push(id);
        self.transport.connecting(id, now)
    }

    /// That connection is open: to the proxy, if there is one.
    pub(super) fn connected(&mut self, id: ConnId, path: Path, now: Instant) {
        self.share = self.transport.share(self.deadline, now);
        if let Err(cause) = self.transport.connected(id, path) {
            self.fail(cause, now);
        }
        self.clear_suspicion(now);
    }

    pub(super) const fn wants(&self) -> bool {
        !self.is_over()
    }

    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.is_over() {
            &mut []
        } else {
            self.transport.space(&mut self.inbox)
        }
    }

    /// `n` bytes of [`Inquiry::space`] have been read.
    pub(super) fn received(&mut self, n: usize, path: Path, now: Instant) {
        let was_open = self.transport.stage() == Stage::Open;
        let result = self.transport.received(n, &mut self.inbox, path);
        self.clear_suspicion(now);
        // Bytes before an error count: they may be the whole answer.
        if was_open {
            self.read(now);
        }
        match result {
            Ok(()) if self.transport.is_half_closed() => self.ended_open(End::Eof, now),
            Ok(()) => {}
            Err(cause) => self.fail(cause, now),
        }
    }

    fn read(&mut self, now: Instant) {
        let (status, body) = (&mut self.status, &mut self.body);
        let result = self.reader.read(
            &mut self.inbox,
            |head| *status = head.status,
            |piece| body.extend_from_slice(piece),
        );
        match result {
            Err(cause) => self.fail(cause.to_owned(), now),
            Ok(()) if self.reader.done().is_some() => self.finish(Ok(())),
            Ok(()) if self.body.len() > ANSWER_BYTES_MAX => {
                self.fail("the answer is too long".to_owned(), now);
            }
            Ok(()) => {}
        }
    }

    /// A connection ended.
    pub(super) fn ended(&mut self, id: ConnId, why: End, now: Instant) {
        if self.transport.stage() != Stage::Connect {
            self.ended_open(why, now);
        } else if self.transport.ended(id, now) {
            self.fail(why.words().to_owned(), now);
        }
    }

    fn ended_open(&mut self, why: End, now: Instant) {
        if self.reader.is_whole_at_close() {
            self.finish(Ok(()));
        } else {
            self.fail(why.words().to_owned(), now);
        }
    }

    /// Bytes to be written.
    pub(super) fn pending(&mut self) -> [&[u8]; 2] {
        if self.is_over() {
            return [&[], &[]];
        }
        match self.transport.seal([&self.request[self.sent..], &[]]) {
            Ok(n) => self.sent += n,
            Err(cause) => {
                self.finish(Err(cause));
                return [&[], &[]];
            }
        }
        self.transport.pending([&self.request[self.sent..], &[]])
    }

    /// `n` bytes of [`Inquiry::pending`] have been written.
    pub(super) fn sent(&mut self, n: usize) {
        self.sent += self.transport.sent(n);
    }

    /// Ends it when its time is up.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_up = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let stage = self.transport.stage();
        let timed_out = || ["timed out: ", stage.words()].concat();
        if self.deadline <= now {
            let cause = timed_out();
            self.finish(Err(cause));
        } else if is_up(self.suspicion.map(|suspicion| suspicion.until)) {
            self.fail("no answer since the sandbox was frozen".to_owned(), now);
        } else if is_up(self.share) && stage != Stage::Open {
            self.fail(timed_out(), now);
        }
    }

    /// The next time after `now` at which [`Inquiry::expire`] or [`Inquiry::is_connection_due`] has work.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let share = self.share.filter(|_| self.transport.stage() != Stage::Open);
        let suspect = self.suspicion.map(|suspicion| suspicion.until);
        let all = [
            Some(self.deadline),
            share,
            suspect,
            self.transport.next_at(),
        ];
        next_after(&all, now)
    }

    /// The sandbox woke: a freeze may have killed the connection.
    pub(super) fn suspect(&mut self, now: Instant) {
        if self.awaits_address() {
            return;
        }
        // A connection that was already suspect gets no more time.
        let until = self.suspicion.map_or(now + SUSPECT_MAX, |own| own.until);
        self.suspicion = Some(Suspicion { since: now, until });
    }

    fn clear_suspicion(&mut self, now: Instant) {
        self.suspicion.take_if(|suspicion| suspicion.since < now);
    }

    /// Frozen time does not count.
    pub(super) fn thawed(&mut self, frozen: Duration) {
        self.transport.thawed(frozen);
        self.deadline += frozen;
        self.share = self.share.map(|at| at + frozen);
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.until += frozen;
        }
    }

    /// This address does not work: try another one, or fail.
    pub(super) fn fail(&mut self, cause: String, now: Instant) {
        let stage = self.transport.stage();
        if self.is_over() {
            return;
        }
        if stage != Stage::Open && self.transport.falls_back(now) {
            // The next address starts fresh.
            self.share = None;
            self.suspicion = None;
            self.inbox.clear();
        } else if stage == Stage::Proxy {
            self.finish(Err(["the proxy: ", &cause].concat()));
        } else {
            self.finish(Err(cause));
        }
    }

    fn finish(&mut self, result: Result<(), String>) {
        self.over.get_or_insert(result);
    }
}
