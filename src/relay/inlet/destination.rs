//! Where the body of a request goes: into the ring with the relayed head, or nowhere.

use crate::config::{Labels, Remote, Share};
use crate::contract::Now;
use crate::http1::body::BodyReader;
use crate::http1::head::{Framing, Request};
use crate::http1::refusal::Refusal;
use crate::log::Log;
use crate::relay::forward::{self, Added};
use crate::relay::report::LogLimit;
use crate::relay::ring::{LeftOutReason, LossReason, PayloadId, Ring, Shape};
use crate::times::{Stamp, Thaw, Upload};

/// What an inlet needs from its owner.
#[derive(Debug)]
pub struct Context<'r> {
    /// Where bodies go.
    pub ring: &'r mut Ring,
    /// Where requests are sent; `None` if the address is unusable.
    pub remote: Option<&'r Remote>,
    /// The sandbox's session id, drawn when it is first needed.
    pub session: &'r mut Option<u64>,
    /// Random numbers for the session id.
    pub entropy: fn() -> u64,
    /// The share of profiles to keep.
    pub sample: Share,
    /// Labels that every profile gets.
    pub labels: &'r Labels,
    /// Whether profiles get unique times.
    pub unique_times: bool,
    /// The last freeze.
    pub thaw: Option<Thaw>,
    /// The target of the last upload that covered no time.
    pub last_empty: &'r mut String,
    /// A reused buffer for outgoing heads.
    pub head: &'r mut Vec<u8>,
    /// False once we have ended: requests are no longer answered then.
    pub taking: bool,
    /// Limits how often refusals are logged.
    pub refusals: &'r mut LogLimit,
    /// Where to log.
    pub log: &'r mut Log,
    /// The time.
    pub now: Now,
}

/// Where a body goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sink {
    Slot(PayloadId),
    /// Read to its end, acknowledged and lost.
    Discard(LossReason),
    /// Read to its end, acknowledged and not sent.
    LeaveOut(LeftOutReason),
}

impl<'r> Context<'r> {
    /// Decides where the body of that request goes.
    pub(super) fn destination(
        &mut self,
        request: &Request,
        framing: &Framing,
    ) -> Result<Sink, Refusal> {
        let Some(remote) = self.remote else {
            return Ok(Sink::Discard(LossReason::Unusable));
        };
        let upload = if self.unique_times || !self.labels.is_empty() {
            Upload::of(request)
        } else {
            Upload::default()
        };
        let session = session_id(self.session, self.entropy);
        if request.method == "POST" && !self.sample.has(session, self.now.minute()) {
            return Ok(Sink::LeaveOut(LeftOutReason::Sampled));
        }
        let is_empty = self.unique_times && upload.query.is_empty();
        if is_empty && self.is_repeated(request.target) {
            return Ok(Sink::LeaveOut(LeftOutReason::Empty));
        }
        let stamp = self.unique_times.then_some(Stamp {
            session,
            received_ms: self.now.unix_ms,
            thaw: self.thaw,
        });
        let times = stamp.map(|stamp| upload.query.unique(&stamp));
        let added = Added {
            session,
            labels: self.labels,
            times: times.unwrap_or_default(),
        };
        self.head.clear();
        forward::head(self.head, request, remote, &added);
        let length = match framing.body {
            BodyReader::Length(length) if self.ring.could_hold(self.head.len(), length) => {
                Some(length as usize)
            }
            BodyReader::Length(_) => return Err(Refusal::LargerThanRing),
            _ => None,
        };
        // A method with content states a length even without a body (RFC 9110 section 8.6).
        let has_body = framing.has_body || matches!(request.method, "POST" | "PUT" | "PATCH");
        let shape = Shape {
            length,
            has_body,
            to_head_request: request.method == "HEAD",
            change: upload.form.map(|form| (form, stamp)),
        };
        let Ok(id) = self.ring.open(self.head, shape) else {
            return Ok(Sink::Discard(LossReason::Full));
        };
        if !self.labels.is_empty() {
            self.keep_target(id, request, remote, added);
        }
        Ok(Sink::Slot(id))
    }

    /// Stores the target without labels, if it has any.
    fn keep_target(&mut self, id: PayloadId, request: &Request, remote: &Remote, added: Added<'r>) {
        let added = Added {
            times: added.times,
            ..Added::session(added.session)
        };
        let mut plain = Vec::new();
        forward::target(&mut plain, request.target, &remote.path, &added);
        let own = self.head.get(request.method.len() + 1..);
        let rest = own.and_then(|own| own.strip_prefix(&*plain));
        if !rest.is_some_and(|rest| rest.starts_with(b" ")) {
            self.ring.keep_target(id, plain);
        }
    }

    /// Whether this upload covers no time and repeats the one before: the server would merge them.
    ///
    /// After a thaw Java's SDK catches up on all intervals that it missed: it sends hundreds of uploads that begin and
    /// end in the same second.
    fn is_repeated(&mut self, target: &str) -> bool {
        // If a body broke off, it may have been that of the one before.
        let is_known = !self.ring.take_broken_off();
        let repeated = is_known && *self.last_empty == target;
        if !repeated {
            target.clone_into(self.last_empty);
        }
        repeated
    }
}

/// Returns the stored session id, and draws one if there is none.
pub(in crate::relay) fn session_id(session: &mut Option<u64>, entropy: fn() -> u64) -> u64 {
    *session.get_or_insert_with(entropy)
}
