//! How an attempt ends, and what becomes of its connection.

use crate::contract::Now;
use crate::http1::head;
use crate::relay::transport::Stage;

use super::finished::{Death, Finished, Outcome};
use super::{State, Uplink};

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

    /// The attempt failed because something is wrong with one end.
    pub(super) fn fail(&mut self, cause: String, now: Now) {
        self.end(cause, Outcome::GivenUp, now);
    }

    /// The connection died under the attempt.
    pub(super) fn connection_died(&mut self, cause: String, now: Now) {
        self.end(cause, Outcome::Died, now);
    }

    /// This address does not work: try another one, or fail.
    pub(super) fn end(&mut self, cause: String, how: fn(Death, String) -> Outcome, now: Now) {
        if let State::Opening(attempt) = &mut self.state
            && self.transport.falls_back(now.mono)
        {
            // The next address starts fresh.
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
            // If all was sent, a final status counts, even if the rest of the answer is missing.
            State::Exchange(exchange)
                if exchange.reader.has_head() && exchange.answer.status / 100 != 2
                    || exchange.is_accepted() =>
            {
                self.answered(false);
            }
            State::Exchange(exchange) => {
                let death = exchange.death();
                // A readable success counts, even if the rest of its head is malformed or missing.
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

    /// Returns how the attempt ended, once. The connection is then ready for another, or closed.
    pub(in crate::relay) fn finished(&mut self, now: Now) -> Option<Finished> {
        if !self.is_finished() {
            return None;
        }
        let State::Finished(finished) = std::mem::replace(&mut self.state, State::Closed) else {
            return None;
        };
        // An uplink that is still suspect got its answer in the turn of the wake, perhaps before a freeze that has
        // killed the connection since.
        let was_suspect = self.suspicion.take().is_some();
        if finished.reusable && !was_suspect {
            self.served += 1;
            self.state = State::Ready { since: now };
        }
        Some(finished)
    }

    /// No time is left: a server that answered 2xx has the payload, even if a part of its answer is missing.
    pub(in crate::relay) fn settle(&mut self) {
        if let State::Exchange(exchange) = &self.state
            && exchange.is_accepted()
        {
            self.answered(false);
        }
    }

    /// We may be a copy: all copies have the same connection and the same keys, so it must not be reused.
    pub(in crate::relay) fn forget(&mut self) {
        if !self.awaits_address() {
            self.finish_failed("part of a SnapStart snapshot".to_owned(), Outcome::Died);
        }
    }

    /// The connection must not be reused; closes it if it carries nothing now.
    pub(in crate::relay) fn close_if_idle(&mut self) {
        match &mut self.state {
            State::Ready { .. } => self.state = State::Closed,
            State::Finished(finished) => finished.reusable = false,
            State::Opening(_) | State::Exchange(_) | State::Closed => {}
        }
    }
}
