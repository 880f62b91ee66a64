//! Credentials that the settings name the place of: read while the function runs, and again when the remote refuses them.
//!
//! ```text
//!             ┌────────── failed: after a pause ─────────┐
//!             ▼                                          │
//!   ──▶ Due ──┴─ asked for the next event ─▶ Reading ────┴─ all read ──▶ Known
//!        ▲                                                                 │
//!        └──────────────── 401, 403: once a minute at most ────────────────┘
//! ```
//!
//! Nothing is sent to the remote but in `Known`. What is to be read is read one after the other: a file by the shell, what
//! a store keeps by an [`Inquiry`], and first the AWS keys, where the environment has none.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::aws::sigv4::Keys;
use crate::aws::store;
use crate::config::Remote;
use crate::config::reference::{KeySource, Place, References};
use crate::contract::{Command, ConnId, End, Ends, Now, Peer, error_words};
use crate::http1::write::field;
use crate::lambda::Lambda;
use crate::tls;

use super::Relay;
use super::backend::{jitter, left};
use super::inquiry::Inquiry;
use super::phase::Phase;
use super::ring::PayloadId;
use super::transport::Path;
use super::uplink::Answer;
use super::wakes::Wakes;

/// First pause after a failure, doubling up to the maximum: a store has limits, and a permission is given by hand.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Shortest time between two readings because the remote refused what was read.
const READ_AGAIN: Duration = Duration::from_mins(1);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Credentials {
    references: References,
    state: State,
    /// The fields as they are sent.
    lines: Vec<u8>,
    /// How often they were read.
    version: u32,
    /// The remote refused those that were read last.
    refused: bool,
    /// When they were last read again for that.
    read_again: Option<Now>,
    failures: u32,
    /// We are leaving: pauses no longer grow.
    leaving: bool,
    /// The name that is being looked up.
    lookup: Option<String>,
    /// For the store of that name.
    client: Option<(String, Option<tls::Client>)>,
}

#[derive(Debug)]
enum State {
    /// To be read, but not before then.
    Due(Option<Now>),
    Reading(Reading),
    Known,
}

#[derive(Debug)]
struct Reading {
    /// What was read, in the order of the sources.
    values: Vec<String>,
    keys: Option<Keys>,
    step: Step,
    /// A freeze has cost an inquiry already.
    resent: bool,
}

/// What is under way for the next source.
#[derive(Debug)]
enum Step {
    None,
    File,
    Inquiry(Box<Inquiry>),
}

/// What could not be read, and why.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) variable: &'static str,
    pub(super) place: String,
    pub(super) cause: String,
}

impl Reading {
    /// Where the inquiry that is due, or under way, leads.
    fn endpoint<'r>(&self, references: &'r References) -> Option<&'r Remote> {
        let Place::Store(stored) = &references.sources.get(self.values.len())?.place else {
            return None;
        };
        match &references.keys {
            KeySource::Asked { endpoint, .. } if self.keys.is_none() => Some(endpoint),
            _ => Some(&stored.endpoint),
        }
    }

    /// Begins to read the next source. Gives the file that is to be read.
    fn next(
        &mut self,
        references: &References,
        deadline: Instant,
        wakes: Wakes,
        now: Now,
    ) -> Result<Option<String>, String> {
        let Some(source) = references.sources.get(self.values.len()) else {
            return Ok(None);
        };
        let stored = match &source.place {
            Place::File(path) => {
                self.step = Step::File;
                return Ok(Some(path.clone()));
            }
            Place::Store(stored) => stored,
        };
        let request = match (&references.keys, &self.keys) {
            (KeySource::Given(keys), _) | (_, Some(keys)) => stored.request(keys, now.unix_ms),
            (KeySource::Asked { request, .. }, None) => request.clone(),
            (KeySource::Missing, None) => {
                return Err(store::NO_KEYS.to_owned());
            }
        };
        let inquiry = Inquiry::new(request, deadline, wakes);
        self.step = Step::Inquiry(Box::new(inquiry));
        Ok(None)
    }

    /// Takes what an inquiry has brought, if it is over.
    fn conclude(&mut self, references: &References, wakes: Wakes) -> Result<(), String> {
        let Step::Inquiry(inquiry) = &self.step else {
            return Ok(());
        };
        let asks_keys = matches!(references.keys, KeySource::Asked { .. }) && self.keys.is_none();
        let source = references.sources.get(self.values.len());
        let (Some(answer), Some(Place::Store(stored))) =
            (inquiry.answer(), source.map(|source| &source.place))
        else {
            return Ok(());
        };
        match answer {
            // Nothing was wrong but the freeze.
            Err(_) if inquiry.was_frozen(wakes) && !self.resent => self.resent = true,
            Err(cause) => return Err(cause.to_owned()),
            Ok((status, body)) if asks_keys => self.keys = Some(store::keys(status, body)?),
            Ok((status, body)) => self.values.push(stored.secret(status, body)?),
        }
        Ok(())
    }
}

impl Credentials {
    pub(super) const fn new(references: References) -> Self {
        Self {
            references,
            state: State::Due(None),
            lines: Vec::new(),
            version: 0,
            refused: false,
            read_again: None,
            failures: 0,
            leaving: false,
            lookup: None,
            client: None,
        }
    }

    /// Whether requests can be sent.
    pub(super) const fn are_known(&self) -> bool {
        matches!(self.state, State::Known)
    }

    /// Whether there is nothing to do but to wait: nobody is held up for that.
    pub(super) fn are_missing(&self, now: Now) -> bool {
        match self.state {
            State::Due(Some(at)) => !left(at, now).is_zero(),
            State::Due(None) | State::Known => false,
            State::Reading(_) => self.failures > 0,
        }
    }

    fn inquiry(&self) -> Option<&Inquiry> {
        match &self.state {
            State::Reading(Reading {
                step: Step::Inquiry(inquiry),
                ..
            }) => Some(inquiry),
            _ => None,
        }
    }

    pub(super) fn inquiry_mut(&mut self) -> Option<&mut Inquiry> {
        match &mut self.state {
            State::Reading(Reading {
                step: Step::Inquiry(inquiry),
                ..
            }) => Some(inquiry),
            _ => None,
        }
    }

    /// The inquiry under way, and what lies between us and its store.
    fn on_the_way(&mut self) -> Option<(&mut Inquiry, Path<'_>)> {
        let State::Reading(reading) = &mut self.state else {
            return None;
        };
        let endpoint = reading.endpoint(&self.references)?;
        let client = self.client.as_ref().and_then(|(_, client)| client.as_ref());
        let path = Path {
            proxy: endpoint.proxy.as_ref(),
            client: client.filter(|_| endpoint.tls),
        };
        match &mut reading.step {
            Step::Inquiry(inquiry) => Some((inquiry, path)),
            Step::None | Step::File => None,
        }
    }

    pub(super) fn owns(&self, id: ConnId) -> bool {
        self.inquiry().is_some_and(|inquiry| inquiry.owns(id))
    }

    pub(super) fn wants(&self) -> bool {
        self.inquiry().is_some_and(Inquiry::wants)
    }

    pub(super) fn is_asking(&self) -> bool {
        self.inquiry().is_some()
    }

    pub(super) fn has_finished(&self) -> bool {
        self.inquiry().is_some_and(Inquiry::is_over)
    }

    pub(super) fn received(&mut self, n: usize, now: Now) {
        if let Some((inquiry, path)) = self.on_the_way() {
            inquiry.received(n, path, now.mono);
        }
    }

    pub(super) fn ended(&mut self, id: ConnId, why: End, now: Now) {
        if let Some(inquiry) = self.inquiry_mut() {
            inquiry.ended(id, why, now.mono);
        }
    }

    /// The connection stands. It must not be one to ourselves: the answer to an upload is no secret.
    pub(super) fn connected(&mut self, id: ConnId, ends: Ends, listening: &[SocketAddr], now: Now) {
        if let Some((inquiry, path)) = self.on_the_way() {
            if ends.are_both_ours(listening) {
                inquiry.fail("this relay itself listens there".to_owned(), now.mono);
            } else {
                inquiry.connected(id, path, now.mono);
            }
        }
    }

    /// When there is something to do, if nothing happens before.
    pub(super) fn deadline(&self, now: Now) -> Option<Instant> {
        match self.state {
            State::Due(Some(at)) => Some(now.mono + left(at, now)),
            _ => self.inquiry()?.deadline(now.mono),
        }
    }

    /// The remote refuses the fields of that version. Whether it is too early to read them again.
    fn refused(&mut self, version: u32, now: Now) -> Option<bool> {
        if version != self.version || !self.are_known() {
            return None;
        }
        let at = self.read_again.map(|last| later(last, READ_AGAIN));
        self.refused = true;
        self.state = State::Due(at);
        Some(at.is_some_and(|at| !left(at, now).is_zero()))
    }

    /// What an inquiry that is given up leaves behind, to be closed.
    pub(super) fn abandon(&mut self) -> Vec<ConnId> {
        let mut over = Vec::new();
        if let Some(inquiry) = self.inquiry_mut() {
            inquiry.close();
            over.extend(std::iter::from_fn(|| inquiry.takes_over()));
        }
        if let State::Reading(_) = self.state {
            self.state = State::Due(None);
        }
        over
    }

    /// We are leaving: what failed is tried again at once.
    pub(super) const fn leave(&mut self) {
        self.leaving = true;
        if self.failures > 0
            && let State::Due(at) = &mut self.state
        {
            *at = None;
        }
    }

    /// What is wrong with the source at that place, for the log.
    fn failure(&self, at: usize, cause: String) -> Failure {
        let source = self.references.sources.get(at);
        Failure {
            variable: source.map_or("", |source| source.variable),
            place: source.map_or("", |source| source.place.name()).to_owned(),
            cause,
        }
    }

    /// Begins what is due, and takes what has come. Gives the file to be read.
    fn go_on(
        &mut self,
        deadline: Instant,
        wakes: Wakes,
        now: Now,
        over: &mut Vec<ConnId>,
    ) -> Result<Option<String>, Failure> {
        loop {
            let State::Reading(reading) = &mut self.state else {
                return Ok(None);
            };
            let at = reading.values.len();
            match &mut reading.step {
                Step::File => return Ok(None),
                Step::Inquiry(inquiry) if !inquiry.is_over() => return Ok(None),
                Step::Inquiry(inquiry) => {
                    inquiry.close();
                    over.extend(std::iter::from_fn(|| inquiry.takes_over()));
                    let result = reading.conclude(&self.references, wakes);
                    reading.step = Step::None;
                    result.map_err(|cause| self.failure(at, cause))?;
                }
                Step::None if at == self.references.sources.len() => {
                    return self.finish().map(|()| None);
                }
                Step::None => {
                    let begun = reading.next(&self.references, deadline, wakes, now);
                    let file = begun.map_err(|cause| self.failure(at, cause))?;
                    if file.is_some() {
                        return Ok(file);
                    }
                }
            }
        }
    }

    /// All is read.
    fn finish(&mut self) -> Result<(), Failure> {
        let State::Reading(reading) = &self.state else {
            return Ok(());
        };
        let fields = self.references.fields(&reading.values);
        let fields = fields.map_err(|fault| Failure {
            variable: fault.variable,
            place: fault.place,
            cause: fault.why.to_owned(),
        })?;
        self.lines.clear();
        for (name, value) in &fields {
            field(&mut self.lines, name.as_bytes(), value.as_bytes());
        }
        self.version += 1;
        self.failures = 0;
        self.refused = false;
        self.client = None;
        self.state = State::Known;
        Ok(())
    }

    /// It is tried again later.
    fn put_off(&mut self, now: Now, random: u64) {
        let doublings = if self.leaving {
            0
        } else {
            self.failures.min(6)
        };
        let pause = jitter((PAUSE_MIN * (1 << doublings)).min(PAUSE_MAX), random);
        self.failures += 1;
        self.client = None;
        self.state = State::Due(Some(later(now, pause)));
    }
}

fn later(now: Now, time: Duration) -> Now {
    Now {
        mono: now.mono + time,
        unix_ms: now.unix_ms.saturating_add(time.as_millis() as u64),
    }
}

impl Relay {
    /// Reads the credentials that the settings name the place of, while the function runs.
    pub(super) fn read_credentials(&mut self, now: Now) -> Option<Command> {
        self.credentials.as_ref()?;
        self.begin_to_read(now);
        let (deadline, wakes) = (now.mono + self.config.timeout, self.wakes);
        let credentials = self.credentials.as_mut()?;
        let was_known = credentials.are_known();
        match credentials.go_on(deadline, wakes, now, &mut self.to_close) {
            Err(failure) => self.put_off_reading(&failure, now),
            Ok(Some(file)) => return Some(Command::ReadFile(file)),
            Ok(None) if credentials.are_known() && !was_known => self.log_read(now),
            Ok(None) => {}
        }
        // What has just ended is closed first.
        let closing = self.to_close.pop().map(Command::Close);
        closing.or_else(|| self.reach_store(now))
    }

    /// Nothing of it comes before Lambda was asked for the next event, and none of it is in a snapshot.
    fn begin_to_read(&mut self, now: Now) {
        let is_free = match self.phase {
            Phase::Serve => self.lambda.as_ref().is_none_or(Lambda::has_asked),
            Phase::Hold { .. } | Phase::Drain { .. } => true,
            Phase::Done => false,
        };
        let is_copied =
            self.config.snap_start && !self.invoked && !matches!(self.phase, Phase::Drain { .. });
        let runs = self.invoked || self.lambda.is_none();
        let waits = self.ring.in_hand() > 0;
        if let Some(credentials) = &mut self.credentials
            && let State::Due(at) = credentials.state
            && at.is_none_or(|at| left(at, now).is_zero())
            && is_free
            && !is_copied
            && (waits || runs && credentials.version == 0 && at.is_none())
        {
            if credentials.refused {
                credentials.read_again = Some(now);
            }
            credentials.state = State::Reading(Reading {
                values: Vec::new(),
                keys: None,
                step: Step::None,
                resent: false,
            });
        }
    }

    /// Gets an inquiry what it needs before it can connect: the TLS client, then addresses; then connections.
    fn reach_store(&mut self, now: Now) -> Option<Command> {
        let credentials = self.credentials.as_mut()?;
        let State::Reading(reading) = &mut credentials.state else {
            return None;
        };
        let endpoint = reading.endpoint(&credentials.references)?;
        let Step::Inquiry(inquiry) = &mut reading.step else {
            return None;
        };
        if inquiry.awaits_address() {
            let client = credentials.client.as_ref();
            if endpoint.tls && client.is_none_or(|(host, _)| *host != endpoint.host) {
                credentials.client = Some((endpoint.host.clone(), None));
                let (file, directories) = (&self.config.ca_file, &self.config.ca_directories);
                if file.is_some() || !directories.is_empty() {
                    return Some(Command::ReadRoots(file.clone(), directories.clone()));
                }
                self.roots(Vec::new(), now);
                return self.reach_store(now);
            }
            if endpoint.tls && client.is_some_and(|(_, client)| client.is_none()) {
                return None;
            }
            let (host, port) = endpoint.peer();
            if let Ok(ip) = host.parse::<IpAddr>() {
                inquiry.resolved(vec![SocketAddr::new(ip, port)], now.mono);
            } else if credentials.lookup.is_none() {
                credentials.lookup = Some(host.to_owned());
                return Some(Command::Resolve(Peer::Store, endpoint.peer_name()));
            }
        }
        if !inquiry.is_connection_due(now.mono) {
            return None;
        }
        self.next_id += 1;
        let id = ConnId(self.next_id);
        let address = inquiry.connecting(id, now.mono)?;
        Some(Command::Connect(id, address))
    }

    /// The addresses of a store are there, or why they are not.
    pub(super) fn store_resolved(&mut self, result: Result<Vec<SocketAddr>, String>, now: Now) {
        let Some(credentials) = &mut self.credentials else {
            return;
        };
        let asked = credentials.lookup.take();
        if let State::Reading(reading) = &mut credentials.state
            && let Some(endpoint) = reading.endpoint(&credentials.references)
            // It may have taken so long that another store is asked by now.
            && asked.as_deref() == Some(endpoint.peer().0)
            && let Step::Inquiry(inquiry) = &mut reading.step
            && inquiry.awaits_address()
        {
            match result {
                Ok(addresses) => inquiry.resolved(addresses, now.mono),
                Err(cause) => inquiry.fail(cause, now.mono),
            }
        }
    }

    /// A file was read that holds a credential.
    pub fn file_read(&mut self, read: Result<Vec<u8>, ErrorKind>, now: Now) {
        let Some(credentials) = &mut self.credentials else {
            return;
        };
        let State::Reading(reading) = &mut credentials.state else {
            return;
        };
        let text = read
            .map_err(error_words)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| store::NOT_TEXT));
        match text {
            Ok(text) => {
                reading.values.push(text);
                reading.step = Step::None;
            }
            Err(cause) => {
                let at = reading.values.len();
                let failure = credentials.failure(at, cause.to_owned());
                self.put_off_reading(&failure, now);
            }
        }
    }

    /// The name that a TLS client is wanted for, if it is a store's.
    pub(super) fn store_to_trust(&self) -> Option<&str> {
        match &self.credentials.as_ref()?.client {
            Some((host, None)) => Some(host),
            _ => None,
        }
    }

    /// The TLS client for that store is made, or cannot be.
    pub(super) fn trust_store(&mut self, client: Result<tls::Client, String>, now: Now) {
        if let Some(credentials) = &mut self.credentials {
            match client {
                Ok(made) => {
                    if let Some((_, client)) = &mut credentials.client {
                        *client = Some(made);
                    }
                }
                Err(cause) => {
                    if let Some(inquiry) = credentials.inquiry_mut() {
                        inquiry.fail(cause, now.mono);
                    }
                }
            }
        }
    }

    /// Puts the credentials into the head of a payload that is about to be sent.
    pub(super) fn authorize(&mut self, payload: PayloadId) {
        let mut uplinks = self.uplinks.iter_mut();
        if let Some(credentials) = &self.credentials
            && let Some(uplink) = uplinks.find(|uplink| uplink.payload() == Some(payload))
        {
            let [plain, _] = self.ring.request(payload);
            // They come last, before the empty line.
            let (fields, end) = plain.split_at(plain.len().saturating_sub(2));
            uplink.authorize(
                [fields, &credentials.lines, end].concat(),
                credentials.version,
            );
        }
    }

    /// The remote refused a payload for its credentials, and these can be read again. The payload waits for that.
    pub(super) fn record_unauthorized(
        &mut self,
        payload: PayloadId,
        version: u32,
        answer: &Answer,
        now: Now,
    ) {
        self.ring.was_sent(payload);
        self.ring.retry(payload, None);
        let credentials = self.credentials.as_mut();
        if let Some(was_just_read) = credentials.and_then(|own| own.refused(version, now)) {
            self.log_unauthorized(answer, was_just_read, now);
        }
    }

    fn put_off_reading(&mut self, failure: &Failure, now: Now) {
        let random = (self.entropy)();
        if let Some(credentials) = &mut self.credentials {
            credentials.put_off(now, random);
        }
        self.log_unread(failure, now);
    }
}
