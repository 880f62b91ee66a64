//! Puts the profile of this program itself into the ring, with the same kind of head as a client's, without disturbing
//! clients.
//!
//! It is added only while the ring is empty, so that no client's payload is dropped for it; until then the data is
//! kept. At the end it is added last, after everything else is delivered. In the ring it is a payload like any other:
//! acknowledged, then relayed or lost. The closing line says how many there were.

use crate::contract::{ConnId, Now};
use crate::http1::head::Request;
use crate::profile::{CpuTimes, SelfProfile, Stage};
use crate::times::{Form, Stamp};

use super::forward::{self, Added};
use super::owner::Owner;
use super::phase::Phase;
use super::ring::Shape;
use super::{Relay, inlet};

/// The fields that an SDK would send.
const FIELDS: [httparse::Header<'static>; 2] = [
    httparse::Header {
        name: "User-Agent",
        value: concat!("pyroscope-lambda-extension/", env!("CARGO_PKG_VERSION")).as_bytes(),
    },
    httparse::Header {
        name: "Content-Type",
        value: b"application/octet-stream",
    },
];

impl Relay {
    /// CPU time was used.
    pub fn cpu_used(&mut self, spent: &CpuTimes) {
        if let Some(profile) = &mut self.profile {
            profile.add(spent);
        }
    }

    /// What [`Relay::received`] does with that connection's bytes.
    #[must_use]
    pub fn stage_of_received(&self, id: ConnId) -> Stage {
        match self.owner(id) {
            Owner::Inlet(_) => Stage::Parse,
            Owner::Uplink(at) if self.uplinks[at].is_opening() => Stage::Handshake,
            Owner::Uplink(_) if self.is_sealing() => Stage::Decrypt,
            Owner::Uplink(_) => Stage::Answer,
            Owner::Store => Stage::Handshake,
            Owner::Lambda | Owner::Telemetry | Owner::Unknown => Stage::Lambda,
        }
    }

    /// What [`Relay::pending`] does for that connection.
    #[must_use]
    pub fn stage_of_pending(&self, id: ConnId) -> Stage {
        if self.is_sealing() && matches!(self.owner(id), Owner::Uplink(_)) {
            Stage::Encrypt
        } else {
            Stage::Write
        }
    }

    fn is_sealing(&self) -> bool {
        self.config.remote.as_ref().is_some_and(|remote| remote.tls)
    }

    /// Puts the profile of the last seconds into the ring when it is due.
    pub(super) fn profile_itself(&mut self, now: Now) {
        let acknowledged = self.ring.totals().acknowledged;
        let waits =
            || self.ring.ready(now.mono).is_some() || self.ring.next_due(now.mono).is_some();
        if let Some(profile) = &mut self.profile
            && self.phase == Phase::Serve
            && profile.is_due(acknowledged, now.mono)
            && !waits()
        {
            self.upload_profile(false, now);
        }
    }

    /// Puts the last profile into the ring. Returns whether it did.
    pub(super) fn profile_last(&mut self, now: Now) -> bool {
        self.profile.as_ref().is_some_and(SelfProfile::is_wanted) && self.upload_profile(true, now)
    }

    fn upload_profile(&mut self, last: bool, now: Now) -> bool {
        self.forget_shared_session();
        let (Some(profile), Some(remote)) = (&mut self.profile, &self.config.remote) else {
            return false;
        };
        let (target, body) = (profile.target(now), profile.pprof(now));
        let request = Request {
            method: "POST",
            target: &target,
            http10: false,
            headers: &FIELDS,
        };
        let session = inlet::session_id(&mut self.session, self.entropy);
        self.head.clear();
        let stamp = self.config.unique_times.then_some(Stamp {
            session,
            received_ms: now.unix_ms,
            thaw: None,
        });
        let added = Added {
            labels: &self.config.labels,
            ..Added::session(session)
        };
        forward::head(&mut self.head, &request, remote, &added);
        let shape = Shape {
            length: Some(body.len()),
            has_body: true,
            to_head_request: false,
            change: Some((Form::Pprof, stamp)),
        };
        let Ok(id) = self.ring.open(&self.head, shape) else {
            return false;
        };
        // A body this short has all its space from the start.
        match self.ring.space(id) {
            Ok(space) if space.len() == body.len() => space.copy_from_slice(&body),
            _ => {
                self.ring.abandon(id);
                return false;
            }
        }
        self.ring.filled(id, body.len());
        self.ring.commit(id);
        profile.begin_next(self.ring.totals().acknowledged, last, now);
        true
    }
}
