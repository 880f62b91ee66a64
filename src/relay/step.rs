//! All policy: what to do next, given the facts so far.
//!
//! Order matters only in [`Relay::step`]. Lambda's event comes first: an INVOKE says that there may have been a freeze.
//! Then ended attempts are recorded, so that their payloads may be sent again in the same turn. Leaving comes before
//! asking Lambda for more. New work comes last. [`super::flush`] decides whether Lambda's next event is held back.

use crate::contract::{Command, Now, Peer};
use crate::lambda::Event;
use crate::log::Level;

use super::inlet::Close;
use super::inquiry::Inquiry;
use super::peers::{Addresses, Trust};
use super::phase::Phase;
use super::ring::LossReason;
use super::uplink::Uplink;
use super::wakes::Wake;
use super::{Relay, SVC};

impl Relay {
    /// The next command; `None` if there is nothing to do until the next fact.
    pub fn step(&mut self, now: Now) -> Option<Command> {
        self.ring.tick(now.mono);
        self.decided = Some(now);
        let leave = self.handle_lambda_event(now);
        self.disable_own_address(now);
        self.record_finished(now);
        self.release(now);
        self.close_surplus(now);
        self.profile_itself(now);
        leave
            .or_else(|| self.close_ended(now))
            .or_else(|| self.leave(now))
            .or_else(|| self.subscribe(now))
            .or_else(|| self.ask_lambda(now))
            .or_else(|| self.read_credentials(now))
            .or_else(|| self.dispatch(now))
            .or_else(|| self.prepare_connections(now))
            .or_else(|| {
                self.schedule_trim(now);
                None
            })
    }

    /// Closes connections that have ended, or should.
    pub(super) fn close_ended(&mut self, now: Now) -> Option<Command> {
        if let Some(id) = self.to_close.pop() {
            return Some(Command::Close(id));
        }
        for at in 0..self.inlets.len() {
            let (id, inlet) = &mut self.inlets[at];
            let id = *id;
            match inlet.close_due(now.mono) {
                None => {}
                Some(Close::WriteSide) => return Some(Command::HalfClose(id)),
                Some(Close::Both) => {
                    self.inlets.swap_remove(at);
                    return Some(Command::Close(id));
                }
            }
        }
        if let Some(id) = self.inquiry_mut().and_then(Inquiry::next_to_close) {
            return Some(Command::Close(id));
        }
        for at in (0..self.uplinks.len()).rev() {
            if let Some(id) = self.uplinks[at].next_to_close() {
                return Some(Command::Close(id));
            }
            if self.uplinks[at].is_closed() {
                self.uplinks.swap_remove(at);
            }
        }
        None
    }

    /// Logs and handles what Lambda sent; returns a command that must come first.
    fn handle_lambda_event(&mut self, now: Now) -> Option<Command> {
        let event = self.lambda.as_mut()?.event()?;
        self.log_event(&event, now);
        match &event {
            Event::Registered => self.begin_telemetry(now),
            Event::Refused(_) => return Some(self.exit(1, now)),
            Event::Invoke {
                request_id,
                deadline_ms,
            } => {
                if !std::mem::replace(&mut self.invoked, true) {
                    self.reset_after_init(now);
                }
                self.wake(Wake::Unseen, now);
                self.hold(request_id, *deadline_ms, now);
                return self.listen_again();
            }
            Event::Shutdown { deadline_ms, .. } => {
                self.wake(Wake::Unseen, now);
                self.shut_down(*deadline_ms, now);
            }
            Event::Unexpected(_) => {}
        }
        None
    }

    fn log_event(&mut self, event: &Event, now: Now) {
        let (level, name, text, msg) = match event {
            Event::Registered => return,
            Event::Refused(cause) => (
                Level::Error,
                "cause",
                cause,
                "Lambda refused to register the extension",
            ),
            Event::Invoke { request_id, .. } => (Level::Debug, "request_id", request_id, "Invoked"),
            Event::Shutdown { reason, .. } => (Level::Debug, "reason", reason, "Shutting down"),
            Event::Unexpected(cause) => return self.log_unexpected(cause, now),
        };
        self.log
            .line(level, now.unix_ms, msg, &[(name, text.into()), SVC]);
    }

    /// Tries the addresses again that could not be bound: the process that had the port at the start may have ended.
    fn listen_again(&mut self) -> Option<Command> {
        let missing = if self.listening.is_empty() {
            self.config.listen.clone()
        } else {
            std::mem::take(&mut self.taken)
        };
        (!missing.is_empty()).then_some(Command::Listen(missing))
    }

    /// A sandbox may have been copied between the init and the first INVOKE (AWS Lambda `SnapStart`). State that must
    /// differ between copies, or is stale by now, is renewed: session id, connections, TLS sessions, addresses.
    fn reset_after_init(&mut self, now: Now) {
        self.session = None;
        if self.config.snap_start {
            self.uplinks.iter_mut().for_each(Uplink::forget);
            if let Trust::Client(_) = self.trust {
                self.trust = Trust::Unread;
            }
            self.forget_addresses(now);
            if let Some(credentials) = &mut self.credentials {
                self.to_close.extend(credentials.abandon());
            }
        }
    }

    /// Asking for the next event allows Lambda to freeze us. Unsent payloads then continue after the thaw.
    fn ask_lambda(&mut self, now: Now) -> Option<Command> {
        let lambda = self.lambda.as_mut()?;
        let telemetry = self.telemetry.as_ref();
        let early =
            telemetry.is_some_and(|telemetry| telemetry.delays_next_until(now.mono).is_some());
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
                // Each failure moves on to the next address.
                let address = *addresses.get(lambda.failures() % addresses.len().max(1))?;
                let id = self.fresh_id();
                if let Some(lambda) = &mut self.lambda {
                    lambda.connect(id);
                }
                Some(Command::Connect(id, address))
            }
        }
    }

    /// If the server is this relay itself, its address is unusable: a request would come back to us without end.
    fn disable_own_address(&mut self, now: Now) {
        if std::mem::take(&mut self.server_is_self)
            && let Some(remote) = self.config.remote.take()
        {
            let variable = match remote.proxy {
                Some(_) => "HTTPS_PROXY",
                None => "PYROSCOPE_REMOTE_ADDRESS",
            };
            let fields = [
                ("problem", "is this relay itself".into()),
                SVC,
                ("variable", variable.into()),
            ];
            self.log
                .line(Level::Error, now.unix_ms, "Unusable setting", &fields);
            for mut uplink in self.uplinks.drain(..) {
                uplink.close();
                self.to_close
                    .extend(std::iter::from_fn(|| uplink.next_to_close()));
            }
            if let Some(mut credentials) = self.credentials.take() {
                self.to_close.extend(credentials.abandon());
            }
        }
        if self.config.remote.is_none() {
            // An upload that was only partly read at that time reaches the ring later.
            self.ring.lose_all(LossReason::Unusable);
        }
    }
}
