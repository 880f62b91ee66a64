//! One connection to the remote, and the attempt it carries.
//!
//! ```text
//! Resolve ─▶ Connect ─▶ Tunnel ─▶ Handshake ─▶ Exchange ── answered ──▶ Finished ──▶ Ready
//!    │          │     (proxy)│  (https)  │            │ ▲                      │           │
//!    └──────────┴────────────┴───────────┴── failed ──┼─┼──────────────────────┘     next payload
//!                                                     ▼ └─────────────────────────────┘
//!                                                  Finished ──▶ Closed
//! ```
//!
//! An uplink says what happened ([`Finished`]); what that means for the payload and for the backend is the
//! owner's to judge.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::proxy::Proxy;
use crate::contract::{ConnId, End, Now};
use crate::http1::head;
use crate::http1::response::ResponseReader;
use crate::log::{Level, Log};
use crate::tls::{self, Tls};

use super::ring::{PayloadId, Ring};

/// First size of the buffer for answers: Pyroscope's have a head of 200 bytes and no body.
const INBOX_START: usize = 2048;

/// Largest buffer for an answer's head, which must be whole to be read.
const INBOX_MAX: usize = crate::http1::HEAD_BYTES_MAX;

/// Most bytes of an answer's body read so that the connection can be used again.
const ANSWER_BODY_MAX: usize = 64 * 1024;

/// Bytes of an answer's body searched for what it says. Pyroscope names a profile's labels first.
const EXCERPT_BYTES: usize = 1024;

/// Longest time an idle connection is used again. Load balancers close at 60 s, Pyroscope itself at 120 s, and
/// Lambda's network forgets at 350 s without a word.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// See the module's documentation.
#[derive(Debug)]
pub struct Uplink {
    id: ConnId,
    state: State,
    /// Plaintext of the answer not used yet is `inbox[..end]`.
    inbox: Vec<u8>,
    end: usize,
    tls: Option<Box<Tls>>,
    /// Exchanges completed on this connection.
    served: u32,
    /// The sandbox may have been frozen since the connection was asked for: if it dies, that is why.
    frozen: bool,
}

#[derive(Debug)]
enum State {
    /// Waiting for the remote's addresses.
    Resolve(Attempt),
    /// Waiting for the connection to the address of that index, until the next address's turn.
    Connect(Attempt, usize, Instant),
    /// Waiting for the proxy to make the connection a tunnel to the remote.
    Tunnel(Attempt, Box<Tunnel>),
    Handshake(Attempt),
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
}

/// The request to a proxy, and its answer.
#[derive(Debug)]
struct Tunnel {
    request: Vec<u8>,
    sent: usize,
    reader: ResponseReader,
    status: u16,
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
}

/// What the remote answered.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// `Retry-After` in seconds; dates are not taken (RFC 9110 section 10.2.3 allows either).
    pub retry_after: Option<Duration>,
    /// Where a 3xx points, without what may be secret.
    pub place: String,
    /// The beginning of the body. It may quote what was sent: not for the log.
    pub excerpt: Vec<u8>,
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Finished {
    /// The payload it was for.
    pub payload: PayloadId,
    /// What came of it.
    pub outcome: Outcome,
    /// Whether the connection may carry another.
    reusable: bool,
    /// Whether a connection died before a byte of an answer came: nobody's fault if it was an old one.
    died_unheard: bool,
}

/// What came of an attempt.
#[derive(Debug)]
pub enum Outcome {
    /// The remote answered.
    Answered(Answer),
    /// The remote was not reached: look-up, connection or TLS handshake failed.
    Unreached(String),
    /// The connection broke, or time ran out, after sending began.
    Broken(String),
    /// A connection used before, or frozen since, had died: nothing was wrong with either end. Whether sending had
    /// begun.
    Stale(bool),
}

impl Uplink {
    /// A connection to be made, for that payload.
    #[must_use]
    pub const fn new(id: ConnId, payload: PayloadId, deadline: Instant) -> Self {
        let state = State::Resolve(Attempt { payload, deadline });
        Self {
            id,
            state,
            inbox: Vec::new(),
            end: 0,
            tls: None,
            served: 0,
            frozen: false,
        }
    }

    /// The connection's name.
    #[must_use]
    pub const fn id(&self) -> ConnId {
        self.id
    }

    /// Whether it waits for the remote's addresses.
    #[must_use]
    pub const fn awaits_address(&self) -> bool {
        matches!(self.state, State::Resolve(_))
    }

    /// Whether the remote has not been reached on it yet.
    #[must_use]
    pub const fn is_unproven(&self) -> bool {
        matches!(
            self.state,
            State::Resolve(_) | State::Connect(..) | State::Tunnel(..) | State::Handshake(_)
        )
    }

    /// Whether it carries an attempt.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        !matches!(self.state, State::Ready { .. } | State::Closed)
    }

    /// Since when it is idle, if it is.
    #[must_use]
    pub const fn ready_since(&self) -> Option<Now> {
        match self.state {
            State::Ready { since } => Some(since),
            _ => None,
        }
    }

    /// Whether an attempt ended that is not judged yet.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished(_))
    }

    /// Whether it is to be closed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// The addresses are there: the one to connect to first, under the name `id`.
    pub fn connect(
        &mut self,
        id: ConnId,
        addresses: &[SocketAddr],
        now: Instant,
    ) -> Option<SocketAddr> {
        let State::Resolve(attempt) = self.state else {
            return None;
        };
        self.connect_to(attempt, 0, id, addresses, now)
    }

    /// The address to connect to after one that failed, if there is another.
    pub fn connect_next(
        &mut self,
        id: ConnId,
        addresses: &[SocketAddr],
        now: Instant,
    ) -> Option<SocketAddr> {
        let State::Connect(attempt, tried, _) = self.state else {
            return None;
        };
        self.connect_to(attempt, tried + 1, id, addresses, now)
    }

    /// Each address gets its share of the time that is left, as in Go: one that is silent must not use it up.
    fn connect_to(
        &mut self,
        attempt: Attempt,
        index: usize,
        id: ConnId,
        addresses: &[SocketAddr],
        now: Instant,
    ) -> Option<SocketAddr> {
        let address = addresses.get(index)?;
        let shares = u32::try_from(addresses.len() - index).unwrap_or(1);
        let share = attempt.deadline.saturating_duration_since(now) / shares;
        self.id = id;
        self.state = State::Connect(attempt, index, now + share);
        Some(*address)
    }

    /// Whether it is another address's turn.
    #[must_use]
    pub fn is_connecting_too_long(&self, now: Instant) -> bool {
        matches!(self.state, State::Connect(attempt, _, until) if until <= now && now < attempt.deadline)
    }

    /// The look-up failed.
    pub fn unresolved(&mut self, cause: &str) {
        if let State::Resolve(attempt) = self.state {
            self.finish(
                attempt,
                Outcome::Unreached(format!("name lookup: {cause}")),
                false,
                false,
            );
        }
    }

    /// The connection stands: to the proxy, if there is one. `client` is there for https.
    pub fn connected(&mut self, proxy: Option<&Proxy>, client: Option<&tls::Client>, ring: &Ring) {
        let State::Connect(attempt, ..) = self.state else {
            return;
        };
        match proxy {
            None => self.reached(attempt, client, ring),
            Some(proxy) => {
                let tunnel = Tunnel {
                    request: proxy.connect.clone(),
                    sent: 0,
                    // A success has no content (RFC 9112 section 6.3), and a failure's is not read.
                    reader: ResponseReader::new(true),
                    status: 0,
                };
                self.state = State::Tunnel(attempt, Box::new(tunnel));
            }
        }
    }

    /// The other end is the remote.
    fn reached(&mut self, attempt: Attempt, client: Option<&tls::Client>, ring: &Ring) {
        let Some(client) = client else {
            return self.begin(attempt, ring);
        };
        match Tls::new(client) {
            Ok(tls) => {
                self.tls = Some(Box::new(tls));
                self.state = State::Handshake(attempt);
            }
            Err(cause) => self.finish(attempt, Outcome::Unreached(cause), false, false),
        }
    }

    /// Takes up a payload on an idle connection.
    pub fn send(&mut self, payload: PayloadId, deadline: Instant, ring: &Ring) {
        self.begin(Attempt { payload, deadline }, ring);
    }

    fn begin(&mut self, attempt: Attempt, ring: &Ring) {
        self.end = 0;
        self.state = State::Exchange(Exchange {
            attempt,
            sent: 0,
            reader: ResponseReader::new(ring.to_head_request(attempt.payload)),
            answer: Answer::default(),
            body_bytes: 0,
            heard: false,
            early: false,
        });
    }

    /// Whether bytes from the remote are wanted.
    #[must_use]
    pub const fn wants(&self) -> bool {
        !matches!(self.state, State::Closed | State::Finished(_))
    }

    /// Where the next bytes from the remote go.
    pub fn space(&mut self) -> &mut [u8] {
        match &mut self.tls {
            _ if matches!(self.state, State::Closed | State::Finished(_)) => &mut [],
            Some(tls) => tls.space(),
            None => {
                if self.end == self.inbox.len() {
                    let len = (self.inbox.len() * 2).clamp(INBOX_START, INBOX_MAX);
                    self.inbox.resize(len, 0);
                }
                &mut self.inbox[self.end..]
            }
        }
    }

    /// `n` bytes of [`Uplink::space`] have been read.
    pub fn received(
        &mut self,
        n: usize,
        client: Option<&tls::Client>,
        ring: &Ring,
        log: &mut Log,
        now: Now,
    ) {
        if let Some(tls) = &mut self.tls {
            self.inbox.truncate(self.end);
            if let Err(cause) = tls.received(n, &mut self.inbox) {
                return self.fail(cause);
            }
            self.end = self.inbox.len();
            if let State::Handshake(attempt) = self.state {
                if !tls.may_send() {
                    return;
                }
                let kind = if tls.is_resumed() { "resumed" } else { "full" };
                log.line(
                    Level::Debug,
                    now.unix_ms,
                    "TLS handshake done",
                    &[("handshake", kind.into()), super::SVC],
                );
                self.begin(attempt, ring);
            }
        } else {
            self.end += n;
        }
        match self.state {
            State::Tunnel(..) => self.read_tunnel(client, ring),
            State::Exchange(_) if self.end > 0 => self.read_answer(ring),
            // A server that speaks without being asked cannot be trusted with a request.
            State::Ready { .. } if self.end > 0 => self.state = State::Closed,
            _ => {}
        }
    }

    /// The connection ended. Reports whether it failed while connecting, so that another address may be tried.
    pub fn ended(&mut self, why: End) -> bool {
        match &mut self.state {
            State::Connect(..) => return true,
            State::Exchange(exchange) if exchange.reader.is_whole_at_close() => {
                self.answered(false);
            }
            State::Ready { .. } => self.state = State::Closed,
            _ => self.died(why),
        }
        false
    }

    /// No address is left to try.
    pub fn unconnected(&mut self, why: End) {
        self.died(why);
    }

    /// Bytes to be written: from the ring as they are, or sealed.
    pub fn pending<'b>(&'b mut self, ring: &'b Ring) -> [&'b [u8]; 2] {
        if self.tls.is_some() {
            if let Err(cause) = self.seal(ring) {
                self.fail(cause);
            }
            let sealed = self.tls.as_ref().map_or(&[][..], |tls| tls.pending());
            return [sealed, &[]];
        }
        match &self.state {
            State::Exchange(exchange) => exchange.unsent(ring),
            State::Tunnel(_, tunnel) => [&tunnel.request[tunnel.sent..], &[]],
            _ => [&[], &[]],
        }
    }

    /// Encrypts what comes next, if all before it has been written.
    fn seal(&mut self, ring: &Ring) -> Result<(), String> {
        let (State::Exchange(exchange), Some(tls)) = (&mut self.state, &mut self.tls) else {
            return Ok(());
        };
        if tls.pending().is_empty() {
            for part in exchange.unsent(ring) {
                // Where nothing is left, as while the answer is awaited, TLS is not asked at all.
                let sealed = if part.is_empty() { 0 } else { tls.seal(part)? };
                exchange.sent += sealed;
                if sealed < part.len() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// `n` bytes of [`Uplink::pending`] have been written.
    pub fn sent(&mut self, n: usize) {
        match (&mut self.tls, &mut self.state) {
            (Some(tls), _) => tls.sent(n),
            (None, State::Exchange(exchange)) => exchange.sent += n,
            (None, State::Tunnel(_, tunnel)) => tunnel.sent += n,
            _ => {}
        }
    }

    /// Ends an attempt whose time is up.
    pub fn expire(&mut self, now: Instant) {
        let attempt = match &self.state {
            State::Resolve(attempt)
            | State::Connect(attempt, ..)
            | State::Tunnel(attempt, _)
            | State::Handshake(attempt) => attempt,
            State::Exchange(exchange) => &exchange.attempt,
            _ => return,
        };
        if attempt.deadline <= now {
            self.fail("timed out".to_owned());
        }
    }

    /// When [`Uplink::expire`] or [`Uplink::is_connecting_too_long`] has something to say.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Resolve(attempt) | State::Tunnel(attempt, _) | State::Handshake(attempt) => {
                Some(attempt.deadline)
            }
            State::Connect(_, _, until) => Some(*until),
            State::Exchange(exchange) => Some(exchange.attempt.deadline),
            _ => None,
        }
    }

    /// Frozen time does not count against an attempt; an idle connection did not survive it.
    pub fn thawed(&mut self, frozen: Duration) {
        self.may_have_frozen();
        match &mut self.state {
            State::Connect(attempt, _, until) => {
                attempt.deadline += frozen;
                *until += frozen;
            }
            State::Resolve(attempt) | State::Tunnel(attempt, _) | State::Handshake(attempt) => {
                attempt.deadline += frozen;
            }
            State::Exchange(exchange) => exchange.attempt.deadline += frozen,
            State::Ready { .. } => self.state = State::Closed,
            State::Finished(_) | State::Closed => {}
        }
    }

    /// An invocation began: before it, there may have been a freeze too short to be noticed.
    pub const fn may_have_frozen(&mut self) {
        self.frozen = true;
    }

    /// We are a copy: every other copy has the same connection and the same keys, so it must not be used again.
    pub fn forget(&mut self) {
        if let State::Finished(finished) = &mut self.state {
            finished.reusable = false;
        } else if !matches!(self.state, State::Resolve(_)) {
            self.frozen = true;
            self.give_up("copied with the sandbox".to_owned(), true);
        }
    }

    /// There is no time left: a remote that said yes has the payload, whatever is missing of its answer.
    pub fn settle(&mut self) {
        if let State::Exchange(exchange) = &self.state
            && exchange.is_accepted()
        {
            self.answered(false);
        }
    }

    /// Closes an idle connection that is too old to be used again, by the clock that ran further.
    pub fn retire(&mut self, now: Now) {
        if let State::Ready { since } = self.state
            && now.since(since) > IDLE_MAX
        {
            self.state = State::Closed;
        }
    }

    /// Gives the buffers back while nothing is under way.
    pub fn trim(&mut self) {
        if let State::Ready { .. } = self.state {
            self.inbox = Vec::new();
            self.end = 0;
            if let Some(tls) = &mut self.tls {
                tls.trim();
            }
        }
    }

    /// How the attempt ended, once. The connection is ready for another, or closed.
    pub fn finished(&mut self, now: Now) -> Option<Finished> {
        if !matches!(self.state, State::Finished(_)) {
            return None;
        }
        let State::Finished(mut finished) = std::mem::replace(&mut self.state, State::Closed)
        else {
            return None;
        };
        if finished.died_unheard && (self.served > 0 || self.frozen) {
            let sent = !matches!(finished.outcome, Outcome::Unreached(_));
            finished.outcome = Outcome::Stale(sent);
        }
        if finished.reusable {
            self.served += 1;
            self.state = State::Ready { since: now };
        }
        Some(finished)
    }

    /// Reads the proxy's answer: with a success, what follows is the remote's (RFC 9110 section 9.3.6).
    fn read_tunnel(&mut self, client: Option<&tls::Client>, ring: &Ring) {
        let State::Tunnel(attempt, tunnel) = &mut self.state else {
            return;
        };
        let attempt = *attempt;
        let mut used = 0;
        while used < self.end && tunnel.reader.done().is_none() {
            let status = &mut tunnel.status;
            let bytes = &mut self.inbox[used..self.end];
            match tunnel.reader.advance(bytes, |head| *status = head.status) {
                Err(cause) => return self.fail(cause.to_owned()),
                Ok(at) if at.used == 0 => break,
                Ok(at) => used += at.used,
            }
        }
        let (heard, status) = (tunnel.reader.has_head(), tunnel.status);
        self.inbox.copy_within(used..self.end, 0);
        self.end -= used;
        if !heard {
            return;
        }
        match status {
            200..=299 if self.end == 0 => self.reached(attempt, client, ring),
            // TLS begins with us.
            200..=299 => self.fail("it says more than it was asked".to_owned()),
            // 401 is what tinyproxy says.
            401 | 407 => self.fail(format!("status {status}, it wants other credentials")),
            _ => self.fail(format!("status {status}")),
        }
    }

    fn read_answer(&mut self, ring: &Ring) {
        let State::Exchange(exchange) = &mut self.state else {
            return;
        };
        exchange.heard = true;
        let mut used = 0;
        let result = loop {
            let answer = &mut exchange.answer;
            let bytes = &mut self.inbox[used..self.end];
            let given = bytes.len();
            match exchange
                .reader
                .advance(bytes, |head| answer.read_head(head))
            {
                Err(cause) => break Err(cause),
                Ok(at) => {
                    answer.keep_excerpt(&bytes[..at.body]);
                    exchange.body_bytes += at.body;
                    used += at.used;
                    if at.used == 0 || at.used == given || exchange.reader.done().is_some() {
                        break Ok(());
                    }
                }
            }
        };
        self.inbox.copy_within(used..self.end, 0);
        self.end -= used;
        let unsent = exchange.unsent(ring).iter().any(|rest| !rest.is_empty());
        exchange.early |= exchange.reader.has_head() && unsent;
        let early = exchange.early;
        match (result, exchange.reader.done()) {
            (Err(cause), _) => self.fail(cause.to_owned()),
            // Final before it heard us out: take the status, then close. But what it did not hear, it did not take.
            (Ok(()), _) if early && exchange.answer.status / 100 == 2 => {
                self.fail("success before the whole request was sent".to_owned());
            }
            (Ok(()), _) if early => self.answered(false),
            (Ok(()), Some(keep_alive)) => self.answered(keep_alive && self.end == 0),
            (Ok(()), None) if exchange.body_bytes > ANSWER_BODY_MAX => self.answered(false),
            (Ok(()), None) => {}
        }
    }

    fn answered(&mut self, reusable: bool) {
        if let State::Exchange(exchange) = &mut self.state {
            let (attempt, answer) = (exchange.attempt, std::mem::take(&mut exchange.answer));
            self.finish(attempt, Outcome::Answered(answer), reusable, false);
        }
    }

    /// The attempt failed, with the connection: something is wrong with one end, or time is up.
    fn fail(&mut self, cause: String) {
        self.give_up(cause, false);
    }

    /// The connection died under the attempt.
    fn died(&mut self, why: End) {
        self.give_up(why.words().to_owned(), true);
    }

    fn give_up(&mut self, cause: String, died: bool) {
        match &self.state {
            State::Resolve(attempt) | State::Connect(attempt, ..) | State::Handshake(attempt) => {
                self.finish(*attempt, Outcome::Unreached(cause), false, died);
            }
            State::Tunnel(attempt, _) => {
                let cause = ["the proxy: ", &cause].concat();
                self.finish(*attempt, Outcome::Unreached(cause), false, died);
            }
            // It stood, and was gone, or time was up, before sending began.
            State::Exchange(exchange) if exchange.sent == 0 && !exchange.heard => {
                self.finish(exchange.attempt, Outcome::Unreached(cause), false, died);
            }
            State::Exchange(exchange) => {
                // A final status counts, whatever became of the rest of the answer, if all was sent.
                if exchange.reader.has_head() && exchange.answer.status / 100 != 2
                    || exchange.is_accepted()
                {
                    return self.answered(false);
                }
                let unheard = died && !exchange.heard;
                self.finish(exchange.attempt, Outcome::Broken(cause), false, unheard);
            }
            State::Ready { .. } => self.state = State::Closed,
            State::Finished(_) | State::Closed => {}
        }
    }

    fn finish(&mut self, attempt: Attempt, outcome: Outcome, reusable: bool, died_unheard: bool) {
        self.state = State::Finished(Finished {
            payload: attempt.payload,
            outcome,
            reusable,
            died_unheard,
        });
    }
}

impl Exchange {
    /// Whether the remote said 2xx to the whole request.
    const fn is_accepted(&self) -> bool {
        self.reader.has_head() && self.answer.status / 100 == 2 && !self.early
    }

    fn unsent<'r>(&self, ring: &'r Ring) -> [&'r [u8]; 2] {
        let [head, body] = ring.request(self.attempt.payload);
        if self.sent < head.len() {
            [&head[self.sent..], body]
        } else {
            [&[], &body[self.sent - head.len()..]]
        }
    }
}

impl Answer {
    fn read_head(&mut self, response: &head::Response) {
        self.status = response.status;
        let seconds = head::value(response.headers, "retry-after").and_then(head::digits);
        self.retry_after = seconds.map(Duration::from_secs);
        if (300..400).contains(&response.status)
            && let Some(location) = head::value(response.headers, "location")
        {
            self.place = super::phrases::place(location);
        }
    }

    fn keep_excerpt(&mut self, body: &[u8]) {
        if self.status / 100 != 2 {
            let room = EXCERPT_BYTES - self.excerpt.len();
            self.excerpt
                .extend_from_slice(&body[..body.len().min(room)]);
        }
    }
}
