//! A payload while its body arrives: it grows as it fills, and may be dropped.

use super::buffers::{cost, pages};
use super::payload::{GAP, Payload, Tries};
use super::{Full, LossReason, NoSpace, PayloadId, Ring, Shape, Slot, State};

/// A buffer starts with room for this much body and doubles as it fills, so that a client which announces much and
/// sends little holds little.
const BODY_START: usize = 64 * 1024;

/// The same where no length is announced.
const BODY_START_CHUNKED: usize = 16 * 1024;

impl Ring {
    /// Opens a slot for a request with this head, which lacks only its `Content-Length` line and its empty line.
    ///
    /// # Errors
    /// No room, and nothing queued that may be dropped.
    pub fn open(&mut self, head: &[u8], shape: Shape) -> Result<PayloadId, Full> {
        let body_start = head.len() + GAP;
        let first = shape
            .length
            .map_or(BODY_START_CHUNKED, |length| length.min(BODY_START));
        // Nothing is dropped for a body that will not fit in the end.
        let whole = shape.length.map(|length| cost(pages(body_start + length)));
        if whole.is_some_and(|whole| !self.could_fit(whole)) {
            return Err(Full);
        }
        let slot = self.free_slot()?;
        let length = shape.length.unwrap_or(first);
        let buffer = self.take_buffer(body_start + length, body_start + first)?;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let payload = Payload::new(buffer, head, shape);
        self.slots[slot] = Slot {
            sequence,
            state: State::Filling { since: self.now },
            payload,
        };
        self.totals.hold(self.buffers.bytes_used());
        self.check();
        Ok(PayloadId { sequence, slot })
    }

    /// Where the next body bytes are written: at least one byte, and no further than the announced length.
    ///
    /// # Errors
    /// No room to grow, or the payload took too long and was dropped.
    pub fn space(&mut self, id: PayloadId) -> Result<&mut [u8], NoSpace> {
        self.reserve(id)?;
        Ok(self.room(id))
    }

    /// Ensures that [`Ring::room`] is not empty.
    ///
    /// # Errors
    /// As for [`Ring::space`].
    pub fn reserve(&mut self, id: PayloadId) -> Result<(), NoSpace> {
        if !self.is_filling(id) {
            return Err(NoSpace::Full);
        }
        let payload = &self.slots[id.slot].payload;
        if let Some(limit) = payload.grows_to() {
            let more = self.buffers.growth(payload.buffer.len(), limit);
            if more == 0 {
                return Err(NoSpace::TooLarge);
            }
            self.make_room(more).map_err(|Full| NoSpace::Full)?;
            // The payload itself may have been dropped.
            if !self.is_filling(id) {
                return Err(NoSpace::Full);
            }
            self.buffers
                .grow(&mut self.slots[id.slot].payload.buffer, more);
            self.totals.hold(self.buffers.bytes_used());
            self.check();
        }
        Ok(())
    }

    /// Where the next body bytes of this payload are written, within its current buffer.
    pub fn room(&mut self, id: PayloadId) -> &mut [u8] {
        debug_assert!(self.is_filling(id));
        self.slots[id.slot].payload.space()
    }

    /// `n` bytes of [`Ring::space`] are now body.
    pub fn filled(&mut self, id: PayloadId, n: usize) {
        debug_assert!(self.is_filling(id));
        self.slots[id.slot].payload.filled(n);
    }

    /// The client broke off, or the payload was dropped: it was never acknowledged, so it is simply removed.
    pub fn abandon(&mut self, id: PayloadId) {
        if self.is_filling(id) {
            self.free(id);
            self.check();
        }
    }

    /// The body of some request broke off, whether it was stored here or not.
    pub const fn broke_off(&mut self) {
        self.broke_off = true;
    }

    /// Whether that happened since this was last asked.
    pub const fn take_broken_off(&mut self) -> bool {
        std::mem::replace(&mut self.broke_off, false)
    }

    pub(super) fn is_filling(&self, id: PayloadId) -> bool {
        let slot = &self.slots[id.slot];
        slot.sequence == id.sequence && matches!(slot.state, State::Filling { .. })
    }

    /// The body is complete: the payload is acknowledged, and waits to be sent.
    pub fn commit(&mut self, id: PayloadId) {
        if !self.is_filling(id) {
            return self.acknowledge_lost(LossReason::Full);
        }
        let slot = &mut self.slots[id.slot];
        slot.payload.end_head();
        slot.payload.tries = Tries::new(self.totals.relayed);
        slot.state = State::Queued { not_before: None };
        self.totals.acknowledge();
        self.check();
    }
}
