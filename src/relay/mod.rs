//! The core: owns the ring and all state machines, and decides. Pure: facts in, commands out.
//!
//! The shell reports what happened through [`Relay::accepted`], [`Relay::received`] and the other facts. Each fact is
//! recorded in the one state machine it belongs to. Then the shell calls [`Relay::step`] until it returns no
//! [`Command`](crate::contract::Command): `step` and the functions it calls hold all policy.
//!
//! ```text
//! client ──▶ Inlet ──▶ Ring ──▶ Uplink ──▶ server        Lambda ◀──▶ Extensions API
//! ```

mod clients;
mod credentials;
mod dispatch;
mod flush;
pub mod forward;
pub mod inlet;
mod inquiry;
pub mod itself;
pub mod labels;
mod outcome;
mod owner;
mod peers;
mod phase;
pub(crate) mod phrases;
pub mod report;
pub mod ring;
mod server;
mod shutdown;
mod step;
mod timers;
mod transport;
mod tunnel;
mod uplink;
mod wakes;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::contract::{ConnId, End, Ends, Now};
use crate::lambda::Lambda;
use crate::lambda::telemetry::Telemetry;
pub(crate) use crate::log::SVC;
use crate::log::{Level, Log};
use crate::profile::SelfProfile;
use crate::times::Thaw;

use credentials::Credentials;
use inlet::Inlet;
use inquiry::Inquiry;
use owner::Owner;
use peers::{Addresses, Trust};
use phase::Phase;
use ring::Ring;
use server::ServerHealth;
use transport::Path;
use uplink::Uplink;
use wakes::Wakes;

/// An extra field of lines about clients, as in the extension we replace.
const CONTROLLER: (&str, crate::log::Value) = ("comp", crate::log::Value::Text("controller"));

/// See the module's documentation.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    log: Log,
    entropy: fn() -> u64,
    ring: Ring,
    inlets: Vec<(ConnId, Inlet)>,
    uplinks: Vec<Uplink>,
    lambda: Option<Lambda>,
    /// Only if `PYROSCOPE_FLUSH_MODE` is `end`.
    telemetry: Option<Telemetry>,
    lambda_addresses: Addresses,
    server_addresses: Addresses,
    trust: Trust,
    server: ServerHealth,
    /// Only if the settings refer to credentials that are kept elsewhere.
    credentials: Option<Box<Credentials>>,
    phase: Phase,
    /// Total time in which Lambda could not freeze us because we held the next event back.
    held: Duration,
    /// The sandbox's session id. An id drawn before the first INVOKE is dropped then, so that copies of a snapshot
    /// differ.
    session: Option<u64>,
    /// The last freeze that was noticed.
    thaw: Option<Thaw>,
    /// When `step` last ran.
    decided: Option<Now>,
    /// See [`inlet::Context`].
    last_empty: String,
    invoked: bool,
    limits: report::LogLimits,
    /// Where clients connect to.
    listening: Vec<SocketAddr>,
    /// Where they should, but another process listens.
    taken: Vec<SocketAddr>,
    /// A connection to the server led back to us.
    server_is_self: bool,
    to_close: Vec<ConnId>,
    /// The server's address that was reached last, including TLS.
    last_reached: Option<SocketAddr>,
    /// How often the sandbox may have been frozen so far: see [`Wake`](wakes::Wake).
    wakes: Wakes,
    next_id: u64,
    head: Vec<u8>,
    trim_at: Option<Instant>,
    /// The profile of the extension itself, if the settings ask for it.
    profile: Option<SelfProfile>,
}

impl Relay {
    /// The core of a process with the file name `name`. `entropy` returns random numbers.
    #[must_use]
    pub fn new(mut config: Config, name: String, entropy: fn() -> u64) -> Self {
        let log = Log::in_format(config.level, config.log_format.clone());
        let ring = Ring::new(config.buffer_bytes);
        let api = if config.dev_mode {
            None
        } else {
            config.runtime_api.clone()
        };
        let lambda_addresses = api
            .as_deref()
            .map_or(Addresses::Unknown, Addresses::of_literal);
        let server_addresses = Addresses::of_remote(config.remote.as_ref());
        let trust = Trust::of_remote(config.remote.as_ref());
        let references = config.references.take();
        Self {
            log,
            entropy,
            ring,
            inlets: Vec::new(),
            uplinks: Vec::new(),
            lambda: api.map(|api| Lambda::new(api, name)),
            telemetry: None,
            lambda_addresses,
            server_addresses,
            trust,
            server: ServerHealth::default(),
            credentials: references.map(|own| Box::new(Credentials::new(*own))),
            phase: Phase::Serve,
            held: Duration::ZERO,
            session: None,
            thaw: None,
            decided: None,
            last_empty: String::new(),
            invoked: false,
            limits: report::LogLimits::default(),
            listening: Vec::new(),
            taken: Vec::new(),
            server_is_self: false,
            to_close: Vec::new(),
            last_reached: None,
            wakes: Wakes::default(),
            next_id: 0,
            head: Vec::new(),
            trim_at: None,
            profile: None,
            config,
        }
    }

    /// The log, for the shell to add to and to write.
    pub const fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// The account so far.
    #[must_use]
    pub const fn totals(&self) -> &ring::Totals {
        self.ring.totals()
    }

    /// Where clients connect to.
    #[must_use]
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// The port for Lambda's telemetry is bound, or cannot be.
    pub fn telemetry_bound(&mut self, port: Result<u16, ErrorKind>) {
        if let Some(telemetry) = &mut self.telemetry {
            telemetry.bound(port);
        }
    }

    /// Lambda connected to that port.
    pub fn telemetry_accepted(&mut self) -> ConnId {
        let id = self.fresh_id();
        match &mut self.telemetry {
            Some(telemetry) => self.to_close.extend(telemetry.accepted(id)),
            None => self.to_close.push(id),
        }
        id
    }

    /// A requested connection is open, between these ends.
    pub fn connected(&mut self, id: ConnId, ends: Ends, now: Now) {
        match (self.owner(id), &mut self.lambda, &mut self.telemetry) {
            // Nothing more happens on it: `step` closes all uplinks.
            (Owner::Uplink(_), ..) if ends.are_both_ours(&self.listening) => {
                self.server_is_self = true;
            }
            (Owner::Uplink(at), ..) => {
                let path = path(&self.config, &self.trust);
                self.uplinks[at].connected(id, path, &self.ring, now);
                self.note_address(at);
            }
            (Owner::Lambda, Some(lambda), _) => lambda.connected(id),
            (Owner::Telemetry, _, Some(telemetry)) => telemetry.connected(id),
            (Owner::Store, ..) => {
                if let Some(credentials) = &mut self.credentials {
                    credentials.connected(id, ends, &self.listening, now);
                }
            }
            // The part that asked for the connection no longer exists.
            _ => self.to_close.push(id),
        }
    }

    /// Where the next bytes from that connection are read to; empty while none are wanted.
    pub fn space(&mut self, id: ConnId) -> &mut [u8] {
        match (self.owner(id), &mut self.lambda, &mut self.telemetry) {
            (Owner::Inlet(at), ..) => self.inlets[at].1.space(&mut self.ring),
            (Owner::Uplink(at), ..) => self.uplinks[at].space(),
            (Owner::Lambda, Some(lambda), _) => lambda.space(),
            (Owner::Telemetry, _, Some(telemetry)) => telemetry.space(id),
            (Owner::Store, ..) => {
                let credentials = self.credentials.as_mut();
                let inquiry = credentials.and_then(|own| own.inquiry_mut());
                inquiry.map_or(&mut [], Inquiry::space)
            }
            _ => &mut [],
        }
    }

    /// Whether [`Relay::space`] is not empty; unlike `space`, this changes nothing.
    #[must_use]
    pub fn wants(&self, id: ConnId) -> bool {
        match (self.owner(id), &self.lambda, &self.telemetry) {
            (Owner::Inlet(at), ..) => self.inlets[at].1.wants(),
            (Owner::Uplink(at), ..) => self.uplinks[at].wants(),
            (Owner::Lambda, Some(lambda), _) => lambda.wants(),
            (Owner::Telemetry, _, Some(telemetry)) => telemetry.wants(id),
            (Owner::Store, ..) => self.credentials.as_ref().is_some_and(|own| own.wants()),
            _ => false,
        }
    }

    /// Whether there is a connection to the server, busy or idle, or to a store of secrets. A freeze could harm it, so
    /// freezes must be noticed.
    #[must_use]
    pub fn has_connections(&self) -> bool {
        !self.uplinks.iter().all(Uplink::is_closed)
            || self.credentials.as_ref().is_some_and(|own| own.is_asking())
    }

    /// Whether an attempt ended that [`Relay::step`] has not handled yet.
    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.uplinks.iter().any(Uplink::is_finished)
            || self
                .credentials
                .as_ref()
                .is_some_and(|own| own.has_finished())
    }

    /// Whether the request to register is still to be sent. Nothing should delay it.
    #[must_use]
    pub fn is_registering(&self) -> bool {
        self.lambda.as_ref().is_some_and(Lambda::is_registering)
    }

    /// `n` bytes of [`Relay::space`] have been read.
    pub fn received(&mut self, id: ConnId, n: usize, now: Now) {
        self.ring.tick(now.mono);
        match (self.owner(id), &mut self.lambda, &mut self.telemetry) {
            (Owner::Inlet(at), ..) => {
                let (inlet, mut cx) = self.inlet_context(at, now);
                inlet.received(n, &mut cx);
            }
            (Owner::Uplink(at), ..) => {
                let path = path(&self.config, &self.trust);
                self.uplinks[at].received(n, path, &self.ring, &mut self.log, now);
                self.note_address(at);
            }
            (Owner::Lambda, Some(lambda), _) => {
                self.to_close.extend(lambda.received(id, n, now.mono));
            }
            (Owner::Telemetry, _, Some(telemetry)) => {
                self.to_close.extend(telemetry.received(id, n));
            }
            (Owner::Store, ..) => {
                if let Some(credentials) = &mut self.credentials {
                    credentials.received(n, now);
                }
            }
            _ => {}
        }
    }

    /// The connection ended, or could not be made.
    pub fn ended(&mut self, id: ConnId, why: End, now: Now) {
        match (self.owner(id), &mut self.lambda, &mut self.telemetry) {
            (Owner::Inlet(at), ..) => self.inlets[at].1.ended(why == End::Eof, &mut self.ring),
            (Owner::Uplink(at), ..) => {
                self.log.line(
                    Level::Debug,
                    now.unix_ms,
                    "Connection to the server ended",
                    &[("cause", why.words().into()), SVC],
                );
                self.uplinks[at].ended(id, why, now);
            }
            (Owner::Lambda, Some(lambda), _) => {
                lambda.ended(why, now.mono);
                self.to_close.push(id);
            }
            (Owner::Telemetry, _, Some(telemetry)) => {
                telemetry.ended(id, why);
                self.to_close.push(id);
            }
            (Owner::Store, ..) => {
                if let Some(credentials) = &mut self.credentials {
                    credentials.ended(id, why, now);
                }
            }
            _ => {}
        }
    }

    /// Bytes to be written on that connection.
    pub fn pending(&mut self, id: ConnId) -> [&[u8]; 2] {
        match (self.owner(id), &self.lambda, &self.telemetry) {
            (Owner::Inlet(at), ..) => [self.inlets[at].1.pending(), &[]],
            (Owner::Uplink(at), ..) => self.uplinks[at].pending(&self.ring),
            (Owner::Lambda, Some(lambda), _) => [lambda.pending(), &[]],
            (Owner::Telemetry, _, Some(telemetry)) => [telemetry.pending(id), &[]],
            (Owner::Store, ..) => {
                let credentials = self.credentials.as_mut();
                let inquiry = credentials.and_then(|own| own.inquiry_mut());
                inquiry.map_or([&[], &[]], Inquiry::pending)
            }
            _ => [&[], &[]],
        }
    }

    /// `n` bytes of [`Relay::pending`] have been written.
    pub fn sent(&mut self, id: ConnId, n: usize, now: Now) {
        match (self.owner(id), &mut self.lambda, &mut self.telemetry) {
            (Owner::Inlet(at), ..) => {
                let (inlet, mut cx) = self.inlet_context(at, now);
                inlet.sent(n, &mut cx);
            }
            (Owner::Uplink(at), ..) => self.uplinks[at].sent(n, now),
            (Owner::Lambda, Some(lambda), _) => lambda.sent(n),
            (Owner::Telemetry, _, Some(telemetry)) => {
                self.to_close.extend(telemetry.sent(id, n));
            }
            (Owner::Store, ..) => {
                if let Some(inquiry) = self.inquiry_mut() {
                    inquiry.sent(n);
                }
            }
            _ => {}
        }
    }

    /// Remembers the address by which an uplink has reached the server.
    fn note_address(&mut self, at: usize) {
        if self.uplinks[at].is_exchanging() {
            self.last_reached = self.uplinks[at].address();
        }
    }

    /// The current inquiry to a store of secrets.
    fn inquiry_mut(&mut self) -> Option<&mut Inquiry> {
        self.credentials.as_mut()?.inquiry_mut()
    }
}

/// What lies between us and the server.
fn path<'r>(config: &'r Config, trust: &'r Trust) -> Path<'r> {
    let remote = config.remote.as_ref();
    Path {
        proxy: remote.and_then(|remote| remote.proxy.as_ref()),
        client: trust.client(),
    }
}
