//! How an attempt ends, and with which of its connection's deaths.

use crate::contract::Now;
use crate::http1::head;
use crate::relay::ring::PayloadId;
use crate::relay::transport::Stage;
use crate::relay::wakes::Wakes;

use super::exchange::Answer;
use super::{State, Uplink};

/// How an attempt ended.
#[derive(Debug)]
pub(in crate::relay) struct Finished {
    /// The payload it was for.
    pub(in crate::relay) payload: PayloadId,
    /// What came of it.
    pub(in crate::relay) outcome: Outcome,
    /// Whether the connection had carried other exchanges before.
    pub(in crate::relay) reused: bool,
    /// Wakes of the sandbox before the attempt began.
    pub(in crate::relay) wakes: Wakes,
    /// Which credentials it was made with.
    pub(in crate::relay) credentials: u32,
    /// Whether the connection may carry another.
    reusable: bool,
}

/// What came of an attempt.
#[derive(Debug)]
pub(in crate::relay) enum Outcome {
    /// The remote answered.
    Answered(Answer),
    /// The connection ended, or stayed silent after a wake; and why, in words.
    Died(Death, String),
    /// It was given up: time ran out, or what came cannot be used; and why, in words.
    GivenUp(Death, String),
}

/// How far an exchange had come when its connection died. Decided once, where it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum Death {
    /// Nothing of the request was sent.
    BeforeSending,
    /// Sending had begun, and not a byte of an answer came.
    Silent,
    /// A part of an answer had come.
    MidAnswer,
}

impl Uplink {
    pub(super) fn answered(&mut self, reusable: bool) {
        if let State::Exchange(exchange) = &mut self.state {
            let answer = std::mem::take(&mut exchange.answer);
            self.finish(Outcome::Answered(answer));
            if let State::Finished(finished) = &mut self.state {
                finished.reusable = reusable;
            }
        }
    }

    /// The attempt failed, with the connection: something is wrong with one end.
    pub(super) fn fail(&mut self, cause: String, now: Now) {
        self.end(cause, Outcome::GivenUp, now);
    }

    /// The connection died under the attempt.
    pub(super) fn connection_died(&mut self, cause: String, now: Now) {
        self.end(cause, Outcome::Died, now);
    }

    /// This address is of no use: another one is tried, or the attempt has failed.
    pub(super) fn end(&mut self, cause: String, how: fn(Death, String) -> Outcome, now: Now) {
        if let State::Opening(attempt) = &mut self.state
            && self.transport.falls_back(now.mono)
        {
            // The next address begins anew.
            attempt.share = None;
            self.inbox.clear();
            self.suspicion = None;
        } else {
            self.finish_failed(cause, how);
        }
    }

    pub(super) fn finish_failed(&mut self, cause: String, how: fn(Death, String) -> Outcome) {
        match &self.state {
            State::Opening(_) => {
                let cause = if self.transport.stage() == Stage::Proxy {
                    ["the proxy: ", &cause].concat()
                } else {
                    cause
                };
                self.finish(how(Death::BeforeSending, cause));
            }
            // A final status counts, whatever became of the rest of the answer, if all was sent.
            State::Exchange(exchange)
                if exchange.reader.has_head() && exchange.answer.status / 100 != 2
                    || exchange.is_accepted() =>
            {
                self.answered(false);
            }
            State::Exchange(exchange) => {
                let death = exchange.death();
                // A success that can be read is one, though the rest of its head is garbage, or never came.
                let success = head::success_line(self.inbox.bytes());
                if let (Some(status), State::Exchange(exchange)) = (success, &mut self.state)
                    && !exchange.reader.has_head()
                    && exchange.is_sent
                {
                    exchange.answer.status = status;
                    self.answered(false);
                } else {
                    self.finish(how(death, cause));
                }
            }
            State::Ready { .. } | State::Finished(_) => self.close_if_idle(),
            State::Closed => {}
        }
    }

    pub(super) fn finish(&mut self, outcome: Outcome) {
        if let Some(attempt) = self.attempt() {
            self.state = State::Finished(Finished {
                payload: attempt.payload,
                outcome,
                reused: self.served > 0,
                wakes: attempt.wakes,
                credentials: self.credentials,
                reusable: false,
            });
        }
    }

    /// How the attempt ended, once. The connection is ready for another, or closed.
    pub(in crate::relay) fn finished(&mut self, now: Now) -> Option<Finished> {
        if !self.is_finished() {
            return None;
        }
        let State::Finished(finished) = std::mem::replace(&mut self.state, State::Closed) else {
            return None;
        };
        // Who is suspect still has answered in the wake's own turn, perhaps before a freeze that has killed it since.
        let was_suspect = self.suspicion.take().is_some();
        if finished.reusable && !was_suspect {
            self.served += 1;
            self.state = State::Ready { since: now };
        }
        Some(finished)
    }

    /// There is no time left: a remote that said yes has the payload, whatever is missing of its answer.
    pub(in crate::relay) fn settle(&mut self) {
        if let State::Exchange(exchange) = &self.state
            && exchange.is_accepted()
        {
            self.answered(false);
        }
    }

    /// We are a copy: every other copy has the same connection and the same keys, so it must not be used again.
    pub(in crate::relay) fn forget(&mut self) {
        if !self.awaits_address() {
            self.finish_failed("part of a SnapStart snapshot".to_owned(), Outcome::Died);
        }
    }

    /// The connection must not be used again, if it carries nothing by now.
    pub(in crate::relay) fn close_if_idle(&mut self) {
        match &mut self.state {
            State::Ready { .. } => self.state = State::Closed,
            State::Finished(finished) => finished.reusable = false,
            State::Opening(_) | State::Exchange(_) | State::Closed => {}
        }
    }
}
