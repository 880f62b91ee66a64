//! Shutdown: what is left is sent as long as there is time, then the totals are logged.

use std::time::{Duration, Instant};

use crate::contract::{Command, Now};

use super::Relay;
use super::phase::Phase;
use super::ring::LossReason;
use super::uplink::Uplink;

/// Time kept free before Lambda's shutdown deadline, to exit.
const SHUTDOWN_MARGIN: Duration = Duration::from_millis(100);

/// Time to drain without a deadline: what Lambda gives an extension.
const SHUTDOWN_DEFAULT: Duration = Duration::from_secs(2);

impl Relay {
    /// A signal asks us to exit.
    pub fn terminated(&mut self, now: Now) {
        self.drain(
            now.mono + SHUTDOWN_DEFAULT.saturating_sub(SHUTDOWN_MARGIN),
            now,
        );
    }

    /// Lambda said SHUTDOWN, with this deadline.
    pub(super) fn shut_down(&mut self, deadline_ms: Option<u64>, now: Now) {
        let left = shutdown_left(deadline_ms, now);
        self.drain(now.mono + left.saturating_sub(SHUTDOWN_MARGIN), now);
    }

    /// Begins to drain: no event is asked for any more, and pauses end. The drain is over when all is delivered, or at
    /// `until`.
    fn drain(&mut self, until: Instant, now: Now) {
        self.phase = match self.phase {
            Phase::Serve | Phase::Hold { .. } => Phase::Drain {
                until,
                has_looked: false,
            },
            Phase::Drain { until: before, .. } => Phase::Drain {
                until: until.min(before),
                has_looked: false,
            },
            Phase::Done => Phase::Done,
        };
        self.ring.clear_pauses();
        self.server.leave(now.mono);
        if let Some(credentials) = &mut self.credentials {
            credentials.leave();
        }
    }

    /// Exits once everything is delivered, or when time is up.
    pub(super) fn leave(&mut self, now: Now) -> Option<Command> {
        let Phase::Drain { until, has_looked } = self.phase else {
            return None;
        };
        let mut inlets = self.inlets.iter();
        let settled = self.ring.in_hand() == 0
            && !inlets.any(|(_, inlet)| inlet.is_busy() || inlet.is_new(now.mono));
        if now.mono < until {
            // Our own profile is sent last, after everything else.
            let has_looked = if !settled || self.profile_last(now) {
                false
            } else if has_looked {
                return Some(self.exit(0, now));
            } else {
                true
            };
            self.phase = Phase::Drain { until, has_looked };
            return has_looked.then_some(Command::LookOnceMore);
        }
        Some(self.exit(0, now))
    }

    /// The end: payloads that are still here are lost, the totals are logged, and the process exits.
    pub(super) fn exit(&mut self, status: u8, now: Now) -> Command {
        self.uplinks.iter_mut().for_each(Uplink::settle);
        self.record_finished(now);
        let credentials = self.credentials.as_ref();
        self.ring
            .lose_all(if credentials.is_some_and(|own| !own.are_known()) {
                LossReason::Credentials
            } else {
                LossReason::Shutdown
            });
        // Their payloads are counted as lost; the sockets close with the process.
        self.uplinks.clear();
        self.phase = Phase::Done;
        self.log_totals(now);
        Command::Exit(status)
    }
}

/// How long Lambda gives us to exit. Its clock and ours may differ, as after a freeze: a deadline that has passed, or
/// is longer than Lambda ever gives, is ignored.
fn shutdown_left(deadline_ms: Option<u64>, now: Now) -> Duration {
    let left = deadline_ms.map(|at| Duration::from_millis(at.saturating_sub(now.unix_ms)));
    left.filter(|left| !left.is_zero() && *left <= SHUTDOWN_DEFAULT)
        .unwrap_or(SHUTDOWN_DEFAULT)
}
