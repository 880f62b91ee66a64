//! How long an attempt may take, and how long its connection may be silent after a wake.

use std::time::{Duration, Instant};

use crate::contract::Now;
use crate::relay::ring::PayloadId;
use crate::relay::transport::{Stage, next_after};
use crate::relay::wakes::{Wake, Wakes};

use super::finished::Outcome;
use super::{State, Uplink};

/// Longest time an idle connection is reused. Load balancers close at 60 s, Pyroscope itself at 120 s, and Lambda's
/// network drops connections silently at 350 s.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(50);

/// Awake time in which a connection must show that it is alive after a possible freeze. A healthy server answers a push
/// within it. TCP may resend what it sent before the freeze only minutes later.
pub(in crate::relay) const SUSPECT_MAX: Duration = Duration::from_secs(1);

/// One attempt to relay one payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) payload: PayloadId,
    /// From the name lookup to the answer's end: `PYROSCOPE_TIMEOUT`.
    pub(super) deadline: Instant,
    /// Until when the current address must complete a tunnel and a handshake, if other addresses are left.
    pub(super) share: Option<Instant>,
    /// Number of wakes before it began: if there are more now, a freeze may have caused its failure.
    pub(super) wakes: Wakes,
}

/// A freeze may have killed the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspicion {
    /// When the clocks showed a freeze: bytes read in that turn may have arrived before it.
    pub(super) seen_at: Option<Instant>,
    pub(super) until: Instant,
}

impl Uplink {
    /// Ends an attempt that has timed out, and closes a connection that was idle for too long.
    pub(in crate::relay) fn expire(&mut self, now: Now) {
        let Some(attempt) = self.attempt() else {
            return self.retire(now);
        };
        let is_up = |at: Option<Instant>| at.is_some_and(|at| at <= now.mono);
        if attempt.deadline <= now.mono {
            let cause = ["timed out: ", self.stage_words()].concat();
            // Other addresses have no time left either.
            self.finish_failed(cause, Outcome::GivenUp);
        } else if is_up(self.suspicion.map(|suspicion| suspicion.until)) {
            self.connection_died("no answer since the sandbox was frozen".to_owned(), now);
        } else if is_up(attempt.share) && self.transport.stage() != Stage::Open {
            let cause = ["timed out: ", self.stage_words()].concat();
            self.fail(cause, now);
        }
    }

    /// What the attempt is waiting for.
    pub(super) const fn stage_words(&self) -> &'static str {
        match &self.state {
            State::Opening(_) => self.transport.stage().words(),
            _ => Stage::Open.words(),
        }
    }

    pub(super) const fn attempt(&self) -> Option<Attempt> {
        match &self.state {
            State::Opening(attempt) => Some(*attempt),
            State::Exchange(exchange) => Some(exchange.attempt),
            _ => None,
        }
    }

    /// The next time after `now` at which [`Uplink::expire`] or [`Uplink::is_connection_due`] has work.
    pub(in crate::relay) fn deadline(&self, now: Instant) -> Option<Instant> {
        let Some(attempt) = self.attempt() else {
            return self.ready_since().map(|since| since.mono + IDLE_MAX);
        };
        let suspect = self.suspicion.map(|suspicion| suspicion.until);
        let next = self.transport.next_at();
        let share = attempt.share.filter(|_| self.is_opening());
        let all = [Some(attempt.deadline), suspect, next, share];
        // What is already due waits for another event.
        next_after(&all, now)
    }

    /// The sandbox woke: a freeze, seen by the clocks or not, may have killed the connection.
    pub(in crate::relay) fn suspect(&mut self, wake: Wake, now: Instant) {
        if self.attempt().is_none() || self.awaits_address() {
            return;
        }
        // A connection that was already suspect gets no more time.
        let suspicion = self.suspicion.get_or_insert(Suspicion {
            seen_at: None,
            until: now + SUSPECT_MAX,
        });
        if wake == Wake::Seen {
            suspicion.seen_at = Some(now);
        }
    }

    /// The peer sent something, so it is alive.
    pub(super) fn clear_suspicion(&mut self, now: Instant) {
        let is_new = |suspicion: &mut Suspicion| suspicion.seen_at.is_none_or(|at| at < now);
        self.suspicion.take_if(is_new);
    }

    /// Frozen time does not count against an attempt; an idle connection does not survive a freeze.
    pub(in crate::relay) fn thawed(&mut self, frozen: Duration) {
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

    /// Closes an idle connection that is too old to be reused, by the clock that advanced more.
    pub(in crate::relay) fn retire(&mut self, now: Now) {
        if let State::Ready { since } = self.state
            && now.since(since) >= IDLE_MAX
        {
            self.state = State::Closed;
        }
    }
}

impl Attempt {
    pub(super) fn thawed(&mut self, frozen: Duration) {
        self.deadline += frozen;
        self.share = self.share.map(|at| at + frozen);
    }
}
