//! How attempts end: answered, broken, unreached, or killed by a freeze; and when the core gives one up.
//!
//! What an end means depends on what else came in that turn. So everything that ends in one is gathered, and settled
//! when all of it is known.

use pyroscope_lambda_extension::contract::ConnId;

use super::answers::Verdict;
use super::ledger::{Outcome, Sure};
use super::server::{Death, Exchange, Line, Server};
use super::world::World;

impl Server {
    /// Payloads that count as relayed if their time is up, as it may be.
    pub fn may_be_relayed(&self, now: u64, timeout: u64) -> u64 {
        let over = self.attempts.over(now, timeout);
        let over = |line: &&Line| over.iter().any(|(own, _)| Some(*own) == line.attempt);
        let said_yes = |line: &&Line| {
            let exchange = line.exchange.as_ref();
            exchange.is_some_and(|exchange| exchange.is_answered() || exchange.said_yes())
        };
        let lines = self.lines.values().filter(said_yes);
        lines.filter(over).count() as u64
    }
}

impl World {
    /// What became of an attempt. Whether a failure counts depends on what else is relayed in that turn.
    /// `thaw`: it died, after a freeze that the clocks have shown.
    pub fn is_known(&mut self, payload: usize, outcome: Outcome, thaw: Sure) {
        if outcome == Outcome::Answered(Verdict::Taken) {
            return self.concludes(payload, outcome, thaw);
        }
        self.server.failing.push((payload, outcome, thaw));
    }

    /// All that came in this turn is known: what counts as failed, and whether those that died without a word were
    /// killed by a freeze.
    pub fn settle_deaths(&mut self) {
        for (payload, outcome, thaw) in std::mem::take(&mut self.server.failing) {
            self.concludes(payload, outcome, thaw);
        }
        for death in std::mem::take(&mut self.server.dying) {
            let Some(payload) = death.payload else {
                self.settle_unreached(death);
                continue;
            };
            let stale = if death.served > 0 || self.wakes {
                Sure::Yes
            } else {
                death.frozen
            };
            let outcome = match (stale, death.unsent) {
                (Sure::Yes, unsent) => Outcome::Stale(!unsent),
                (Sure::No, true) => Outcome::Unsent,
                (Sure::No, false) => Outcome::Broken,
                (Sure::Maybe, true) => Outcome::UnsentOrStale,
                (Sure::Maybe, false) => Outcome::BrokenOrStale,
            };
            self.concludes(payload, outcome, death.thaw);
        }
    }

    fn settle_unreached(&mut self, death: Death) {
        // What Lambda has said in this turn is taken in first.
        let frozen = match self.wakes {
            _ if death.blurred => Sure::Maybe,
            true => Sure::Yes,
            false => death.frozen,
        };
        match frozen {
            Sure::Yes => {
                self.note("frozen while connecting");
                self.connection_is_stale();
            }
            Sure::Maybe => self.is_unreached_or_stale(),
            Sure::No => {
                self.unreached(true);
            }
        }
    }

    /// A freeze killed a connection that was being made; for which payload, nobody outside knows.
    fn connection_is_stale(&mut self) {
        match self.ledger.waiting_are_free() {
            Sure::Yes => {
                self.ledger.one_is_not_free();
                self.server.closes_idle();
            }
            Sure::Maybe => self.is_unreached_or_stale(),
            Sure::No => self.unreached(true),
        }
    }

    fn is_unreached_or_stale(&mut self) {
        self.unreached(false);
        self.ledger.one_is_not_free();
    }

    /// The core closed a connection: because it is over, or because its time is up.
    pub fn server_closed(&mut self, id: ConnId) {
        let Some(line) = self.server.lines.remove(&id) else {
            return;
        };
        let Some(number) = line.attempt.filter(|_| !line.done) else {
            return;
        };
        for other in self.server.lines.values_mut() {
            other.done |= other.attempt == Some(number);
        }
        if line.exchange.is_none() && self.server.attempts.get(number).is_blurred() {
            self.server.attempts.end(number, self.turn);
            return self.is_unreached_or_stale();
        }
        let now = self.clock.mono();
        let (silent, late) = self
            .server
            .attempts
            .get(number)
            .is_over(now, self.set.timeout);
        if silent == Sure::No && late == Sure::No {
            self.fail(format!(
                "{id:?} is closed in the middle of an attempt, in time"
            ));
        }
        self.is_given_up(number, &line, silent, late);
        self.settle_deaths();
    }

    /// Time went on, for those on which nothing has come: what they were waiting for comes too late.
    pub fn settle_overdue(&mut self) {
        let (now, timeout) = (self.clock.mono(), self.set.timeout);
        for (number, (silent, late)) in self.server.attempts.over(now, timeout) {
            let sure = late == Sure::Yes || silent == Sure::Yes && late == Sure::No;
            let own = |(_, line): &(&ConnId, &Line)| line.attempt == Some(number) && !line.done;
            let Some(id) = self.server.lines.iter().find(own).map(|(id, _)| *id) else {
                // One address had failed, and the next is not tried yet.
                self.server.attempts.get_mut(number).falls_back(now);
                if late == Sure::Yes {
                    self.server.attempts.end(number, self.turn);
                    self.unreached(true);
                }
                continue;
            };
            if !sure {
                continue;
            }
            let mut line = self.server.lines.remove(&id).unwrap();
            self.is_given_up(number, &line, silent, late);
            line.done = true;
            line.attempt = None;
            line.exchange = None;
            self.server.lines.insert(id, line);
        }
    }

    /// An attempt is given up, with the connections for it, of which that is one.
    fn is_given_up(&mut self, number: u64, line: &Line, silent: Sure, late: Sure) {
        let now = self.clock.mono();
        for other in self.server.lines.values_mut() {
            other.done |= other.attempt == Some(number);
        }
        let attempt = self.server.attempts.get_mut(number);
        if line.connecting && late == Sure::No && attempt.falls_back(now) {
            return self.note("silent after a wake, another address");
        }
        let (thaw, blurred) = (attempt.thaw, attempt.is_blurred());
        self.server.attempts.end(number, self.turn);
        let Some(exchange) = &line.exchange else {
            return self.connection_given_up(silent, late);
        };
        // That it was suspect says what nobody could know before.
        let payload = exchange.payload;
        let free = &mut self.ledger.payloads[payload].free;
        let told = silent == Sure::Maybe && late == Sure::No && !blurred;
        if *free == Sure::Maybe && told {
            *free = Sure::Yes;
        }
        self.exchange_given_up(exchange, thaw, silent, late);
    }

    fn connection_given_up(&mut self, silent: Sure, late: Sure) {
        self.note("connection given up");
        match (silent, late) {
            (Sure::No, _) | (_, Sure::Yes) => {
                self.unreached(true);
            }
            (_, Sure::Maybe) => self.is_unreached_or_stale(),
            (_, Sure::No) => {
                self.note("silent connection given up after a wake");
                self.connection_is_stale();
            }
        }
    }

    fn exchange_given_up(&mut self, own: &Exchange, thaw: Sure, silent: Sure, late: Sure) {
        // Time that is up is up, suspect or not.
        let stale = silent != Sure::No && late != Sure::Yes;
        let late = late == Sure::Maybe;
        // Whose time is up has not died.
        let thaw = match (stale, late) {
            (false, _) => Sure::No,
            (true, true) if thaw == Sure::Yes => Sure::Maybe,
            (true, _) => thaw,
        };
        let answered = own.plan.answer.as_ref().filter(|_| own.is_answered());
        let outcome = match (answered, stale, late) {
            (Some(answer), ..) => {
                self.note("answered, then time was up");
                Outcome::Answered(answer.verdict(own.heard))
            }
            (None, ..) if own.said_yes() => {
                self.note("a yes, and no more of it");
                Outcome::Answered(Verdict::Taken)
            }
            (None, false, _) if own.sent == 0 => Outcome::Unsent,
            (None, true, true) if own.sent == 0 => Outcome::UnsentOrStale,
            (None, true, false) if own.sent == 0 => Outcome::Stale(false),
            (None, true, false) if own.heard == 0 => {
                self.note("silent exchange given up after a wake");
                Outcome::Stale(true)
            }
            (None, true, true) if own.heard == 0 => Outcome::BrokenOrStale,
            (None, ..) => {
                self.note("attempt timed out");
                self.is_not_clear();
                Outcome::Broken
            }
        };
        self.is_known(own.payload, outcome, thaw);
    }
}
