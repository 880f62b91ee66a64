//! What is told in the log, and how often: trouble at once, then once a minute with a count, then its end.
//!
//! Log lines are billed by the byte, and a backend can fail a thousand times a minute.

use std::time::{Duration, Instant};

use crate::contract::Now;
use crate::log::Level;

use super::credentials::Failure;
use super::phase::HoldReason;
use super::ring::{LeftOutReason, LossReason};
use super::uplink::Answer;
use super::{CONTROLLER, Relay, SVC};

/// Shortest time between two lines about the same trouble.
const LINE_EVERY: Duration = Duration::from_mins(1);

/// One kind of trouble.
#[derive(Debug, Default)]
pub struct LogLimit {
    /// When it was last told, while it lasts.
    last_logged: Option<Instant>,
    /// How often it happened since then.
    since: u64,
}

impl LogLimit {
    /// It happened. If it is to be told now: how often it happened since it was last told, this time included.
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

    /// It is over. Whether that is to be logged: only if the trouble was.
    pub const fn over(&mut self) -> bool {
        self.since = 0;
        self.last_logged.take().is_some()
    }
}

/// Every kind of trouble that is told with a limit.
#[derive(Debug, Default)]
pub struct LogLimits {
    /// The remote is down.
    failed: LogLimit,
    /// A credential cannot be read.
    unread: LogLimit,
    /// The remote refuses profiles.
    refused: LogLimit,
    /// The remote refuses profiles with the settings' labels.
    unlabelled: LogLimit,
    /// Profiles are given up after the last attempt.
    exhausted: LogLimit,
    /// More clients than we serve at once.
    too_many_clients: LogLimit,
    /// Clients send what we refuse.
    pub client: LogLimit,
    /// Lambda answers what we do not understand.
    unexpected: LogLimit,
    /// An invocation was held for longer than it may be.
    hold: LogLimit,
    /// Nobody can upload, as an address is taken.
    pub unbound: LogLimit,
}

impl Relay {
    /// An attempt failed: told if the remote counts as down by now.
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

    /// A profile is lost because the remote refuses it.
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

    /// The remote refuses the credentials. They are read again, unless they were just read.
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

    /// The remote took a profile: what was told as trouble is told to be over.
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

    /// A client gave way to another.
    pub(super) fn log_too_many_clients(&mut self, now: Now) {
        if let Some(count) = self.limits.too_many_clients.happened(now.mono) {
            let fields = [CONTROLLER, ("count", count.into()), SVC];
            let msg = "Too many local connections, the one idle for longest is closed";
            self.log.line(Level::Warning, now.unix_ms, msg, &fields);
        }
    }

    /// Lambda's API answered what we do not understand, or not at all.
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

    /// An invocation is not held any longer, though what it was held for is not done.
    pub(super) fn log_hold_over(&mut self, reason: HoldReason, now: Now) {
        let cause = match reason {
            HoldReason::Running => "no platform.runtimeDone arrived",
            HoldReason::Queued { .. } | HoldReason::Done => "the server is slow",
        };
        // A function may run for long.
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
            // They are among the acknowledged.
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
