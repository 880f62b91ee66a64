//! Which payload is sent on which connection, and how many connections there are.

use std::net::SocketAddr;
use std::time::Duration;

use crate::contract::{Command, Now, Peer};

use super::Relay;
use super::peers::{Addresses, Trust};
use super::phase::Phase;
use super::server::Load;
use super::uplink::Uplink;

/// Most connections to the server at once. When little time is left, every waiting payload gets its own: the server
/// takes half a second to answer, so few payloads would arrive on [`Config::workers`](crate::config::Config::workers)
/// connections. Connections that a freeze has killed count too.
const CONNECTIONS_MAX: usize = 64;

/// With less time left no connection is begun: two round trips are needed before a request can be sent on it.
const HANDSHAKE_MIN: Duration = Duration::from_millis(100);

impl Relay {
    /// Assigns waiting payloads to connections.
    pub(super) fn dispatch(&mut self, now: Now) -> Option<Command> {
        if self.phase == Phase::Done {
            return None;
        }
        while let Some(oldest) = self.ring.ready(now.mono) {
            if self
                .credentials
                .as_ref()
                .is_some_and(|own| !own.are_known())
            {
                return None;
            }
            // Connections that a freeze may have killed do not delay other payloads.
            let living = self.uplinks.iter().filter(|uplink| !uplink.is_suspect());
            let load = Load {
                busy: living.clone().filter(|uplink| uplink.is_busy()).count(),
                opening: living.clone().filter(|uplink| uplink.is_opening()).count(),
                eager: self.is_urgent() && self.uplinks.iter().any(Uplink::is_exchanging),
            };
            let (living, wanted) = (living.count(), self.uplinks_wanted(now));
            if !self.server.admits(load, now) || load.busy >= wanted.max(self.config.workers) {
                return None;
            }
            let payload = if self.server.is_down() {
                self.ring.ready_for_probe(now.mono)?
            } else {
                oldest
            };
            self.ring.change_body(payload, &self.config.labels);
            self.uplinks
                .iter_mut()
                .for_each(|uplink| uplink.retire(now));
            let (deadline, wakes) = (now.mono + self.config.timeout, self.wakes);
            // Use the connection that was used last, so that the others age until they are retired.
            let ready = self
                .uplinks
                .iter_mut()
                .filter(|uplink| uplink.ready_since().is_some());
            if let Some(uplink) =
                ready.max_by_key(|uplink| uplink.ready_since().map(|since| since.mono))
            {
                self.ring.start(payload);
                uplink.send(payload, deadline, wakes, &self.ring);
            } else if living < wanted && self.uplinks.len() < CONNECTIONS_MAX {
                self.ring.start(payload);
                self.uplinks.push(Uplink::new(payload, deadline, wakes));
            } else {
                return self.close_ended(now);
            }
            if self.credentials.is_some() {
                self.authorize(payload);
            }
        }
        None
    }

    /// Closes idle connections that remain after a flush.
    pub(super) fn close_surplus(&mut self, now: Now) {
        if self.uplinks.len() <= self.config.workers {
            return;
        }
        let wanted = self.uplinks_wanted(now).max(self.config.workers);
        let open = |uplink: &&Uplink| !uplink.is_closed() && !uplink.is_suspect();
        let surplus = self.uplinks.iter().filter(open).count();
        let idle = |uplink: &&mut Uplink| uplink.ready_since().is_some();
        self.uplinks
            .iter_mut()
            .filter(idle)
            .take(surplus.saturating_sub(wanted))
            .for_each(Uplink::close_if_idle);
    }

    /// Whether everything that waits must be sent at once, because little time is left.
    const fn is_urgent(&self) -> bool {
        match self.phase {
            Phase::Drain { .. } => true,
            Phase::Hold { reason, .. } => reason.is_flush(),
            Phase::Serve | Phase::Done => false,
        }
    }

    /// How many connections there may be if enough payloads wait.
    fn uplinks_wanted(&self, now: Now) -> usize {
        let until = match self.phase {
            Phase::Drain { until, .. } => until,
            Phase::Hold { reason, until, .. } if reason.is_flush() => until,
            _ => return self.config.workers,
        };
        if until.saturating_duration_since(now.mono) >= HANDSHAKE_MIN {
            CONNECTIONS_MAX
        } else if matches!(self.phase, Phase::Drain { .. }) {
            0
        } else {
            self.config.workers
        }
    }

    /// Gives new uplinks what they need before they can connect: the TLS client, then addresses, then connections.
    pub(super) fn prepare_connections(&mut self, now: Now) -> Option<Command> {
        if !self.uplinks.iter().any(Uplink::is_opening) {
            return None;
        }
        if let Some(at) = self.uplinks.iter().position(Uplink::awaits_address)
            && let Some(command) = self.prepare_address(at, now)
        {
            return Some(command);
        }
        let connections: usize = self.uplinks.iter().map(Uplink::connections).sum();
        if connections >= CONNECTIONS_MAX {
            return None;
        }
        let is_due = |uplink: &Uplink| uplink.is_connection_due(now.mono);
        let at = self.uplinks.iter().position(is_due)?;
        let id = self.fresh_id();
        let address = self.uplinks[at].connecting(id, now.mono)?;
        Some(Command::Connect(id, address))
    }

    fn prepare_address(&mut self, at: usize, now: Now) -> Option<Command> {
        match &self.trust {
            Trust::Asked => return None,
            Trust::Unread => {
                let (file, directories) = (&self.config.ca_file, &self.config.ca_directories);
                if file.is_some() || !directories.is_empty() {
                    self.trust = Trust::Asked;
                    return Some(Command::ReadRoots(file.clone(), directories.clone()));
                }
                self.roots(Vec::new(), now);
                return self.prepare_address(at, now);
            }
            Trust::Bad(cause) => {
                let cause = cause.clone();
                self.uplinks[at].unresolved(&cause);
                self.record_finished(now);
                return None;
            }
            Trust::None | Trust::Client(_) => {}
        }
        if let Addresses::Known(_, Some(until)) = self.server_addresses
            && until <= now.mono
        {
            self.server_addresses = Addresses::Unknown;
        }
        match &self.server_addresses {
            Addresses::Asked => None,
            Addresses::Unknown => {
                let remote = self.config.remote.as_ref()?;
                self.server_addresses = Addresses::Asked;
                Some(Command::Resolve(Peer::Remote, remote.peer_name()))
            }
            Addresses::Known(addresses, _) => {
                let addresses = in_order(addresses, self.last_reached);
                for uplink in self.uplinks.iter_mut().filter(|own| own.awaits_address()) {
                    uplink.resolved(addresses.clone(), now.mono);
                }
                None
            }
        }
    }
}

/// The order in which addresses are tried (RFC 8305 section 4): the families alternate. The family that worked last is
/// first, otherwise that of the resolver's first address.
fn in_order(addresses: &[SocketAddr], worked: Option<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v4 = worked
        .or_else(|| addresses.first().copied())
        .is_some_and(|address| address.is_ipv4());
    let of = |is_v4| addresses.iter().filter(move |own| own.is_ipv4() == is_v4);
    let (mut first, mut other) = (of(first_is_v4), of(!first_is_v4));
    let mut ordered = Vec::with_capacity(addresses.len());
    while ordered.len() < addresses.len() {
        ordered.extend(first.next());
        ordered.extend(other.next());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_the_one_that_worked_is_first() {
        let parse = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|text| text.parse().unwrap()).collect()
        };
        let found = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        assert_eq!(
            in_order(&found, None),
            parse(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"])
        );
        assert_eq!(
            in_order(&found, "9.9.9.9:1".parse().ok()),
            parse(&["1.0.0.1:1", "[::1]:1", "1.0.0.2:1", "[::2]:1", "[::3]:1"])
        );
        assert_eq!(in_order(&found[3..], None), found[3..]);
        assert_eq!(in_order(&[], None), []);
    }
}
