//! What is known about the peers before a connection is made: their addresses, and which server certificates we trust.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::config::Remote;
use crate::contract::{End, Now, Peer, RootSource, error_words};
use crate::log::Level;
use crate::tls;

use super::{Relay, SVC};

/// How long addresses from a lookup are used for new connections.
const ADDRESSES_TTL: Duration = Duration::from_mins(1);

/// What is known about a peer's addresses.
#[derive(Debug)]
pub(super) enum Addresses {
    Unknown,
    Asked,
    /// Valid until this time; literal addresses have no end.
    Known(Vec<SocketAddr>, Option<Instant>),
}

/// The TLS client, made when it is first needed.
#[derive(Debug)]
pub(super) enum Trust {
    /// Not needed: http.
    None,
    Unread,
    Asked,
    Client(Box<tls::Client>),
    /// It cannot be made, and why.
    Bad(String),
}

impl Trust {
    pub(super) fn client(&self) -> Option<&tls::Client> {
        match self {
            Self::Client(client) => Some(client),
            _ => None,
        }
    }

    /// The state before anything was read.
    pub(super) fn of_remote(remote: Option<&Remote>) -> Self {
        if remote.is_some_and(|remote| remote.tls) {
            Self::Unread
        } else {
            Self::None
        }
    }
}

impl Addresses {
    /// The address itself if `host_port` is a literal, as Lambda's is.
    pub(super) fn of_literal(host_port: &str) -> Self {
        host_port
            .parse()
            .map_or(Self::Unknown, |address| Self::Known(vec![address], None))
    }

    /// The same for the host and port of connections to the server.
    pub(super) fn of_remote(remote: Option<&Remote>) -> Self {
        let literal = remote.and_then(|remote| {
            let (host, port) = remote.peer();
            let ip = host.parse::<IpAddr>().ok()?;
            Some(SocketAddr::new(ip, port))
        });
        literal.map_or(Self::Unknown, |address| Self::Known(vec![address], None))
    }
}

impl Relay {
    /// A name lookup ended, or could not be started: `Err` says which and why.
    pub fn resolved(&mut self, peer: Peer, result: Result<Vec<SocketAddr>, String>, now: Now) {
        let result = result.and_then(|found| {
            if found.is_empty() {
                Err("name lookup: no address".to_owned())
            } else {
                Ok(found)
            }
        });
        if peer == Peer::Store {
            return self.store_resolved(result, now);
        }
        let (addresses, cause) = match result {
            Ok(found) => (
                Addresses::Known(found, Some(now.mono + ADDRESSES_TTL)),
                None,
            ),
            Err(cause) => (Addresses::Unknown, Some(cause)),
        };
        match peer {
            Peer::Remote => {
                self.server_addresses = addresses;
                if let Some(cause) = cause {
                    self.uplinks
                        .iter_mut()
                        .for_each(|uplink| uplink.unresolved(&cause));
                }
            }
            Peer::Store => {}
            Peer::Lambda => {
                self.lambda_addresses = addresses;
                if cause.is_some() {
                    // This counts as one failed connection: the client pauses and asks again.
                    let id = self.fresh_id();
                    if let Some(lambda) = &mut self.lambda {
                        lambda.connect(id);
                        lambda.ended(End::Io(ErrorKind::NotFound), now.mono);
                    }
                }
            }
        }
    }

    /// The trusted roots were read from the places in the settings, as far as possible.
    pub fn roots(&mut self, sources: Vec<RootSource>, now: Now) {
        let Some(remote) = &self.config.remote else {
            return;
        };
        let store = self.store_to_trust().map(str::to_owned);
        // Problems with them are logged once.
        let is_first_use = store.is_none() || !remote.tls;
        let mut roots = tls::Roots::mozilla();
        for RootSource { variable, pem } in sources {
            let problem = match pem.map(|pem| roots.add(&pem)) {
                Err(kind) => format!(
                    "cannot be read, nothing is added to the built-in roots: {}",
                    error_words(kind)
                ),
                Ok(found) if found.added == 0 => {
                    "holds no certificate that can be used, nothing is added to the built-in roots"
                        .to_owned()
                }
                Ok(found) if found.bad > 0 => {
                    format!("{} of its certificates cannot be used", found.bad)
                }
                Ok(_) => continue,
            };
            let fields = [
                ("problem", (&problem).into()),
                SVC,
                ("variable", variable.into()),
            ];
            if is_first_use {
                self.log
                    .line(Level::Warning, now.unix_ms, "Bad setting", &fields);
            }
        }
        if let Some(host) = store {
            return self.trust_store(tls::Client::new(&host, roots), now);
        }
        self.trust = match tls::Client::new(&remote.host, roots) {
            Ok(client) => Trust::Client(Box::new(client)),
            Err(cause) => Trust::Bad(cause),
        };
    }

    /// Drops the addresses of the server's name; they are looked up again when needed.
    pub(super) const fn forget_addresses(&mut self, now: Now) {
        if let Addresses::Known(_, Some(until)) = &mut self.server_addresses {
            *until = now.mono;
        }
    }
}
