//! Whether the server can be reached: a state of the server, not of a payload.
//!
//! ```text
//! Untried ── reached ──▶ Up ◀── reached ── Down, Waits
//!    └── not reached ──▶ Down ◀── not reached, or three attempts in a row failed ── Up
//!                        Waits ◀── asked to wait (Retry-After, a limit) ── any
//! ```
//!
//! While it is `Untried`, connections are made one after another, so that later ones can resume the TLS session of the
//! first. While it is `Down`, and after it has waited, one attempt goes first; its success lets all others go.

use std::time::{Duration, Instant};

use crate::contract::Now;

/// First pause before a server that is down is tried again. It doubles up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Consecutive failed attempts after which the server counts as down.
const FAILED_IN_A_ROW: u8 = 3;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct ServerHealth {
    state: State,
    failed: u8,
    /// We are leaving: pauses no longer grow, and a `Retry-After` is not obeyed.
    leaving: bool,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Untried,
    Up,
    Down {
        pause: Duration,
        probe_at: Instant,
    },
    /// Ends when either clock says so. Frozen time counts, because the server counts it too. The monotonic clock may
    /// stop in a freeze; the wall clock may be set back.
    Waits {
        until: Now,
        /// The part of the wait for a limit. In it, not even the last attempts are made.
        limit: Option<Now>,
    },
}

/// Why the server wants no requests for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitReason {
    /// `Retry-After`.
    RetryAfter,
    /// A limit that resets at a known time: until then every attempt would fail.
    Limit,
}

/// The current connections, except those that a freeze may have killed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Connections that carry an attempt.
    pub(super) busy: usize,
    /// Those of them that have not reached the server yet.
    pub(super) opening: usize,
    /// Little time is left, and a connection has reached the server, so no further proof is needed.
    pub(super) eager: bool,
}

impl ServerHealth {
    /// Whether another attempt may begin in addition to the current ones.
    pub(super) fn admits(&self, load: Load, now: Now) -> bool {
        match self.state {
            State::Up => true,
            State::Untried => load.opening == 0 || load.eager,
            State::Down { probe_at, .. } => load.busy == 0 && probe_at <= now.mono,
            State::Waits { until, .. } => load.busy == 0 && is_over(until, now),
        }
    }

    /// Whether it is down, or has asked us to wait.
    pub(super) const fn is_down(&self) -> bool {
        matches!(self.state, State::Down { .. } | State::Waits { .. })
    }

    /// When the next attempt is made to a server that is down.
    pub(super) fn probe_at(&self, now: Now) -> Option<Instant> {
        match self.state {
            State::Down { probe_at, .. } => Some(probe_at),
            State::Waits { until, .. } => Some(now.mono + left(until, now)),
            State::Untried | State::Up => None,
        }
    }

    /// The server answered. Returns whether it was down until now.
    pub(super) fn reached(&mut self, now: Now) -> bool {
        self.failed = 0;
        match self.state {
            // The attempt began before the server asked us to wait: the wait still holds.
            State::Waits { until, .. } if !is_over(until, now) => false,
            _ => {
                let was_down = self.is_down();
                self.state = State::Up;
                was_down
            }
        }
    }

    /// An attempt did not reach the server.
    pub(super) fn unreached(&mut self, now: Now, random: u64) {
        let pause = match self.state {
            // The attempt began before the state changed: it adds nothing new.
            State::Down { probe_at, .. } if now.mono < probe_at => return,
            State::Waits { until, .. } if !is_over(until, now) => return,
            State::Down { pause, .. } if !self.leaving => (pause * 2).min(PAUSE_MAX),
            _ => PAUSE_MIN,
        };
        self.state = State::Down {
            pause,
            probe_at: now.mono + jitter(pause, random),
        };
    }

    /// An attempt failed after the server was reached.
    pub(super) fn failed(&mut self, now: Now, random: u64) {
        self.failed = self.failed.saturating_add(1);
        if self.failed >= FAILED_IN_A_ROW || self.is_down() {
            self.unreached(now, random);
        }
    }

    /// The server asked us to send nothing for this long.
    pub(super) fn asked_to_wait(
        &mut self,
        pause: Duration,
        reason: WaitReason,
        now: Now,
        random: u64,
    ) {
        if self.leaving && reason == WaitReason::RetryAfter {
            return self.failed(now, random);
        }
        let until = Now {
            mono: now.mono + pause,
            unix_ms: now.unix_ms.saturating_add(pause.as_millis() as u64),
        };
        // The longer of two waits holds.
        let later = |at: Now| {
            if left(at, now) > left(until, now) {
                at
            } else {
                until
            }
        };
        let (before, limit) = match self.state {
            State::Waits { until, limit } => (until, limit),
            _ => (until, None),
        };
        let limit = match reason {
            WaitReason::RetryAfter => limit,
            WaitReason::Limit => Some(limit.map_or(until, later)),
        };
        self.state = State::Waits {
            until: later(before),
            limit,
        };
    }

    /// We are leaving: a server that is down is tried at once, and then without growing pauses.
    pub(super) const fn leave(&mut self, now: Instant) {
        self.leaving = true;
        self.state = match self.state {
            State::Down { .. } | State::Waits { limit: None, .. } => State::Down {
                pause: PAUSE_MIN,
                probe_at: now,
            },
            State::Waits {
                limit: Some(until), ..
            } => State::Waits {
                until,
                limit: Some(until),
            },
            other @ (State::Untried | State::Up) => other,
        };
    }

    /// Frozen time does not count.
    pub(super) fn thawed(&mut self, frozen: Duration) {
        if let State::Down { probe_at, .. } = &mut self.state {
            *probe_at += frozen;
        }
    }
}

/// The time left until then, by the clock that shows less.
pub(super) fn left(until: Now, now: Now) -> Duration {
    let wall = Duration::from_millis(until.unix_ms.saturating_sub(now.unix_ms));
    until.mono.saturating_duration_since(now.mono).min(wall)
}

fn is_over(until: Now, now: Now) -> bool {
    left(until, now).is_zero()
}

/// Between three quarters of `pause` and all of it, so that sandboxes do not retry all at once.
pub(super) fn jitter(pause: Duration, random: u64) -> Duration {
    pause.saturating_sub(pause / 4 * (random % 1024) as u32 / 1024)
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a made-up clock has to start somewhere"
)]
mod tests;
