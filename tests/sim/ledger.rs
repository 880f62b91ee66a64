//! The shadow model: what must have become of every payload, kept without looking into the core.
//!
//! Where even an outsider who sees every byte cannot know (an attempt that died before it was seen, a connection
//! that may have been frozen), it keeps the least and the most that can be. All times by the monotonic clock, in
//! microseconds.

use std::collections::BTreeMap;

use pyroscope_lambda_extension::contract::ConnId;
use pyroscope_lambda_extension::relay::ring::Loss;

use super::world::World;

/// Times of the core have nanoseconds.
const SLACK: u64 = 2;

/// A sleep ends with the microsecond.
const SLEEP_SLACK: u64 = 10;

const ATTEMPTS_MAX: u64 = 5;
const RETRY_PAUSE: u64 = 200_000;
/// Payloads at once.
const SLOTS: usize = 256;

const HOLD_PAUSE_MAX: u64 = 1_000_000;
const RETRY_AFTER_MAX: u64 = 30;

/// Three failures in a row are down; the second pause of a backend that is down is not shorter than this.
const BROKEN_IN_A_ROW: u64 = 3;
const PROBE_PAUSE_MIN: u64 = 150_000;
const PROBE_PAUSE_MAX: u64 = 2_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Not answered yet.
    Open,
    Waiting,
    Sending,
    Relayed,
    Refused,
    /// Tried as often as we try.
    Spent,
    /// Spent, or waiting: nobody outside knows.
    MaybeSpent,
    /// Answered 200, and lost because there is no usable address.
    Unusable,
}

/// What became of one attempt that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A status, and the pause it asks for in seconds.
    Answered(u16, Option<u64>),
    Broken,
    /// Dead before it was used, which counts for nothing.
    Stale,
    /// One of these two.
    BrokenOrStale,
    /// Not a byte of it was written.
    Unsent,
}

/// The least and the most that can be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    pub least: u64,
    pub most: u64,
}

pub struct Payload {
    /// The request as the remote must see it, byte for byte.
    pub request: Vec<u8>,
    pub to_head: bool,
    /// Most room that the ring may take for it, and whether it may have been given some.
    pub room_most: usize,
    came: bool,
    /// Place in the order of heads, where that is known.
    pub place: Option<u64>,
    pub acknowledged: Option<u64>,
    fate: Fate,
    attempts: Range,
    not_before: Range,
    was_sent: bool,
}

/// What the next event is held back for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nothing: it is asked for at once.
    Nothing,
    /// What was there when the INVOKE came.
    Queued,
    /// The invocation, and everything.
    Running(u64),
}

/// A hold: the next event is not to be asked for.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    pub why: Why,
    /// Heads from here on are none of its business.
    mark: u64,
    pub since: u64,
    pub until: u64,
}

/// What can be known of the backend from outside.
#[derive(Debug, Default)]
struct Backend {
    /// It surely counts as down.
    down: bool,
    maybe_down: bool,
    broken: Range,
    /// Turns of the last outcomes of each kind: where both come in one turn, their order is unknown.
    reached: u64,
    failed: u64,
    probe_not_before: u64,
}

#[derive(Default)]
pub struct Ledger {
    pub payloads: Vec<Payload>,
    places: u64,
    /// How many payloads have each fate, but for those still open.
    fates: BTreeMap<Fate, u64>,
    acknowledged: u64,
    resent: u64,
    /// What went out in this turn, and when it was given to its connection.
    begun: Vec<(usize, (u64, u64))>,
    pub hold: Option<Hold>,
    backend: Backend,
    /// Most payloads there were at once, and the most room they may have taken.
    slots_high: usize,
    room_high: usize,
    /// Whether a payload ever gave way, or found no room.
    gave_way: bool,
    /// Since when something could be tried, and nothing is.
    idle_since: Option<u64>,
}

impl Payload {
    pub const fn of(request: Vec<u8>, to_head: bool) -> Self {
        Self {
            request,
            to_head,
            room_most: 0,
            came: false,
            place: None,
            acknowledged: None,
            fate: Fate::Open,
            attempts: Range { least: 0, most: 0 },
            not_before: Range { least: 0, most: 0 },
            was_sent: false,
        }
    }
}

impl Ledger {
    pub fn thawed(&mut self, frozen: u64) {
        for payload in &mut self.payloads {
            if payload.not_before.most > 0 {
                payload.not_before.least += frozen;
                payload.not_before.most += frozen;
            }
        }
        self.backend.probe_not_before += frozen;
        self.idle_since = self.idle_since.map(|since| since + frozen);
    }

    /// No pause is waited for any more, from `now` on.
    pub fn hastened(&mut self, now: u64) {
        for payload in &mut self.payloads {
            payload.not_before.least = 0;
            payload.not_before.most = payload.not_before.most.min(now);
        }
        self.backend.probe_not_before = 0;
        self.hold = None;
    }

    /// A head came: its payload has its place in the order, unless that cannot be known.
    pub fn head_came(&mut self, payload: usize, known: bool) {
        self.places += 1;
        self.payloads[payload].came = true;
        self.payloads[payload].place = known.then_some(self.places);
        let in_hand = |payload: &&Payload| {
            use Fate::{MaybeSpent, Open, Sending, Waiting};
            payload.came && matches!(payload.fate, Open | Waiting | Sending | MaybeSpent)
        };
        let all = self.payloads.iter().filter(in_hand);
        let (slots, room) = all.fold((0, 0), |(slots, room), payload| {
            (slots + 1, room + payload.room_most)
        });
        self.slots_high = self.slots_high.max(slots);
        self.room_high = self.room_high.max(room);
    }

    pub const fn held(&mut self, why: Why, since: u64, until: u64) {
        let mark = u64::MAX;
        self.hold = Some(Hold {
            why,
            mark,
            since,
            until,
        });
    }

    /// All that came in this turn is known: what the hold is for was there when the core looked.
    pub const fn settle_hold(&mut self) {
        if let Some(hold) = &mut self.hold
            && hold.mark == u64::MAX
        {
            hold.mark = self.places + 1;
        }
    }

    fn fated(&self, fate: Fate) -> u64 {
        self.fates.get(&fate).copied().unwrap_or(0)
    }

    fn set_fate(&mut self, payload: usize, fate: Fate) {
        let before = std::mem::replace(&mut self.payloads[payload].fate, fate);
        if before != Fate::Open {
            *self.fates.get_mut(&before).unwrap() -= 1;
        }
        *self.fates.entry(fate).or_default() += 1;
    }

    fn count(&self, is: impl Fn(&Payload) -> bool) -> u64 {
        self.payloads.iter().filter(|payload| is(payload)).count() as u64
    }

    /// Those from before that place which wait and may be sent at that time, or are being sent.
    fn moving(&self, mark: u64, soon: u64, surely: bool) -> u64 {
        self.count(|payload| {
            let place = payload.place.unwrap_or(if surely { u64::MAX } else { 0 });
            let range = payload.not_before;
            (place < mark || mark == u64::MAX)
                && match payload.fate {
                    Fate::Sending => true,
                    Fate::Waiting => (if surely { range.most } else { range.least }) <= soon,
                    Fate::MaybeSpent => !surely,
                    _ => false,
                }
        })
    }
}

impl Backend {
    fn reached(&mut self, turn: u64) {
        self.reached = turn;
        self.down = false;
        self.broken.least = 0;
        if self.failed != turn {
            self.maybe_down = false;
            self.broken.most = 0;
        }
    }

    fn unreached(&mut self, turn: u64, surely: bool) {
        self.failed = turn;
        self.maybe_down = true;
        self.down |= surely && self.reached != turn;
    }

    fn broke(&mut self, turn: u64, surely: bool) {
        self.failed = turn;
        self.broken.most += 1;
        self.broken.least += u64::from(surely && self.reached != turn);
        if self.broken.most >= BROKEN_IN_A_ROW || self.maybe_down {
            self.unreached(turn, self.broken.least >= BROKEN_IN_A_ROW);
        }
    }
}

impl World {
    /// A client has its 200.
    pub fn acknowledged(&mut self, payload: usize) {
        let turn = self.turn;
        self.tell(|| format!("payload {payload} is acknowledged"));
        let fate = if self.set.usable {
            Fate::Waiting
        } else {
            Fate::Unusable
        };
        self.ledger.payloads[payload].acknowledged = Some(turn);
        self.ledger.acknowledged += 1;
        self.ledger.set_fate(payload, fate);
    }

    /// The first byte of an attempt is written. `since`: when it was given to that connection, where that is known.
    pub fn begins(&mut self, at: usize, id: ConnId, since: Option<(u64, u64)>, new: bool) {
        self.tell(|| format!("payload {at} goes out on {id:?}"));
        let now = self.clock.mono();
        let Some(payload) = self.ledger.payloads.get(at) else {
            self.fail("a payload nobody sent");
        };
        let (fate, not_before) = (payload.fate, payload.not_before);
        if !matches!(fate, Fate::Waiting | Fate::MaybeSpent) {
            self.fail(format!("payload {at} goes out, but is {fate:?}"));
        }
        let when = since.map_or(now, |(_, mono)| mono);
        if when + SLACK < not_before.least {
            let early = (not_before.least - when) / 1000;
            self.fail(format!("payload {at} goes out {early} ms early"));
        }
        if let Some(since) = since.filter(|_| !new || self.set.workers == 1) {
            self.ledger.begun.push((at, since));
        }
        self.ledger.set_fate(at, Fate::Sending);
        let again = self.ledger.payloads[at].was_sent;
        self.ledger.resent += u64::from(again);
        if again {
            self.note("sent again");
        }
    }

    /// The oldest that may be sent goes first: of those begun in this turn, none before one that still waits.
    ///
    /// A connection that took time to make was given its payload before others came; only with one worker is it
    /// sure that nothing else was given away meanwhile.
    fn check_order(&mut self) {
        for (at, (turn, mono)) in std::mem::take(&mut self.ledger.begun) {
            let Some(place) = self.ledger.payloads[at].place else {
                continue;
            };
            let older = self.ledger.count(|payload| {
                payload.fate == Fate::Waiting
                    && payload.place.is_some_and(|own| own < place)
                    && payload.acknowledged.is_some_and(|then| then <= turn)
                    && payload.not_before.most <= mono
            });
            // What is given to connections still being made cannot be seen, nor what gave way.
            let hidden = self.remote.connecting() + self.relay.totals().lost[Loss::Full as usize];
            if older > hidden && !self.remote.is_looking_up() {
                self.fail(format!("payload {at} goes out before {older} older ones"));
            }
            self.note("order checked");
        }
    }

    /// An attempt that was seen is over.
    pub fn concludes(&mut self, at: usize, outcome: Outcome) {
        self.tell(|| format!("payload {at}: {outcome:?}"));
        let (now, turn) = (self.clock.mono(), self.turn);
        let ledger = &mut self.ledger;
        if outcome == Outcome::Unsent {
            ledger.resent -= u64::from(ledger.payloads[at].was_sent);
            ledger.payloads[at].not_before = Range::default();
            ledger.set_fate(at, Fate::Waiting);
            return self.note("nothing sent");
        }
        ledger.payloads[at].was_sent = true;
        let (surely, pause) = match outcome {
            Outcome::Answered(200..=299, _) => {
                ledger.backend.reached(turn);
                return ledger.set_fate(at, Fate::Relayed);
            }
            Outcome::Answered(408 | 429 | 500 | 502 | 503 | 504, pause) => (true, pause),
            Outcome::Answered(..) => {
                ledger.backend.reached(turn);
                ledger.set_fate(at, Fate::Refused);
                return self.note("refused");
            }
            Outcome::Stale => {
                ledger.payloads[at].not_before = Range::default();
                ledger.set_fate(at, Fate::Waiting);
                return self.note("stale, sent again at once");
            }
            Outcome::Broken => (true, None),
            Outcome::BrokenOrStale | Outcome::Unsent => (false, None),
        };
        ledger.backend.broke(turn, surely);
        let payload = &mut ledger.payloads[at];
        payload.attempts.least += u64::from(surely);
        payload.attempts.most += 1;
        let attempts = payload.attempts;
        let pause = pause.map(|pause| pause.min(RETRY_AFTER_MAX) * 1_000_000);
        let backoff = |attempts: u64| RETRY_PAUSE << (attempts.max(1) - 1);
        let least = pause.unwrap_or(backoff(attempts.least) * 3 / 4);
        payload.not_before = Range {
            least: if surely { now + least } else { now },
            most: now + pause.unwrap_or(backoff(attempts.most)) + SLACK,
        };
        let fate = match (attempts.least, attempts.most) {
            (ATTEMPTS_MAX.., _) => Fate::Spent,
            (_, ATTEMPTS_MAX..) => Fate::MaybeSpent,
            _ => Fate::Waiting,
        };
        ledger.set_fate(at, fate);
        match pause {
            Some(30_000_000) => self.note("Retry-After cut to 30 s"),
            Some(_) => self.note("Retry-After"),
            None => {}
        }
    }

    /// The remote could not be reached, or perhaps it could be at another address.
    pub fn unreached(&mut self, surely: bool) {
        let turn = self.turn;
        self.ledger.backend.unreached(turn, surely);
        if surely {
            self.note("backend down");
        }
    }

    /// An attempt begins, or a connection is asked for: one at a time while the backend is down, and with pauses.
    /// Whether it is such a probe.
    pub fn probes(&mut self, busy: u64) -> bool {
        let backend = &self.ledger.backend;
        if !backend.down {
            return false;
        }
        let now = self.clock.mono();
        if now + SLACK < backend.probe_not_before {
            self.fail("a backend that is down is tried again too soon");
        }
        self.require(busy == 0, "a backend that is down is tried more than once");
        self.note("probe");
        true
    }

    /// A probe did not reach it.
    pub fn probe_failed(&mut self) {
        let now = self.clock.mono();
        if self.ledger.backend.down {
            self.ledger.backend.probe_not_before = now + PROBE_PAUSE_MIN;
        }
    }

    /// What may be sent is sent while there is a worker left for it, and a backend that is down is tried again.
    fn check_work(&mut self) {
        let (now, busy) = (self.clock.mono(), self.remote.busy());
        // Among them may be what gave way, and what waits for a connection that is being made.
        let lost = self.relay.totals().lost[Loss::Full as usize] + self.remote.connecting();
        let ready = |payload: &Payload| {
            payload.fate == Fate::Waiting && payload.not_before.most + SLACK < now
        };
        let waits = self.ledger.fated(Fate::Waiting) > lost && self.ledger.count(ready) > lost;
        if !waits || busy > 0 || self.remote.is_looking_up() {
            self.ledger.idle_since = None;
        } else {
            let since = *self.ledger.idle_since.get_or_insert(now);
            self.require(
                now <= since + PROBE_PAUSE_MAX + SLACK,
                "nothing is tried any more",
            );
        }
        let backend = &self.ledger.backend;
        let free = busy == 0 || busy < self.set.workers as u64 && backend.reached > 0;
        let well = !backend.maybe_down && !self.remote.is_looking_up();
        self.require(!(waits && free && well), "a payload waits for nothing");
    }

    /// The core is going to sleep for so long: not beyond the time when a payload may be sent.
    pub fn check_sleep(&self, time: u64) {
        let ledger = &self.ledger;
        let free = self.remote.busy() < self.set.workers as u64 && self.remote.connecting() == 0;
        let well = !ledger.backend.maybe_down && !self.remote.is_looking_up();
        if !free || !well || ledger.gave_way || ledger.fated(Fate::Waiting) == 0 {
            return;
        }
        let now = self.clock.mono();
        let waiting = ledger
            .payloads
            .iter()
            .filter(|own| own.fate == Fate::Waiting);
        let due = waiting
            .map(|own| own.not_before.most)
            .filter(|at| *at > now);
        let late = due.min().is_some_and(|at| now + time > at + SLEEP_SLACK);
        self.require(!late, "it sleeps through the time of a payload");
    }

    /// The next event is asked for: nothing may be left to hold it back for.
    pub fn check_asking(&mut self) {
        self.check_subscribing();
        let Some(hold) = self.ledger.hold.take() else {
            return;
        };
        let now = self.clock.mono();
        let until = self.telemetry.until(&hold);
        let maybe_down = self.ledger.backend.maybe_down || self.remote.is_looking_up();
        if now >= until {
            self.hold_ran_out(&hold);
        } else if !maybe_down && now + SLACK < until {
            self.require(
                !self.telemetry.is_running(&hold),
                "asked for while the function runs",
            );
            // What gave way may be among them.
            let lost = self.relay.totals().lost[Loss::Full as usize];
            let moving = self.moving(&hold, true);
            if moving > lost {
                self.fail(format!(
                    "next is asked for while {moving} payloads are to be flushed"
                ));
            }
        }
    }

    /// Payloads that the hold is for.
    fn moving(&self, hold: &Hold, surely: bool) -> u64 {
        let now = self.clock.mono();
        let soon = now + HOLD_PAUSE_MAX;
        let soon = if surely { soon - SLACK } else { soon + SLACK };
        match hold.why {
            Why::Nothing => 0,
            Why::Queued => self.ledger.moving(hold.mark, soon, surely),
            Why::Running(_) => self.ledger.moving(u64::MAX, soon, surely),
        }
    }

    /// A hold must have a reason.
    fn check_hold(&mut self) {
        let Some(hold) = self.ledger.hold else {
            return;
        };
        let now = self.clock.mono();
        if hold.why == Why::Nothing {
            let waits = self.waits_to_subscribe();
            return self.require(waits, "the next event is not asked for at once");
        }
        self.note(if hold.why == Why::Queued {
            "held for the queue"
        } else {
            "held to the end"
        });
        let reason = (self.telemetry.is_running(&hold) || self.moving(&hold, false) > 0)
            && !self.ledger.backend.down
            && now <= self.telemetry.until(&hold) + SLACK;
        self.require(reason, "the next event is held back without a reason");
    }

    /// What must hold whenever the core has nothing more to do.
    pub fn check(&mut self) {
        if self.exit.is_some() {
            self.remote_settles();
        }
        self.check_totals();
        self.check_room();
        self.check_order();
        if self.exit.is_none() {
            self.check_clients();
            self.check_remote();
            self.check_lambda();
            self.check_work();
            self.check_hold();
            self.check_leaving();
        }
    }

    /// Nothing gives way while there is room. Only the first to do so tells: of the others nobody outside knows.
    fn check_room(&mut self) {
        let lost = self.relay.totals().lost[Loss::Full as usize];
        if std::mem::replace(&mut self.ledger.gave_way, lost > 0) || lost == 0 {
            return;
        }
        // What found no room as its head came is counted when its body has come.
        let (slots, room) = (self.ledger.slots_high, self.ledger.room_high);
        let full = room > self.set.bytes_max || slots > SLOTS;
        self.require(full, format!("a payload gives way to {room} bytes"));
    }

    fn check_totals(&mut self) {
        let totals = *self.relay.totals();
        let lost = |loss: Loss| totals.lost[loss as usize];
        let fated = |fate: Fate| self.ledger.fated(fate);
        let pairs = [
            (
                "acknowledged",
                totals.acknowledged,
                self.ledger.acknowledged,
            ),
            ("relayed", totals.relayed, fated(Fate::Relayed)),
            ("refused", lost(Loss::Refused), fated(Fate::Refused)),
            ("unusable", lost(Loss::Unusable), fated(Fate::Unusable)),
        ];
        for (name, core, model) in pairs {
            if core != model {
                self.fail(format!("{name}: the core says {core}, the model {model}"));
            }
        }
        let (spent, most) = (fated(Fate::Spent), fated(Fate::MaybeSpent));
        let range = spent..=spent + most;
        if !range.contains(&lost(Loss::Attempts)) {
            self.fail(format!("spent: not in {range:?}"));
        }
        // Payloads on their way to a connection that is still being made count in advance.
        let range = self.ledger.resent..=self.ledger.resent + self.set.workers as u64;
        if !range.contains(&totals.resent) {
            self.fail(format!("resent: {} is not in {range:?}", totals.resent));
        }
        let early = self.exit.is_none() && lost(Loss::Shutdown) > 0;
        self.require(!early, "lost by leaving, before leaving");
        let fits = totals.high_water_bytes <= self.set.bytes_max;
        self.require(fits, "the ring is over its limit");
    }

    /// Payloads acknowledged of which nothing is known yet.
    pub fn in_hand(&self) -> u64 {
        let totals = self.relay.totals();
        totals.acknowledged - totals.relayed - totals.lost_sum()
    }

    /// At rest nothing is left, and nothing was lost but for a reason the model knows of.
    pub fn check_rest(&mut self) {
        let totals = *self.relay.totals();
        if self.in_hand() > 0 {
            self.fail(format!("{} payloads are left at rest", self.in_hand()));
        }
        self.require(
            totals.resent == self.ledger.resent,
            "resent, but never seen",
        );
        let waiting = self.ledger.fated(Fate::Waiting);
        let gave_way = totals.lost[Loss::Full as usize];
        let maybe = self.ledger.fated(Fate::MaybeSpent);
        if !(waiting..=waiting + maybe).contains(&gave_way) {
            self.fail(format!("{waiting} payloads vanished, {gave_way} gave way"));
        }
    }

    /// We leave when told to, in time, and not while there is something in hand and time left.
    fn check_leaving(&self) {
        if let Some(until) = self.leave_by {
            self.require(
                self.clock.mono() < until + SLACK,
                "still here at the deadline",
            );
            let settled =
                self.in_hand() == 0 && self.clients.iter().all(|client| !client.is_open());
            self.require(!settled, "everything is done, and it does not leave");
        }
    }

    pub fn check_exit(&mut self) {
        let totals = *self.relay.totals();
        for loss in Loss::ALL {
            if totals.lost[loss as usize] > 0 {
                self.note(loss.name());
            }
        }
        self.require(
            totals.acknowledged == totals.relayed + totals.lost_sum(),
            "acknowledged is not relayed and lost",
        );
        if self.api.is_refused() {
            self.require(self.exit == Some(1), "refused, but all is well");
            return self.note("registration refused");
        }
        self.require(self.exit == Some(0), "the exit status is not 0");
        let Some(until) = self.leave_by else {
            self.fail("it leaves without being told to");
        };
        if self.clock.mono() + SLACK < until {
            let lost = totals.lost[Loss::Shutdown as usize];
            self.require(lost == 0, "it leaves with payloads in hand and time left");
            self.note("left before the deadline");
        } else {
            self.note("drain cut off by its deadline");
        }
    }
}
