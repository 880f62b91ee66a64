//! What can be known from outside of how the core thinks of the server: up, down, asked to be left alone.
//!
//! Where two things come in one turn, nobody outside knows which the core took first; then both are possible.

use super::ledger::{Range, SLACK, Sure};
use super::world::World;

/// Three failures in a row are down.
const BROKEN_IN_A_ROW: u64 = 3;

/// The first pause of a server that is down, doubling with each probe up to the longest; a quarter less by chance.
const PROBE_PAUSE: u64 = 100_000;
const PROBE_PAUSE_MAX: u64 = 2_000_000;

/// Longest `Retry-After` that is waited for.
const RETRY_AFTER_MAX: u64 = 30;

/// Most probes in a second: they come 75 ms apart at least, and one at once where there is a hurry.
const PROBES_A_SECOND: usize = 15;

#[derive(Debug, Default)]
pub struct Opinion {
    /// It surely counts as down.
    pub down: bool,
    pub maybe_down: bool,
    broken: Range,
    /// A connection to it has stood, so that not only one goes ahead.
    proven: bool,
    /// Turns of the last outcomes of each kind.
    pub reached: u64,
    failed: u64,
    /// While it is down: the last pause before a probe, and when the next is due.
    pause: Range,
    probe: Range,
    /// Until when it asked to be left alone, in Unix milliseconds.
    patience: u64,
    /// Until when it takes no more today, in Unix milliseconds, and when that was said.
    limit: u64,
    limited_at: u64,
    /// It was asked to be left alone, and has not been tried since.
    rests: Sure,
    /// The sandbox is about to end: no pause is waited for.
    hurried: bool,
    /// Since when it surely counts as down, and the times of the requests of the last second.
    down_since: u64,
    failing: Vec<u64>,
}

/// What the core surely took the server for when it gave a payload to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Up,
    Down,
    Unknown,
}

impl Opinion {
    pub const fn thawed(&mut self, frozen: u64) {
        self.probe.least += frozen;
        self.probe.most += frozen;
    }

    /// The sandbox is about to end: what is down is tried at once.
    pub const fn hurries(&mut self, now: u64) {
        self.hurried = true;
        self.patience = 0;
        self.rests = Sure::No;
        (self.probe, self.pause) = (Range::of(now), Range::of(PROBE_PAUSE));
    }

    /// It answered. Whether it was down until now: that nobody waits any more.
    pub fn reached(&mut self, turn: u64, (now, unix_ms): (u64, u64)) -> Sure {
        self.reached = turn;
        self.proven = true;
        self.broken.least = 0;
        if self.failed != turn {
            self.broken.most = 0;
        }
        if self.may_rest(unix_ms) {
            // That still holds.
            return Sure::No;
        }
        let was_down = match (self.down, self.maybe_down) {
            (true, _) if self.failed != turn => Sure::Yes,
            (_, true) => Sure::Maybe,
            _ => Sure::No,
        };
        (self.down, self.rests) = (false, Sure::No);
        self.failing.clear();
        if self.failed == turn {
            // It may have failed after that.
            self.is_out_of_sight(now);
        } else {
            self.maybe_down = false;
        }
        was_down
    }

    /// A connection stands.
    pub const fn is_proven(&mut self) {
        self.proven = true;
    }

    /// It was not reached.
    pub fn unreached(&mut self, turn: u64, (now, unix_ms): (u64, u64), surely: bool) {
        self.failed = turn;
        let surely = surely && self.reached != turn;
        if self.down {
            return self.fails_again(now, unix_ms, surely);
        }
        if !surely || self.maybe_down {
            // It may be down since some time ago, or from now on.
            let longest = self.probe.most.max(now + PROBE_PAUSE_MAX);
            self.probe = Range::between(0, longest);
            self.pause = Range::between(PROBE_PAUSE, PROBE_PAUSE_MAX);
        } else {
            self.probe = Range::between(now + PROBE_PAUSE * 3 / 4, now + PROBE_PAUSE);
            self.pause = Range::of(PROBE_PAUSE);
        }
        self.maybe_down = true;
        if surely {
            (self.down, self.down_since) = (true, now);
        }
    }

    /// An attempt failed in this turn of which nothing was to be seen.
    pub fn failed_unseen(&mut self, turn: u64, now: u64) {
        self.failed = turn;
        self.is_out_of_sight(now);
    }

    /// Attempts failed of which nothing was to be seen, perhaps several.
    pub fn is_out_of_sight(&mut self, now: u64) {
        self.maybe_down = true;
        if self.rests == Sure::Yes {
            self.rests = Sure::Maybe;
        }
        self.pause.most = PROBE_PAUSE_MAX;
        self.probe.most = now + PROBE_PAUSE_MAX;
        if !self.down {
            self.probe.least = 0;
        }
    }

    /// It is tried: so that was due.
    fn is_tried(&mut self, now: u64) {
        self.probe.most = self.probe.most.min(now);
    }

    /// An attempt failed while it was down. If that was no probe, but began before, it tells nothing new.
    fn fails_again(&mut self, now: u64, unix_ms: u64, surely: bool) {
        if self.may_rest(unix_ms) || now < self.probe.least {
            return;
        }
        let next = |pause: u64| (pause * 2).min(PROBE_PAUSE_MAX);
        let doubled = Range::between(next(self.pause.least), next(self.pause.most));
        let next = match self.rests {
            _ if self.hurried => Range::of(PROBE_PAUSE),
            Sure::No => doubled,
            Sure::Maybe => doubled.or(Range::of(PROBE_PAUSE)),
            Sure::Yes => Range::of(PROBE_PAUSE),
        };
        let probe = Range::between(now + next.least * 3 / 4, now + next.most);
        if surely && now >= self.probe.most {
            (self.probe, self.pause) = (probe, next);
            self.rests = Sure::No;
        } else {
            self.probe.most = self.probe.most.max(probe.most);
            if self.rests == Sure::Yes {
                (self.rests, self.pause) = (Sure::Maybe, next);
            }
            self.pause = self.pause.or(next);
        }
    }

    pub fn broke(&mut self, turn: u64, now: (u64, u64), surely: bool) {
        self.broken.most += 1;
        if surely && self.reached != turn {
            self.broken.least += 1;
        }
        self.failed = turn;
        if self.down {
            self.unreached(turn, now, surely);
        } else if self.broken.most >= BROKEN_IN_A_ROW || self.maybe_down {
            self.unreached(turn, now, self.broken.least >= BROKEN_IN_A_ROW);
        }
    }

    /// It asks for patience: so many seconds by the wall clock. Whether that is heeded.
    pub fn asks(&mut self, seconds: u64, turn: u64, (now, unix_ms): (u64, u64)) -> bool {
        if !self.hurried {
            let until = unix_ms + seconds.min(RETRY_AFTER_MAX) * 1000;
            self.patience = self.patience.max(until);
            self.is_to_rest(turn, now);
        }
        !self.hurried
    }

    /// It takes no more until that time, in Unix milliseconds. Whether that is heeded.
    pub const fn limits(&mut self, until: u64, turn: u64, (now, unix_ms): (u64, u64)) -> bool {
        if until >= unix_ms {
            if until > self.limit {
                (self.limit, self.limited_at) = (until, now);
            }
            self.is_to_rest(turn, now);
        }
        until >= unix_ms
    }

    /// Nothing is sent for some time; then one probe goes ahead, however long its own pause was.
    const fn is_to_rest(&mut self, turn: u64, now: u64) {
        self.failed = turn;
        if !self.down {
            self.down_since = now;
        }
        (self.down, self.maybe_down, self.rests) = (true, true, Sure::Yes);
        self.probe = Range::of(0);
    }

    /// Whether it may be left alone, for what it said itself.
    pub const fn may_rest(&self, unix_ms: u64) -> bool {
        unix_ms < self.limit || unix_ms < self.patience
    }

    pub const fn is_limited(&self, unix_ms: u64) -> bool {
        unix_ms < self.limit
    }

    /// Longest time until it may be asked again, if it ever said that it has enough for the day.
    pub const fn rests_max(&self) -> u64 {
        if self.limit > 0 { 90_000_000_000 } else { 0 }
    }

    /// When it is tried again at the latest, if it is down.
    pub const fn tried_by(&self) -> u64 {
        self.probe.most
    }

    pub const fn is_untried(&self) -> bool {
        !self.proven && !self.maybe_down
    }
}

impl World {
    /// A payload was given to a connection, now if that is `known`, or since `earliest`: whether the server may be asked.
    ///
    /// `busy` others are under way at least, of which `unproven` are still being connected.
    pub fn dispatches(&mut self, known: bool, earliest: u64, busy: u64, unproven: u64) -> Standing {
        let (mono, unix_ms) = (self.clock.mono(), self.now().unix_ms);
        let opinion = &self.ledger.opinion;
        // It may be the next address of an attempt that began before.
        let is_blurred = self.server.is_blurred();
        if unix_ms < opinion.limit && opinion.limited_at < earliest && !is_blurred {
            self.fail("a payload is sent on before the limit of the day is reset");
        }
        if !known || is_blurred {
            return Standing::Unknown;
        }
        if unix_ms < opinion.patience {
            let early = opinion.patience - unix_ms;
            self.fail(format!(
                "the server is asked again {early} ms before it is ready"
            ));
        }
        if opinion.is_untried() {
            self.require(unproven == 0, "two connections to a server not yet reached");
        }
        if opinion.down {
            if mono + SLACK < opinion.probe.least {
                self.fail("a server that is down is tried again too soon");
            }
            self.require(busy == 0, "a server that is down is tried more than once");
            self.ledger.opinion.is_tried(mono);
            self.note("probe");
            return Standing::Down;
        }
        if opinion.maybe_down || opinion.may_rest(unix_ms) {
            Standing::Unknown
        } else {
            Standing::Up
        }
    }

    /// The server could not be reached, or perhaps it could be after all.
    pub fn unreached(&mut self, surely: bool) {
        let (turn, now) = (self.turn, (self.clock.mono(), self.now().unix_ms));
        self.ledger.opinion.unreached(turn, now, surely);
        if self.ledger.opinion.reached == turn {
            // Perhaps it was reached after that.
            self.ledger.pauses_may_end();
        }
        if surely {
            self.note("server down");
        }
    }

    /// A request begins: where every answer is a failure, there are not many.
    pub fn check_patience(&mut self, standing: Standing) {
        if standing != Standing::Down {
            return;
        }
        let now = self.clock.mono();
        let opinion = &mut self.ledger.opinion;
        if !opinion.down || now < opinion.down_since + 1_000_000 {
            return opinion.failing.clear();
        }
        opinion.failing.push(now);
        opinion.failing.retain(|at| at + 1_000_000 > now);
        let often = opinion.failing.len();
        self.require(
            often <= PROBES_A_SECOND,
            format!("a server that fails is asked {often} times in a second"),
        );
    }
}
