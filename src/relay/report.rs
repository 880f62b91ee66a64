//! What is logged, and how often: an error at once, then once a minute with a count, and once when it ends.
//!
//! Log lines are billed by the byte, and a server can fail a thousand times a minute.

use std::time::{Duration, Instant};

use crate::contract::Now;
use crate::log::Level;

use super::credentials::Failure;
use super::phase::HoldReason;
use super::ring::{LeftOutReason, LossReason};
use super::uplink::Answer;
use super::{CONTROLLER, Relay, SVC};

/// Shortest time between two lines about the same error.
const LINE_EVERY: Duration = Duration::from_mins(1);

/// Limits the lines about one kind of error.
#[derive(Debug, Default)]
pub struct LogLimit {
    /// When it was last logged, while the error lasts.
    last_logged: Option<Instant>,
    /// How often it happened since then.
    since: u64,
}

impl LogLimit {
    /// It happened. Returns a count if it must be logged now: how often it happened since the last line, this time
    /// included.
    pub fn happened(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        if self
            .last_logged
            .is_some_and(|logged| now.saturating_duration_since(logged) < LINE_EVERY)
        {
            return None;
        }
        self.last_logged = Some(now);
        Some(std::mem::take(&mut self.since))
    }

    /// It has ended. Returns whether that must be logged: only if the error was.
    pub const fn over(&mut self) -> bool {
        self.since = 0;
        self.last_logged.take().is_some()
    }
}

/// All kinds of errors whose lines are limited.
#[derive(Debug, Default)]
pub struct LogLimits {
    /// The server is down.
    failed: LogLimit,
    /// A credential cannot be read.
    unread: LogLimit,
    /// The server refuses profiles.
    refused: LogLimit,
    /// The server refuses profiles with the settings' labels.
    unlabelled: LogLimit,
    /// Profiles are lost after the last attempt.
    exhausted: LogLimit,
    /// More clients than we serve at once.
    too_many_clients: LogLimit,
    /// Clients send requests that we refuse.
    pub client: LogLimit,
    /// Lambda's answers cannot be understood.
    unexpected: LogLimit,
    /// An invocation was held longer than allowed.
    hold: LogLimit,
    /// Clients cannot upload, because an address is taken.
    pub unbound: LogLimit,
}

impl Relay {
    /// An attempt failed. It is an error only if the server counts as down by now.
    pub(super) fn log_failed_attempt(&mut self, cause: &str, now: Now) {
        let is_down = self.server.is_down();
        let (level, msg) = if is_down {
            (Level::Error, "Cannot reach the server, profiles wait")
        } else {
            (Level::Debug, "An attempt failed")
        };
        let count = is_down.then(|| self.limits.failed.happened(now.mono));
        if count == Some(None) {
            return;
        }
        let mut fields = vec![("cause", cause.into())];
        if let Some(count) = count.flatten() {
            fields.push(("failures", count.into()));
        }
        if let Some(remote) = &self.config.remote {
            if let Some(proxy) = &remote.proxy {
                fields.push(("proxy", (&proxy.host).into()));
            }
            fields.push(("remote", (&remote.authority).into()));
        }
        fields.push(SVC);
        self.log.line(level, now.unix_ms, msg, &fields);
    }

    /// A profile is lost because the server refuses it.
    pub(super) fn log_refused(&mut self, answer: &Answer, now: Now) {
        self.log_reachable_again(now);
        if let Some(count) = self.limits.refused.happened(now.mono) {
            let cause = answer.words();
            let fields = [("cause", (&cause).into()), ("profiles", count.into()), SVC];
            self.log.line(
                Level::Error,
                now.unix_ms,
                "The server refuses profiles, they are lost",
                &fields,
            );
        }
    }

    /// A profile is sent again without the settings' labels.
    pub(super) fn log_unlabelled(&mut self, answer: &Answer, now: Now) {
        if let Some(count) = self.limits.unlabelled.happened(now.mono) {
            let cause = answer.words();
            let fields = [("cause", (&cause).into()), ("profiles", count.into()), SVC];
            self.log.line(
                Level::Warning,
                now.unix_ms,
                "The server refuses labelled profiles, they are sent without labels",
                &fields,
            );
        }
    }

    /// A credential cannot be read.
    pub(super) fn log_credentials_unread(&mut self, failure: &Failure, now: Now) {
        let Some(count) = self.limits.unread.happened(now.mono) else {
            return;
        };
        let fields = [
            ("cause", (&failure.cause).into()),
            ("failures", count.into()),
            ("place", (&failure.place).into()),
            SVC,
            ("variable", failure.variable.into()),
        ];
        let msg = "Cannot read a credential, profiles wait";
        self.log.line(Level::Error, now.unix_ms, msg, &fields);
    }

    /// The credentials were read.
    pub(super) fn log_credentials_read(&mut self, now: Now) {
        let level = if self.limits.unread.over() {
            Level::Info
        } else {
            Level::Debug
        };
        self.log
            .line(level, now.unix_ms, "The credentials were read", &[SVC]);
    }

    /// The server refuses the credentials. They are read again, unless they were just read.
    pub(super) fn log_credentials_refused(
        &mut self,
        answer: &Answer,
        was_just_read: bool,
        now: Now,
    ) {
        let cause = answer.words();
        let (level, msg) = if was_just_read {
            let msg = "The server refuses the credentials, profiles wait";
            (Level::Error, msg)
        } else {
            let msg = "The server refuses the credentials, they are read again";
            (Level::Info, msg)
        };
        if was_just_read && self.limits.refused.happened(now.mono).is_none() {
            return;
        }
        let waiting = self.ring.in_hand() as u64;
        let fields = [("cause", (&cause).into()), SVC, ("waiting", waiting.into())];
        self.log.line(level, now.unix_ms, msg, &fields);
    }

    /// A profile is lost because it was tried too often.
    pub(super) fn log_attempts_exhausted(&mut self, cause: &str, now: Now) {
        if let Some(count) = self.limits.exhausted.happened(now.mono) {
            let fields = [("cause", cause.into()), ("profiles", count.into()), SVC];
            self.log.line(
                Level::Error,
                now.unix_ms,
                "Profiles are lost, all attempts failed",
                &fields,
            );
        }
    }

    /// The server accepted a profile: errors that were logged have ended.
    pub(super) fn log_recovered(&mut self, now: Now) {
        self.log_reachable_again(now);
        let (refused, exhausted) = (self.limits.refused.over(), self.limits.exhausted.over());
        if refused || exhausted {
            self.log.line(
                Level::Info,
                now.unix_ms,
                "The server accepts profiles again",
                &[SVC],
            );
        }
    }

    fn log_reachable_again(&mut self, now: Now) {
        if self.limits.failed.over() {
            let fields = [SVC, ("waiting", (self.ring.in_hand() as u64).into())];
            self.log.line(
                Level::Info,
                now.unix_ms,
                "The server can be reached again",
                &fields,
            );
        }
    }

    /// A client was closed for another one.
    pub(super) fn log_too_many_clients(&mut self, now: Now) {
        if let Some(count) = self.limits.too_many_clients.happened(now.mono) {
            let fields = [CONTROLLER, ("count", count.into()), SVC];
            let msg = "Too many local connections, the one idle for longest is closed";
            self.log.line(Level::Warning, now.unix_ms, msg, &fields);
        }
    }

    /// Lambda's API gave an answer that we do not understand, or none.
    pub(super) fn log_unexpected(&mut self, what: &str, now: Now) {
        if let Some(count) = self.limits.unexpected.happened(now.mono) {
            let fields = [("cause", what.into()), ("count", count.into()), SVC];
            self.log.line(
                Level::Warning,
                now.unix_ms,
                "Unexpected response from Lambda",
                &fields,
            );
        }
    }

    /// A hold has ended before its work was done.
    pub(super) fn log_hold_over(&mut self, reason: HoldReason, now: Now) {
        let cause = match reason {
            HoldReason::Running => "no platform.runtimeDone arrived",
            HoldReason::Queued { .. } | HoldReason::Done => "the server is slow",
        };
        // A function may well run for long.
        let level = match reason {
            HoldReason::Running => Level::Info,
            HoldReason::Queued { .. } | HoldReason::Done => Level::Warning,
        };
        if let Some(count) = self.limits.hold.happened(now.mono) {
            let fields = [
                ("cause", cause.into()),
                ("count", count.into()),
                SVC,
                ("waiting", (self.ring.in_hand() as u64).into()),
            ];
            let msg = "Flush not finished, the invocation is no longer held";
            self.log.line(level, now.unix_ms, msg, &fields);
        }
    }

    /// One line for the whole sandbox.
    pub(super) fn log_totals(&mut self, now: Now) {
        let totals = *self.ring.totals();
        let mut fields = vec![
            ("acknowledged", totals.acknowledged.into()),
            ("bytes", totals.relayed_bytes.into()),
            ("held_ms", (self.held.as_millis() as u64).into()),
            ("high_water_bytes", (totals.high_water_bytes as u64).into()),
            ("lost", totals.lost_sum().into()),
            ("relayed", totals.relayed.into()),
            ("resent", totals.resent.into()),
            SVC,
        ];
        if let Some(profile) = &self.profile {
            // These are included in the acknowledged ones.
            fields.push(("self_profiles", profile.taken().into()));
        }
        for reason in LeftOutReason::ALL {
            if totals.left_out[reason as usize] > 0 {
                fields.push((reason.name(), totals.left_out[reason as usize].into()));
            }
        }
        for loss in LossReason::ALL {
            if totals.lost[loss as usize] > 0 {
                fields.push((loss.name(), totals.lost[loss as usize].into()));
            }
        }
        fields.sort_unstable_by_key(|(name, _)| *name);
        let level = if totals.lost_sum() > 0 {
            Level::Warning
        } else {
            Level::Info
        };
        self.log.line(level, now.unix_ms, "Relay closed", &fields);
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a made-up clock has to start somewhere"
)]
mod tests {
    use super::*;

    #[test]
    fn at_once_then_once_a_minute_then_its_end() {
        let start = Instant::now();
        let mut limit = LogLimit::default();
        assert!(!limit.over());
        let logged: Vec<_> = (0..600)
            .filter_map(|second| {
                limit
                    .happened(start + Duration::from_secs(second))
                    .map(|n| (second, n))
            })
            .collect();
        assert_eq!(
            logged,
            [
                (0, 1),
                (60, 60),
                (120, 60),
                (180, 60),
                (240, 60),
                (300, 60),
                (360, 60),
                (420, 60),
                (480, 60),
                (540, 60)
            ]
        );
        assert!(limit.over());
        assert!(!limit.over());
        assert_eq!(limit.happened(start), Some(1));
    }
}
