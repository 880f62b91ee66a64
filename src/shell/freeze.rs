//! Detects from the clocks whether the sandbox was frozen. It reads no clock: the times are arguments.
//!
//! Lambda does not announce a freeze. If the clocks run on, a freeze looks like work or a wait that took too long. If
//! the monotonic clock stops, the wall clock advances more.

use std::time::Duration;

use crate::contract::Now;

/// More work, oversleep or clock difference than this means that the sandbox was frozen.
const FREEZE_MIN: Duration = Duration::from_secs(1);

/// One turn of the loop: work, then a wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) began: Now,
    /// When the wait began.
    pub(super) slept: Now,
    /// When the wait ended.
    pub(super) woke: Now,
    /// The longest time the wait should take; `None` if it had no limit.
    pub(super) timeout: Option<Duration>,
}

impl Turn {
    /// For how long the sandbox was frozen, if it was. Zero if the monotonic clock stopped: its deadlines have not
    /// moved, but connections have aged.
    pub(super) fn frozen(self) -> Option<Duration> {
        // A freeze can also happen during work. And if the work itself took that long, no peer is the cause.
        let worked = self.slept.mono.saturating_duration_since(self.began.mono);
        let waited = self.woke.mono.saturating_duration_since(self.slept.mono);
        let overslept = self
            .timeout
            .map_or(Duration::ZERO, |timeout| waited.saturating_sub(timeout));
        let frozen = worked + overslept;
        if frozen > FREEZE_MIN {
            return Some(frozen);
        }
        // A wall clock that was set back shows no freeze.
        let wall = Duration::from_millis(self.woke.unix_ms.saturating_sub(self.began.unix_ms));
        (wall.saturating_sub(worked + waited) > FREEZE_MIN).then_some(Duration::ZERO)
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a made-up clock has to start somewhere"
)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// The result for a turn whose work and wait took that long by the monotonic clock, while the wall clock advanced
    /// by `wall_ms` in total.
    fn frozen_ms(
        worked_ms: u64,
        waited_ms: u64,
        wall_ms: i64,
        timeout_ms: Option<u64>,
    ) -> Option<u128> {
        let start = Instant::now();
        let at = |ms, wall_ms| Now {
            mono: start + Duration::from_millis(ms),
            unix_ms: 1_800_000_000_000_u64.saturating_add_signed(wall_ms),
        };
        let turn = Turn {
            began: at(0, 0),
            slept: at(worked_ms, 0),
            woke: at(worked_ms + waited_ms, wall_ms),
            timeout: timeout_ms.map(Duration::from_millis),
        };
        turn.frozen().map(|frozen| frozen.as_millis())
    }

    #[test]
    fn a_turn_in_which_nothing_happened_shows_no_freeze() {
        assert_eq!(frozen_ms(0, 500, 500, Some(500)), None);
        assert_eq!(
            frozen_ms(400, 1100, 1500, Some(500)),
            None,
            "a second is not enough"
        );
        assert_eq!(
            frozen_ms(0, 3_600_000, 3_600_000, None),
            None,
            "a wait without an end"
        );
    }

    #[test]
    fn a_wait_that_overslept_shows_a_freeze_and_its_length() {
        assert_eq!(frozen_ms(0, 500 + 1001, 1501, Some(500)), Some(1001));
        assert_eq!(frozen_ms(0, 500 + 1000, 1500, Some(500)), None);
        assert_eq!(frozen_ms(0, 61_000, 61_000, Some(0)), Some(61_000));
    }

    #[test]
    fn a_freeze_at_work_counts_like_one_in_the_wait() {
        assert_eq!(frozen_ms(1001, 0, 1001, Some(500)), Some(1001));
        assert_eq!(frozen_ms(1001, 0, 1001, None), Some(1001));
        assert_eq!(
            frozen_ms(600, 500 + 600, 1700, Some(500)),
            Some(1200),
            "both"
        );
    }

    #[test]
    fn a_wall_clock_that_went_further_shows_a_freeze_of_no_length() {
        assert_eq!(frozen_ms(100, 500, 600 + 1001, Some(500)), Some(0));
        assert_eq!(frozen_ms(100, 500, 600 + 1000, Some(500)), None);
        assert_eq!(frozen_ms(0, 0, 3_600_000, None), Some(0));
    }

    #[test]
    fn a_wall_clock_that_was_set_back_shows_nothing() {
        assert_eq!(frozen_ms(0, 500, -3_600_000, Some(500)), None);
        assert_eq!(frozen_ms(0, 2000, -3_600_000, Some(500)), Some(1500));
    }
}
