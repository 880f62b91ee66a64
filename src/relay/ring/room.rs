//! Room for a new or growing payload: which payloads are dropped for it.

use std::time::Duration;

use super::buffers::{cost, pages};
use super::payload::Payload;
use super::{Full, LossReason, PayloadId, Ring, SLOTS, Slot, State};

/// Longest time to fill a payload while others need its room: the client may be slow or silent, or the sandbox may have
/// very little CPU. As long as there is room, filling has no time limit.
const FILLING_MAX: Duration = Duration::from_secs(10);

impl Ring {
    pub(super) fn free_slot(&mut self) -> Result<usize, Full> {
        if let Some(free) = self.slots.iter().position(|slot| slot.state == State::Free) {
            return Ok(free);
        }
        if self.slots.len() < SLOTS {
            self.slots.push(Slot {
                sequence: 0,
                state: State::Free,
                payload: Payload::default(),
            });
            return Ok(self.slots.len() - 1);
        }
        self.evict_one().map(|id| id.slot)
    }

    /// Drops one payload: an unacknowledged one that takes too long to fill, otherwise the oldest queued one.
    pub(super) fn evict_one(&mut self) -> Result<PayloadId, Full> {
        let slow = self.slots.iter().position(|slot| self.is_slow(slot));
        if let Some(slot) = slow {
            let sequence = self.slots[slot].sequence;
            let id = PayloadId { sequence, slot };
            self.abandon(id);
            return Ok(id);
        }
        let oldest = self.oldest(None).ok_or(Full)?;
        self.lost(oldest, LossReason::Full);
        Ok(oldest)
    }

    pub(super) fn is_slow(&self, slot: &Slot) -> bool {
        match (slot.state, self.now) {
            (State::Filling { since: Some(since) }, Some(now)) => {
                now.saturating_duration_since(since) >= FILLING_MAX
            }
            _ => false,
        }
    }

    /// A spare buffer of about `whole` bytes, which costs no more memory, or a new one of `first`.
    pub(super) fn take_buffer(&mut self, whole: usize, first: usize) -> Result<Vec<u8>, Full> {
        if let Some(spare) = self.buffers.take_spare(whole) {
            return Ok(spare);
        }
        self.make_room(cost(pages(first)))?;
        Ok(self.buffers.take_new(first))
    }

    /// Makes `bytes` more fit: frees spare buffers first, then drops the oldest queued payloads. Drops none if that
    /// would not be enough.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), Full> {
        while !self.buffers.make_room(bytes) {
            if !self.could_fit(bytes) {
                return Err(Full);
            }
            self.evict_one()?;
        }
        Ok(())
    }

    /// Whether `bytes` more fit once everything that may be dropped is dropped.
    pub(super) fn could_fit(&self, bytes: usize) -> bool {
        let stay = self
            .slots
            .iter()
            .filter(|slot| !matches!(slot.state, State::Queued { .. }) && !self.is_slow(slot));
        stay.map(|slot| cost(slot.payload.buffer.len()))
            .sum::<usize>()
            + bytes
            <= self.bytes_max()
    }
}
