//! The core: owns the ring and every machine, and decides. Pure: facts in, commands out.
//!
//! The shell reports what happened through [`Relay::accepted`], [`Relay::received`] and the other facts; they
//! record it in the machine it belongs to and touch no other. Then it calls [`Relay::step`] until there is no
//! [`Command`](crate::contract::Command): all policy is there, and in what it calls.
//!
//! ```text
//!  client ──▶ Inlet ──▶ Ring ──▶ Uplink ──▶ remote        Lambda ◀──▶ Extensions API
//! ```

mod backend;
mod credentials;
mod dispatch;
mod flush;
pub mod forward;
pub mod inlet;
mod inquiry;
pub mod itself;
pub mod labels;
mod outcome;
mod peers;
mod phrases;
pub mod report;
pub mod ring;
mod step;
mod transport;
mod tunnel;
mod uplink;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::contract::{ConnId, End, Ends, Now, error_words};
use crate::lambda::Lambda;
use crate::lambda::telemetry::Telemetry;
pub(crate) use crate::log::SVC;
use crate::log::{Level, Log};
use crate::profile::SelfProfile;
use crate::times::Thaw;

use backend::Backend;
use credentials::Credentials;
use inlet::Inlet;
use inquiry::Inquiry;
use peers::{Addresses, Trust};
use ring::{PayloadId, Ring};
use transport::Path;
use uplink::Uplink;

/// Local connections at once. SDKs hold one to five; when all are taken, the one without progress for longest
/// gives way.
const INLETS_MAX: usize = 64;

/// How long a client is given to begin its request before it counts as idle: from connecting to writing takes a
/// client microseconds, and a busy machine a moment.
const NEWCOMER: Duration = Duration::from_millis(250);

/// Time kept back from Lambda's shutdown deadline, for leaving.
const SHUTDOWN_MARGIN: Duration = Duration::from_millis(100);

/// Time to drain where nobody gave a deadline: what Lambda gives an extension.
const SHUTDOWN_DEFAULT: Duration = Duration::from_secs(2);

/// What lines about clients say besides, as in the extension we replace.
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
    /// Only while `PYROSCOPE_FLUSH_MODE` is `end`.
    telemetry: Option<Telemetry>,
    lambda_addresses: Addresses,
    remote_addresses: Addresses,
    trust: Trust,
    backend: Backend,
    /// Only where the settings name the place of a credential.
    credentials: Option<Box<Credentials>>,
    phase: Phase,
    /// Time in which Lambda could not freeze us because we held the next event back.
    held: Duration,
    /// The sandbox's session id. What was drawn before the first INVOKE is forgotten then, so that copies of a
    /// snapshot differ.
    session: Option<u64>,
    /// The last freeze that was noticed.
    thaw: Option<Thaw>,
    /// When something was decided last.
    decided: Option<Now>,
    /// See [`inlet::Context`].
    last_empty: String,
    invoked: bool,
    limits: report::Limits,
    /// Where clients connect to.
    listening: Vec<SocketAddr>,
    /// Where they should, and another process listens.
    taken: Vec<SocketAddr>,
    /// A connection to the remote has led back to us.
    remote_is_own: bool,
    to_close: Vec<ConnId>,
    /// The remote's address that was reached last, TLS included.
    worked: Option<SocketAddr>,
    /// How often the sandbox may have been frozen so far: see [`Wake`].
    wakes: Wakes,
    next_id: u64,
    head: Vec<u8>,
    trim_at: Option<Instant>,
    /// Of the extension itself, if that is wanted.
    profile: Option<SelfProfile>,
}

/// Why the sandbox may have been frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// The clocks show it.
    Seen,
    /// An INVOKE or SHUTDOWN came: before it there may have been a freeze too short to be seen.
    Unseen,
}

/// How often the sandbox may have been frozen so far, and how often the clocks have shown it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wakes {
    all: u64,
    seen: u64,
}

/// Whose a connection is; of inlets and uplinks, at which place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Inlet(usize),
    Uplink(usize),
    Lambda,
    Telemetry,
    Store,
    Nobody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serve,
    /// We owe Lambda the next event.
    Hold {
        why: Why,
        since: Instant,
        /// The end of the budget for what it is held for, at the latest `latest`.
        until: Instant,
        /// What the invocation's deadline allows.
        latest: Instant,
    },
    Drain {
        until: Instant,
        /// Nothing was left to do, and we have looked for more.
        has_looked: bool,
    },
    Done,
}

/// What Lambda's next event is held back for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// What the ring held at `mark` is still here.
    Queued { mark: u64 },
    /// The function runs: this costs nothing yet.
    Running,
    /// The function is done, and the ring is not empty.
    Done,
}

impl Why {
    /// Whether the sandbox waits for us alone.
    const fn is_flush(self) -> bool {
        matches!(self, Self::Queued { .. } | Self::Done)
    }
}

impl Relay {
    /// The core of a process whose file is called `name`. `entropy` gives random numbers.
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
        let remote_addresses = Addresses::of_remote(config.remote.as_ref());
        let trust = Trust::of_remote(config.remote.as_ref());
        let references = config.remote.as_mut();
        let references = references.and_then(|remote| remote.references.take());
        Self {
            log,
            entropy,
            ring,
            inlets: Vec::new(),
            uplinks: Vec::new(),
            lambda: api.map(|api| Lambda::new(api, name)),
            telemetry: None,
            lambda_addresses,
            remote_addresses,
            trust,
            backend: Backend::default(),
            credentials: references.map(|own| Box::new(Credentials::new(*own))),
            phase: Phase::Serve,
            held: Duration::ZERO,
            session: None,
            thaw: None,
            decided: None,
            last_empty: String::new(),
            invoked: false,
            limits: report::Limits::default(),
            listening: Vec::new(),
            taken: Vec::new(),
            remote_is_own: false,
            to_close: Vec::new(),
            worked: None,
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

    /// The listeners are bound to `addresses`. If there are none, events are still served, and each INVOKE tries again.
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

    /// A client connected. The idlest of the others gives way if there are too many.
    pub fn accepted(&mut self, now: Now) -> ConnId {
        // Those with nothing under way first, then those without progress for longest. Who has just come has
        // something under way, though it may not be here yet.
        let idlest = |at: &usize| {
            let (id, inlet) = &self.inlets[*at];
            let age = now.mono.saturating_duration_since(inlet.progressed());
            (inlet.is_busy() || age < NEWCOMER, inlet.progressed(), *id)
        };
        if self.inlets.len() >= INLETS_MAX
            && let Some(at) = (0..self.inlets.len()).min_by_key(idlest)
        {
            let (id, mut inlet) = self.inlets.remove(at);
            inlet.close(&mut self.ring);
            self.to_close.push(id);
            self.tell_crowded(now);
        }

        let id = self.fresh_id();
        self.inlets.push((id, Inlet::new(now.mono)));
        id
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

    /// A connection asked for stands, between these ends.
    pub fn connected(&mut self, id: ConnId, ends: Ends, now: Now) {
        match (self.owner(id), &mut self.lambda, &mut self.telemetry) {
            // Nothing more happens on it: `step` gives up all of them.
            (Owner::Uplink(_), ..) if ends.are_both_ours(&self.listening) => {
                self.remote_is_own = true;
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
            // Whoever asked for it is gone.
            _ => self.to_close.push(id),
        }
    }

    /// Where the next bytes from that connection go; empty while none are wanted.
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

    /// Whether [`Relay::space`] is not empty; unlike it, this changes nothing.
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

    /// Whether there is a connection to the remote, busy or idle, or one to a store of secrets: a freeze could harm it, so it must be noticed.
    #[must_use]
    pub fn has_connections(&self) -> bool {
        !self.uplinks.iter().all(Uplink::is_closed)
            || self.credentials.as_ref().is_some_and(|own| own.is_asking())
    }

    /// Whether an attempt ended that [`Relay::step`] has not judged yet.
    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.uplinks.iter().any(Uplink::is_finished)
            || self
                .credentials
                .as_ref()
                .is_some_and(|own| own.has_finished())
    }

    /// Whether the request to register is still to be sent, which nothing should delay.
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
                    "Remote connection ended",
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

    /// We are asked to leave by a signal.
    pub fn terminated(&mut self, now: Now) {
        self.drain(
            now.mono + SHUTDOWN_DEFAULT.saturating_sub(SHUTDOWN_MARGIN),
            now,
        );
    }

    /// The sandbox was frozen for so long: time that counts for nothing.
    pub fn thawed(&mut self, frozen: Duration, now: Now) {
        let ms = frozen.as_millis() as u64;
        self.log.line(
            Level::Debug,
            now.unix_ms,
            "Thawed",
            &[("frozen_ms", ms.into()), SVC],
        );
        self.thaw = Some(Thaw {
            at_ms: now.unix_ms,
            stood_still_ms: self.stood_still_ms(now),
        });
        self.ring.thawed(frozen);
        self.backend.thawed(frozen);
        if let Some(profile) = &mut self.profile {
            profile.thawed(frozen);
        }
        self.inlets
            .iter_mut()
            .for_each(|(_, inlet)| inlet.thawed(frozen));
        self.uplinks
            .iter_mut()
            .for_each(|uplink| uplink.thawed(frozen));
        if let Some(lambda) = &mut self.lambda {
            lambda.thawed(frozen);
        }
        if let Some(inquiry) = self.inquiry_mut() {
            inquiry.thawed(frozen);
        }
        self.forget_addresses(now);
        self.wake(Wake::Seen, now);
    }

    /// The sandbox may have been frozen until now: a connection that is busy has to show that it lives.
    fn wake(&mut self, wake: Wake, now: Now) {
        self.wakes.all += 1;
        self.wakes.seen += u64::from(wake == Wake::Seen);
        for uplink in &mut self.uplinks {
            // Where a freeze is only possible, one resend is enough: else a slow server would never be heard out.
            let may_resend =
                |payload: PayloadId| wake == Wake::Seen || self.ring.has_free_resend(payload);
            if uplink.payload().is_some_and(may_resend) {
                uplink.suspect(wake, now.mono);
            }
        }
        if let Some(inquiry) = self.inquiry_mut() {
            inquiry.suspect(now.mono);
        }
    }

    /// Time went on. To be reported last in a turn: what has arrived counts before what is late.
    pub fn expire(&mut self, now: Now) {
        self.uplinks
            .iter_mut()
            .for_each(|uplink| uplink.expire(now));
        self.inlets
            .iter_mut()
            .for_each(|(_, inlet)| inlet.expire(now.mono));
        if let Some(inquiry) = self.inquiry_mut() {
            inquiry.expire(now.mono);
        }
        if self.trim_at.is_some_and(|at| at <= now.mono) {
            self.trim_at = None;
            self.ring.trim();
            self.uplinks.iter_mut().for_each(Uplink::trim);
        }
    }

    /// When [`Relay::expire`] and [`Relay::step`] have something to do, if nothing happens before.
    ///
    /// Always later than `now`: what was due by then is done, or waits for something else to happen.
    #[must_use]
    pub fn deadline(&self, now: Now) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Hold { .. } => self.hold_ends(now),
            Phase::Drain { until, .. } => {
                let new = self
                    .inlets
                    .iter()
                    .filter_map(|(_, inlet)| inlet.new_until());
                new.filter(|at| *at > now.mono).chain([until]).min()
            }
            Phase::Serve | Phase::Done => None,
        };
        let telemetry = self.telemetry.as_ref();
        let subscription = telemetry.and_then(|own| own.holds_next(now.mono));
        let probe = self
            .backend
            .probe_at(now)
            .filter(|_| self.ring.in_hand() > 0);
        let lambda = self.lambda.as_ref().and_then(Lambda::deadline);
        let uplinks = self
            .uplinks
            .iter()
            .filter_map(|uplink| uplink.deadline(now.mono));
        let inlets = self.inlets.iter().filter_map(|(_, inlet)| inlet.deadline());
        let single = [
            phase,
            self.credentials.as_ref().and_then(|own| own.deadline(now)),
            subscription,
            probe,
            lambda,
            self.trim_at,
            self.ring.next_due(now.mono),
            self.profile.as_ref().and_then(SelfProfile::deadline),
        ];
        let all = single.into_iter().flatten().chain(uplinks).chain(inlets);
        all.filter(|at| *at > now.mono).min()
    }

    /// By how much the wall clock went further than the monotonic one since something was decided last.
    fn stood_still_ms(&self, now: Now) -> u64 {
        self.decided.map_or(0, |then| {
            let wall = now.unix_ms.saturating_sub(then.unix_ms);
            let mono = now.mono.saturating_duration_since(then.mono);
            wall.saturating_sub(mono.as_millis() as u64)
        })
    }

    /// Keeps the address that an uplink has reached the remote by.
    fn note_address(&mut self, at: usize) {
        if self.uplinks[at].is_exchanging() {
            self.worked = self.uplinks[at].address();
        }
    }

    /// What is asked of a store of secrets now.
    fn inquiry_mut(&mut self) -> Option<&mut Inquiry> {
        self.credentials.as_mut()?.inquiry_mut()
    }

    /// Whose that connection is. One that is closed is nobody's.
    fn owner(&self, id: ConnId) -> Owner {
        if let Some(at) = self.inlets.iter().position(|(own, _)| *own == id) {
            Owner::Inlet(at)
        } else if let Some(at) = self.uplinks.iter().position(|uplink| uplink.owns(id)) {
            Owner::Uplink(at)
        } else if self.lambda.as_ref().is_some_and(|own| own.owns(id)) {
            Owner::Lambda
        } else if self.telemetry.as_ref().is_some_and(|own| own.owns(id)) {
            Owner::Telemetry
        } else if self.credentials.as_ref().is_some_and(|own| own.owns(id)) {
            Owner::Store
        } else {
            Owner::Nobody
        }
    }

    /// The inlet at that place, and what it needs.
    fn inlet_context(&mut self, at: usize, now: Now) -> (&mut Inlet, inlet::Context<'_>) {
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

    /// Until the first INVOKE every copy of a snapshot has the session id that was drawn before it was taken: so none is
    /// kept, and each upload has one of its own.
    const fn forget_shared_session(&mut self) {
        if self.config.snap_start && !self.invoked {
            self.session = None;
        }
    }

    const fn fresh_id(&mut self) -> ConnId {
        self.next_id += 1;
        ConnId(self.next_id)
    }

    /// Begins to leave: no event is asked for any more, pauses end, and when all is delivered, or at `until`, it
    /// is over.
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
        self.backend.leave(now.mono);
        if let Some(credentials) = &mut self.credentials {
            credentials.leave();
        }
    }
}

/// What lies between us and the remote.
fn path<'r>(config: &'r Config, trust: &'r Trust) -> Path<'r> {
    let remote = config.remote.as_ref();
    Path {
        proxy: remote.and_then(|remote| remote.proxy.as_ref()),
        client: trust.client(),
    }
}
