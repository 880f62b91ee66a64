//! Credentials that the settings refer to: read while the function runs, and again when the server refuses them.
//!
//! ```text
//!             ┌────────── failed: after a pause ─────────┐
//!             ▼                                          │
//!   ──▶ Due ──┴─ asked for the next event ─▶ Reading ────┴─ all read ──▶ Known
//!        ▲                                                                 │
//!        └──────────────── 401, 403: once a minute at most ────────────────┘
//! ```
//!
//! Requests are sent to the server only in `Known`. The sources are read one after another: a file by the shell, a
//! secret in a store by an [`Inquiry`], and before that the AWS keys, if the environment has none.

mod policy;
mod reading;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::reference::References;
use crate::contract::{ConnId, End, Ends, Now};
use crate::http1::write::field;
use crate::tls;

use super::inquiry::Inquiry;
use super::server::{jitter, left};
use super::transport::Path;
use super::wakes::Wakes;

pub(super) use reading::Failure;
use reading::{Reading, Step};

/// First pause after a failure. It doubles up to the maximum: a store has rate limits, and people grant permissions by
/// hand.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Shortest time between two readings because the server refused the credentials.
const READ_AGAIN: Duration = Duration::from_mins(1);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Credentials {
    references: References,
    state: State,
    /// The header lines as they are sent.
    lines: Vec<u8>,
    /// How often they were read.
    version: u32,
    /// The server refused the credentials that were read last.
    refused: bool,
    /// When they were last read again for that reason.
    read_again: Option<Now>,
    failures: u32,
    /// We are leaving: pauses no longer grow.
    leaving: bool,
    /// The name that is being looked up.
    lookup: Option<String>,
    /// The TLS client for the store of that name.
    client: Option<(String, Option<tls::Client>)>,
}

#[derive(Debug)]
enum State {
    /// Must be read, but not before this time.
    Due(Option<Now>),
    Reading(Reading),
    Known,
}

impl Credentials {
    pub(super) const fn new(references: References) -> Self {
        Self {
            references,
            state: State::Due(None),
            lines: Vec::new(),
            version: 0,
            refused: false,
            read_again: None,
            failures: 0,
            leaving: false,
            lookup: None,
            client: None,
        }
    }

    /// Whether requests can be sent.
    pub(super) const fn are_known(&self) -> bool {
        matches!(self.state, State::Known)
    }

    /// Whether nothing can be done but wait: a hold does not wait for that.
    pub(super) fn are_missing(&self, now: Now) -> bool {
        match self.state {
            State::Due(Some(at)) => !left(at, now).is_zero(),
            State::Due(None) | State::Known => false,
            State::Reading(_) => self.failures > 0,
        }
    }

    fn inquiry(&self) -> Option<&Inquiry> {
        match &self.state {
            State::Reading(Reading {
                step: Step::Inquiry(inquiry),
                ..
            }) => Some(inquiry),
            _ => None,
        }
    }

    pub(super) fn inquiry_mut(&mut self) -> Option<&mut Inquiry> {
        match &mut self.state {
            State::Reading(Reading {
                step: Step::Inquiry(inquiry),
                ..
            }) => Some(inquiry),
            _ => None,
        }
    }

    /// The current inquiry, and what lies between us and its store.
    fn on_the_way(&mut self) -> Option<(&mut Inquiry, Path<'_>)> {
        let State::Reading(reading) = &mut self.state else {
            return None;
        };
        let endpoint = reading.endpoint(&self.references)?;
        let client = self.client.as_ref().and_then(|(_, client)| client.as_ref());
        let path = Path {
            proxy: endpoint.proxy.as_ref(),
            client: client.filter(|_| endpoint.tls),
        };
        match &mut reading.step {
            Step::Inquiry(inquiry) => Some((inquiry, path)),
            Step::None | Step::File => None,
        }
    }

    pub(super) fn owns(&self, id: ConnId) -> bool {
        self.inquiry().is_some_and(|inquiry| inquiry.owns(id))
    }

    pub(super) fn wants(&self) -> bool {
        self.inquiry().is_some_and(Inquiry::wants)
    }

    pub(super) fn is_asking(&self) -> bool {
        self.inquiry().is_some()
    }

    pub(super) fn has_finished(&self) -> bool {
        self.inquiry().is_some_and(Inquiry::is_over)
    }

    pub(super) fn received(&mut self, n: usize, now: Now) {
        if let Some((inquiry, path)) = self.on_the_way() {
            inquiry.received(n, path, now.mono);
        }
    }

    pub(super) fn ended(&mut self, id: ConnId, why: End, now: Now) {
        if let Some(inquiry) = self.inquiry_mut() {
            inquiry.ended(id, why, now.mono);
        }
    }

    /// The connection is open. It must not lead to ourselves: our answer to an upload is not a secret.
    pub(super) fn connected(&mut self, id: ConnId, ends: Ends, listening: &[SocketAddr], now: Now) {
        if let Some((inquiry, path)) = self.on_the_way() {
            if ends.are_both_ours(listening) {
                inquiry.fail("this relay itself listens there".to_owned(), now.mono);
            } else {
                inquiry.connected(id, path, now.mono);
            }
        }
    }

    /// When it has work, if nothing happens before.
    pub(super) fn deadline(&self, now: Now) -> Option<Instant> {
        match self.state {
            State::Due(Some(at)) => Some(now.mono + left(at, now)),
            _ => self.inquiry()?.deadline(now.mono),
        }
    }

    /// The server refuses the fields of that version. Returns whether it is too early to read them again.
    fn refused(&mut self, version: u32, now: Now) -> Option<bool> {
        if version != self.version || !self.are_known() {
            return None;
        }
        let at = self.read_again.map(|last| later(last, READ_AGAIN));
        self.refused = true;
        self.state = State::Due(at);
        Some(at.is_some_and(|at| !left(at, now).is_zero()))
    }

    /// Gives up the current inquiry; returns its connections, which must be closed.
    pub(super) fn abandon(&mut self) -> Vec<ConnId> {
        let mut to_close = Vec::new();
        if let Some(inquiry) = self.inquiry_mut() {
            inquiry.close();
            to_close.extend(std::iter::from_fn(|| inquiry.next_to_close()));
        }
        if let State::Reading(_) = self.state {
            self.state = State::Due(None);
        }
        to_close
    }

    /// We are leaving: what failed is tried again at once.
    pub(super) const fn leave(&mut self) {
        self.leaving = true;
        if self.failures > 0
            && let State::Due(at) = &mut self.state
        {
            *at = None;
        }
    }

    /// Describes what is wrong with the source at that index, for the log.
    fn failure(&self, at: usize, cause: String) -> Failure {
        let source = self.references.sources.get(at);
        Failure {
            variable: source.map_or("", |source| source.variable),
            place: source.map_or("", |source| source.place.name()).to_owned(),
            cause,
        }
    }

    /// Starts what is due, and takes what has arrived. Returns the file to read, if any.
    fn advance(
        &mut self,
        deadline: Instant,
        wakes: Wakes,
        now: Now,
        to_close: &mut Vec<ConnId>,
    ) -> Result<Option<String>, Failure> {
        loop {
            let State::Reading(reading) = &mut self.state else {
                return Ok(None);
            };
            let at = reading.values.len();
            match &mut reading.step {
                Step::File => return Ok(None),
                Step::Inquiry(inquiry) if !inquiry.is_over() => return Ok(None),
                Step::Inquiry(inquiry) => {
                    inquiry.close();
                    to_close.extend(std::iter::from_fn(|| inquiry.next_to_close()));
                    let result = reading.conclude(&self.references, wakes);
                    reading.step = Step::None;
                    result.map_err(|cause| self.failure(at, cause))?;
                }
                Step::None if at == self.references.sources.len() => {
                    return self.finish().map(|()| None);
                }
                Step::None => {
                    let begun = reading.next(&self.references, deadline, wakes, now);
                    let file = begun.map_err(|cause| self.failure(at, cause))?;
                    if file.is_some() {
                        return Ok(file);
                    }
                }
            }
        }
    }

    /// All sources are read.
    fn finish(&mut self) -> Result<(), Failure> {
        let State::Reading(reading) = &self.state else {
            return Ok(());
        };
        let fields = self.references.fields(&reading.values);
        let fields = fields.map_err(|fault| Failure {
            variable: fault.variable,
            place: fault.place,
            cause: fault.why.to_owned(),
        })?;
        self.lines.clear();
        for (name, value) in &fields {
            field(&mut self.lines, name.as_bytes(), value.as_bytes());
        }
        self.version += 1;
        self.failures = 0;
        self.refused = false;
        self.client = None;
        self.state = State::Known;
        Ok(())
    }

    /// Schedules the next attempt.
    fn schedule_retry(&mut self, now: Now, random: u64) {
        let doublings = if self.leaving {
            0
        } else {
            self.failures.min(6)
        };
        let pause = jitter((PAUSE_MIN * (1 << doublings)).min(PAUSE_MAX), random);
        self.failures += 1;
        self.client = None;
        self.state = State::Due(Some(later(now, pause)));
    }
}

fn later(now: Now, time: Duration) -> Now {
    Now {
        mono: now.mono + time,
        unix_ms: now.unix_ms.saturating_add(time.as_millis() as u64),
    }
}
