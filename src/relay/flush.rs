//! Why Lambda's next event is held back after an INVOKE: the flush modes, and the telemetry that `end` needs.
//!
//! To hold means only not to ask: [`Relay::step`] asks as soon as the hold has ended.

use std::time::{Duration, Instant};

use crate::config::FlushMode;
use crate::contract::{Command, Now};
use crate::lambda::telemetry::{self, Telemetry, TelemetryEvent};
use crate::log::Level;

use super::peers::Addresses;
use super::phase::{HoldLimit, HoldReason, Phase};
use super::{Relay, SVC};

/// Time kept free before an invocation's deadline when the next event is held back: after the deadline, Lambda fails
/// the invocation.
const HOLD_MARGIN: Duration = Duration::from_millis(200);

/// Longest hold for sending alone. A healthy server answers a push in 0.3 to 1 s. The limit is also enough to give up a
/// connection that a freeze has killed, and to send on a new one.
const HOLD_BUDGET: Duration = Duration::from_secs(2);

/// Longest wait for `platform.runtimeDone`: a lost event must not hold the sandbox until the function's own deadline.
/// If a function runs for longer, its last uploads are sent at the next wake.
const RUNTIME_DONE_MAX: Duration = Duration::from_mins(1);

/// How long a client may be silent in the middle of an upload that a hold waits for.
const UPLOAD_SILENCE_MAX: Duration = Duration::from_secs(1);

/// Longest pause of a payload that a hold waits for: waiting for a `Retry-After` is billed.
const HOLD_PAUSE_MAX: Duration = Duration::from_secs(1);

impl Relay {
    /// Begins to hold the next event back after an INVOKE, if the flush mode says so: only to relay what waits, and
    /// only as long as the invocation lasts. [`Relay::release`] ends it at once if the server is down.
    pub(super) fn hold(&mut self, request_id: &str, deadline_ms: Option<u64>, now: Now) {
        if let Some(telemetry) = &mut self.telemetry {
            telemetry.await_done(request_id);
        }
        let (reason, budget) = match self.config.flush_mode {
            FlushMode::None => return,
            FlushMode::Invoke => (self.queued(), HOLD_BUDGET),
            FlushMode::End => (HoldReason::Running, RUNTIME_DONE_MAX),
        };
        let left = deadline_ms.map_or(self.config.timeout, |at| {
            Duration::from_millis(at.saturating_sub(now.unix_ms))
        });
        if self.phase == Phase::Serve {
            let latest = now.mono + left.saturating_sub(HOLD_MARGIN);
            let (until, limit) = HoldLimit::earlier(now.mono + budget, latest);
            self.phase = Phase::Hold {
                reason,
                since: now.mono,
                until,
                limit,
                latest,
            };
        }
    }

    const fn queued(&self) -> HoldReason {
        HoldReason::Queued {
            mark: self.ring.mark(),
        }
    }

    /// Ends a hold whose reason is gone, or whose time is up.
    pub(super) fn release(&mut self, now: Now) {
        self.handle_telemetry_event(now);
        if let Phase::Hold {
            reason: reason @ HoldReason::Running,
            until,
            limit,
            latest,
            ..
        } = &mut self.phase
            && self.telemetry.as_mut().is_none_or(Telemetry::take_done)
        {
            // From here on the invocation lasts longer only because of us.
            *reason = HoldReason::Done;
            (*until, *limit) = HoldLimit::earlier(now.mono + HOLD_BUDGET, *latest);
        }
        let Phase::Hold { reason, since, .. } = self.phase else {
            return;
        };
        let reached = self.reached_limit(now);
        let credentials = self.credentials.as_ref();
        let is_down = self.server.is_down() || credentials.is_some_and(|own| own.are_missing(now));
        if self.has_work_for(reason, now) && !is_down && reached.is_none() {
            return;
        }
        self.phase = Phase::Serve;
        self.held += now.mono.saturating_duration_since(since);
        match reached {
            Some(HoldLimit::Silence) => self.flush_at_invoke("none was delivered", now),
            Some(HoldLimit::Budget) => self.log_hold_over(reason, now),
            Some(HoldLimit::Deadline) | None => {}
        }
    }

    /// The limit that a hold has reached, if any.
    fn reached_limit(&self, now: Now) -> Option<HoldLimit> {
        match self.phase {
            Phase::Hold { until, limit, .. } if until <= now.mono => Some(limit),
            _ => (self.hold_until()? <= now.mono).then_some(HoldLimit::Silence),
        }
    }

    /// Whether there is still work to hold for.
    fn has_work_for(&self, reason: HoldReason, now: Now) -> bool {
        let soon = now.mono + HOLD_PAUSE_MAX;
        let is_uploading = || self.uploads_until().any(|until| until > now.mono);
        match reason {
            HoldReason::Running => true,
            HoldReason::Queued { mark } => {
                self.ring.has_work_before(mark, soon)
                    || self.ring.is_filling_before(mark) && is_uploading()
            }
            HoldReason::Done => self.ring.has_work_before(self.ring.mark(), soon) || is_uploading(),
        }
    }

    /// For each upload that is only partly read: until when the hold waits for more of it.
    fn uploads_until(&self) -> impl Iterator<Item = Instant> {
        let inlets = self.inlets.iter();
        inlets
            .filter(|(_, inlet)| inlet.is_reading())
            .map(|(_, inlet)| inlet.progressed() + UPLOAD_SILENCE_MAX)
    }

    /// When the hold must be checked again if nothing happens before.
    pub(super) fn next_hold_check(&self, now: Now) -> Option<Instant> {
        let uploads = self.uploads_until().filter(|until| *until > now.mono);
        self.hold_until().into_iter().chain(uploads).min()
    }

    /// The latest time at which the next event is asked for. Without any telemetry that is soon.
    pub(super) fn hold_until(&self) -> Option<Instant> {
        let Phase::Hold {
            reason,
            since,
            until,
            ..
        } = self.phase
        else {
            return None;
        };
        let silent = self
            .telemetry
            .as_ref()
            .is_some_and(|own| !own.has_delivered());
        Some(if reason == HoldReason::Running && silent {
            until.min(since + telemetry::SILENCE_MAX)
        } else {
            until
        })
    }

    /// Mode `end` must learn when an invocation is over. Without invocations (Managed Instances) it has nothing to wait
    /// for.
    pub(super) fn begin_telemetry(&mut self, now: Now) {
        if self.config.flush_mode == FlushMode::End
            && let Some(lambda) = self.lambda.as_ref()
            && lambda.receives_invocations()
        {
            let (api, identifier) = (lambda.authority(), lambda.identifier());
            self.telemetry = Some(Telemetry::new(api, identifier, now.mono));
        }
    }

    /// Gives the subscription what it needs: a port, and its own connection to Lambda's API.
    pub(super) fn subscribe(&mut self, now: Now) -> Option<Command> {
        let telemetry = self.telemetry.as_mut()?;
        if telemetry.take_port() {
            return Some(Command::ListenForTelemetry);
        }
        if !telemetry.is_connection_due() {
            return None;
        }
        let address = match &self.lambda_addresses {
            Addresses::Known(addresses, _) => addresses.first().copied(),
            Addresses::Unknown | Addresses::Asked => None,
        };
        let Some(address) = address else {
            telemetry.refuse("no address of the API".to_owned());
            self.handle_telemetry_event(now);
            return None;
        };
        let id = self.fresh_id();
        if let Some(telemetry) = &mut self.telemetry {
            telemetry.connect(id);
        }
        Some(Command::Connect(id, address))
    }

    /// Handles the result of the subscription, and of the deliveries.
    fn handle_telemetry_event(&mut self, now: Now) {
        match self.telemetry.as_mut().and_then(Telemetry::event) {
            None => {}
            Some(TelemetryEvent::Subscribed) => {
                let msg = "Subscribed to telemetry";
                self.log.line(Level::Debug, now.unix_ms, msg, &[SVC]);
            }
            Some(TelemetryEvent::Unexpected(what)) => self.log_unexpected(what, now),
            Some(TelemetryEvent::Refused(cause)) => self.flush_at_invoke(&cause, now),
        }
    }

    /// There is no telemetry, so mode `end` becomes `invoke`.
    fn flush_at_invoke(&mut self, cause: &str, now: Now) {
        if self.config.flush_mode != FlushMode::End {
            return;
        }
        self.config.flush_mode = FlushMode::Invoke;
        let queued = self.queued();
        if let Phase::Hold {
            reason,
            until,
            limit,
            latest,
            ..
        } = &mut self.phase
        {
            *reason = queued;
            (*until, *limit) = HoldLimit::earlier(now.mono + HOLD_BUDGET, *latest);
        }
        let fields = [
            ("cause", cause.into()),
            SVC,
            ("variable", "PYROSCOPE_FLUSH_MODE".into()),
        ];
        let msg = "No telemetry available, flush mode end becomes invoke";
        self.log.line(Level::Warning, now.unix_ms, msg, &fields);
    }
}
