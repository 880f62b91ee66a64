//! What the end of an attempt means for its payload and for the backend: the table of failures.
//!
//! | outcome | the payload | the backend |
//! |---|---|---|
//! | 2xx | relayed | up |
//! | a status that may pass | later, after a pause; this may count as an attempt | one failure; with `Retry-After` or a limit, it waits |
//! | 401, 403, with credentials that can be read again | waits for that | up |
//! | another status | lost | up |
//! | died before an answer, on a reused connection or after a wake | at once, on a new connection; once | |
//! | not reached, or nothing was sent | when the backend is up again | down |
//! | broke after sending began | later, after a pause; this may count as an attempt | one failure |
//!
//! A success is one as soon as its status line is there and all of the request was sent: to send the payload again would
//! make it two.
//!
//! A failed attempt counts only if another payload got through since the payload's last one: where nothing gets
//! through, the payload is not to blame.

use std::time::Duration;

use crate::contract::Now;

use super::ring::{LossReason, PayloadId};
use super::server::{WaitReason, jitter};
use super::uplink::{Answer, Death, Finished, Outcome, Uplink};
use super::{Phase, Relay};

/// Attempts that count for one payload, if the remote was reached.
const ATTEMPTS_MAX: u8 = 5;

/// Pause after a payload's first failed attempt, doubling with each, up to four times.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const RETRY_DOUBLINGS_MAX: u8 = 4;

/// Longest `Retry-After` honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// What Pyroscope says of a daily limit, before the time at which it takes profiles again, in RFC 3339.
const NEXT_RESET: &[u8] = b"/day reached, next reset at ";

/// Longest wait for a limit to begin anew.
const RESET_MAX: Duration = Duration::from_hours(24);

impl Relay {
    /// Draws the conclusions from every attempt that ended.
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
            // Nothing was wrong with the payload, nor with the backend.
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
            // A freeze that the clocks show says nothing of the backend.
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
            // The labels may be too many, or not to its liking.
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
        // The pauses were the backend's: it is back.
        if self.server.reached(now) {
            self.ring.clear_pauses();
        }
    }

    /// The payload's connection was dead before: it goes out at once, on a new connection. Others that were idle
    /// through the same freeze are not trusted either.
    fn resend(&mut self, payload: PayloadId, death: Death) {
        if death == Death::BeforeSending {
            self.ring.was_not_sent(payload);
        } else {
            self.ring.was_sent(payload);
        }
        self.ring.retry(payload, None);
        self.uplinks.iter_mut().for_each(Uplink::close_if_idle);
    }

    /// Nothing was wrong with the payload: it waits until the backend is back.
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
        // As we leave, every payload is tried until the end; the pause only keeps us from asking without end.
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

/// For how long the remote wants nothing, and why.
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

/// What the remote says after "next reset at", if it says that a daily limit is reached. What it says of a label may be
/// anything, and comes with `invalid_argument`.
fn limit(answer: &Answer) -> Option<&[u8]> {
    let at = find(&answer.excerpt, NEXT_RESET)?;
    let is_limit =
        matches!(answer.status, 422 | 429) && find(&answer.excerpt, b"invalid_argument").is_none();
    is_limit.then(|| &answer.excerpt[at + NEXT_RESET.len()..])
}

/// Whether the payload may be taken another time. Pyroscope's status does not always tell: where `/ingest` has read
/// a pprof or a JFR and cannot push it on, it says 422, be it for want of a place to store it or for a rate limit;
/// and Push says 429 of what will always be too large. 509 and 520 to 530 are those of hosters and of load balancers
/// that cannot reach the server behind them.
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

/// The time that `text` begins with, `2026-11-22T00:00:00Z` or with an offset, in Unix milliseconds; fractions of
/// a second are passed over (RFC 3339 section 5.6).
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
    // Days since 1970, in years that begin in March, so that the leap day comes last.
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
