//! All policy: what to do next, given the facts so far.
//!
//! Order matters in [`Relay::step`] alone. Lambda is heard first: an INVOKE says that there may have been a freeze.
//! Then what ended is judged, so that its payload may go out again in the same turn; leaving comes before asking
//! Lambda for more; new work comes last. What Lambda's next event is held back for is in [`super::flush`].

use std::time::Duration;

use crate::contract::{Command, ConnId, Now, Peer};
use crate::lambda::Event;
use crate::log::Level;

use super::backend::jitter;
use super::inlet::Hang;
use super::peers::{Addresses, Trust};
use super::phrases;
use super::ring::{Loss, PayloadId};
use super::uplink::{Answer, Outcome, Uplink};
use super::{Phase, Relay, SHUTDOWN_DEFAULT, SHUTDOWN_MARGIN, SVC};

/// Attempts for one payload, if the remote was reached.
const ATTEMPTS_MAX: u8 = 5;

/// Pause before a payload's second attempt, doubling with each.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Longest `Retry-After` honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How long spare memory is kept after the last payload.
const TRIM_AFTER: Duration = Duration::from_secs(1);

impl Relay {
    /// The next thing to do; `None` when there is nothing until the next fact.
    pub fn step(&mut self, now: Now) -> Option<Command> {
        self.ring.tick(now.mono);
        let leave = self.heed_lambda(now);
        self.judge_finished(now);
        self.release(now);
        self.profile_itself(now);
        leave
            .or_else(|| self.hang_up(now))
            .or_else(|| self.leave(now))
            .or_else(|| self.subscribe(now))
            .or_else(|| self.ask_lambda(now))
            .or_else(|| self.dispatch(now))
            .or_else(|| self.prepare_connections(now))
            .or_else(|| {
                self.plan_trim(now);
                None
            })
    }

    /// Connections that have ended, or should.
    fn hang_up(&mut self, now: Now) -> Option<Command> {
        if let Some(id) = self.to_close.pop() {
            return Some(Command::Close(id));
        }
        for at in 0..self.inlets.len() {
            let (id, inlet) = &mut self.inlets[at];
            let id = *id;
            match inlet.hang(now.mono) {
                None => {}
                Some(Hang::Half) => return Some(Command::HalfClose(id)),
                Some(Hang::Up) => {
                    self.inlets.swap_remove(at);
                    return Some(Command::Close(id));
                }
            }
        }
        let at = self.uplinks.iter().position(Uplink::is_closed)?;
        Some(Command::Close(self.uplinks.swap_remove(at).id()))
    }

    /// What Lambda told us.
    fn heed_lambda(&mut self, now: Now) -> Option<Command> {
        match self.lambda.as_mut()?.event()? {
            Event::Registered => self.begin_telemetry(now),
            Event::Refused(cause) => {
                self.log.line(
                    Level::Error,
                    now.unix_ms,
                    "Lambda refused to register the extension",
                    &[("cause", (&cause).into()), SVC],
                );
                self.close_account(now);
                return Some(Command::Exit(1));
            }
            Event::Invoke {
                request_id,
                deadline_ms,
            } => {
                if !std::mem::replace(&mut self.invoked, true) {
                    self.forget_init(now);
                }
                self.uplinks.iter_mut().for_each(Uplink::may_have_frozen);
                self.hold(&request_id, deadline_ms, now);
                self.log.line(
                    Level::Debug,
                    now.unix_ms,
                    "Invoked",
                    &[("request_id", (&request_id).into()), SVC],
                );
            }
            Event::Shutdown {
                deadline_ms,
                reason,
            } => {
                self.log.line(
                    Level::Debug,
                    now.unix_ms,
                    "Shutting down",
                    &[("reason", (&reason).into()), SVC],
                );
                let left = deadline_ms.map_or(SHUTDOWN_DEFAULT, |at| {
                    Duration::from_millis(at.saturating_sub(now.unix_ms))
                });
                self.drain(now.mono + left.saturating_sub(SHUTDOWN_MARGIN), now);
            }
            Event::Odd(what) => {
                self.tell_odd(&what, now);
            }
        }
        None
    }

    /// Between the init and the first INVOKE a sandbox may have been copied (AWS Lambda `SnapStart`). What has to
    /// differ between copies, or is stale by now, is had anew: session id, connections, TLS sessions, addresses.
    fn forget_init(&mut self, now: Now) {
        self.session = None;
        if self.config.snap_start {
            self.uplinks.iter_mut().for_each(Uplink::forget);
            if let Trust::Client(_) = self.trust {
                self.trust = Trust::Unread;
            }
            self.forget_addresses(now);
        }
    }

    /// Asking for the next event permits Lambda to freeze us. What is unsent then goes on after the thaw.
    fn ask_lambda(&mut self, now: Now) -> Option<Command> {
        let lambda = self.lambda.as_mut()?;
        let telemetry = self.telemetry.as_ref();
        let early = telemetry.is_some_and(|telemetry| telemetry.holds_next(now.mono).is_some());
        if lambda.is_parked() && self.phase == Phase::Serve && !early {
            lambda.ask();
        }
        if !lambda.is_connection_due(now.mono) {
            return None;
        }
        match &self.lambda_addresses {
            Addresses::Asked => None,
            Addresses::Unknown => {
                let name = lambda.authority().to_owned();
                self.lambda_addresses = Addresses::Asked;
                Some(Command::Resolve(Peer::Lambda, name))
            }
            Addresses::Known(addresses, _) => {
                // Another one after each failure.
                let address = *addresses.get(lambda.failures() % addresses.len().max(1))?;
                self.next_id += 1;
                let id = ConnId(self.next_id);
                lambda.connect(id);
                Some(Command::Connect(id, address))
            }
        }
    }

    /// Leaves once everything is delivered, or when time is up.
    fn leave(&mut self, now: Now) -> Option<Command> {
        let Phase::Drain { until } = self.phase else {
            return None;
        };
        let settled =
            self.ring.in_hand() == 0 && !self.inlets.iter().any(|(_, inlet)| inlet.is_busy());
        // The last word is our own profile, behind everything else.
        if now.mono < until && (!settled || self.profile_last(now)) {
            return None;
        }
        self.close_account(now);
        Some(Command::Exit(0))
    }

    /// It is over: what is still here is lost, and the totals are told.
    fn close_account(&mut self, now: Now) {
        self.uplinks.iter_mut().for_each(Uplink::settle);
        self.judge_finished(now);
        self.ring.lose_all(Loss::Shutdown);
        // Their payloads are gone.
        self.uplinks.clear();
        self.phase = Phase::Done;
        self.tell_totals(now);
    }

    /// Gives waiting payloads to connections.
    fn dispatch(&mut self, now: Now) -> Option<Command> {
        if self.phase == Phase::Done {
            return None;
        }
        while let Some(payload) = self.ring.ready(now.mono) {
            let busy = self
                .uplinks
                .iter()
                .filter(|uplink| uplink.is_busy())
                .count();
            let unproven = self
                .uplinks
                .iter()
                .filter(|uplink| uplink.is_unproven())
                .count();
            if !self.backend.admits(busy, unproven, now.mono) {
                return None;
            }
            self.uplinks
                .iter_mut()
                .for_each(|uplink| uplink.retire(now));
            let deadline = now.mono + self.config.timeout;
            // The one used last: the others age until they are retired.
            let ready = self
                .uplinks
                .iter_mut()
                .filter(|uplink| uplink.ready_since().is_some());
            if let Some(uplink) =
                ready.max_by_key(|uplink| uplink.ready_since().map(|since| since.mono))
            {
                self.ring.start(payload);
                uplink.send(payload, deadline, &self.ring);
            } else if self.uplinks.len() < self.config.workers {
                self.ring.start(payload);
                let id = self.fresh_id();
                self.uplinks.push(Uplink::new(id, payload, deadline));
            } else {
                return self.hang_up(now);
            }
        }
        None
    }

    /// Gets new uplinks what they need before they can connect: the TLS client, then addresses.
    fn prepare_connections(&mut self, now: Now) -> Option<Command> {
        while let Some((id, address)) = self.to_connect.pop() {
            // Its time may have been up since: nobody would close it.
            if self.uplinks.iter().any(|uplink| uplink.id() == id) {
                return Some(Command::Connect(id, address));
            }
        }
        let at = self.uplinks.iter().position(Uplink::awaits_address)?;
        match &self.trust {
            Trust::Asked => return None,
            Trust::Unread => {
                let (file, directories) = (&self.config.ca_file, &self.config.ca_directories);
                if file.is_some() || !directories.is_empty() {
                    self.trust = Trust::Asked;
                    return Some(Command::ReadRoots(file.clone(), directories.clone()));
                }
                self.roots(Vec::new(), now);
                return self.prepare_connections(now);
            }
            Trust::Bad(cause) => {
                let cause = cause.clone();
                self.uplinks[at].unresolved(&cause);
                self.judge_finished(now);
                return None;
            }
            Trust::None | Trust::Client(_) => {}
        }
        if let Addresses::Known(_, Some(until)) = self.remote_addresses
            && until <= now.mono
        {
            self.remote_addresses = Addresses::Unknown;
        }
        match &self.remote_addresses {
            Addresses::Asked => None,
            Addresses::Unknown => {
                let remote = self.config.remote.as_ref()?;
                self.remote_addresses = Addresses::Asked;
                let (host, port) = remote.peer();
                let name = format!("{host}:{port}");
                Some(Command::Resolve(Peer::Remote, name))
            }
            Addresses::Known(addresses, _) => {
                if Addresses::is_own(addresses, &self.listening) {
                    self.uplinks[at].unresolved("PYROSCOPE_REMOTE_ADDRESS is this relay itself");
                    self.judge_finished(now);
                    return None;
                }
                let id = ConnId(self.next_id + 1);
                let address = self.uplinks[at].connect(id, addresses, now.mono)?;
                self.next_id += 1;
                Some(Command::Connect(id, address))
            }
        }
    }

    /// Draws the conclusions from every attempt that ended.
    fn judge_finished(&mut self, now: Now) {
        for at in 0..self.uplinks.len() {
            if let Some(finished) = self.uplinks[at].finished(now) {
                self.judge(finished.payload, finished.outcome, now);
            }
        }
    }

    /// What an outcome means for the payload and for the backend: the table of failures.
    fn judge(&mut self, payload: PayloadId, outcome: Outcome, now: Now) {
        match outcome {
            Outcome::Answered(answer) => match answer.status {
                200..=299 => {
                    self.backend.reached();
                    self.ring.relayed(payload);
                    self.tell_well(now);
                }
                _ if may_mend(&answer) => {
                    let cause = phrases::words(&answer);
                    let pause = answer.retry_after.map(|pause| pause.min(RETRY_AFTER_MAX));
                    self.again(payload, &cause, pause, now);
                }
                _ => {
                    self.backend.reached();
                    self.tell_refused(&answer, now);
                    self.ring.lost(payload, Loss::Refused);
                }
            },
            // Nothing was wrong with the payload, nor with the backend.
            Outcome::Stale(sent) => {
                if sent {
                    self.ring.was_sent(payload);
                } else {
                    self.ring.was_not_sent(payload);
                }
                self.ring.retry(payload, None);
            }
            // Nothing was wrong with the payload: it waits until the backend is back.
            Outcome::Unreached(cause) => {
                self.ring.was_not_sent(payload);
                self.ring.retry(payload, None);
                self.forget_addresses(now);
                self.backend.unreached(now.mono, (self.entropy)());
                self.tell_failed(&cause, now);
            }
            Outcome::Broken(cause) => self.again(payload, &cause, None, now),
        }
    }

    /// The payload is tried again later, unless that was its last attempt.
    fn again(&mut self, payload: PayloadId, cause: &str, pause: Option<Duration>, now: Now) {
        self.backend.broke(now.mono, (self.entropy)());
        self.tell_failed(cause, now);
        let attempts = self.ring.fail_attempt(payload).tries;
        if attempts >= ATTEMPTS_MAX {
            self.ring.lost(payload, Loss::Attempts);
            return self.tell_spent(cause, now);
        }
        self.ring.was_sent(payload);
        let backoff = jitter(RETRY_PAUSE * (1 << (attempts - 1)), (self.entropy)());
        self.ring
            .retry(payload, Some(now.mono + pause.unwrap_or(backoff)));
    }

    /// Spare memory goes back to the system some time after the last payload.
    fn plan_trim(&mut self, now: Now) {
        if !self.ring.is_empty() {
            self.trim_at = None;
        } else if self.trim_at.is_none() && self.ring.has_spares() {
            self.trim_at = Some(now.mono + TRIM_AFTER);
        }
    }
}

/// Whether the payload may be taken another time. Pyroscope's status does not always tell: where `/ingest` has read
/// a pprof or a JFR and cannot push it on, it says 422, be it for want of a place to store it or for a rate limit;
/// and Push says 429 of what will always be too large.
fn may_mend(answer: &Answer) -> bool {
    let says = |words: &[u8]| {
        answer
            .excerpt
            .windows(words.len())
            .any(|part| part == words)
    };
    match answer.status {
        408 | 500 | 502 | 503 | 504 => true,
        429 => !says(b"larger than configured"),
        422 => says(b"pushing ") && !says(b"invalid_argument"),
        _ => false,
    }
}
