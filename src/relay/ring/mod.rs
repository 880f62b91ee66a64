//! The ring: a fixed number of slots in which payloads wait, and the account of what happened to each.
//!
//! Every payload answered with 200 is acknowledged. It ends as relayed or as lost for a named reason, or is still here.
//! Only [`Ring`] counts, and checks the sum after every change in debug builds.
//!
//! ```text
//!            ┌──────────── abandon ────────────▶ Free
//! Free ─▶ Filling ── commit ─▶ Queued ── start ─▶ Sending ── relayed, lost ─▶ Free
//!                                ▲  └─ gives way, lost ─▶ Free   │
//!                                └──────────── retry ────────────┘
//! ```
//!
//! A payload's request is in one buffer: the outgoing head, a gap for the `Content-Length` once it is known, and the
//! body. So a client's bytes are read from the socket directly into the place they are sent from. Buffers of finished
//! payloads are reused while there is traffic ([`Ring::trim`] frees them), and all buffers, in use or spare, count
//! towards the limit.
//!
//! * this file: the slots, and how payloads end
//! * `filling`: a payload while its body comes
//! * `queue`: which payload is sent next
//! * `room`: which payloads are dropped when the ring is full
//! * `payload`: one request in its buffer
//! * `buffers`: how much of the byte limit the buffers use
//! * `account`: what happened to each payload

mod account;
mod buffers;
mod filling;
mod payload;
mod queue;
mod room;

use std::time::{Duration, Instant};

use crate::config::Labels;
use crate::times;

pub use account::{LeftOutReason, LossReason, Totals};
pub use payload::{Failed, Shape};

use buffers::{Buffers, PAGE, cost, pages};
use payload::{GAP, Payload};

/// Most payloads at once. SDKs send one to six every 10 to 60 s; 256 is minutes of an outage.
pub const SLOTS: usize = 256;

/// Identifies a payload. Sequence numbers only grow, so an old id finds nothing and the smallest is the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadId {
    sequence: u64,
    slot: usize,
}

/// There is no room, and nothing that may be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A body cannot grow further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSpace {
    /// The ring is full of payloads that may not be dropped.
    Full,
    /// It would not fit into the empty ring either.
    TooLarge,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Ring {
    slots: Vec<Slot>,
    next_sequence: u64,
    buffers: Buffers,
    totals: Totals,
    /// As of the last [`Ring::tick`].
    now: Option<Instant>,
    /// Whether a body broke off since this was last asked.
    broke_off: bool,
}

#[derive(Debug)]
struct Slot {
    sequence: u64,
    state: State,
    payload: Payload,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Filling { since: Option<Instant> },
    Queued { not_before: Option<Instant> },
    Sending,
}

impl Ring {
    /// An empty ring that never holds more than `bytes_max`. Takes no memory yet.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self {
            slots: Vec::new(),
            next_sequence: 0,
            buffers: Buffers::new(bytes_max),
            totals: Totals {
                acknowledged: 0,
                relayed: 0,
                relayed_bytes: 0,
                resent: 0,
                lost: [0; LossReason::ALL.len()],
                left_out: [0; LeftOutReason::ALL.len()],
                high_water_bytes: 0,
            },
            now: None,
            broke_off: false,
        }
    }

    /// Sets the time, by which slow uploads are recognized.
    pub const fn tick(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// The account so far.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Most bytes it may hold.
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        self.buffers.bytes_max()
    }

    /// Whether a body of that length, with a head of that length, could ever fit.
    #[must_use]
    pub const fn could_hold(&self, head_bytes: usize, body_bytes: u64) -> bool {
        (head_bytes + GAP + 2 * PAGE) as u64 <= (self.bytes_max() as u64).saturating_sub(body_bytes)
    }

    /// A payload was acknowledged but could not be kept.
    pub fn acknowledge_lost(&mut self, loss: LossReason) {
        self.totals.acknowledge();
        self.totals.lose(loss);
        self.check();
    }

    /// A payload was acknowledged but will not be sent.
    pub fn acknowledge_left_out(&mut self, why: LeftOutReason) {
        self.totals.leave_out(why);
        self.check();
    }

    /// Makes the times in a payload unique and adds these labels, once. If there is no room for the few extra bytes,
    /// the payload stays unchanged.
    pub fn change_body(&mut self, id: PayloadId, labels: &Labels) {
        let payload = &mut self.slots[id.slot].payload;
        let Some((form, stamp)) = payload.shape.change.take() else {
            return;
        };
        let Some(edit) = times::edit(form, stamp.as_ref(), labels, payload.body()) else {
            return;
        };
        let more = pages(payload.edited_end(&edit)).saturating_sub(payload.buffer.len());
        if self.buffers.make_room(more) {
            let payload = &mut self.slots[id.slot].payload;
            self.buffers.grow(&mut payload.buffer, more);
            payload.edit(&edit);
            self.totals.hold(self.buffers.bytes_used());
        }
        self.check();
    }

    /// Stores the target of a payload without the labels of the settings.
    pub fn keep_target(&mut self, id: PayloadId, target: Vec<u8>) {
        self.slots[id.slot].payload.plain_target = target;
    }

    /// Removes the settings' labels from a payload. Returns whether there were any.
    pub fn take_labels_away(&mut self, id: PayloadId) -> bool {
        self.slots[id.slot].payload.take_labels_away()
    }

    /// `Queued` → `Sending`.
    pub fn start(&mut self, id: PayloadId) {
        let slot = &mut self.slots[id.slot];
        if let State::Queued { .. } = slot.state {
            slot.state = State::Sending;
            self.totals.resent += u64::from(slot.payload.was_sent);
        }
    }

    /// A payload being sent may have reached the server: sending it once more counts as a resend.
    pub fn was_sent(&mut self, id: PayloadId) {
        self.slots[id.slot].payload.was_sent = true;
    }

    /// The server was not reached after all: this attempt was not a resend.
    pub fn was_not_sent(&mut self, id: PayloadId) {
        self.totals.resent -= u64::from(self.slots[id.slot].payload.was_sent);
    }

    /// `Sending` → `Queued`, not to be sent before `not_before`.
    pub fn retry(&mut self, id: PayloadId, not_before: Option<Instant>) {
        self.slots[id.slot].state = State::Queued { not_before };
        self.check();
    }

    /// An attempt to send it failed. It counts only if another payload was relayed since its last failure or its
    /// commit: if nothing gets through, the payload is not the cause.
    pub fn fail_attempt(&mut self, id: PayloadId) -> Failed {
        let relayed = self.totals.relayed;
        self.slots[id.slot].payload.tries.fail(relayed)
    }

    /// Whether it may still be resent once without counting, because a freeze killed its connection.
    #[must_use]
    pub fn has_free_resend(&self, id: PayloadId) -> bool {
        self.slots[id.slot].payload.tries.has_free_resend()
    }

    /// Uses the free resend: `true` once per payload.
    pub fn use_free_resend(&mut self, id: PayloadId) -> bool {
        self.slots[id.slot].payload.tries.use_free_resend()
    }

    /// The server accepted it.
    pub fn relayed(&mut self, id: PayloadId) {
        self.totals.relay(self.slots[id.slot].payload.body_bytes());
        self.free(id);
        self.check();
    }

    /// It will not arrive.
    pub fn lost(&mut self, id: PayloadId, loss: LossReason) {
        self.totals.lose(loss);
        self.free(id);
        self.check();
    }

    /// We exit: all acknowledged payloads that are still here are lost.
    pub fn lose_all(&mut self, loss: LossReason) {
        for slot in 0..self.slots.len() {
            if matches!(
                self.slots[slot].state,
                State::Queued { .. } | State::Sending
            ) {
                self.lost(
                    PayloadId {
                        sequence: self.slots[slot].sequence,
                        slot,
                    },
                    loss,
                );
            }
        }
    }

    /// The bytes to send: head and body.
    #[must_use]
    pub fn request(&self, id: PayloadId) -> [&[u8]; 2] {
        self.slots[id.slot].payload.request()
    }

    /// Whether the request's method is HEAD.
    #[must_use]
    pub fn to_head_request(&self, id: PayloadId) -> bool {
        self.slots[id.slot].payload.shape.to_head_request
    }

    /// Payloads acknowledged but not yet relayed or lost.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.slots
            .iter()
            .filter(|s| matches!(s.state, State::Queued { .. } | State::Sending))
            .count()
    }

    /// Whether no slot is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(|s| s.state == State::Free)
    }

    /// Whether [`Ring::trim`] would free anything.
    #[must_use]
    pub const fn has_spares(&self) -> bool {
        self.buffers.has_spares()
    }

    /// Frees spare memory.
    pub fn trim(&mut self) {
        self.buffers.trim();
    }

    /// Little time is left: no payload waits any longer.
    pub fn clear_pauses(&mut self) {
        for slot in &mut self.slots {
            if let State::Queued { not_before } = &mut slot.state {
                *not_before = None;
            }
        }
    }

    /// Frozen time does not count: all waits end that much later.
    pub fn thawed(&mut self, frozen: Duration) {
        for slot in &mut self.slots {
            if let State::Filling { since: Some(at) }
            | State::Queued {
                not_before: Some(at),
            } = &mut slot.state
            {
                *at += frozen;
            }
        }
    }

    fn free(&mut self, id: PayloadId) {
        let slot = &mut self.slots[id.slot];
        debug_assert_eq!(slot.sequence, id.sequence, "a stale name");
        slot.state = State::Free;
        let buffer = std::mem::take(&mut slot.payload).buffer;
        self.buffers.give_back(buffer);
    }

    /// What must hold after every change.
    fn check(&self) {
        self.totals.check(self.in_hand());
        debug_assert_eq!(
            self.buffers.bytes_used(),
            self.slots
                .iter()
                .map(|s| cost(s.payload.buffer.len()))
                .sum::<usize>()
        );
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a made-up clock has to start somewhere"
)]
mod tests;
