//! Freezes, seen and unseen: frozen time does not count, and a busy connection must show that it is alive.

use std::time::Duration;

use crate::contract::Now;
use crate::log::Level;
use crate::times::Thaw;

use super::ring::PayloadId;
use super::{Relay, SVC};

/// Why the sandbox may have been frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// The clocks show it.
    Seen,
    /// An INVOKE or SHUTDOWN came: there may have been a freeze too short to be seen.
    Unseen,
}

/// How often the sandbox may have been frozen so far, and how often the clocks have shown it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wakes {
    pub(super) all: u64,
    pub(super) seen: u64,
}

impl Relay {
    /// The sandbox was frozen for this long. That time does not count.
    pub fn thawed(&mut self, frozen: Duration, now: Now) {
        let ms = frozen.as_millis() as u64;
        self.log.line(
            Level::Debug,
            now.unix_ms,
            "Thawed",
            &[("frozen_ms", ms.into()), SVC],
        );
        self.thaw = Some(Thaw {
            at_ms: now.unix_ms,
            clock_lag_ms: self.clock_lag_ms(now),
        });
        self.ring.thawed(frozen);
        self.server.thawed(frozen);
        if let Some(profile) = &mut self.profile {
            profile.thawed(frozen);
        }
        self.inlets
            .iter_mut()
            .for_each(|(_, inlet)| inlet.thawed(frozen));
        self.uplinks
            .iter_mut()
            .for_each(|uplink| uplink.thawed(frozen));
        if let Some(lambda) = &mut self.lambda {
            lambda.thawed(frozen);
        }
        if let Some(inquiry) = self.inquiry_mut() {
            inquiry.thawed(frozen);
        }
        self.forget_addresses(now);
        self.wake(Wake::Seen, now);
    }

    /// The sandbox may have been frozen until now: a busy connection must show that it is alive.
    pub(super) fn wake(&mut self, wake: Wake, now: Now) {
        self.wakes.all += 1;
        self.wakes.seen += u64::from(wake == Wake::Seen);
        for uplink in &mut self.uplinks {
            // If a freeze is only possible, one resend is enough. Otherwise a slow server would never get time to
            // answer.
            let may_resend =
                |payload: PayloadId| wake == Wake::Seen || self.ring.has_free_resend(payload);
            if uplink.payload().is_some_and(may_resend) {
                uplink.suspect(wake, now.mono);
            }
        }
        if let Some(inquiry) = self.inquiry_mut() {
            inquiry.suspect(now.mono);
        }
    }

    /// How much more the wall clock advanced than the monotonic clock since `step` last ran.
    fn clock_lag_ms(&self, now: Now) -> u64 {
        self.decided.map_or(0, |then| {
            let wall = now.unix_ms.saturating_sub(then.unix_ms);
            let mono = now.mono.saturating_duration_since(then.mono);
            wall.saturating_sub(mono.as_millis() as u64)
        })
    }
}
