//! Room for a new payload, or for one that grows: who gives way to it.

use std::time::Duration;

use super::buffers::{cost, pages};
use super::payload::Payload;
use super::{Full, LossReason, PayloadId, Ring, SLOTS, Slot, State};

/// Longest time a payload is filled while others need its room: a client that is slow or silent, or a sandbox with
/// hardly any processor. Where there is room, it may take for ever.
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

    /// Makes one payload give way: one that nobody was told we have, if it takes too long, else the oldest queued.
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

    /// A spare buffer of about `whole` bytes, which takes no memory that is not taken, or a new one of `first`.
    pub(super) fn take_buffer(&mut self, whole: usize, first: usize) -> Result<Vec<u8>, Full> {
        if let Some(spare) = self.buffers.take_spare(whole) {
            return Ok(spare);
        }
        self.make_room(cost(pages(first)))?;
        Ok(self.buffers.take_new(first))
    }

    /// Makes `bytes` more fit: spare buffers go first, then the oldest queued payloads. Nothing goes in vain.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), Full> {
        while !self.buffers.make_room(bytes) {
            if !self.could_fit(bytes) {
                return Err(Full);
            }
            self.evict_one()?;
        }
        Ok(())
    }

    /// Whether `bytes` more fit once all have given way that may.
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
