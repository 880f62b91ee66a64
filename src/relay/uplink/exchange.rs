//! One request and its answer.

use std::time::Duration;

use crate::contract::Now;
use crate::http1::fields;
use crate::http1::response::ResponseReader;
use crate::relay::phrases;
use crate::relay::ring::Ring;

use super::attempt::Attempt;
use super::finished::{Answer, Death};
use super::{State, Uplink};

/// Most bytes of an answer's body that are read to reuse the connection.
const ANSWER_BODY_MAX: usize = 64 * 1024;

/// Bytes of an answer's body that are searched for known phrases. Pyroscope names a profile's labels first.
const EXCERPT_BYTES: usize = 1024;

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) attempt: Attempt,
    /// Bytes of head and body written, or encrypted.
    pub(super) sent: usize,
    pub(super) reader: ResponseReader,
    pub(super) answer: Answer,
    pub(super) body_bytes: usize,
    /// Whether any byte of an answer has arrived.
    pub(super) answer_begun: bool,
    /// Whether the answer's head arrived before the whole request was sent.
    pub(super) early: bool,
    /// Whether the whole request was sent when the last bytes of an answer arrived.
    pub(super) is_sent: bool,
}

impl Uplink {
    pub(super) fn read_answer(&mut self, ring: &Ring, now: Now) {
        let State::Exchange(exchange) = &mut self.state else {
            return;
        };
        exchange.answer_begun = true;
        let Answer {
            status,
            retry_after,
            place,
            excerpt,
        } = &mut exchange.answer;
        let body_bytes = &mut exchange.body_bytes;
        let result = exchange.reader.read(
            &mut self.inbox,
            |head| {
                let seconds = fields::value(head.headers, "retry-after").and_then(fields::digits);
                *status = head.status;
                *retry_after = seconds.map(Duration::from_secs);
                if (300..400).contains(&head.status)
                    && let Some(location) = fields::value(head.headers, "location")
                {
                    *place = phrases::place(location);
                }
            },
            |body| {
                let room = EXCERPT_BYTES - excerpt.len();
                excerpt.extend_from_slice(&body[..body.len().min(room)]);
                *body_bytes += body.len();
            },
        );
        let unsent = exchange
            .unsent(&self.head, ring)
            .iter()
            .any(|rest| !rest.is_empty());
        exchange.early |= exchange.reader.has_head() && unsent;
        exchange.is_sent = !unsent;
        let early = exchange.early;
        match (result, exchange.reader.done()) {
            // The answer is final before the whole request was sent: take the status, then close. But the server has
            // not accepted what it has not read.
            (_, _) if early && exchange.answer.status / 100 == 2 => {
                self.fail("success before the whole request was sent".to_owned(), now);
            }
            (Err(cause), _) => self.fail(cause.to_owned(), now),
            (Ok(()), _) if early => self.answered(false),
            (Ok(()), Some(keep_alive)) => self.answered(keep_alive && self.inbox.is_empty()),
            (Ok(()), None) if exchange.body_bytes > ANSWER_BODY_MAX => self.answered(false),
            (Ok(()), None) => {}
        }
    }
}

impl Exchange {
    /// Whether the server answered 2xx to the whole request.
    pub(super) const fn is_accepted(&self) -> bool {
        self.reader.has_head() && self.answer.status / 100 == 2 && !self.early
    }

    /// How far the exchange is, if the connection is dead now.
    pub(super) const fn death(&self) -> Death {
        match (self.answer_begun, self.sent) {
            (true, _) => Death::MidAnswer,
            (false, 0) => Death::BeforeSending,
            (false, _) => Death::Silent,
        }
    }

    /// The unsent part of the head and of the body. The head is `head`, or the one in the ring if that is empty.
    pub(super) fn unsent<'r>(&self, head: &'r [u8], ring: &'r Ring) -> [&'r [u8]; 2] {
        let [plain, body] = ring.request(self.attempt.payload);
        let head = if head.is_empty() { plain } else { head };
        if self.sent < head.len() {
            [&head[self.sent..], body]
        } else {
            [&[], &body[self.sent - head.len()..]]
        }
    }
}
