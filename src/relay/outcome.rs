//! What the end of an attempt means for its payload and for the server: the table of failures.
//!
//! | outcome | the payload | the server |
//! |---|---|---|
//! | 2xx | relayed | up |
//! | a transient status | retried after a pause; may count as an attempt | one failure; with `Retry-After` or a limit, it waits |
//! | 401, 403, with credentials that can be read again | waits for that | up |
//! | another status | lost | up |
//! | died before an answer, on a reused connection or after a wake | retried at once on a new connection, one time | |
//! | not reached, or nothing was sent | retried when the server is up again | down |
//! | broke after sending began | retried after a pause; may count as an attempt | one failure |
//!
//! An attempt succeeds as soon as the status line has arrived and the whole request was sent: sending the payload again
//! would duplicate it.
//!
//! A failed attempt counts only if another payload was relayed since the payload's last failure. If nothing gets
//! through, the payload is not the cause.

use std::time::Duration;

use crate::contract::Now;

use super::ring::{LossReason, PayloadId};
use super::server::{WaitReason, jitter};
use super::uplink::{Answer, Death, Finished, Outcome, Uplink};
use super::{Phase, Relay};

/// Most attempts that count for one payload, if the server was reached.
const ATTEMPTS_MAX: u8 = 5;

/// Pause after a payload's first failed attempt. It doubles with each failure, up to four times.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const RETRY_DOUBLINGS_MAX: u8 = 4;

/// Longest `Retry-After` that is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Pyroscope's text about a daily limit. The time at which it accepts profiles again follows, in RFC 3339.
const NEXT_RESET: &[u8] = b"/day reached, next reset at ";

/// Longest wait for a limit to reset.
const RESET_MAX: Duration = Duration::from_hours(24);

impl Relay {
    /// Handles every attempt that ended.
    pub(super) fn record_finished(&mut self, now: Now) {
        for at in 0..self.uplinks.len() {
            if let Some(finished) = self.uplinks[at].finished(now) {
                self.record(finished, now);
            }
        }
    }

    fn record(&mut self, finished: Finished, now: Now) {
        let payload = finished.payload;
        let may_be_stale = finished.reused || finished.wakes != self.wakes;
        match finished.outcome {
            Outcome::Answered(answer) => {
                self.record_answer(payload, &answer, finished.credentials, now);
            }
            // Neither the payload nor the server is the cause.
            Outcome::Died(death, _)
                if may_be_stale
                    && death != Death::MidAnswer
                    && self.ring.use_free_resend(payload) =>
            {
                self.resend(payload, death);
            }
            Outcome::Died(Death::BeforeSending, cause)
            | Outcome::GivenUp(Death::BeforeSending, cause) => {
                self.record_unreached(payload, &cause, now);
            }
            // The clocks show a freeze, so the failure says nothing about the server.
            Outcome::Died(_, cause) if finished.wakes.seen != self.wakes.seen => {
                self.record_failed(payload, &cause, now);
            }
            Outcome::Died(_, cause) | Outcome::GivenUp(_, cause) => {
                self.server.failed(now, (self.entropy)());
                self.record_failed(payload, &cause, now);
            }
        }
    }

    fn record_answer(&mut self, payload: PayloadId, answer: &Answer, credentials: u32, now: Now) {
        if answer.status / 100 == 2 {
            self.record_reached(now);
            self.ring.relayed(payload);
            return self.log_recovered(now);
        }
        let wait = wait(answer, now);
        if wait.is_some() || is_transient(answer) {
            let cause = answer.words();
            let random = (self.entropy)();
            match wait {
                Some((pause, why)) => self.server.asked_to_wait(pause, why, now, random),
                None => self.server.failed(now, random),
            }
            self.record_failed(payload, &cause, now);
        } else if matches!(answer.status, 401 | 403) && self.credentials.is_some() {
            self.record_reached(now);
            self.record_unauthorized(payload, credentials, answer, now);
        } else {
            self.record_reached(now);
            // The server may not accept the labels: too many, or not to its rules.
            if matches!(answer.status, 400 | 422) && self.ring.take_labels_away(payload) {
                self.ring.was_sent(payload);
                self.ring.retry(payload, None);
                return self.log_unlabelled(answer, now);
            }
            self.log_refused(answer, now);
            self.ring.lost(payload, LossReason::Refused);
        }
    }

    fn record_reached(&mut self, now: Now) {
        // The server caused the pauses, and it is back.
        if self.server.reached(now) {
            self.ring.clear_pauses();
        }
    }

    /// The payload's connection was already dead: it is sent at once on a new connection. Others that were idle during
    /// the same freeze are not trusted either.
    fn resend(&mut self, payload: PayloadId, death: Death) {
        if death == Death::BeforeSending {
            self.ring.was_not_sent(payload);
        } else {
            self.ring.was_sent(payload);
        }
        self.ring.retry(payload, None);
        self.uplinks.iter_mut().for_each(Uplink::close_if_idle);
    }

    /// The payload is not the cause: it waits until the server is back.
    fn record_unreached(&mut self, payload: PayloadId, cause: &str, now: Now) {
        self.ring.was_not_sent(payload);
        self.ring.retry(payload, None);
        self.forget_addresses(now);
        self.server.unreached(now, (self.entropy)());
        self.log_failed_attempt(cause, now);
    }

    /// The payload is tried again later, unless that was its last attempt.
    fn record_failed(&mut self, payload: PayloadId, cause: &str, now: Now) {
        self.log_failed_attempt(cause, now);
        // During shutdown every payload is tried until the end; the pause only prevents a tight loop.
        let leaving = matches!(self.phase, Phase::Drain { .. });
        let failed = self.ring.fail_attempt(payload);
        if failed.attempts >= ATTEMPTS_MAX && !leaving {
            self.ring.lost(payload, LossReason::Attempts);
            return self.log_attempts_exhausted(cause, now);
        }
        self.ring.was_sent(payload);
        let doublings = if leaving {
            0
        } else {
            failed.tries.saturating_sub(1).min(RETRY_DOUBLINGS_MAX)
        };
        let pause = jitter(RETRY_PAUSE * (1 << doublings), (self.entropy)());
        self.ring.retry(payload, Some(now.mono + pause));
    }
}

/// How long the server wants no requests, and why.
fn wait(answer: &Answer, now: Now) -> Option<(Duration, WaitReason)> {
    let reset = limit(answer)
        .and_then(rfc3339_ms)
        .and_then(|at| at.checked_sub(now.unix_ms))
        .map(|left| {
            (
                Duration::from_millis(left).min(RESET_MAX),
                WaitReason::Limit,
            )
        });
    let retry_after = answer
        .retry_after
        .filter(|pause| !pause.is_zero() && is_transient(answer))
        .map(|pause| (pause.min(RETRY_AFTER_MAX), WaitReason::RetryAfter));
    reset.or(retry_after)
}

/// The text after "next reset at", if the server says that a daily limit is reached. An error about a label may quote
/// any text, and comes with `invalid_argument`.
fn limit(answer: &Answer) -> Option<&[u8]> {
    let at = find(&answer.excerpt, NEXT_RESET)?;
    let is_limit =
        matches!(answer.status, 422 | 429) && find(&answer.excerpt, b"invalid_argument").is_none();
    is_limit.then(|| &answer.excerpt[at + NEXT_RESET.len()..])
}

/// Whether the payload may be accepted later. Pyroscope's status alone does not say it. `/ingest` answers 422 also if it
/// has read a pprof or a JFR and cannot push it on, without a place to store it or because of a rate limit. Push answers
/// 429 also for what is always too large. Hosters and load balancers send 509 and 520 to 530 if they cannot reach the
/// server.
fn is_transient(answer: &Answer) -> bool {
    let contains = |words: &[u8]| find(&answer.excerpt, words).is_some();
    match answer.status {
        408 | 425 | 500 | 502 | 503 | 504 | 507 | 509 | 520..=524 | 529 | 530 => true,
        429 => !contains(b"larger than configured"),
        422 => limit(answer).is_some() || contains(b"pushing ") && !contains(b"invalid_argument"),
        _ => false,
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// The time at the start of `text`, `2026-11-22T00:00:00Z` or with an offset, in Unix milliseconds. Fractions of a
/// second are skipped (RFC 3339 section 5.6).
fn rfc3339_ms(text: &[u8]) -> Option<u64> {
    let number = |at: usize, len: usize| -> Option<i64> {
        let digits = text.get(at..at + len)?;
        digits.iter().try_fold(0, |value, byte| {
            let is_digit = byte.is_ascii_digit();
            is_digit.then(|| value * 10 + i64::from(byte - b'0'))
        })
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators
        .iter()
        .any(|(at, byte)| text.get(*at) != Some(byte))
    {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let seconds = number(11, 2)? * 3600 + number(14, 2)? * 60 + number(17, 2)?;
    let mut zone = 19;
    if text.get(zone) == Some(&b'.') {
        zone += 1;
        while text.get(zone).is_some_and(u8::is_ascii_digit) {
            zone += 1;
        }
    }
    let offset = match text.get(zone)? {
        b'Z' => 0,
        sign @ (b'+' | b'-') if text.get(zone + 3) == Some(&b':') => {
            let minutes = number(zone + 1, 2)? * 60 + number(zone + 4, 2)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    // Days since 1970. Years begin in March, so that the leap day is the last day.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469;
    u64::try_from((days * 86_400 + seconds - offset * 60) * 1000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_as_rfc_3339_writes_them() {
        for (text, unix_ms) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z and more", Some(951_825_600_000)),
            ("2026-11-22T00:00:00Z", Some(1_795_305_600_000)),
            ("2026-11-22T01:30:00+01:30\"}", Some(1_795_305_600_000)),
            ("2026-11-21T23:00:00.123456-01:00", Some(1_795_305_600_000)),
            ("2024-03-01T00:00:00Z", Some(1_709_251_200_000)),
            ("2100-12-31T23:59:59Z", Some(4_133_980_799_000)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-11-22 00:00:00Z", None),
            ("2026-11-22T00:00:00", None),
            ("2026-11-22T00:00:00+01-30", None),
            ("2026-11-2xT00:00:00Z", None),
            ("2026", None),
        ] {
            assert_eq!(rfc3339_ms(text.as_bytes()), unix_ms, "{text}");
        }
    }
}
