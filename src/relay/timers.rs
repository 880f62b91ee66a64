//! What is due now, and when the next thing is due.

use std::time::{Duration, Instant};

use crate::contract::Now;
use crate::lambda::Lambda;
use crate::profile::SelfProfile;

use super::Relay;
use super::phase::Phase;
use super::uplink::Uplink;

/// How long spare memory is kept after the last payload.
const TRIM_AFTER: Duration = Duration::from_secs(1);

impl Relay {
    /// Time has passed. The shell reports it last in a turn, so that what has arrived counts before timeouts.
    pub fn expire(&mut self, now: Now) {
        self.uplinks
            .iter_mut()
            .for_each(|uplink| uplink.expire(now));
        self.inlets
            .iter_mut()
            .for_each(|(_, inlet)| inlet.expire(now.mono));
        if let Some(inquiry) = self.inquiry_mut() {
            inquiry.expire(now.mono);
        }
        if self.trim_at.is_some_and(|at| at <= now.mono) {
            self.trim_at = None;
            self.ring.trim();
            self.uplinks.iter_mut().for_each(Uplink::trim);
        }
    }

    /// When [`Relay::expire`] or [`Relay::step`] has work, if nothing happens before.
    ///
    /// Always later than `now`: what was due by then is done, or waits for another event.
    #[must_use]
    pub fn deadline(&self, now: Now) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Hold { .. } => self.next_hold_check(now),
            Phase::Drain { until, .. } => {
                let new = self
                    .inlets
                    .iter()
                    .filter_map(|(_, inlet)| inlet.new_until());
                new.filter(|at| *at > now.mono).chain([until]).min()
            }
            Phase::Serve | Phase::Done => None,
        };
        let telemetry = self.telemetry.as_ref();
        let subscription = telemetry.and_then(|own| own.delays_next_until(now.mono));
        let probe = self
            .server
            .probe_at(now)
            .filter(|_| self.ring.in_hand() > 0);
        let lambda = self.lambda.as_ref().and_then(Lambda::deadline);
        let uplinks = self
            .uplinks
            .iter()
            .filter_map(|uplink| uplink.deadline(now.mono));
        let inlets = self.inlets.iter().filter_map(|(_, inlet)| inlet.deadline());
        let single = [
            phase,
            self.credentials.as_ref().and_then(|own| own.deadline(now)),
            subscription,
            probe,
            lambda,
            self.trim_at,
            self.ring.next_due(now.mono),
            self.profile.as_ref().and_then(SelfProfile::deadline),
        ];
        let all = single.into_iter().flatten().chain(uplinks).chain(inlets);
        all.filter(|at| *at > now.mono).min()
    }

    /// Plans to give spare memory back to the system some time after the last payload.
    pub(super) fn schedule_trim(&mut self, now: Now) {
        if !self.ring.is_empty() {
            self.trim_at = None;
        } else if self.trim_at.is_none() && self.ring.has_spares() {
            self.trim_at = Some(now.mono + TRIM_AFTER);
        }
    }
}
