//! The shadow model of the payloads: what must have become of each, kept without looking into the core.
//!
//! Where even an outsider who sees every byte cannot know (an attempt that died before it was seen, a connection
//! that may have been frozen), it keeps the least and the most that can be. All times by the monotonic clock, in
//! microseconds.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

use pyroscope_lambda_extension::contract::ConnId;
use pyroscope_lambda_extension::relay::ring::LossReason;

use super::answers::Verdict;
use super::holds::Hold;
use super::opinion::{Opinion, Standing};
use super::promises::Promises;
use super::times::{Clockwork, Times};
use super::world::World;

/// Times of the core have nanoseconds.
pub const SLACK: u64 = 2;

/// A sleep ends with the microsecond.
pub const SLEEP_SLACK: u64 = 10;

const ATTEMPTS_MAX: u64 = 5;
/// The first pause of a payload, and how often it doubles.
const RETRY_PAUSE: u64 = 200_000;
const RETRY_DOUBLINGS: u64 = 4;
/// Payloads at once.
pub const SLOTS: usize = 256;
/// Connections to the server at once.
pub const CONNECTIONS_MAX: u64 = 64;

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
    /// Answered 200, and not to be sent: it says nothing that the one before did not say.
    LeftOut,
}

/// What became of one attempt that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Answered(Verdict),
    Broken,
    /// The freeze killed it. Whether a byte of the request was written.
    Stale(bool),
    /// One of these two.
    BrokenOrStale,
    /// Not a byte of it was written, and the freeze may have killed it.
    UnsentOrStale,
    /// Not a byte of it was written.
    Unsent,
}

/// Whether something is so, for all that can be known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sure {
    #[default]
    No,
    Maybe,
    Yes,
}

/// The least and the most that can be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    pub least: u64,
    pub most: u64,
}

pub struct Payload {
    /// The request as the server must see it, byte for byte: as it was sent, and once it has arrived as it arrived.
    pub request: Vec<u8>,
    pub times: Times,
    pub to_head: bool,
    /// The server chokes on it.
    pub poison: bool,
    /// Most room that the ring may take for it, and whether it may have been given some.
    pub room_most: usize,
    pub came: bool,
    /// Its client is gone, and it will never be whole.
    pub dropped: bool,
    /// Place in the order of heads, where that is known.
    pub place: Option<u64>,
    /// Turn and time at which its client was answered.
    pub acknowledged: Option<(u64, u64)>,
    pub fate: Fate,
    /// Turn of its last fate.
    fated: u64,
    /// It has not been sent again for nothing yet, after a freeze that killed its attempt.
    pub free: Sure,
    /// Attempts that failed, and those among them that count.
    tries: Range,
    counted: Range,
    /// How many had been relayed when it was acknowledged, or when its last attempt failed.
    relayed_then: Range,
    pub not_before: Range,
    was_sent: bool,
}

#[derive(Default)]
pub struct Ledger {
    pub payloads: Vec<Payload>,
    pub places: u64,
    /// How many payloads have each fate, but for those still open.
    fates: BTreeMap<Fate, u64>,
    acknowledged: u64,
    resent: u64,
    relayed_bytes: u64,
    /// Payloads relayed before this turn, and the turn.
    relayed_before: u64,
    turn: u64,
    /// What went out in this turn, when it was given to its connection, and what for.
    begun: Vec<(usize, (u64, u64), Standing)>,
    pub hold: Option<Hold>,
    pub opinion: Opinion,
    pub promises: Promises,
    pub clockwork: Clockwork,
    /// No pause is waited for any more.
    pub hurried: bool,
    /// Most payloads there were at once, and the most room they may have taken.
    slots_high: usize,
    room_high: usize,
    /// Whether a payload ever gave way, or found no room.
    gave_way: bool,
    /// Since when something could be tried, and nothing is.
    idle_since: Option<u64>,
}

impl Display for Range {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..={}", self.least, self.most)
    }
}

impl Range {
    pub const fn of(value: u64) -> Self {
        Self::between(value, value)
    }

    pub const fn between(least: u64, most: u64) -> Self {
        Self { least, most }
    }

    /// What can be if one of both is so.
    pub fn or(self, other: Self) -> Self {
        Self::between(self.least.min(other.least), self.most.max(other.most))
    }
}

impl Payload {
    pub fn of(request: Vec<u8>, to_head: bool) -> Self {
        const NONE: Range = Range { least: 0, most: 0 };
        Self {
            request,
            times: Times::default(),
            to_head,
            poison: false,
            room_most: 0,
            came: false,
            dropped: false,
            place: None,
            acknowledged: None,
            fate: Fate::Open,
            fated: 0,
            free: Sure::Yes,
            tries: NONE,
            counted: NONE,
            relayed_then: NONE,
            not_before: NONE,
            was_sent: false,
        }
    }

    /// Whether it waits for a connection.
    pub fn waits(&self) -> bool {
        self.fate == Fate::Waiting
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
        self.opinion.thawed(frozen);
        self.idle_since = self.idle_since.map(|since| since + frozen);
    }

    /// A turn's facts begin.
    pub fn turns(&mut self, turn: u64) {
        self.turn = turn;
        self.relayed_before = self.fated(Fate::Relayed);
    }

    /// No pause is waited for any more, from `now` on.
    pub fn hurries(&mut self, now: u64) {
        self.pauses_end(now);
        self.opinion.hurries(now);
        self.hurried = true;
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

    pub fn fated(&self, fate: Fate) -> u64 {
        self.fates.get(&fate).copied().unwrap_or(0)
    }

    fn set_fate(&mut self, payload: usize, fate: Fate) {
        self.payloads[payload].fated = self.turn;
        let before = std::mem::replace(&mut self.payloads[payload].fate, fate);
        if before != Fate::Open {
            *self.fates.get_mut(&before).unwrap() -= 1;
        }
        *self.fates.entry(fate).or_default() += 1;
        if fate == Fate::Relayed {
            let request = &self.payloads[payload].request;
            let head = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            self.relayed_bytes += (request.len() - head.unwrap() - 4) as u64;
        }
    }

    pub fn count(&self, is: impl Fn(&Payload) -> bool) -> u64 {
        self.payloads.iter().filter(|payload| is(payload)).count() as u64
    }

    /// Payloads relayed so far: before what came in this turn, and with it.
    fn relayed(&self) -> Range {
        Range {
            least: self.relayed_before,
            most: self.fated(Fate::Relayed),
        }
    }

    /// The server answered. If it was down, the pauses were its own, and nobody waits any more.
    fn reached(&mut self, turn: u64, unix_ms: u64, now: u64) {
        match self.opinion.reached(turn, (now, unix_ms)) {
            Sure::No => {}
            Sure::Maybe => self.pauses_may_end(),
            Sure::Yes => self.pauses_end(now),
        }
    }

    pub fn pauses_may_end(&mut self) {
        for payload in &mut self.payloads {
            payload.not_before.least = 0;
        }
    }

    fn pauses_end(&mut self, now: u64) {
        for payload in &mut self.payloads {
            payload.not_before.least = 0;
            // What failed in this turn may have failed after that.
            if payload.fated < self.turn {
                payload.not_before.most = payload.not_before.most.min(now);
            }
        }
    }

    /// Whether every payload that waits, and may be the one on its way to a connection that is being made, may still
    /// be sent again for nothing.
    pub fn waiting_are_free(&self) -> Sure {
        let waiting = self
            .payloads
            .iter()
            .filter(|own| matches!(own.fate, Fate::Waiting | Fate::MaybeSpent));
        let (mut yes, mut no) = (true, true);
        for payload in waiting {
            yes &= payload.free == Sure::Yes;
            no &= payload.free == Sure::No;
        }
        match (yes, no) {
            (true, _) => Sure::Yes,
            (_, true) => Sure::No,
            _ => Sure::Maybe,
        }
    }

    /// A freeze killed a connection that was being made: one of those that wait may have been meant for it.
    pub fn one_is_not_free(&mut self) {
        for payload in &mut self.payloads {
            if matches!(payload.fate, Fate::Waiting | Fate::MaybeSpent) && payload.free == Sure::Yes
            {
                payload.free = Sure::Maybe;
            }
        }
    }

    fn no_room(&self) -> bool {
        self.gave_way || self.slots_high > SLOTS
    }

    /// Whether each upload so far was surely given room.
    pub fn had_room(&self, bytes_max: usize) -> bool {
        !self.no_room() && self.room_high <= bytes_max
    }
}

impl World {
    /// A client has its 200.
    pub fn acknowledged(&mut self, payload: usize) {
        let (turn, now) = (self.turn, self.clock.mono());
        self.tell(|| format!("payload {payload} is acknowledged"));
        let fate = match self.set.usable {
            true if self.ledger.payloads[payload].times.left_out => Fate::LeftOut,
            true => Fate::Waiting,
            false => Fate::Unusable,
        };
        self.ledger.payloads[payload].acknowledged = Some((turn, now));
        self.ledger.payloads[payload].relayed_then = self.ledger.relayed();
        self.ledger.acknowledged += 1;
        self.ledger.set_fate(payload, fate);
    }

    /// The first byte of an attempt is written. `since`: when it was given to that connection, where that is known.
    pub fn begins(
        &mut self,
        at: usize,
        id: ConnId,
        since: Option<(u64, u64)>,
        standing: Standing,
        new: bool,
    ) {
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
            self.ledger.begun.push((at, since, standing));
        }
        self.ledger.set_fate(at, Fate::Sending);
        self.check_patience(standing);
        let again = self.ledger.payloads[at].was_sent;
        self.ledger.resent += u64::from(again);
        if again {
            self.note("sent again");
        }
    }

    /// The oldest that may be sent goes first: of those begun in this turn, none before one that still waits. A
    /// server that is down is probed with the one that was tried least.
    ///
    /// A connection that took time to make was given its payload before others came; only with one worker is it
    /// sure that nothing else was given away meanwhile.
    fn check_order(&mut self) {
        for (at, (turn, mono), standing) in std::mem::take(&mut self.ledger.begun) {
            let own = &self.ledger.payloads[at];
            let (Some(place), tries) = (own.place, own.tries) else {
                continue;
            };
            let before = |payload: &Payload| match standing {
                Standing::Unknown => false,
                Standing::Up => payload.place.is_some_and(|own| own < place),
                Standing::Down => {
                    let same =
                        payload.tries.least == tries.most && payload.tries.most == tries.least;
                    payload.tries.most < tries.least
                        || same && payload.place.is_some_and(|own| own < place)
                }
            };
            let ahead = self.ledger.count(|payload| {
                payload.waits()
                    && before(payload)
                    && payload.fated <= turn
                    && payload.not_before.most <= mono
            });
            // What is given to connections still being made cannot be seen, nor what gave way.
            let hidden = self.server.connecting_since(turn)
                + self.relay.totals().lost[LossReason::Full as usize];
            if ahead > hidden && !self.server.hides_attempts() {
                self.fail(format!(
                    "payload {at} goes out before {ahead} others, {standing:?}"
                ));
            }
            self.note(match standing {
                Standing::Unknown => continue,
                Standing::Up => "order checked",
                Standing::Down => "order of probes checked",
            });
        }
    }

    /// An attempt that was seen is over, and what came of it is known. `thaw`: it died, after a freeze that the clocks
    /// have shown.
    pub fn concludes(&mut self, at: usize, outcome: Outcome, thaw: Sure) {
        self.tell(|| format!("payload {at}: {outcome:?}"));
        let (now, turn) = (self.clock.mono(), self.turn);
        let unix_ms = self.now().unix_ms;
        let ledger = &mut self.ledger;
        let free = ledger.payloads[at].free;
        match outcome {
            Outcome::Answered(Verdict::Taken) => {
                ledger.payloads[at].was_sent = true;
                ledger.reached(turn, unix_ms, now);
                ledger.set_fate(at, Fate::Relayed);
            }
            Outcome::Answered(Verdict::Refused) => {
                ledger.payloads[at].was_sent = true;
                ledger.reached(turn, unix_ms, now);
                ledger.set_fate(at, Fate::Refused);
                self.note("refused");
            }
            Outcome::Answered(Verdict::Later { retry_after, reset }) => {
                let opinion = &mut ledger.opinion;
                let mut heeded = false;
                if let Some(reset) = reset {
                    heeded = opinion.limits(reset * 1000, turn, (now, unix_ms));
                }
                // None asks for no patience at all.
                if let Some(seconds) = retry_after.filter(|seconds| *seconds > 0 && !heeded) {
                    heeded = opinion.asks(seconds, turn, (now, unix_ms));
                }
                if !heeded {
                    opinion.broke(turn, (now, unix_ms), true);
                }
                self.failed(at, Sure::Yes);
                match retry_after {
                    Some(30..) => self.note("Retry-After cut to 30 s"),
                    Some(1..) => self.note("Retry-After"),
                    _ => {}
                }
                if reset.is_some() {
                    self.note("limit of the day");
                }
            }
            Outcome::Broken => self.broke(at, Sure::Yes, thaw),
            Outcome::Stale(sent) => {
                if free != Sure::No {
                    self.is_sent_for_nothing(at, sent);
                }
                match (free, sent) {
                    (Sure::Yes, _) => {}
                    (Sure::Maybe, true) => self.broke(at, Sure::Maybe, thaw),
                    (Sure::No, true) => self.broke(at, Sure::Yes, thaw),
                    (sure, false) => {
                        self.is_unsent(at);
                        self.unreached(sure == Sure::No);
                    }
                }
            }
            Outcome::BrokenOrStale if free == Sure::No => self.broke(at, Sure::Yes, thaw),
            Outcome::BrokenOrStale => {
                self.ledger.payloads[at].free = Sure::Maybe;
                self.broke(at, Sure::Maybe, thaw);
            }
            Outcome::UnsentOrStale => {
                self.is_unsent(at);
                self.unreached(free == Sure::No);
                if free == Sure::Yes {
                    self.ledger.payloads[at].free = Sure::Maybe;
                }
            }
            Outcome::Unsent => {
                self.is_unsent(at);
                self.unreached(true);
            }
        }
    }

    /// A freeze killed the attempt: the one time that counts for nothing.
    fn is_sent_for_nothing(&mut self, at: usize, sent: bool) {
        let payload = &mut self.ledger.payloads[at];
        let surely = payload.free == Sure::Yes;
        payload.free = Sure::No;
        payload.not_before = Range::default();
        if surely {
            if sent {
                payload.was_sent = true;
                self.ledger.set_fate(at, Fate::Waiting);
            } else {
                self.is_unsent(at);
            }
            self.server.closes_idle();
            self.note("killed by a freeze, sent again at once");
        }
    }

    /// It was not sent after all.
    fn is_unsent(&mut self, at: usize) {
        let ledger = &mut self.ledger;
        ledger.resent -= u64::from(ledger.payloads[at].was_sent);
        ledger.payloads[at].not_before = Range::default();
        ledger.set_fate(at, Fate::Waiting);
        self.note("nothing sent");
    }

    /// An attempt failed after the server was reached, perhaps. A freeze that the clocks show says nothing of the server.
    fn broke(&mut self, at: usize, sure: Sure, thaw: Sure) {
        let (turn, now) = (self.turn, (self.clock.mono(), self.now().unix_ms));
        match thaw {
            Sure::Yes => self.note("killed by a freeze, and counted"),
            Sure::Maybe => self.ledger.opinion.broke(turn, now, false),
            Sure::No => self.ledger.opinion.broke(turn, now, sure == Sure::Yes),
        }
        self.failed(at, sure);
    }

    /// An attempt failed, perhaps, so that there is a pause; and counts, perhaps.
    fn failed(&mut self, at: usize, sure: Sure) {
        let (now, turn) = (self.clock.mono(), self.turn);
        let surely = sure == Sure::Yes;
        // What comes to an end in the same step may count before.
        let ending = self.server.may_be_relayed(now, self.set.timeout);
        let ledger = &mut self.ledger;
        if ledger.opinion.reached == turn {
            ledger.pauses_may_end();
        }
        let relayed = ledger.relayed();
        let payload = &mut ledger.payloads[at];
        payload.was_sent = true;
        payload.tries.least += u64::from(surely);
        payload.tries.most += 1;
        let counts = surely && relayed.least > payload.relayed_then.most;
        payload.counted.least += u64::from(counts);
        payload.counted.most += u64::from(relayed.most > payload.relayed_then.least);
        payload.relayed_then = Range {
            least: if surely {
                relayed.least
            } else {
                payload.relayed_then.least
            },
            most: relayed.most + ending,
        };
        // As we leave, pauses do not grow, and nothing is given up.
        let hurried = ledger.hurried;
        let backoff = |tries: u64| match hurried {
            true => RETRY_PAUSE,
            false => RETRY_PAUSE << (tries.max(1) - 1).min(RETRY_DOUBLINGS),
        };
        // What is reached in the same turn may end it.
        let known = surely && ledger.opinion.reached != turn;
        payload.not_before = Range {
            least: if known {
                now + backoff(payload.tries.least) * 3 / 4
            } else {
                0
            },
            most: now + backoff(payload.tries.most) + SLACK,
        };
        let fate = match (payload.counted.least, payload.counted.most) {
            _ if hurried => Fate::Waiting,
            (ATTEMPTS_MAX.., _) => Fate::Spent,
            (_, ATTEMPTS_MAX..) => Fate::MaybeSpent,
            _ => Fate::Waiting,
        };
        let (tries, counted, then) = (payload.tries, payload.counted, payload.relayed_then);
        let uncounted =
            payload.tries.least > payload.counted.most && payload.tries.least >= ATTEMPTS_MAX;
        ledger.set_fate(at, fate);
        self.tell(|| {
            format!("payload {at}: tries {tries}, of which {counted} count; {then} relayed by then")
        });
        if uncounted {
            self.note("tried five times, and kept");
        }
    }

    /// What may be sent is sent while there is a connection left for it, and a server that is down is tried again.
    fn check_work(&mut self) {
        let (now, unix_ms) = (self.clock.mono(), self.now().unix_ms);
        let busy = self.server.busy_most();
        // Among them may be what gave way, and what waits for a connection that is being made.
        let lost = self.relay.totals().lost[LossReason::Full as usize] + self.server.connecting();
        let ready = |payload: &Payload| payload.waits() && payload.not_before.most + SLACK < now;
        let waits = self.ledger.fated(Fate::Waiting) > lost && self.ledger.count(ready) > lost;
        let opinion = &self.ledger.opinion;
        let rests = opinion.may_rest(unix_ms) || self.server.hides_attempts();
        let full = self.server.connections() >= CONNECTIONS_MAX || self.connections_least() == 0;
        if !waits || busy > 0 || rests || full {
            self.ledger.idle_since = None;
        } else {
            let since = *self.ledger.idle_since.get_or_insert(now);
            let by = since.max(self.ledger.opinion.tried_by());
            self.require(now <= by + SLACK, "nothing is tried any more");
        }
        let opinion = &self.ledger.opinion;
        let most = self.connections_least();
        let free = (busy == 0 && most > 0 || busy < most && opinion.reached > 0)
            && self.server.connections() < CONNECTIONS_MAX;
        let well = !opinion.maybe_down && !rests;
        self.require(!(waits && free && well), "a payload waits for nothing");
    }

    /// The core is going to sleep for so long: not beyond the time when a payload may be sent.
    pub fn check_sleep(&self, time: u64) {
        let ledger = &self.ledger;
        let busy = self.server.busy_most();
        let free = busy < self.set.workers as u64 && self.server.connecting() == 0;
        let rests = ledger.opinion.may_rest(self.now().unix_ms) || self.server.hides_attempts();
        let well = !ledger.opinion.maybe_down && !rests;
        let hopeless = self.connections_least() == 0;
        if !free || !well || hopeless || ledger.gave_way || ledger.fated(Fate::Waiting) == 0 {
            return;
        }
        let now = self.clock.mono();
        let waiting = ledger.payloads.iter().filter(|own| own.waits());
        let due = waiting
            .map(|own| own.not_before.most)
            .filter(|at| *at > now);
        let late = due.min().is_some_and(|at| now + time > at + SLEEP_SLACK);
        self.require(!late, "it sleeps through the time of a payload");
    }

    /// What must hold whenever the core has nothing more to do.
    pub fn check(&mut self) {
        if self.exit.is_some() {
            self.server_settles();
        }
        self.check_totals();
        self.check_room();
        self.check_order();
        if self.exit.is_none() {
            self.check_clients();
            self.check_server();
            self.check_lambda();
            self.check_work();
            self.check_hold();
            self.check_leaving();
            self.check_promises();
        }
    }

    /// Nothing gives way while there is room. Only the first to do so tells: of the others nobody outside knows.
    fn check_room(&mut self) {
        let lost = self.relay.totals().lost[LossReason::Full as usize];
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
        let lost = |loss: LossReason| totals.lost[loss as usize];
        let fated = |fate: Fate| self.ledger.fated(fate);
        let pairs = [
            (
                "acknowledged",
                totals.acknowledged,
                self.ledger.acknowledged,
            ),
            ("relayed", totals.relayed, fated(Fate::Relayed)),
            ("left_out", totals.left_out_sum(), fated(Fate::LeftOut)),
            (
                "relayed_bytes",
                totals.relayed_bytes,
                self.ledger.relayed_bytes,
            ),
            ("refused", lost(LossReason::Refused), fated(Fate::Refused)),
            (
                "unusable",
                lost(LossReason::Unusable),
                fated(Fate::Unusable),
            ),
        ];
        for (name, core, model) in pairs {
            if core != model {
                self.fail(format!("{name}: the core says {core}, the model {model}"));
            }
        }
        let (spent, most) = (fated(Fate::Spent), fated(Fate::MaybeSpent));
        let range = spent..=spent + most;
        if !range.contains(&lost(LossReason::Attempts)) {
            self.fail(format!("spent: not in {range:?}"));
        }
        // Payloads on their way to a connection that is still being made count in advance.
        let ahead = if self.server.hides_attempts() {
            CONNECTIONS_MAX
        } else {
            self.server.connecting()
        };
        let range = self.ledger.resent..=self.ledger.resent + ahead;
        if !range.contains(&totals.resent) {
            self.fail(format!("resent: {} is not in {range:?}", totals.resent));
        }
        let early = self.exit.is_none() && lost(LossReason::Shutdown) > 0;
        self.require(!early, "lost by leaving, before leaving");
        let fits = totals.high_water_bytes <= self.set.bytes_max;
        self.require(fits, "the ring is over its limit");
    }

    /// Payloads acknowledged of which nothing is known yet.
    pub fn in_hand(&self) -> u64 {
        let totals = self.relay.totals();
        totals.acknowledged - totals.relayed - totals.lost_sum() - totals.left_out_sum()
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
        let gave_way = totals.lost[LossReason::Full as usize];
        let maybe = self.ledger.fated(Fate::MaybeSpent);
        if !(waiting..=waiting + maybe).contains(&gave_way) {
            self.fail(format!("{waiting} payloads vanished, {gave_way} gave way"));
        }
    }
}
