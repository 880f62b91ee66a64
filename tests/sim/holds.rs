//! When the next event may be asked for, and when we must be gone: what is held back for what, and how long.

use pyroscope_lambda_extension::relay::ring::LossReason;

use super::ledger::{CONNECTIONS_MAX, Fate, Ledger, Range, SLACK, SLEEP_SLACK, Sure};
use super::world::World;

/// Longest wait for what is to be flushed, once it is known.
pub const HOLD_BUDGET: u64 = 2_000_000;

/// Longest wait for the news that the function is done.
pub const RUNTIME_DONE_MAX: u64 = 60_000_000;

/// Longest pause of a payload that the next event is held back for.
const HOLD_PAUSE_MAX: u64 = 1_000_000;

/// Shorter than that, it is not worth a connection more.
const OPEN_MIN: u64 = 100_000;

/// How long a client that says nothing is waited for.
pub const NEWCOMER: u64 = 250_000;

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
    /// Whether the function runs, for all that the core can know.
    pub running: Sure,
    /// Heads from here on are none of its business.
    mark: u64,
    pub since: u64,
    /// Turn in which it began.
    pub turn: u64,
    /// When the invocation's own time is nearly over.
    deadline: u64,
    pub until: Range,
}

impl Hold {
    /// Whether the sandbox waits for us alone.
    pub fn is_flush(&self) -> bool {
        self.why != Why::Nothing && self.running == Sure::No
    }

    /// The function is done, or will never be said to be: from here on there is the budget.
    pub fn is_done(&mut self, now: u64, sure: Sure) {
        if !matches!(self.why, Why::Running(_)) || self.running == Sure::No {
            return;
        }
        let until = self.deadline.min(now + HOLD_BUDGET);
        self.until.least = self.until.least.min(until);
        self.mark = u64::MAX;
        if sure == Sure::Yes {
            self.until.most = self.until.most.min(until);
            self.running = Sure::No;
        } else {
            self.running = Sure::Maybe;
        }
    }

    /// There is no telemetry after all: what there is now is flushed.
    pub fn degrades(&mut self, now: u64) {
        if self.why == Why::Nothing {
            return;
        }
        self.why = Why::Queued;
        self.running = Sure::No;
        self.mark = u64::MAX;
        self.until = Range {
            least: self.deadline.min(self.since + HOLD_BUDGET),
            most: self.deadline.min(now + HOLD_BUDGET),
        };
    }
}

impl Ledger {
    /// An event has been read. `until`: when the invocation's own time is nearly over.
    pub fn held(&mut self, why: Why, running: Sure, since: u64, turn: u64, deadline: u64) {
        let longest = match (why, running) {
            (Why::Nothing, _) => 0,
            (Why::Running(_), Sure::Yes) => RUNTIME_DONE_MAX,
            _ => HOLD_BUDGET,
        };
        let until = deadline.min(since + longest);
        self.hold = Some(Hold {
            why,
            running,
            mark: u64::MAX,
            since,
            turn,
            deadline,
            until: Range {
                least: until,
                most: until,
            },
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

    /// Those the hold is for which may be sent by that time, or are being sent.
    fn moving(&self, hold: &Hold, soon: u64, surely: bool) -> u64 {
        let all = matches!(hold.why, Why::Running(_));
        self.count(|payload| {
            let place = payload.place.unwrap_or(if surely { u64::MAX } else { 0 });
            let range = payload.not_before;
            match payload.fate {
                _ if !all && place >= hold.mark => false,
                Fate::Sending => true,
                Fate::Waiting => (if surely { range.most } else { range.least }) <= soon,
                Fate::MaybeSpent => !surely,
                _ => false,
            }
        })
    }
}

impl World {
    /// The next event is asked for: nothing may be left to hold it back for.
    pub fn check_asking(&mut self) {
        self.check_subscribing();
        let Some(hold) = self.ledger.hold.take() else {
            return;
        };
        let now = self.clock.mono();
        let until = self.telemetry.until(&hold);
        let opinion = &self.ledger.opinion;
        let rests = opinion.may_rest(self.now().unix_ms) || self.server.hides_attempts();
        if now + SLACK >= until.least {
            self.hold_ran_out(&hold);
        } else if !opinion.maybe_down && !rests {
            let running = hold.running == Sure::Yes;
            self.require(!running, "asked for while the function runs");
            // What gave way may be among them.
            let lost = self.relay.totals().lost[LossReason::Full as usize];
            let moving = self.moving(&hold, true);
            if moving > lost {
                self.fail(format!(
                    "next is asked for while {moving} payloads are to be flushed"
                ));
            }
            let kept = self.set.usable && self.ledger.had_room(self.set.bytes_max);
            let uploads = kept && self.uploads(Some(hold.mark));
            self.require(!uploads, "next is asked for while a client uploads");
        }
    }

    /// Payloads that the hold is for.
    fn moving(&self, hold: &Hold, surely: bool) -> u64 {
        let now = self.clock.mono();
        let soon = now + HOLD_PAUSE_MAX;
        let soon = if surely { soon - SLACK } else { soon + SLACK };
        match hold.why {
            Why::Nothing => 0,
            Why::Queued | Why::Running(_) => self.ledger.moving(hold, soon, surely),
        }
    }

    /// A hold must have a reason.
    pub fn check_hold(&mut self) {
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
        let moving = self.moving(&hold, false);
        let reason = hold.running != Sure::No || moving > 0 || self.uploads(None);
        let until = self.telemetry.until(&hold);
        let reason = reason && !self.ledger.opinion.down && now <= until.most + SLACK;
        self.require(reason, "the next event is held back without a reason");
        if moving == 0 && hold.running == Sure::No {
            self.note("held for an upload that is half read");
        }
    }

    /// A hold ends when its last reason does, though nothing else happens.
    pub fn check_hold_ends(&self, time: u64) {
        let Some(hold) = self.ledger.hold.filter(Hold::is_flush) else {
            return;
        };
        let (now, until) = (self.clock.mono(), self.uploads_until());
        if now < until && self.moving(&hold, false) == 0 {
            let late = now + time > until + SLEEP_SLACK;
            self.require(!late, "it sleeps through the end of a hold");
        }
    }

    /// Connections that there may be at least: many, while there is a hurry and some time.
    pub fn connections_least(&self) -> u64 {
        let now = self.clock.mono();
        let hold = self.ledger.hold.filter(Hold::is_flush);
        let hold = hold.map(|hold| self.telemetry.until(&hold));
        let until = self.leave_by.or(hold).map_or(0, |until| until.least);
        if self.leave_by.is_some() && until <= now + OPEN_MIN + SLACK {
            // Nothing is begun any more.
            0
        } else if until > now + OPEN_MIN + SLACK {
            CONNECTIONS_MAX
        } else {
            self.set.workers as u64
        }
    }

    /// Whether we are about to be gone, so that nothing is begun any more.
    pub fn is_too_late(&self) -> bool {
        let now = self.clock.mono();
        self.leave_by
            .is_some_and(|until| until.most + SLACK < now + OPEN_MIN)
    }

    /// Connections that there may be at most.
    pub fn connections_most(&self) -> u64 {
        let holds = self
            .ledger
            .hold
            .is_some_and(|hold| hold.why != Why::Nothing && hold.running != Sure::Yes);
        if self.ledger.hurried || holds {
            CONNECTIONS_MAX
        } else {
            self.set.workers as u64
        }
    }

    /// We leave when told to, in time, and not while there is something in hand and time left.
    pub fn check_leaving(&mut self) {
        if let Some(until) = self.leave_by {
            self.require(
                self.clock.mono() < until.most + SLACK,
                "still here at the deadline",
            );
            if self.in_hand() == 0 && self.is_newcomer_waiting() {
                self.note("who has just come is waited for");
            }
            let settled = self.in_hand() == 0 && self.clients_are_idle();
            self.require(!settled, "everything is done, and it does not leave");
        }
    }

    pub fn check_exit(&mut self) {
        let totals = *self.relay.totals();
        for loss in LossReason::ALL {
            if totals.lost[loss as usize] > 0 {
                self.note(loss.name());
            }
        }
        self.require(
            totals.acknowledged == totals.relayed + totals.lost_sum() + totals.left_out_sum(),
            "acknowledged is not relayed, lost and left out",
        );
        self.check_times();
        self.check_closing_line();
        if self.api.is_refused() {
            self.require(self.exit == Some(1), "refused, but all is well");
            return self.note("registration refused");
        }
        self.require(self.exit == Some(0), "the exit status is not 0");
        let Some(until) = self.leave_by else {
            self.fail("it leaves without being told to");
        };
        self.check_goodbye();
        if self.clock.mono() + SLACK < until.least {
            let lost = totals.lost[LossReason::Shutdown as usize];
            let limited = self.ledger.opinion.is_limited(self.now().unix_ms);
            self.require(
                lost == 0 || limited,
                "it leaves with payloads in hand and time left",
            );
            self.require(
                !self.is_newcomer_waiting(),
                "it leaves while a client comes",
            );
            self.require(self.looked == self.turn, "it leaves without a last look");
            self.note("left before the deadline");
        } else {
            self.note("drain cut off by its deadline");
        }
    }
}
