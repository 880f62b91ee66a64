//! Clients: where they connect to, how many there may be, and what an inlet needs to serve one.

use std::io::ErrorKind;
use std::net::SocketAddr;

use crate::contract::{ConnId, Now, error_words};
use crate::log::Level;
use crate::profile::SelfProfile;

use super::inlet::{self, Inlet};
use super::phase::Phase;
use super::{Relay, SVC};

/// Most local connections. SDKs open one to five; beyond the limit, the one without progress for longest is closed.
const INLETS_MAX: usize = 64;

impl Relay {
    /// The listeners are bound to `addresses`. If there are none, events are still handled, and each INVOKE tries
    /// again.
    pub fn started(&mut self, addresses: &[SocketAddr], now: Now) {
        if self.config.self_profiling && self.profile.is_none() {
            self.profile = Some(SelfProfile::new(now));
        }
        self.listening.extend_from_slice(addresses);
        self.taken.retain(|taken| !addresses.contains(taken));
        for note in std::mem::take(&mut self.config.notes) {
            let msg = if note.level == Level::Error {
                "Unusable setting"
            } else {
                "Bad setting"
            };
            let fields = [
                ("problem", (&note.problem).into()),
                SVC,
                ("variable", note.variable.into()),
            ];
            self.log.line(note.level, now.unix_ms, msg, &fields);
        }
        let mut words = String::new();
        for address in addresses {
            if !words.is_empty() {
                words.push_str(", ");
            }
            words.push_str(&address.to_string());
        }
        if words.is_empty() {
            return;
        }
        self.limits.unbound.over();
        let fields = [
            ("address", (&words).into()),
            SVC,
            ("version", env!("CARGO_PKG_VERSION").into()),
        ];
        self.log
            .line(Level::Info, now.unix_ms, "Starting relay", &fields);
    }

    /// These addresses could not be bound, and why.
    pub fn unbound(&mut self, failed: &[(SocketAddr, ErrorKind)], now: Now) {
        let taken = failed
            .iter()
            .filter(|(_, kind)| *kind == ErrorKind::AddrInUse);
        self.taken = taken.map(|(address, _)| *address).collect();
        if failed.is_empty() || self.limits.unbound.happened(now.mono).is_none() {
            return;
        }
        for (address, kind) in failed {
            let address = address.to_string();
            let fields = [
                ("address", (&address).into()),
                ("cause", error_words(*kind).into()),
                SVC,
            ];
            let msg = "Cannot listen on this address";
            self.log.line(Level::Error, now.unix_ms, msg, &fields);
        }
    }

    /// A client connected. If there are too many, the one that is idle for longest is closed.
    pub fn accepted(&mut self, now: Now) -> ConnId {
        // Idle clients first, then those without progress for longest. A new client counts as busy: its request may
        // still be on its way.
        let idle_order = |at: &usize| {
            let (id, inlet) = &self.inlets[*at];
            let age = now.mono.saturating_duration_since(inlet.progressed());
            (
                inlet.is_busy() || age < inlet::NEW_CLIENT_MAX,
                inlet.progressed(),
                *id,
            )
        };
        if self.inlets.len() >= INLETS_MAX
            && let Some(at) = (0..self.inlets.len()).min_by_key(idle_order)
        {
            let (id, mut inlet) = self.inlets.remove(at);
            inlet.close(&mut self.ring);
            self.to_close.push(id);
            self.log_too_many_clients(now);
        }

        let id = self.fresh_id();
        self.inlets.push((id, Inlet::new(now.mono)));
        id
    }

    /// The inlet at that index, and what it needs.
    pub(super) fn inlet_context(
        &mut self,
        at: usize,
        now: Now,
    ) -> (&mut Inlet, inlet::Context<'_>) {
        self.forget_shared_session();
        let cx = inlet::Context {
            ring: &mut self.ring,
            remote: self.config.remote.as_ref(),
            session: &mut self.session,
            entropy: self.entropy,
            sample: self.config.sample,
            labels: &self.config.labels,
            unique_times: self.config.unique_times,
            thaw: self.thaw,
            last_empty: &mut self.last_empty,
            head: &mut self.head,
            taking: self.phase != Phase::Done,
            refusals: &mut self.limits.client,
            log: &mut self.log,
            now,
        };
        (&mut self.inlets[at].1, cx)
    }

    /// Until the first INVOKE all copies of a snapshot share the session id drawn before it. So the id is not kept, and
    /// each upload gets its own.
    pub(super) const fn forget_shared_session(&mut self) {
        if self.config.snap_start && !self.invoked {
            self.session = None;
        }
    }
}
