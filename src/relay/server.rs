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
mod tests {
    use super::*;

    fn now() -> Now {
        Now {
            mono: Instant::now(),
            unix_ms: 1_800_000_000_000,
        }
    }

    fn later(now: Now, time: Duration) -> Now {
        Now {
            mono: now.mono + time,
            unix_ms: now.unix_ms + time.as_millis() as u64,
        }
    }

    fn admits(server: &ServerHealth, busy: usize, opening: usize, now: Now) -> bool {
        let eager = false;
        server.admits(
            Load {
                busy,
                opening,
                eager,
            },
            now,
        )
    }

    #[test]
    fn one_goes_ahead_until_the_first_success() {
        let now = now();
        let mut server = ServerHealth::default();
        assert!(admits(&server, 0, 0, now));
        assert!(!admits(&server, 1, 1, now));
        assert!(admits(&server, 1, 0, now), "it has reached the remote");
        server.reached(now);
        assert!(admits(&server, 4, 4, now));
    }

    #[test]
    fn in_a_hurry_one_connection_that_stands_is_enough() {
        let server = ServerHealth::default();
        for eager in [false, true] {
            let load = Load {
                busy: 2,
                opening: 1,
                eager,
            };
            assert_eq!(server.admits(load, now()), eager);
        }
    }

    #[test]
    fn frozen_time_does_not_bring_the_next_probe() {
        let now = now();
        let mut server = ServerHealth::default();
        server.unreached(now, 0);
        let frozen = Duration::from_mins(5);
        server.thawed(frozen);
        let thawed = later(now, frozen);
        assert!(!admits(&server, 0, 0, thawed));
        assert_eq!(server.probe_at(thawed), Some(thawed.mono + PAUSE_MIN));
    }

    #[test]
    fn down_is_probed_with_growing_pauses() {
        let now = now();
        let mut server = ServerHealth::default();
        server.unreached(now, 0);
        assert!(!admits(&server, 0, 0, now));
        assert_eq!(server.probe_at(now), Some(now.mono + PAUSE_MIN));
        let probe = later(now, PAUSE_MIN);
        assert!(admits(&server, 0, 0, probe));
        assert!(!admits(&server, 1, 0, probe));
        server.unreached(now, 0);
        assert_eq!(
            server.probe_at(now),
            Some(probe.mono),
            "one that began before the probe changes nothing"
        );
        let mut last = probe;
        for _ in 0..10 {
            server.unreached(last, 1023);
            let pause = server.probe_at(last).unwrap() - last.mono;
            assert!(pause <= PAUSE_MAX, "{pause:?}");
            last = later(last, pause);
        }
        server.unreached(last, 1023);
        let pause = server.probe_at(last).unwrap() - last.mono;
        assert!(
            pause > PAUSE_MAX * 74 / 100 && pause < PAUSE_MAX,
            "{pause:?}"
        );
        assert!(server.reached(last));
        assert!(!server.is_down());
    }

    #[test]
    fn three_failed_in_a_row_are_down() {
        let now = now();
        let mut server = ServerHealth::default();
        server.failed(now, 0);
        server.failed(now, 0);
        assert!(!server.is_down());
        server.failed(now, 0);
        assert!(server.is_down());
        server.reached(now);
        server.failed(now, 0);
        assert!(!server.is_down());
    }

    #[test]
    fn a_wait_is_over_when_either_clock_says_so_and_not_before() {
        let now = now();
        let mut server = ServerHealth::default();
        let second = Duration::from_secs(1);
        server.asked_to_wait(second * 3, WaitReason::RetryAfter, now, 0);
        server.asked_to_wait(second, WaitReason::RetryAfter, now, 0);
        assert_eq!(server.probe_at(now), Some(now.mono + second * 3));
        // Results of attempts that were already running change nothing.
        server.reached(now);
        server.unreached(now, 0);
        server.thawed(second);
        assert!(!admits(&server, 0, 0, later(now, second * 2)));
        let over = Now {
            mono: now.mono,
            unix_ms: now.unix_ms + 3000,
        };
        assert!(admits(&server, 0, 0, over), "though one clock stood still");
        assert!(!admits(&server, 1, 0, over), "one goes ahead");
        assert!(server.reached(over));
        assert!(admits(&server, 9, 9, over));
    }

    #[test]
    fn a_probe_that_fails_after_a_wait_is_followed_by_pauses() {
        let now = now();
        let mut server = ServerHealth::default();
        server.asked_to_wait(Duration::from_secs(1), WaitReason::RetryAfter, now, 0);
        let over = later(now, Duration::from_secs(1));
        assert!(admits(&server, 0, 0, over));
        server.unreached(over, 0);
        assert!(!admits(&server, 0, 0, over));
        assert_eq!(server.probe_at(over), Some(over.mono + PAUSE_MIN));
    }

    #[test]
    fn leaving_waits_for_a_limit_and_not_for_a_longer_retry_after() {
        let now = now();
        for first in [WaitReason::RetryAfter, WaitReason::Limit] {
            let mut server = ServerHealth::default();
            for reason in [first, WaitReason::Limit, WaitReason::RetryAfter] {
                let seconds = if reason == WaitReason::Limit { 1 } else { 9 };
                server.asked_to_wait(Duration::from_secs(seconds), reason, now, 0);
            }
            let second = later(now, Duration::from_secs(1));
            assert!(!admits(&server, 0, 0, second), "{first:?}");
            server.leave(now.mono);
            assert!(!admits(&server, 0, 0, now), "{first:?}");
            assert!(admits(&server, 0, 0, second), "{first:?}");
        }
    }

    #[test]
    fn a_wait_that_is_over_by_one_clock_does_not_hide_the_next() {
        let now = now();
        let mut server = ServerHealth::default();
        let second = Duration::from_secs(1);
        server.asked_to_wait(second * 30, WaitReason::RetryAfter, now, 0);
        // The monotonic clock did not move in a freeze of an hour.
        let thawed = Now {
            mono: now.mono,
            unix_ms: now.unix_ms + 3_600_000,
        };
        server.asked_to_wait(second * 3, WaitReason::RetryAfter, thawed, 0);
        assert!(!admits(&server, 0, 0, thawed));
        assert!(admits(&server, 0, 0, later(thawed, second * 3)));
    }

    #[test]
    fn frozen_time_does_not_count_towards_a_pause() {
        let now = now();
        let mut server = ServerHealth::default();
        server.unreached(now, 0);
        server.thawed(Duration::from_secs(9));
        let at = now.mono + PAUSE_MIN + Duration::from_secs(9);
        assert_eq!(server.probe_at(now), Some(at));
    }

    #[test]
    fn leaving_waits_for_a_limit_alone_and_pauses_do_not_grow() {
        let now = now();
        for (reason, waits) in [(WaitReason::RetryAfter, false), (WaitReason::Limit, true)] {
            let mut server = ServerHealth::default();
            server.asked_to_wait(Duration::from_secs(9), reason, now, 0);
            server.leave(now.mono);
            assert_eq!(admits(&server, 0, 0, now), !waits, "{reason:?}");
            server.asked_to_wait(Duration::from_secs(9), reason, now, 0);
            assert_eq!(
                admits(&server, 0, 0, later(now, PAUSE_MIN)),
                !waits,
                "{reason:?}"
            );
        }
        let mut server = ServerHealth::default();
        server.leave(now.mono);
        let mut last = now;
        for _ in 0..5 {
            server.unreached(last, 0);
            assert_eq!(server.probe_at(last), Some(last.mono + PAUSE_MIN));
            last = later(last, PAUSE_MIN);
        }
    }
}
