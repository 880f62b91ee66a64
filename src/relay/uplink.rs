//! One connection to the remote, and the attempt it carries: HTTP only.
//!
//! ```text
//! Opening ─▶ Exchange ── answered ──▶ Finished ──▶ Ready
//!    │           │ ▲                      │          │
//!    │           │ └──────────────────────┼── next payload
//!    └── failed ─┴── died ──▶ Finished ───┴──▶ Closed
//! ```
//!
//! What is below HTTP is the [`Transport`]'s. An uplink says what happened ([`Finished`]), and how its connection
//! died ([`Death`]); what that means for the payload and for the backend is decided by [`super::outcome`].
//!
//! After a freeze a connection can be dead without a word. So each wake of the sandbox makes a busy uplink
//! *suspect*: it has [`SUSPECT_MAX`] of awake time to show that its peer lives.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::contract::{ConnId, End, Now};
use crate::http1::buffer::ReceiveBuffer;
use crate::http1::head;
use crate::http1::response::ResponseReader;
use crate::log::{Level, Log};

use super::phrases;
use super::ring::{PayloadId, Ring};
use super::transport::{Path, Stage, Transport, soonest};
use super::{Wake, Wakes};

/// Most bytes of an answer's body read so that the connection can be used again.
const ANSWER_BODY_MAX: usize = 64 * 1024;

/// Bytes of an answer's body searched for what it says. Pyroscope names a profile's labels first.
const EXCERPT_BYTES: usize = 1024;

/// Longest time an idle connection is used again. Load balancers close at 60 s, Pyroscope itself at 120 s, and
/// Lambda's network forgets at 350 s without a word.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// Awake time that a connection has after a possible freeze to show that it lives. A healthy server answers a push
/// within it, and what TCP had under way before the freeze may be repeated only minutes later.
pub(super) const SUSPECT_MAX: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Uplink {
    transport: Transport,
    state: State,
    /// Plaintext of the answer not used yet.
    inbox: ReceiveBuffer,
    /// Exchanges completed on this connection.
    served: u32,
    suspicion: Option<Suspicion>,
    /// The payload's head with credentials in it, where the head in the ring has none.
    head: Vec<u8>,
    /// Which credentials these are.
    credentials: u32,
}

#[derive(Debug)]
enum State {
    /// The transport is being made.
    Opening(Attempt),
    Exchange(Exchange),
    Finished(Finished),
    Ready {
        since: Now,
    },
    Closed,
}

/// One try to relay one payload.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    payload: PayloadId,
    /// From the name lookup to the answer's end: `PYROSCOPE_TIMEOUT`.
    deadline: Instant,
    /// Until when the address under way has to get through a tunnel and a handshake, if there are others.
    share: Option<Instant>,
    /// Wakes of the sandbox before it began: with one more, a freeze may be why it failed.
    wakes: Wakes,
}

/// A freeze may have killed the connection.
#[derive(Debug, Clone, Copy)]
struct Suspicion {
    /// When the clocks showed a freeze: what is read in that turn may have come before it.
    seen_at: Option<Instant>,
    until: Instant,
}

#[derive(Debug)]
struct Exchange {
    attempt: Attempt,
    /// Bytes of head and body written, or sealed.
    sent: usize,
    reader: ResponseReader,
    answer: Answer,
    body_bytes: usize,
    /// Whether a byte of an answer has come.
    heard: bool,
    /// Whether the answer's head came before all of the request was sent.
    early: bool,
    /// Whether all of the request was sent when bytes of an answer came last.
    is_sent: bool,
}

/// What the remote answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    /// The status code.
    pub(super) status: u16,
    /// `Retry-After` in seconds; dates are not taken (RFC 9110 section 10.2.3 allows either).
    pub(super) retry_after: Option<Duration>,
    /// Where a 3xx points, without what may be secret.
    pub(super) place: String,
    /// The beginning of the body. It may quote what was sent: not for the log.
    pub(super) excerpt: Vec<u8>,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// The payload it was for.
    pub(super) payload: PayloadId,
    /// What came of it.
    pub(super) outcome: Outcome,
    /// Whether the connection had carried other exchanges before.
    pub(super) reused: bool,
    /// Wakes of the sandbox before the attempt began.
    pub(super) wakes: Wakes,
    /// Which credentials it was made with.
    pub(super) credentials: u32,
    /// Whether the connection may carry another.
    reusable: bool,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The remote answered.
    Answered(Answer),
    /// The connection ended, or stayed silent after a wake; and why, in words.
    Died(Death, String),
    /// It was given up: time ran out, or what came cannot be used; and why, in words.
    GivenUp(Death, String),
}

/// How far an exchange had come when its connection died. Decided once, where it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// Nothing of the request was sent.
    BeforeSending,
    /// Sending had begun, and not a byte of an answer came.
    Silent,
    /// A part of an answer had come.
    MidAnswer,
}

impl Uplink {
    /// A connection to be made, for that payload.
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

    /// The attempt that was just begun is made with this head, which has those credentials in it.
    pub(super) fn authorize(&mut self, head: Vec<u8>, credentials: u32) {
        self.head = head;
        self.credentials = credentials;
    }

    /// Whether that connection is this one's, or one of those that are being made for it.
    pub(super) fn owns(&self, id: ConnId) -> bool {
        self.transport.owns(id)
    }

    /// How many connections it has, or is making.
    pub(super) fn connections(&self) -> usize {
        self.transport.connections()
    }

    /// The remote's address it is connected to.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.transport.address()
    }

    /// Whether it waits for the remote's addresses.
    pub(super) fn awaits_address(&self) -> bool {
        self.is_unproven() && self.transport.stage() == Stage::NameLookup
    }

    /// Whether the remote has not been reached on it yet.
    pub(super) const fn is_unproven(&self) -> bool {
        matches!(self.state, State::Opening(_))
    }

    /// Whether it has reached the remote, for the payload it carries.
    pub(super) const fn is_exchanging(&self) -> bool {
        matches!(self.state, State::Exchange(_))
    }

    /// Whether it carries an attempt.
    pub(super) const fn is_busy(&self) -> bool {
        !matches!(self.state, State::Ready { .. } | State::Closed)
    }

    /// Whether a freeze may have killed it, and it has not shown yet that it lives.
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

    /// Whether it is over.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Nothing is expected of it any more.
    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }

    /// A connection that is over, to be closed now.
    pub(super) fn takes_over(&mut self) -> Option<ConnId> {
        if self.is_closed() {
            self.transport.close();
        }
        self.transport.takes_over()
    }

    /// The payload it is busy with.
    pub(super) const fn payload(&self) -> Option<PayloadId> {
        match &self.state {
            State::Opening(attempt) => Some(attempt.payload),
            State::Exchange(exchange) => Some(exchange.attempt.payload),
            _ => None,
        }
    }

    /// The remote's addresses are there, in the order in which they are to be tried.
    pub(super) fn resolved(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        self.transport.resolved(addresses, now);
    }

    /// Whether a connection to another address is due, to be made with [`Uplink::connecting`].
    pub(super) fn is_connection_due(&self, now: Instant) -> bool {
        self.is_unproven() && self.transport.is_connection_due(now)
    }

    /// The connection that is due is made under that name: to which address.
    pub(super) fn connecting(&mut self, id: ConnId, now: Instant) -> Option<SocketAddr> {
        self.transport.connecting(id, now)
    }

    /// The addresses cannot be had, or not be used.
    pub(super) fn unresolved(&mut self, cause: &str) {
        if self.awaits_address() {
            self.finish(Outcome::GivenUp(Death::BeforeSending, cause.to_owned()));
        }
    }

    /// That connection stands: to the proxy, if there is one.
    pub(super) fn connected(&mut self, id: ConnId, path: Path, ring: &Ring, now: Now) {
        let State::Opening(attempt) = &mut self.state else {
            return;
        };
        attempt.share = self.transport.share(attempt.deadline, now.mono);
        match self.transport.connected(id, path) {
            Ok(()) => self.go_on(ring),
            Err(cause) => self.fail(cause, now),
        }
        self.shows_life(now.mono);
    }

    /// Begins the exchange once the transport is open.
    fn go_on(&mut self, ring: &Ring) {
        if let State::Opening(attempt) = self.state
            && self.transport.stage() == Stage::Open
        {
            self.begin(attempt, ring);
        }
    }

    /// Takes up a payload on an idle connection.
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
            heard: false,
            early: false,
            is_sent: false,
        });
    }

    /// Whether bytes from the remote are wanted.
    pub(super) const fn wants(&self) -> bool {
        !matches!(self.state, State::Closed | State::Finished(_))
    }

    /// Where the next bytes from the remote go.
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
        self.shows_life(now.mono);
        if before != Stage::Open {
            match result {
                Ok(()) if self.transport.is_half_closed() => {
                    self.die(End::Eof.words().to_owned(), now);
                }
                Ok(()) => self.go_on(ring),
                Err(cause) => self.fail(cause, now),
            }
            return;
        }
        // What came before an error counts: it may be the whole answer.
        match self.state {
            State::Exchange(_) if !self.inbox.is_empty() => self.read_answer(ring, now),
            // A server that speaks without being asked cannot be trusted with a request.
            State::Ready { .. } if !self.inbox.is_empty() => self.state = State::Closed,
            _ => {}
        }
        match result {
            // The remote said in TLS that it sends no more.
            Ok(()) if self.transport.is_half_closed() => {
                self.die(End::Eof.words().to_owned(), now);
            }
            Ok(()) => {}
            Err(cause) => self.fail(cause, now),
        }
    }

    /// A connection ended.
    pub(super) fn ended(&mut self, id: ConnId, why: End, now: Now) {
        if self.transport.stage() == Stage::Connect {
            if self.transport.ended(id, now.mono) {
                self.die(why.words().to_owned(), now);
            }
        } else {
            self.die(why.words().to_owned(), now);
        }
    }

    /// Bytes to be written: from the ring as they are, or sealed.
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
            // What TLS has to say by itself, as after a server's KeyUpdate; and the proxy's request.
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
        // The system takes bytes for a dead peer too; but it may have had to wait for a living one.
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.until = now.mono + SUSPECT_MAX;
        }
    }

    /// Ends an attempt whose time is up, and closes a connection that was idle too long.
    pub(super) fn expire(&mut self, now: Now) {
        let Some(attempt) = self.attempt() else {
            return self.retire(now);
        };
        let is_up = |at: Option<Instant>| at.is_some_and(|at| at <= now.mono);
        if attempt.deadline <= now.mono {
            let cause = ["timed out: ", self.stage_words()].concat();
            // No other address has any time either.
            self.finish_failed(cause, Outcome::GivenUp);
        } else if is_up(self.suspicion.map(|suspicion| suspicion.until)) {
            self.die("silent since the sandbox was frozen".to_owned(), now);
        } else if is_up(attempt.share) && self.transport.stage() != Stage::Open {
            let cause = ["timed out: ", self.stage_words()].concat();
            self.fail(cause, now);
        }
    }

    /// What the attempt is waiting for.
    const fn stage_words(&self) -> &'static str {
        match &self.state {
            State::Opening(_) => self.transport.stage().words(),
            _ => Stage::Open.words(),
        }
    }

    const fn attempt(&self) -> Option<Attempt> {
        match &self.state {
            State::Opening(attempt) => Some(*attempt),
            State::Exchange(exchange) => Some(exchange.attempt),
            _ => None,
        }
    }

    /// When [`Uplink::expire`] or [`Uplink::is_connection_due`] has something to say, after `now`.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let Some(attempt) = self.attempt() else {
            return self.ready_since().map(|since| since.mono + IDLE_MAX);
        };
        let suspect = self.suspicion.map(|suspicion| suspicion.until);
        let next = self.transport.next_at();
        let share = attempt.share.filter(|_| self.is_unproven());
        let all = [Some(attempt.deadline), suspect, next, share];
        // What was due by now waits for something else to happen.
        soonest(&all, now)
    }

    /// The sandbox woke: a freeze, which the clocks have shown or not, may have killed the connection.
    pub(super) fn suspect(&mut self, wake: Wake, now: Instant) {
        if self.attempt().is_none() || self.awaits_address() {
            return;
        }
        // Who was suspect before has no more time for it.
        let suspicion = self.suspicion.get_or_insert(Suspicion {
            seen_at: None,
            until: now + SUSPECT_MAX,
        });
        if wake == Wake::Seen {
            suspicion.seen_at = Some(now);
        }
    }

    /// Something came from the peer.
    fn shows_life(&mut self, now: Instant) {
        let is_new = |suspicion: &mut Suspicion| suspicion.seen_at.is_none_or(|at| at < now);
        self.suspicion.take_if(is_new);
    }

    /// Frozen time does not count against an attempt; an idle connection did not survive it.
    pub(super) fn thawed(&mut self, frozen: Duration) {
        self.transport.thawed(frozen);
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.until += frozen;
        }
        match &mut self.state {
            State::Opening(attempt) => attempt.thawed(frozen),
            State::Exchange(exchange) => exchange.attempt.thawed(frozen),
            State::Ready { .. } => self.state = State::Closed,
            State::Finished(_) | State::Closed => {}
        }
    }

    /// The connection must not be used again, if it carries nothing by now.
    pub(super) fn let_go(&mut self) {
        match &mut self.state {
            State::Ready { .. } => self.state = State::Closed,
            State::Finished(finished) => finished.reusable = false,
            State::Opening(_) | State::Exchange(_) | State::Closed => {}
        }
    }

    /// We are a copy: every other copy has the same connection and the same keys, so it must not be used again.
    pub(super) fn forget(&mut self) {
        if !self.awaits_address() {
            self.finish_failed("copied with the sandbox".to_owned(), Outcome::Died);
        }
    }

    /// There is no time left: a remote that said yes has the payload, whatever is missing of its answer.
    pub(super) fn settle(&mut self) {
        if let State::Exchange(exchange) = &self.state
            && exchange.is_accepted()
        {
            self.answered(false);
        }
    }

    /// Closes an idle connection that is too old to be used again, by the clock that ran further.
    pub(super) fn retire(&mut self, now: Now) {
        if let State::Ready { since } = self.state
            && now.since(since) >= IDLE_MAX
        {
            self.state = State::Closed;
        }
    }

    /// Gives the buffers back while nothing is under way.
    pub(super) fn trim(&mut self) {
        if let State::Ready { .. } = self.state {
            self.inbox.release();
            self.transport.trim();
        }
    }

    /// How the attempt ended, once. The connection is ready for another, or closed.
    pub(super) fn finished(&mut self, now: Now) -> Option<Finished> {
        if !self.is_finished() {
            return None;
        }
        let State::Finished(finished) = std::mem::replace(&mut self.state, State::Closed) else {
            return None;
        };
        // Who is suspect still has answered in the wake's own turn, perhaps before a freeze that has killed it since.
        let was_suspect = self.suspicion.take().is_some();
        if finished.reusable && !was_suspect {
            self.served += 1;
            self.state = State::Ready { since: now };
        }
        Some(finished)
    }

    fn read_answer(&mut self, ring: &Ring, now: Now) {
        let State::Exchange(exchange) = &mut self.state else {
            return;
        };
        exchange.heard = true;
        let Answer {
            status,
            retry_after,
            place,
            excerpt,
        } = &mut exchange.answer;
        let body_bytes = &mut exchange.body_bytes;
        let result = exchange.reader.read(
            &mut self.inbox,
            |head| {
                let seconds = head::value(head.headers, "retry-after").and_then(head::digits);
                *status = head.status;
                *retry_after = seconds.map(Duration::from_secs);
                if (300..400).contains(&head.status)
                    && let Some(location) = head::value(head.headers, "location")
                {
                    *place = phrases::place(location);
                }
            },
            |body| {
                let room = EXCERPT_BYTES - excerpt.len();
                excerpt.extend_from_slice(&body[..body.len().min(room)]);
                *body_bytes += body.len();
            },
        );
        let unsent = exchange
            .unsent(&self.head, ring)
            .iter()
            .any(|rest| !rest.is_empty());
        exchange.early |= exchange.reader.has_head() && unsent;
        exchange.is_sent = !unsent;
        let early = exchange.early;
        match (result, exchange.reader.done()) {
            // Final before it heard us out: take the status, then close. But what it did not hear, it did not take.
            (_, _) if early && exchange.answer.status / 100 == 2 => {
                self.fail("success before the whole request was sent".to_owned(), now);
            }
            (Err(cause), _) => self.fail(cause.to_owned(), now),
            (Ok(()), _) if early => self.answered(false),
            (Ok(()), Some(keep_alive)) => self.answered(keep_alive && self.inbox.is_empty()),
            (Ok(()), None) if exchange.body_bytes > ANSWER_BODY_MAX => self.answered(false),
            (Ok(()), None) => {}
        }
    }

    fn answered(&mut self, reusable: bool) {
        if let State::Exchange(exchange) = &mut self.state {
            let answer = std::mem::take(&mut exchange.answer);
            self.finish(Outcome::Answered(answer));
            if let State::Finished(finished) = &mut self.state {
                finished.reusable = reusable;
            }
        }
    }

    /// The attempt failed, with the connection: something is wrong with one end.
    fn fail(&mut self, cause: String, now: Now) {
        self.end(cause, Outcome::GivenUp, now);
    }

    /// The connection died under the attempt.
    fn die(&mut self, cause: String, now: Now) {
        self.end(cause, Outcome::Died, now);
    }

    /// This address is of no use: another one is tried, or the attempt has failed.
    fn end(&mut self, cause: String, how: fn(Death, String) -> Outcome, now: Now) {
        if let State::Opening(attempt) = &mut self.state
            && self.transport.falls_back(now.mono)
        {
            // The next address begins anew.
            attempt.share = None;
            self.inbox.clear();
            self.suspicion = None;
        } else {
            self.finish_failed(cause, how);
        }
    }

    fn finish_failed(&mut self, cause: String, how: fn(Death, String) -> Outcome) {
        match &self.state {
            State::Opening(_) => {
                let cause = if self.transport.stage() == Stage::Proxy {
                    ["the proxy: ", &cause].concat()
                } else {
                    cause
                };
                self.finish(how(Death::BeforeSending, cause));
            }
            // A final status counts, whatever became of the rest of the answer, if all was sent.
            State::Exchange(exchange)
                if exchange.reader.has_head() && exchange.answer.status / 100 != 2
                    || exchange.is_accepted() =>
            {
                self.answered(false);
            }
            State::Exchange(exchange) => {
                let death = exchange.death();
                // A success that can be read is one, though the rest of its head is garbage, or never came.
                let success = head::success_line(self.inbox.bytes());
                if let (Some(status), State::Exchange(exchange)) = (success, &mut self.state)
                    && !exchange.reader.has_head()
                    && exchange.is_sent
                {
                    exchange.answer.status = status;
                    self.answered(false);
                } else {
                    self.finish(how(death, cause));
                }
            }
            State::Ready { .. } | State::Finished(_) => self.let_go(),
            State::Closed => {}
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        if let Some(attempt) = self.attempt() {
            self.state = State::Finished(Finished {
                payload: attempt.payload,
                outcome,
                reused: self.served > 0,
                wakes: attempt.wakes,
                credentials: self.credentials,
                reusable: false,
            });
        }
    }
}

impl Attempt {
    fn thawed(&mut self, frozen: Duration) {
        self.deadline += frozen;
        self.share = self.share.map(|at| at + frozen);
    }
}

impl Exchange {
    /// Whether the remote said 2xx to the whole request.
    const fn is_accepted(&self) -> bool {
        self.reader.has_head() && self.answer.status / 100 == 2 && !self.early
    }

    /// How far it has come, if the connection is dead now.
    const fn death(&self) -> Death {
        match (self.heard, self.sent) {
            (true, _) => Death::MidAnswer,
            (false, 0) => Death::BeforeSending,
            (false, _) => Death::Silent,
        }
    }

    /// What is left to be sent of `head`, or where that is empty, of the one in the ring; and of the body.
    fn unsent<'r>(&self, head: &'r [u8], ring: &'r Ring) -> [&'r [u8]; 2] {
        let [plain, body] = ring.request(self.attempt.payload);
        let head = if head.is_empty() { plain } else { head };
        if self.sent < head.len() {
            [&head[self.sent..], body]
        } else {
            [&[], &body[self.sent - head.len()..]]
        }
    }
}
