//! What Lambda's next event is held back for after an INVOKE: the flush modes, and the telemetry that `end` needs.
//!
//! Holding is never more than not asking: [`Relay::step`] asks as soon as nothing is held for.

use std::time::{Duration, Instant};

use crate::config::FlushMode;
use crate::contract::{Command, ConnId, Now};
use crate::lambda::telemetry::{self, News, Telemetry};
use crate::log::Level;

use super::peers::Addresses;
use super::{Phase, Relay, SVC, Why};

/// Time kept back from an invocation's deadline when the next event is held back: past the deadline, Lambda
/// fails the invocation.
const HOLD_MARGIN: Duration = Duration::from_millis(200);

/// Longest pause of a payload that the next event is held back for: to wait out a `Retry-After` is billed.
const HOLD_PAUSE_MAX: Duration = Duration::from_secs(1);

impl Relay {
    /// Whether the next event is to be held back after an INVOKE: only to relay what waits, only as long as the
    /// invocation lasts, and never for a backend that is down.
    pub(super) fn hold(&mut self, request_id: &str, deadline_ms: Option<u64>, now: Now) {
        if let Some(telemetry) = &mut self.telemetry {
            telemetry.await_done(request_id);
        }
        let why = match self.config.flush_mode {
            FlushMode::None => return,
            FlushMode::Invoke => Why::Queued {
                mark: self.ring.mark(),
            },
            FlushMode::End => Why::Running,
        };
        let left = deadline_ms.map_or(self.config.timeout, |at| {
            Duration::from_millis(at.saturating_sub(now.unix_ms))
        });
        if self.phase == Phase::Serve {
            self.phase = Phase::Hold {
                why,
                since: now.mono,
                until: now.mono + left.saturating_sub(HOLD_MARGIN),
            };
        }
    }

    /// Ends a hold whose reason is gone, or whose time is up.
    pub(super) fn release(&mut self, now: Now) {
        self.hear_telemetry(now);
        let Phase::Hold { why, since, until } = self.phase else {
            return;
        };
        let (running, mark) = match why {
            Why::Queued { mark } => (false, mark),
            Why::Running => {
                let telemetry = self.telemetry.as_mut();
                let running = telemetry.is_some_and(|telemetry| !telemetry.takes_done());
                (running, self.ring.mark())
            }
        };
        let is_over = self.hold_until().is_some_and(|at| at <= now.mono);
        let soon = now.mono + HOLD_PAUSE_MAX;
        let waits = running || self.ring.moves_before(mark, soon);
        if !waits || self.backend.is_down() || is_over {
            self.phase = Phase::Serve;
            self.held += now.mono.saturating_duration_since(since);
            if is_over && now.mono < until {
                self.flush_at_invoke("none is delivered", now);
            }
        }
    }

    /// When the next event is asked for at the latest. Where telemetry does not come at all, that is soon.
    pub(super) fn hold_until(&self) -> Option<Instant> {
        let Phase::Hold { why, since, until } = self.phase else {
            return None;
        };
        let silent = self.telemetry.as_ref().is_some_and(|own| !own.was_heard());
        Some(if why == Why::Running && silent {
            until.min(since + telemetry::SILENCE_MAX)
        } else {
            until
        })
    }

    /// `end` needs to be told when an invocation is over. Where none are told of, there is nothing to wait for.
    pub(super) fn begin_telemetry(&mut self, now: Now) {
        if self.config.flush_mode == FlushMode::End
            && let Some(lambda) = self.lambda.as_ref()
            && lambda.hears_of_invocations()
        {
            let (api, identifier) = (lambda.authority(), lambda.identifier());
            self.telemetry = Some(Telemetry::new(api, identifier, now.mono));
        }
    }

    /// Gets the subscription what it needs: a port, and a connection to Lambda's API of its own.
    pub(super) fn subscribe(&mut self, now: Now) -> Option<Command> {
        let telemetry = self.telemetry.as_mut()?;
        if telemetry.takes_port() {
            return Some(Command::ListenForTelemetry);
        }
        if !telemetry.is_connection_due() {
            return None;
        }
        let address = match &self.lambda_addresses {
            Addresses::Known(addresses, _) => addresses.first().copied(),
            Addresses::Unknown | Addresses::Asked => None,
        };
        self.next_id += 1;
        let id = ConnId(self.next_id);
        if let Some(address) = address {
            telemetry.connect(id);
            Some(Command::Connect(id, address))
        } else {
            telemetry.refuse("no address of the API".to_owned());
            self.hear_telemetry(now);
            None
        }
    }

    /// What became of the subscription, and of what was delivered.
    fn hear_telemetry(&mut self, now: Now) {
        match self.telemetry.as_mut().and_then(Telemetry::news) {
            None => {}
            Some(News::Subscribed) => {
                let msg = "Subscribed to telemetry";
                self.log.line(Level::Debug, now.unix_ms, msg, &[SVC]);
            }
            Some(News::Odd(what)) => self.tell_odd(what, now),
            Some(News::Refused(cause)) => self.flush_at_invoke(&cause, now),
        }
    }

    /// There is no telemetry: `end` becomes `invoke`, the next best.
    fn flush_at_invoke(&mut self, cause: &str, now: Now) {
        if self.config.flush_mode != FlushMode::End {
            return;
        }
        self.config.flush_mode = FlushMode::Invoke;
        if let Phase::Hold { why, .. } = &mut self.phase {
            *why = Why::Queued {
                mark: self.ring.mark(),
            };
        }
        let fields = [
            ("cause", cause.into()),
            SVC,
            ("variable", "PYROSCOPE_FLUSH_MODE".into()),
        ];
        let msg = "No telemetry here, flush mode end becomes invoke";
        self.log.line(Level::Warning, now.unix_ms, msg, &fields);
    }
}
