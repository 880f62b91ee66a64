//! What a user is promised, beside an exact account: that nothing arrives later than it must.

use pyroscope_lambda_extension::relay::ring::LossReason;

use super::ledger::{Fate, Range};
use super::weather::Weather;
use super::world::World;

/// Longest pauses that come before an attempt, in microseconds: a payload's own, that of a server that is down, and
/// the patience with an attempt that a freeze may have killed.
const PAUSES_MAX: u64 = 3_200_000 + 2_000_000 + 1_000_000;

/// Longest attempt in good weather, from the first connection to the answer's end, with much to send.
const ATTEMPT_MAX: u64 = 12_000_000;

/// Payloads that can be delivered at the end, to a server that is half a second away.
const LAST_MAX: u64 = 60;

/// Time that takes.
const LAST_TIME: u64 = 1_850_000;

/// Most bytes that are sent on within no time.
const LAST_BYTES_MAX: usize = 20_000;

#[derive(Debug, Default)]
pub struct Promises {
    /// Since when nothing stands in the way, by the monotonic clock; none while something does.
    clear_since: Option<u64>,
    /// What must have been delivered in the end.
    last: Option<Vec<usize>>,
}

impl World {
    /// Something may have stood in the way until now.
    pub fn is_not_clear(&mut self) {
        self.ledger.promises.clear_since = None;
        self.ledger.promises.last = None;
    }

    /// No payload waits for longer than it must.
    pub fn check_promises(&mut self) {
        let (now, unix_ms) = (self.clock.mono(), self.now().unix_ms);
        let rests = self.ledger.opinion.may_rest(unix_ms) || self.server.hides_attempts();
        if !self.server.sky.weather.is_good() || rests || !self.set.usable {
            self.ledger.promises.clear_since = None;
            return;
        }
        let turns = self.ledger.payloads.len() / self.set.workers + 1;
        let longest = self.set.timeout + PAUSES_MAX + turns as u64 * ATTEMPT_MAX;
        let since = *self.ledger.promises.clear_since.get_or_insert(now);
        if now < since + longest || self.relay.totals().lost[LossReason::Full as usize] > 0 {
            return;
        }
        let late = self.ledger.payloads.iter().position(|payload| {
            let then = payload.acknowledged.map_or(now, |(_, then)| then);
            let waits = matches!(payload.fate, Fate::Waiting | Fate::Sending);
            waits && !payload.poison && then + longest < now
        });
        if let Some(late) = late {
            self.fail(format!("payload {late} waits for more than it must"));
        }
        self.note("nothing waits for longer than it must");
    }

    /// We are told to leave, in good time, and the server is well: all that waits arrives.
    pub fn promises_delivery(&mut self, until: Range) {
        use Fate::{Sending, Waiting};
        let now = self.clock.mono();
        let opinion = &self.ledger.opinion;
        let well = self.server.sky.weather == Weather::HalfSecond
            && !opinion.maybe_down
            && !opinion.may_rest(self.now().unix_ms)
            && !self.server.hides_attempts()
            && self.server.all_speak(&self.wires)
            && self.server.all_begun_since(self.server.sky.mono);
        let waiting = self.ledger.payloads.iter().enumerate();
        let waiting = waiting.filter(|(_, payload)| matches!(payload.fate, Waiting | Sending));
        let bytes: usize = waiting.clone().map(|(_, own)| own.request.len()).sum();
        let waiting: Vec<usize> = waiting.map(|(at, _)| at).collect();
        let few = waiting.len() as u64 <= LAST_MAX && bytes <= LAST_BYTES_MAX;
        let few = few && !waiting.iter().any(|at| self.ledger.payloads[*at].poison);
        if well && few && until.least >= now + LAST_TIME && self.set.timeout > 2_000_000 {
            self.ledger.promises.last = Some(waiting);
        }
    }

    /// We leave: what could be delivered has been.
    pub fn check_goodbye(&mut self) {
        let Some(last) = self.ledger.promises.last.take() else {
            return;
        };
        if self.relay.totals().lost[LossReason::Full as usize] > 0 {
            return;
        }
        for at in &last {
            let fate = self.ledger.payloads[*at].fate;
            let over = !matches!(fate, Fate::Waiting | Fate::Sending | Fate::MaybeSpent);
            self.require(over, format!("payload {at} could have been delivered"));
        }
        if last.len() > self.set.workers {
            self.note("all delivered at the end, half a second away");
        }
    }
}
