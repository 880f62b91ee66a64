//! The ring: the fixed number of slots in which payloads wait, and the account of what became of each.
//!
//! Every payload we answered with 200 is acknowledged; it ends as relayed or as lost for a named reason, or is
//! still here. [`Ring`] is the only place that counts, and checks the sum after every change in debug builds.
//!
//! ```text
//!            ┌──────────── abandon ────────────▶ Free
//! Free ─▶ Filling ── commit ─▶ Queued ── start ─▶ Sending ── relayed, lost ─▶ Free
//!                                ▲  └─ gives way, lost ─▶ Free   │
//!                                └──────────── retry ────────────┘
//! ```
//!
//! A payload's request stands in one buffer: the outgoing head, a gap in which the `Content-Length` is written
//! once it is known, and the body. So bytes are read from the client's socket into the place they are sent
//! from. Buffers of finished payloads are kept for the next ones while there is traffic ([`Ring::trim`] gives
//! them back), and everything kept, in use or spare, counts towards the limit.
//!
//! * this file: the slots, and who gives way
//! * `payload`: one request in its buffer
//! * `buffers`: what buffers cost of the byte limit
//! * `account`: what became of each payload

mod account;
mod buffers;
mod payload;

use std::time::{Duration, Instant};

use crate::config::Labels;
use crate::times;

pub use account::{LeftOut, Loss, Totals};
pub use payload::{Failed, Shape};

use buffers::{Buffers, PAGE, cost, pages};
use payload::{GAP, Payload, Tries};

/// Most payloads at once. SDKs send one to six every 10 to 60 s; 256 is minutes of an outage.
pub const SLOTS: usize = 256;

/// A payload's buffer starts with room for this much body and doubles as it fills, so that a client which
/// announces much and sends little holds little.
const BODY_START: usize = 64 * 1024;

/// The same where no length is announced.
const BODY_START_CHUNKED: usize = 16 * 1024;

/// Longest time a payload is filled while others need its room: a client that is slow or silent, or a sandbox with
/// hardly any processor. Where there is room, it may take for ever.
const FILLING_MAX: Duration = Duration::from_secs(10);

/// Names a payload. Numbers only grow, so a stale name finds nothing and the smallest is the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadId {
    sequence: u64,
    slot: usize,
}

/// There is no room, and nothing that may give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A body cannot grow further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSpace {
    /// The ring is full of what may not give way.
    Full,
    /// It would not fit the empty ring either.
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
                lost: [0; Loss::ALL.len()],
                left_out: [0; LeftOut::ALL.len()],
                high_water_bytes: 0,
            },
            now: None,
        }
    }

    /// The time, for those who are slow to fill what others need.
    pub const fn tick(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// The account so far.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Most bytes it ever holds.
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        self.buffers.bytes_max()
    }

    /// Whether a body of that length, behind a head of that length, could ever fit.
    #[must_use]
    pub const fn could_hold(&self, head_bytes: usize, body_bytes: u64) -> bool {
        (head_bytes + GAP + 2 * PAGE) as u64 <= (self.bytes_max() as u64).saturating_sub(body_bytes)
    }

    /// Opens a slot for a request with this head, which lacks only its `Content-Length` line and empty line.
    ///
    /// # Errors
    /// No room, and nothing queued that could give way.
    pub fn open(&mut self, head: &[u8], shape: Shape) -> Result<PayloadId, Full> {
        let body_start = head.len() + GAP;
        let first = shape
            .length
            .map_or(BODY_START_CHUNKED, |length| length.min(BODY_START));
        // Nothing gives way to what will not fit in the end.
        let whole = shape.length.map(|length| cost(pages(body_start + length)));
        if whole.is_some_and(|whole| !self.fits_beside_what_stays(whole)) {
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

    /// Where the next body bytes go: at least one byte, and no further than the announced length.
    ///
    /// # Errors
    /// No room to grow, or it took so long that it gave way.
    pub fn space(&mut self, id: PayloadId) -> Result<&mut [u8], NoSpace> {
        self.reserve(id)?;
        Ok(self.room(id))
    }

    /// Sees to it that [`Ring::room`] is not empty.
    ///
    /// # Errors
    /// The same as of [`Ring::space`].
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
            // It may have been the one to give way.
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

    /// Where the next body bytes of a payload go that is still being filled, as far as there is room by now.
    pub fn room(&mut self, id: PayloadId) -> &mut [u8] {
        debug_assert!(self.is_filling(id));
        self.slots[id.slot].payload.space()
    }

    /// `n` bytes of [`Ring::space`] are body now.
    pub fn filled(&mut self, id: PayloadId, n: usize) {
        debug_assert!(self.is_filling(id));
        self.slots[id.slot].payload.filled(n);
    }

    /// The client broke off, or the payload gave way: it was never acknowledged and is forgotten.
    pub fn abandon(&mut self, id: PayloadId) {
        if self.is_filling(id) {
            self.free(id);
            self.check();
        }
    }

    fn is_filling(&self, id: PayloadId) -> bool {
        let slot = &self.slots[id.slot];
        slot.sequence == id.sequence && matches!(slot.state, State::Filling { .. })
    }

    /// The body is whole: the payload is acknowledged, and waits to be sent.
    pub fn commit(&mut self, id: PayloadId) {
        if !self.is_filling(id) {
            return self.acknowledge_lost(Loss::Full);
        }
        let slot = &mut self.slots[id.slot];
        slot.payload.end_head();
        slot.payload.tries = Tries::new(self.totals.relayed);
        slot.state = State::Queued { not_before: None };
        self.totals.acknowledge();
        self.check();
    }

    /// A payload was acknowledged that could not be kept.
    pub fn acknowledge_lost(&mut self, loss: Loss) {
        self.totals.acknowledge();
        self.totals.lose(loss);
        self.check();
    }

    /// A payload was acknowledged that is not to be sent.
    pub fn acknowledge_left_out(&mut self, why: LeftOut) {
        self.totals.leave_out(why);
        self.check();
    }

    /// The oldest payload that may be sent at `now`.
    #[must_use]
    pub fn ready(&self, now: Instant) -> Option<PayloadId> {
        self.oldest(Some(now))
    }

    /// The payload to find out with at `now` whether the remote is back: one that failed least often, and the oldest
    /// of those. What the remote chokes on does not keep the others from being tried.
    #[must_use]
    pub fn ready_for_probe(&self, now: Instant) -> Option<PayloadId> {
        self.first(Some(now), true)
    }

    /// When the next payload that waits for a time after `now` may be sent.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let times = self.slots.iter().filter_map(|slot| match slot.state {
            State::Queued { not_before } => not_before.filter(|at| *at > now),
            _ => None,
        });
        times.min()
    }

    /// Makes the times in a payload unique, and gives it these labels, once. Without room for the few bytes that this takes
    /// it stays as it is.
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

    /// The target of a payload as it is without labels of the settings.
    pub fn keep_target(&mut self, id: PayloadId, target: Vec<u8>) {
        self.slots[id.slot].payload.plain_target = target;
    }

    /// Takes the settings' labels away from a payload. Whether there were any.
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

    /// A payload being sent may have reached the remote: to send it once more is to send it again.
    pub fn was_sent(&mut self, id: PayloadId) {
        self.slots[id.slot].payload.was_sent = true;
    }

    /// The remote was not reached after all: a payload being sent was not sent again.
    pub fn was_not_sent(&mut self, id: PayloadId) {
        self.totals.resent -= u64::from(self.slots[id.slot].payload.was_sent);
    }

    /// `Sending` → `Queued`, not to be sent before `not_before`.
    pub fn retry(&mut self, id: PayloadId, not_before: Option<Instant>) {
        self.slots[id.slot].state = State::Queued { not_before };
        self.check();
    }

    /// An attempt to send it failed. It counts only if another payload was relayed since the last one failed, or since
    /// this one was committed: as long as nothing gets through, the payload is not to blame.
    pub fn fail_attempt(&mut self, id: PayloadId) -> Failed {
        let relayed = self.totals.relayed;
        self.slots[id.slot].payload.tries.fail(relayed)
    }

    /// Whether it may still be sent again once for nothing, because a freeze killed its connection.
    #[must_use]
    pub fn has_free_resend(&self, id: PayloadId) -> bool {
        self.slots[id.slot].payload.tries.has_free_resend()
    }

    /// Uses that up: `true` once per payload.
    pub fn takes_free_resend(&mut self, id: PayloadId) -> bool {
        self.slots[id.slot].payload.tries.takes_free_resend()
    }

    /// The remote took it.
    pub fn relayed(&mut self, id: PayloadId) {
        self.totals.relay(self.slots[id.slot].payload.body_bytes());
        self.free(id);
        self.check();
    }

    /// It will not arrive.
    pub fn lost(&mut self, id: PayloadId, loss: Loss) {
        self.totals.lose(loss);
        self.free(id);
        self.check();
    }

    /// We leave: all that is acknowledged and still here is lost.
    pub fn lose_all(&mut self, loss: Loss) {
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

    /// Payloads acknowledged and not yet relayed or lost.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.slots
            .iter()
            .filter(|s| matches!(s.state, State::Queued { .. } | State::Sending))
            .count()
    }

    /// Tells the payloads there are from those that come later, for [`Ring::moves_before`].
    #[must_use]
    pub const fn mark(&self) -> u64 {
        self.next_sequence
    }

    /// Whether a payload from before `mark` is being sent, or may be by the time `soon`.
    #[must_use]
    pub fn moves_before(&self, mark: u64, soon: Instant) -> bool {
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
    pub fn fills_before(&self, mark: u64) -> bool {
        let is_filling = |slot: &Slot| matches!(slot.state, State::Filling { .. });
        self.slots
            .iter()
            .any(|slot| slot.sequence < mark && is_filling(slot))
    }

    /// Whether no slot is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(|s| s.state == State::Free)
    }

    /// Whether [`Ring::trim`] would give anything back.
    #[must_use]
    pub const fn has_spares(&self) -> bool {
        self.buffers.has_spares()
    }

    /// Gives spare memory back to the system.
    pub fn trim(&mut self) {
        self.buffers.trim();
    }

    /// There is little time left: no payload waits any more.
    pub fn clear_pauses(&mut self) {
        for slot in &mut self.slots {
            if let State::Queued { not_before } = &mut slot.state {
                *not_before = None;
            }
        }
    }

    /// Frozen time does not count: whatever a payload waits for is that much later on the clock.
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

    /// The oldest queued payload; with a time, of those that may be sent by then.
    fn oldest(&self, by: Option<Instant>) -> Option<PayloadId> {
        self.first(by, false)
    }

    /// The same, but first by tries if so wanted.
    fn first(&self, by: Option<Instant>, ranks_tries: bool) -> Option<PayloadId> {
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

    fn free_slot(&mut self) -> Result<usize, Full> {
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
        self.push_out().map(|id| id.slot)
    }

    /// Makes one payload give way: one that nobody was told we have, if it takes too long, else the oldest queued.
    fn push_out(&mut self) -> Result<PayloadId, Full> {
        let slow = self.slots.iter().position(|slot| self.is_slow(slot));
        if let Some(slot) = slow {
            let sequence = self.slots[slot].sequence;
            let id = PayloadId { sequence, slot };
            self.abandon(id);
            return Ok(id);
        }
        let oldest = self.oldest(None).ok_or(Full)?;
        self.lost(oldest, Loss::Full);
        Ok(oldest)
    }

    fn is_slow(&self, slot: &Slot) -> bool {
        match (slot.state, self.now) {
            (State::Filling { since: Some(since) }, Some(now)) => {
                now.saturating_duration_since(since) >= FILLING_MAX
            }
            _ => false,
        }
    }

    /// A spare buffer of about `whole` bytes, which takes no memory that is not taken, or a new one of `first`.
    fn take_buffer(&mut self, whole: usize, first: usize) -> Result<Vec<u8>, Full> {
        if let Some(spare) = self.buffers.take_spare(whole) {
            return Ok(spare);
        }
        self.make_room(cost(pages(first)))?;
        Ok(self.buffers.take_new(first))
    }

    /// Makes `bytes` more fit: spare buffers go first, then the oldest queued payloads. Nothing goes in vain.
    fn make_room(&mut self, bytes: usize) -> Result<(), Full> {
        while !self.buffers.make_room(bytes) {
            if !self.fits_beside_what_stays(bytes) {
                return Err(Full);
            }
            self.push_out()?;
        }
        Ok(())
    }

    /// Whether `bytes` more fit once all have given way that may.
    fn fits_beside_what_stays(&self, bytes: usize) -> bool {
        let stay = self
            .slots
            .iter()
            .filter(|slot| !matches!(slot.state, State::Queued { .. }) && !self.is_slow(slot));
        stay.map(|slot| cost(slot.payload.buffer.len()))
            .sum::<usize>()
            + bytes
            <= self.bytes_max()
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
mod tests {
    use std::time::Duration;

    use super::*;

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\n";

    fn shape(length: Option<usize>) -> Shape {
        Shape {
            length,
            has_body: true,
            to_head_request: false,
            change: None,
        }
    }

    fn fill(ring: &mut Ring, body: &[u8], length: Option<usize>) -> Result<PayloadId, Full> {
        let id = ring.open(HEAD, shape(length))?;
        let mut rest = body;
        while !rest.is_empty() {
            let space = ring.space(id).unwrap();
            let n = space.len().min(rest.len()).min(1000);
            space[..n].copy_from_slice(&rest[..n]);
            ring.filled(id, n);
            rest = &rest[n..];
        }
        Ok(id)
    }

    fn put(ring: &mut Ring, body: &[u8]) -> PayloadId {
        let id = fill(ring, body, Some(body.len())).unwrap();
        ring.commit(id);
        id
    }

    #[test]
    fn a_slow_payload_that_grows_may_have_to_give_way_itself() {
        let now = Instant::now();
        let mut ring = Ring::new(100 * 1024);
        ring.tick(now);
        let slow = ring.open(HEAD, shape(None)).unwrap();
        let n = ring.space(slow).unwrap().len();
        ring.filled(slow, n);
        put(&mut ring, &vec![0; 64 * 1024]);
        ring.tick(now + Duration::from_secs(11));
        assert_eq!(ring.space(slow), Err(NoSpace::Full));
        assert_eq!(ring.in_hand(), 1, "what was acknowledged stays");
        ring.lose_all(Loss::Shutdown);
        assert_eq!(
            ring.buffers.bytes_used(),
            0,
            "and nothing is held for nobody"
        );
    }

    /// A pprof of that length which has this time, in whole seconds.
    fn pprof(length: usize, seconds: u64) -> Vec<u8> {
        let time = times::protobuf::time_field(seconds * 1_000_000_000);
        let padding = length - time.len() - 3;
        let mut body = vec![6 << 3 | 2, padding as u8 | 0x80, (padding >> 7) as u8];
        body.resize(3 + padding, b'x');
        body.extend_from_slice(&time);
        body
    }

    /// A body that fills its last page grows by one, if the byte limit allows that; nothing gives way for it.
    #[test]
    fn a_body_grows_into_what_room_there_is() {
        let body = pprof(2 * PAGE - HEAD.len() - GAP, 1_800_000_000);
        let stamp = times::Stamp {
            session: 1,
            received_ms: 1_800_000_000_000,
            thaw: None,
        };
        for (room, grows) in [(3 * PAGE, true), (2 * PAGE, false)] {
            let mut ring = Ring::new(cost(PAGE) + cost(room));
            put(&mut ring, b"waits");
            let shape = Shape {
                change: Some((times::Form::Pprof, Some(stamp))),
                ..shape(Some(body.len()))
            };
            let id = ring.open(HEAD, shape).unwrap();
            ring.space(id).unwrap()[..body.len()].copy_from_slice(&body);
            ring.filled(id, body.len());
            ring.commit(id);
            for _ in 0..2 {
                ring.change_body(id, &Labels::new());
                let [head, sent] = ring.request(id);
                let length = format!("Content-Length: {}\r\n\r\n", sent.len());
                assert!(head.ends_with(length.as_bytes()));
                assert!(sent.starts_with(&body));
                assert_eq!(sent.len() - body.len(), if grows { 10 } else { 0 });
            }
            assert_eq!(ring.in_hand(), 2, "nothing gave way");
        }
    }

    #[test]
    fn a_payload_comes_out_as_it_went_in() {
        let mut ring = Ring::new(16 << 20);
        let body: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
        for length in [Some(body.len()), None] {
            let id = fill(&mut ring, &body, length).unwrap();
            ring.commit(id);
            let [head, sent] = ring.request(id);
            assert_eq!(head, b"POST / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n");
            assert!(sent == body);
            ring.start(id);
            ring.relayed(id);
        }
        assert_eq!(
            (ring.totals().relayed, ring.totals().relayed_bytes),
            (2, 600_000)
        );
        assert!(ring.is_empty());
    }

    #[test]
    fn a_request_without_a_body_says_no_length() {
        let mut ring = Ring::new(1 << 20);
        let id = ring
            .open(
                HEAD,
                Shape {
                    length: Some(0),
                    has_body: false,
                    to_head_request: true,
                    change: None,
                },
            )
            .unwrap();
        ring.commit(id);
        assert_eq!(ring.request(id), [&b"POST / HTTP/1.1\r\n\r\n"[..], b""]);
        assert!(ring.to_head_request(id));
    }

    #[test]
    fn the_oldest_queued_gives_way_when_slots_are_full() {
        let mut ring = Ring::new(16 << 20);
        let first = put(&mut ring, b"first");
        ring.start(first);
        for _ in 1..SLOTS {
            put(&mut ring, b"more");
        }
        let newest = put(&mut ring, b"newest");
        assert_eq!(ring.totals().lost[Loss::Full as usize], 1);
        assert_eq!(ring.request(first)[1], b"first", "what is being sent stays");
        assert_eq!(ring.request(newest)[1], b"newest");
        assert_eq!(ring.in_hand(), SLOTS);
    }

    #[test]
    fn the_oldest_queued_gives_way_when_bytes_are_full() {
        let mut ring = Ring::new(1 << 20);
        let body = vec![7; 200_000];
        let mut ids = Vec::new();
        for _ in 0..8 {
            ids.push(put(&mut ring, &body));
        }
        let lost = ring.totals().lost[Loss::Full as usize];
        assert_eq!(ring.in_hand() as u64 + lost, 8);
        assert_eq!(ring.in_hand(), 5, "five of 200 KB fit a MiB");
        assert_eq!(
            ring.ready(Instant::now()),
            Some(ids[3]),
            "the three oldest are gone"
        );
    }

    #[test]
    fn nothing_gives_way_to_what_cannot_fit() {
        let mut ring = Ring::new(100_000);
        assert!(!ring.could_hold(HEAD.len(), 100_000));
        assert!(!ring.could_hold(HEAD.len(), u64::MAX));
        assert!(ring.could_hold(HEAD.len(), 90_000));
        let id = ring.open(HEAD, shape(None)).unwrap();
        let refused = loop {
            match ring.space(id) {
                Ok(space) => {
                    let n = space.len();
                    ring.filled(id, n);
                }
                Err(full) => break full,
            }
        };
        assert_eq!(refused, NoSpace::TooLarge);
        ring.abandon(id);
        assert_eq!(
            *ring.totals(),
            Totals {
                high_water_bytes: ring.totals().high_water_bytes,
                ..Totals::default()
            }
        );
    }

    /// Two pages are kept back: to round a buffer up, and for where the allocator begins it.
    #[test]
    fn a_body_that_could_be_held_is_held_and_two_pages_are_left() {
        const MAX: usize = 1 << 20;
        for head_bytes in [1, 100, 4000] {
            let head = vec![b'h'; head_bytes];
            let most = MAX - head.len() - GAP - 2 * PAGE;
            let mut ring = Ring::new(MAX);
            assert!(ring.could_hold(head.len(), most as u64));
            assert!(!ring.could_hold(head.len(), most as u64 + 1));
            assert!(!ring.could_hold(head.len(), u64::MAX));
            let id = ring.open(&head, shape(Some(most))).unwrap();
            let mut left = most;
            while left > 0 {
                let n = ring.space(id).unwrap().len();
                ring.filled(id, n);
                left -= n;
            }
            ring.commit(id);
            assert_eq!(ring.request(id)[1].len(), most);
        }
    }

    #[test]
    fn who_announces_much_and_sends_little_holds_little() {
        for (length, first) in [
            (Some(1), 1),
            (Some(64 * 1024), 64 * 1024),
            (Some(8 << 20), 64 * 1024),
            (None, 16 * 1024),
        ] {
            let mut ring = Ring::new(16 << 20);
            ring.open(HEAD, shape(length)).unwrap();
            let used = ring.buffers.bytes_used();
            assert_eq!(used, cost(pages(HEAD.len() + GAP + first)), "{length:?}");
        }
    }

    #[test]
    fn nothing_goes_in_vain_for_an_announced_length() {
        let mut ring = Ring::new(1 << 20);
        let sending = put(&mut ring, &vec![1; 700_000]);
        ring.start(sending);
        for _ in 0..10 {
            put(&mut ring, &vec![2; 10_000]);
        }
        assert_eq!(ring.open(HEAD, shape(Some(600_000))), Err(Full));
        assert_eq!(ring.totals().lost_sum(), 0);
    }

    #[test]
    fn nothing_goes_in_vain() {
        let mut ring = Ring::new(1 << 20);
        let sending = put(&mut ring, &vec![1; 500_000]);
        ring.start(sending);
        put(&mut ring, &vec![2; 100_000]);
        assert_eq!(
            ring.open(HEAD, shape(None))
                .map(|id| ring.slots[id.slot].state),
            Ok(State::Filling { since: None })
        );
        let filling = PayloadId {
            sequence: 2,
            slot: 2,
        };
        let refused = loop {
            match ring.space(filling) {
                Ok(space) => {
                    let n = space.len();
                    ring.filled(filling, n);
                }
                Err(no) => break no,
            }
        };
        assert_eq!((refused, ring.totals().lost_sum()), (NoSpace::Full, 0));
    }

    #[test]
    fn a_slow_payload_does_not_block_its_neighbours() {
        let mut ring = Ring::new(1 << 20);
        let slow = put(&mut ring, b"slow");
        ring.start(slow);
        for _ in 0..3 * SLOTS {
            let id = put(&mut ring, b"quick");
            ring.start(id);
            ring.relayed(id);
        }
        assert_eq!(ring.totals().relayed, 3 * SLOTS as u64);
        assert_eq!(ring.totals().lost_sum(), 0);
        assert_eq!(ring.request(slow)[1], b"slow");
    }

    #[test]
    fn what_is_due_moves_or_is_filled_is_known_by_age_and_time() {
        let mut ring = Ring::new(1 << 20);
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let old = put(&mut ring, b"old");
        assert!(!ring.moves_before(0, now), "it is no older than that");
        assert!(ring.moves_before(ring.mark(), now));
        ring.start(old);
        ring.retry(old, Some(later));
        assert_eq!(
            (ring.next_due(now), ring.next_due(later)),
            (Some(later), None)
        );
        for (soon, moves) in [(now, false), (later, true)] {
            assert_eq!(ring.moves_before(ring.mark(), soon), moves);
        }
        let mark = ring.mark();
        assert!(!ring.fills_before(mark), "it is full");
        let new = ring.open(HEAD, shape(Some(1))).unwrap();
        assert!(!ring.fills_before(mark), "it is no older than that");
        assert!(ring.fills_before(ring.mark()));
        ring.abandon(new);
        assert!(!ring.fills_before(ring.mark()));
    }

    #[test]
    fn a_body_that_is_whole_needs_no_more_space() {
        let mut ring = Ring::new(1 << 20);
        // Up to the end of its buffer, too.
        for length in [10, 2 * PAGE - HEAD.len() - GAP] {
            let id = fill(&mut ring, &vec![7; length], Some(length)).unwrap();
            assert_eq!(ring.space(id).map(|space| space.len()), Ok(0));
        }
    }

    #[test]
    fn the_most_that_was_held_at_once_is_remembered() {
        let mut ring = Ring::new(1 << 20);
        put(&mut ring, &vec![1; 100_000]);
        let most = ring.totals().high_water_bytes;
        assert_eq!(most, ring.buffers.bytes_used());
        ring.lose_all(Loss::Shutdown);
        put(&mut ring, &[1; 10]);
        assert_eq!(ring.totals().high_water_bytes, most);
    }

    #[test]
    fn retries_wait_and_keep_their_age() {
        let mut ring = Ring::new(1 << 20);
        let now = Instant::now();
        let (old, new) = (put(&mut ring, b"old"), put(&mut ring, b"new"));
        ring.start(old);
        ring.retry(old, Some(now + Duration::from_secs(1)));
        assert_eq!(ring.ready(now), Some(new));
        assert_eq!(ring.next_due(now), Some(now + Duration::from_secs(1)));
        ring.thawed(Duration::from_secs(9));
        assert_eq!(ring.next_due(now), Some(now + Duration::from_secs(10)));
        assert_eq!(ring.ready(now + Duration::from_secs(10)), Some(old));
    }

    #[test]
    fn a_failed_attempt_counts_only_if_another_payload_got_through_since() {
        let mut ring = Ring::new(1 << 20);
        let relay_one = |ring: &mut Ring| {
            let id = put(ring, b"other");
            ring.start(id);
            ring.relayed(id);
        };
        let failed = |tries, attempts| Failed { tries, attempts };
        relay_one(&mut ring);
        let id = put(&mut ring, b"body");
        ring.start(id);
        assert_eq!(ring.fail_attempt(id), failed(1, 0), "none since it came");
        ring.retry(id, None);
        relay_one(&mut ring);
        relay_one(&mut ring);
        ring.start(id);
        assert_eq!(ring.fail_attempt(id), failed(2, 1));
        assert_eq!(ring.fail_attempt(id), failed(3, 1), "none since the last");
        relay_one(&mut ring);
        assert_eq!(ring.fail_attempt(id), failed(4, 2));
        for _ in 0..300 {
            relay_one(&mut ring);
            ring.fail_attempt(id);
        }
        assert_eq!(ring.fail_attempt(id), failed(255, 255), "and no overflow");
    }

    #[test]
    fn a_payload_has_one_free_resend() {
        let mut ring = Ring::new(1 << 20);
        for body in ["one", "in the same slot"] {
            let id = put(&mut ring, body.as_bytes());
            assert!(ring.has_free_resend(id));
            ring.start(id);
            ring.fail_attempt(id);
            assert!(ring.takes_free_resend(id));
            ring.retry(id, None);
            assert!(!ring.has_free_resend(id) && !ring.takes_free_resend(id));
            ring.start(id);
            ring.relayed(id);
        }
    }

    #[test]
    fn a_probe_takes_what_failed_least_often_and_the_oldest_of_those() {
        let mut ring = Ring::new(1 << 20);
        let now = Instant::now();
        assert_eq!(ring.ready_for_probe(now), None);
        let ids = [(); 3].map(|()| put(&mut ring, b"body"));
        let mut probed = Vec::new();
        for _ in 0..7 {
            let id = ring.ready_for_probe(now).unwrap();
            probed.push(ids.iter().position(|other| *other == id).unwrap());
            ring.start(id);
            ring.fail_attempt(id);
            ring.retry(id, None);
            assert_eq!(ring.ready(now), Some(ids[0]), "not so while it is up");
        }
        assert_eq!(probed, [0, 1, 2, 0, 1, 2, 0]);
        ring.start(ids[1]);
        ring.retry(ids[2], Some(now + Duration::from_secs(1)));
        assert_eq!(ring.ready_for_probe(now), Some(ids[0]), "one, for want");
        let later = now + Duration::from_secs(1);
        assert_eq!(ring.ready_for_probe(later), Some(ids[2]));
    }

    #[test]
    fn spare_buffers_are_reused_bounded_and_given_back() {
        let mut ring = Ring::new(1 << 20);
        let id = put(&mut ring, &[1; 2000]);
        ring.start(id);
        ring.relayed(id);
        assert!(ring.has_spares());
        put(&mut ring, &[2; 2000]);
        assert!(!ring.has_spares(), "the spare one was taken");
        ring.lose_all(Loss::Shutdown);
        assert_eq!(ring.totals().lost[Loss::Shutdown as usize], 1);
        ring.trim();
        assert!(!ring.has_spares());

        // What grew to its size once serves the next of that size at once.
        let large = vec![3; 400_000];
        let id = put(&mut ring, &large);
        ring.start(id);
        ring.relayed(id);
        let shape = Shape {
            length: Some(large.len()),
            has_body: true,
            to_head_request: false,
            change: None,
        };
        let id = ring.open(b"POST / HTTP/1.1\r\n", shape).unwrap();
        assert_eq!(ring.space(id).map(|space| space.len()), Ok(large.len()));
    }
}
