//! When credentials are read, and what happens if the server refuses them.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use crate::aws::store;
use crate::contract::{Command, ConnId, Now, Peer, error_words};
use crate::lambda::Lambda;
use crate::relay::Relay;
use crate::relay::phase::Phase;
use crate::relay::ring::PayloadId;
use crate::relay::server::left;
use crate::relay::uplink::Answer;
use crate::tls;

use super::State;
use super::reading::{Failure, Reading, Step};

impl Relay {
    /// Reads the credentials that the settings refer to, while the function runs.
    pub(in crate::relay) fn read_credentials(&mut self, now: Now) -> Option<Command> {
        self.credentials.as_ref()?;
        self.begin_to_read(now);
        let (deadline, wakes) = (now.mono + self.config.timeout, self.wakes);
        let credentials = self.credentials.as_mut()?;
        let was_known = credentials.are_known();
        match credentials.advance(deadline, wakes, now, &mut self.to_close) {
            Err(failure) => self.retry_reading_later(&failure, now),
            Ok(Some(file)) => return Some(Command::ReadFile(file)),
            Ok(None) if credentials.are_known() && !was_known => self.log_credentials_read(now),
            Ok(None) => {}
        }
        // Close first what has just ended.
        let closing = self.to_close.pop().map(Command::Close);
        closing.or_else(|| self.reach_store(now))
    }

    /// Reading begins only after Lambda was asked for the next event, and nothing of it is in a snapshot.
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

    /// Gives an inquiry what it needs before it can connect: the TLS client, then addresses, then connections.
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

    /// A store's addresses are known, or the lookup failed.
    pub(in crate::relay) fn store_resolved(
        &mut self,
        result: Result<Vec<SocketAddr>, String>,
        now: Now,
    ) {
        let Some(credentials) = &mut self.credentials else {
            return;
        };
        let asked = credentials.lookup.take();
        if let State::Reading(reading) = &mut credentials.state
            && let Some(endpoint) = reading.endpoint(&credentials.references)
            // The lookup may have taken so long that another store is asked now.
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

    /// A file that holds a credential was read.
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
                self.retry_reading_later(&failure, now);
            }
        }
    }

    /// The host that needs a TLS client, if it is a store.
    pub(in crate::relay) fn store_to_trust(&self) -> Option<&str> {
        match &self.credentials.as_ref()?.client {
            Some((host, None)) => Some(host),
            _ => None,
        }
    }

    /// The TLS client for that store is ready, or cannot be made.
    pub(in crate::relay) fn trust_store(&mut self, client: Result<tls::Client, String>, now: Now) {
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
    pub(in crate::relay) fn authorize(&mut self, payload: PayloadId) {
        let mut uplinks = self.uplinks.iter_mut();
        if let Some(credentials) = &self.credentials
            && let Some(uplink) = uplinks.find(|uplink| uplink.payload() == Some(payload))
        {
            let [plain, _] = self.ring.request(payload);
            // The credentials are the last fields, before the empty line.
            let (fields, end) = plain.split_at(plain.len().saturating_sub(2));
            uplink.authorize(
                [fields, &credentials.lines, end].concat(),
                credentials.version,
            );
        }
    }

    /// The server refused a payload because of its credentials, which can be read again. The payload waits for that.
    pub(in crate::relay) fn record_unauthorized(
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
            self.log_credentials_refused(answer, was_just_read, now);
        }
    }

    fn retry_reading_later(&mut self, failure: &Failure, now: Now) {
        let random = (self.entropy)();
        if let Some(credentials) = &mut self.credentials {
            credentials.schedule_retry(now, random);
        }
        self.log_credentials_unread(failure, now);
    }
}
