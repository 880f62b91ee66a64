//! Which payload is sent next: the oldest that is due.

use std::time::Instant;

use super::{PayloadId, Ring, Slot, State};

impl Ring {
    /// The oldest payload that may be sent at `now`.
    #[must_use]
    pub fn ready(&self, now: Instant) -> Option<PayloadId> {
        self.oldest(Some(now))
    }

    /// The payload that tests whether the server is back: the oldest of those that failed least often. So a payload
    /// that breaks the server does not block the others.
    #[must_use]
    pub fn ready_for_probe(&self, now: Instant) -> Option<PayloadId> {
        self.first(Some(now), true)
    }

    /// When the next waiting payload may be sent, later than `now`.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let times = self.slots.iter().filter_map(|slot| match slot.state {
            State::Queued { not_before } => not_before.filter(|at| *at > now),
            _ => None,
        });
        times.min()
    }

    /// Separates the current payloads from later ones, for [`Ring::has_work_before`].
    #[must_use]
    pub const fn mark(&self) -> u64 {
        self.next_sequence
    }

    /// Whether a payload from before `mark` is being sent, or may be sent before `soon`.
    #[must_use]
    pub fn has_work_before(&self, mark: u64, soon: Instant) -> bool {
        self.slots.iter().any(|slot| {
            slot.sequence < mark
                && match slot.state {
                    State::Queued { not_before } => not_before.is_none_or(|at| at <= soon),
                    State::Sending => true,
                    State::Free | State::Filling { .. } => false,
                }
        })
    }

    /// Whether a payload from before `mark` is being filled.
    #[must_use]
    pub fn is_filling_before(&self, mark: u64) -> bool {
        let is_filling = |slot: &Slot| matches!(slot.state, State::Filling { .. });
        self.slots
            .iter()
            .any(|slot| slot.sequence < mark && is_filling(slot))
    }

    /// The oldest queued payload; with a time, the oldest that may be sent by then.
    pub(super) fn oldest(&self, by: Option<Instant>) -> Option<PayloadId> {
        self.first(by, false)
    }

    /// The same, but by number of failed tries first if `ranks_tries` is set.
    pub(super) fn first(&self, by: Option<Instant>, ranks_tries: bool) -> Option<PayloadId> {
        let queued = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| match slot.state {
                State::Queued { not_before } => {
                    by.is_none_or(|by| not_before.is_none_or(|at| at <= by))
                }
                _ => false,
            });
        queued
            .min_by_key(|(_, slot)| {
                let tries = slot.payload.tries.failed().tries;
                (if ranks_tries { tries } else { 0 }, slot.sequence)
            })
            .map(|(slot, s)| PayloadId {
                sequence: s.sequence,
                slot,
            })
    }
}
