//! Lambda's Extensions API: registers, asks for the next event, reads it. Pure.
//!
//! ```text
//! Register ── 200 ──▶ Parked ── ask ──▶ Poll ── INVOKE ──▶ Parked
//!    │  ▲ 403 InvalidEventType: SHUTDOWN alone    └─ SHUTDOWN ──▶ Leave
//!    └──┴── refused ──▶ Failed
//! ```
//!
//! `Parked`: we have not asked for the next event yet, so Lambda cannot freeze us. The owner decides when to ask, which
//! permits the freeze. There is no deadline on the answer: AWS forbids one, and it may take hours.
//!
//! Unexpected answers of the API, and how we handle them:
//!
//! | answer | to register | to next |
//! |---|---|---|
//! | interim (1xx), eight at most | skipped | skipped |
//! | none: no connection, or it ends before the answer does | asked again after 100 ms, doubling to 1 s; the eighth time, exit 1 | asked again after 100 ms, doubling to 1 s, without end; logged once a minute. At once if a connection that was used before ends without a byte: it was already dead |
//! | not HTTP; a head or a body over 64 KiB; more interim answers | the same | the same |
//! | another status than 200 | exit 1, with a line that quotes it (403 for INVOKE: without it, once) | the same |
//! | no identifier; not JSON, or an event of unknown type | exit 1 | the same |
//! | bytes after the answer | the answer counts, and the connection is closed | the same |

mod delivery;
pub mod telemetry;
mod wire;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crate::contract::{ConnId, End};
use crate::http1::write;
use crate::json;

use wire::{Answer, Ended, Wire};

/// Pause before the API is asked again after a failure. It doubles up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Failures to reach the API after which registering is given up: four seconds in total, of the ten an init may take.
const REGISTER_TRIES: u32 = 8;

/// The API's path, with the version of the protocol.
const API: &[u8] = b"/2020-01-01/extension";

/// See the module's documentation.
#[derive(Debug)]
pub struct Lambda {
    state: State,
    wire: Wire,
    /// `Host` of our requests.
    authority: String,
    /// The file name of this program, by which Lambda identifies extensions.
    name: String,
    identifier: Vec<u8>,
    /// False where INVOKE is refused: on Managed Instances.
    wants_invoke: bool,
    failures: u32,
    retry_at: Option<Instant>,
    event: Option<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Register,
    Parked,
    Poll,
    Leave,
    Failed,
}

/// An event from Lambda.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// We are registered.
    Registered,
    /// Registration is refused; with Lambda's answer.
    Refused(String),
    /// The function is about to run.
    Invoke {
        /// The id of the invocation.
        request_id: String,
        /// When the function times out, in Unix milliseconds.
        deadline_ms: Option<u64>,
    },
    /// The sandbox is about to end.
    Shutdown {
        /// When we will be killed, in Unix milliseconds.
        deadline_ms: Option<u64>,
        /// `spindown`, `timeout`, `failure` or another word of Lambda's.
        reason: String,
    },
    /// An answer that causes no action; for the log.
    Unexpected(String),
}

impl Lambda {
    /// A client for the API at `authority`, to register under `name`.
    #[must_use]
    pub const fn new(authority: String, name: String) -> Self {
        Self {
            state: State::Register,
            wire: Wire::new(),
            authority,
            name,
            identifier: Vec::new(),
            wants_invoke: true,
            failures: 0,
            retry_at: None,
            event: None,
        }
    }

    /// `host:port` of the API.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The id that Lambda gave us for this sandbox's life.
    #[must_use]
    pub fn identifier(&self) -> &[u8] {
        &self.identifier
    }

    /// Whether Lambda reports invocations: on Managed Instances it does not.
    #[must_use]
    pub const fn receives_invocations(&self) -> bool {
        self.wants_invoke
    }

    /// Returns the last event, once.
    pub const fn event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// Whether we have yet to ask for the next event.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.state == State::Parked
    }

    /// Whether the request for the next event is written.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.state == State::Poll && self.wire.is_written()
    }

    /// Asks for the next event: from now on, Lambda may freeze us.
    pub fn ask(&mut self) {
        self.state = State::Poll;
        self.put();
    }

    /// Whether a connection is due.
    #[must_use]
    pub fn is_connection_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Register | State::Poll)
            && self.wire.is_cut()
            && self.retry_at.is_none_or(|at| at <= now)
    }

    /// The owner starts the connection that is due, under that id.
    pub const fn connect(&mut self, id: ConnId) {
        self.retry_at = None;
        self.wire.connecting(id);
    }

    /// How many times in a row the API could not be asked.
    #[must_use]
    pub const fn failures(&self) -> usize {
        self.failures as usize
    }

    /// When a connection is due after a failure.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Frozen time does not count.
    pub fn thawed(&mut self, frozen: Duration) {
        if let Some(at) = &mut self.retry_at {
            *at += frozen;
        }
    }

    /// Whether `id` is this client's connection.
    #[must_use]
    pub fn owns(&self, id: ConnId) -> bool {
        self.wire.owns(id)
    }

    /// The connection is open.
    pub fn connected(&mut self, id: ConnId) {
        self.wire.connected(id);
        self.put();
    }

    /// Whether bytes are wanted.
    #[must_use]
    pub const fn wants(&self) -> bool {
        self.wire.wants()
    }

    /// Whether the first request to register is still to be sent.
    #[must_use]
    pub fn is_registering(&self) -> bool {
        self.state == State::Register && self.failures == 0 && !self.wire.is_written()
    }

    /// Where the next bytes are read to.
    pub fn space(&mut self) -> &mut [u8] {
        self.wire.space()
    }

    /// `n` bytes of [`Lambda::space`] have been read. Returns a connection to close, if any.
    pub fn received(&mut self, id: ConnId, n: usize, now: Instant) -> Option<ConnId> {
        match self.wire.received(n) {
            Ok(false) => return None,
            Ok(true) => self.read_answer(now),
            Err(cause) => self.broke(cause, now),
        }
        (!self.owns(id)).then_some(id)
    }

    /// The connection ended.
    pub fn ended(&mut self, why: End, now: Instant) {
        match self.wire.ended(why) {
            Ended::Nothing | Ended::Stale => {}
            Ended::Answered => self.read_answer(now),
            Ended::Broke(cause) => self.broke(cause, now),
        }
    }

    /// Bytes to be written.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.wire.pending()
    }

    /// `n` bytes of [`Lambda::pending`] have been written.
    pub const fn sent(&mut self, n: usize) {
        self.wire.sent(n);
    }

    /// Writes the request for the current state, if the connection is idle.
    fn put(&mut self) {
        let authority = self.authority.as_bytes();
        match self.state {
            State::Register => self.wire.put(|out| {
                write_start(out, b"POST ", b"/register", authority);
                write::field(out, b"Lambda-Extension-Name", self.name.as_bytes());
                let events: &[u8] = if self.wants_invoke {
                    br#"{"events":["INVOKE","SHUTDOWN"]}"#
                } else {
                    br#"{"events":["SHUTDOWN"]}"#
                };
                write::json(out, events);
            }),
            State::Poll => self.wire.put(|out| {
                write_start(out, b"GET ", b"/event/next", authority);
                write::field(out, b"Lambda-Extension-Identifier", &self.identifier);
                out.extend_from_slice(b"\r\n");
            }),
            State::Parked | State::Leave | State::Failed => {}
        }
    }

    fn read_answer(&mut self, now: Instant) {
        let answer = self.wire.take_answer();
        self.answered(&answer, now);
        self.wire.give_back(answer);
    }

    fn answered(&mut self, answer: &Answer, now: Instant) {
        match (self.state, answer.status) {
            (State::Register, 200) if !answer.identifier.is_empty() => {
                self.failures = 0;
                self.identifier.clone_from(&answer.identifier);
                self.state = State::Parked;
                self.event = Some(Event::Registered);
            }
            // Managed Instances have no INVOKE, and report it with this error.
            (State::Register, 403)
                if self.wants_invoke && contains(&answer.body, b"Extension.InvalidEventType") =>
            {
                self.wants_invoke = false;
                self.put();
            }
            (State::Register, _) => self.refuse(answer.words()),
            (State::Poll, 200) => self.read_event(&text(&answer.body), now),
            (State::Poll, _) => self.broke(&answer.words(), now),
            _ => {}
        }
    }

    fn read_event(&mut self, body: &str, now: Instant) {
        let (mut kind, mut request_id, mut reason, mut deadline_ms) =
            (String::new(), String::new(), String::new(), None);
        let parsed = json::object(body, |key, value| match (&*key, value) {
            ("eventType", json::Value::String(text)) => kind = text.into_owned(),
            ("requestId", json::Value::String(text)) => request_id = text.into_owned(),
            ("shutdownReason", json::Value::String(text)) => reason = text.into_owned(),
            ("deadlineMs", value) => deadline_ms = value.as_u64(),
            _ => {}
        });
        let event = match kind.as_str() {
            "INVOKE" => Event::Invoke {
                request_id,
                deadline_ms,
            },
            "SHUTDOWN" => Event::Shutdown {
                deadline_ms,
                reason,
            },
            // Asking again at once would never end.
            _ if parsed.is_err() => return self.broke("an event that is not JSON", now),
            _ => return self.broke(&format!("an event of unknown type \"{kind}\""), now),
        };
        self.failures = 0;
        self.state = match event {
            Event::Shutdown { .. } => State::Leave,
            _ => State::Parked,
        };
        self.event = Some(event);
    }

    /// The API could not be asked, or its answer could not be used.
    fn broke(&mut self, cause: &str, now: Instant) {
        self.wire.cut();
        self.failures += 1;
        if self.state == State::Register && self.failures >= REGISTER_TRIES {
            let authority = &self.authority;
            return self.refuse(format!(
                "AWS_LAMBDA_RUNTIME_API {authority} cannot be reached: {cause}"
            ));
        }
        self.event = Some(Event::Unexpected(cause.to_owned()));
        let pause = PAUSE_MIN
            .saturating_mul(1 << self.failures.min(8))
            .min(PAUSE_MAX);
        self.retry_at = Some(now + pause);
    }

    fn refuse(&mut self, what: String) {
        self.state = State::Failed;
        self.event = Some(Event::Refused(what));
    }
}

/// Appends the request line, and `Host`.
fn write_start(out: &mut Vec<u8>, method: &[u8], path: &[u8], authority: &[u8]) {
    for part in [method, API, path, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    write::field(out, b"Host", authority);
}

/// A body as text. It is always valid, and checking is faster than repairing.
fn text(body: &[u8]) -> Cow<'_, str> {
    str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests;
