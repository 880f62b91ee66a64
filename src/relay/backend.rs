//! Whether the remote can be reached: a state of the backend, not of a payload.
//!
//! ```text
//! Untried ── reached ──▶ Up ◀── reached ── Down
//!    └── not reached ──▶ Down ◀── not reached, or three attempts in a row broke ── Up
//! ```
//!
//! While it is `Untried`, connections are made one after the other, so that the later ones can resume the TLS
//! session of the first. While it is `Down`, one attempt goes ahead: its success lets all of them go.

use std::time::{Duration, Instant};

/// First pause before a backend that is down is tried again, doubling up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Attempts that break one after another before the backend counts as down.
const BROKEN_IN_A_ROW: u8 = 3;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Backend {
    state: State,
    broken: u8,
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
}

impl Backend {
    /// Whether another attempt may begin while `busy` are under way, of which `unproven` have not reached it.
    #[must_use]
    pub fn admits(&self, busy: usize, unproven: usize, now: Instant) -> bool {
        match self.state {
            State::Up => true,
            State::Untried => unproven == 0,
            State::Down { probe_at, .. } => busy == 0 && probe_at <= now,
        }
    }

    /// Whether it is down.
    #[must_use]
    pub const fn is_down(&self) -> bool {
        matches!(self.state, State::Down { .. })
    }

    /// When a backend that is down is to be tried again.
    #[must_use]
    pub const fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Down { probe_at, .. } => Some(probe_at),
            _ => None,
        }
    }

    /// It answered.
    pub const fn reached(&mut self) {
        (self.state, self.broken) = (State::Up, 0);
    }

    /// An attempt did not reach it.
    pub fn unreached(&mut self, now: Instant, random: u64) {
        let pause = match self.state {
            // An attempt that began before: it tells nothing new.
            State::Down { probe_at, .. } if now < probe_at => return,
            State::Down { pause, .. } => (pause * 2).min(PAUSE_MAX),
            _ => PAUSE_MIN,
        };
        self.state = State::Down {
            pause,
            probe_at: now + jitter(pause, random),
        };
    }

    /// An attempt broke after it was reached, or it asked for patience.
    pub fn broke(&mut self, now: Instant, random: u64) {
        self.broken = self.broken.saturating_add(1);
        if self.broken >= BROKEN_IN_A_ROW || self.is_down() {
            self.unreached(now, random);
        }
    }

    /// There is little time left: it is tried at once.
    pub const fn hasten(&mut self, now: Instant) {
        if self.is_down() {
            self.state = State::Down {
                pause: PAUSE_MIN,
                probe_at: now,
            };
        }
    }

    /// Frozen time does not count.
    pub fn thawed(&mut self, frozen: Duration) {
        if let State::Down { probe_at, .. } = &mut self.state {
            *probe_at += frozen;
        }
    }
}

/// Between three quarters of `pause` and all of it, so that sandboxes do not come back as one.
#[must_use]
pub fn jitter(pause: Duration, random: u64) -> Duration {
    pause.saturating_sub(pause / 4 * (random % 1024) as u32 / 1024)
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a made-up clock has to start somewhere"
)]
mod tests {
    use super::*;

    #[test]
    fn one_goes_ahead_until_the_first_success() {
        let now = Instant::now();
        let mut backend = Backend::default();
        assert!(backend.admits(0, 0, now));
        assert!(!backend.admits(1, 1, now));
        backend.reached();
        assert!(backend.admits(4, 4, now));
    }

    #[test]
    fn down_is_probed_with_growing_pauses() {
        let now = Instant::now();
        let mut backend = Backend::default();
        backend.unreached(now, 0);
        assert!(!backend.admits(0, 0, now));
        assert_eq!(backend.probe_at(), Some(now + PAUSE_MIN));
        assert!(backend.admits(0, 0, now + PAUSE_MIN));
        assert!(!backend.admits(1, 0, now + PAUSE_MIN));
        backend.unreached(now, 0);
        assert_eq!(
            backend.probe_at(),
            Some(now + PAUSE_MIN),
            "one that began before the probe changes nothing"
        );
        let mut last = now;
        for _ in 0..10 {
            last = backend.probe_at().unwrap();
            backend.unreached(last, 1023);
        }
        let pause = backend.probe_at().unwrap() - last;
        assert!(
            pause > PAUSE_MAX * 74 / 100 && pause < PAUSE_MAX,
            "{pause:?}"
        );
        backend.reached();
        assert!(!backend.is_down());
    }

    #[test]
    fn three_broken_in_a_row_are_down() {
        let now = Instant::now();
        let mut backend = Backend::default();
        backend.broke(now, 0);
        backend.broke(now, 0);
        assert!(!backend.is_down());
        backend.broke(now, 0);
        assert!(backend.is_down());
        backend.reached();
        backend.broke(now, 0);
        assert!(!backend.is_down());
    }
}
