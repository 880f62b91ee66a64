//! Attempts to relay one payload each: which connections belong to one, and which a freeze has made suspect.
//!
//! An attempt on a new connection may try several addresses side by side (RFC 8305). The core says only which
//! connections it wants; which attempt each is for shows in the address and in the time.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use pyroscope_lambda_extension::contract::ConnId;

use super::ledger::{SLACK, Sure};
use super::opinion::Standing;
use super::server::Server;
use super::world::World;

/// How long an attempt may be silent after a wake.
const SUSPECT_MAX: u64 = 1_000_000;

/// How long after one address the next is begun beside it.
const BESIDE: u64 = 250_000;

#[derive(Debug)]
pub struct Attempt {
    /// The addresses in the order in which they are tried, and how many have been.
    order: Vec<SocketAddr>,
    tried: usize,
    /// When the next of them is due.
    due: u64,
    /// Turn and time in which its payload was given to it, where that is known.
    pub since: Option<(u64, u64)>,
    pub standing: Standing,
    /// Least and most that its beginning can be, for the time it has.
    pub begun: (u64, u64),
    /// Which payload it is for, once that shows.
    pub payload: Option<usize>,
    pub suspicion: Option<Suspicion>,
    /// Whether a wake came since it was begun.
    pub frozen: Sure,
    /// Whether one came that the clocks have shown.
    pub thaw: Sure,
    /// Every copy of the sandbox has it: none goes on with it.
    copied: bool,
    /// It may be one of several connections for one attempt, or not.
    blurred: bool,
}

/// It is closed if it stays silent: at that time, or if nobody knows whether it is suspect, perhaps.
#[derive(Debug, Clone, Copy)]
pub struct Suspicion {
    /// The last wake that the clocks have shown. What comes in the same moment may have come before the freeze.
    seen: Option<u64>,
    pub from: u64,
    pub by: Option<u64>,
}

/// The attempts under way, by a number of ours.
#[derive(Debug, Default)]
pub struct Attempts {
    all: BTreeMap<u64, Attempt>,
    number: u64,
    /// Turns in which those ended of which nobody knows which payload they were for.
    unknown: Vec<u64>,
}

impl Attempt {
    pub fn on_new(order: Vec<SocketAddr>, begun: (u64, u64), since: Option<(u64, u64)>) -> Self {
        Self {
            order,
            tried: 0,
            due: 0,
            since,
            standing: Standing::Unknown,
            begun,
            payload: None,
            suspicion: None,
            frozen: Sure::No,
            thaw: Sure::No,
            copied: false,
            blurred: false,
        }
    }

    /// Nothing is sure of it any more.
    pub const fn blurs(&mut self, now: u64) {
        self.blurred = true;
        self.begun = (0, now);
        self.since = None;
        self.standing = Standing::Unknown;
        self.frozen = Sure::Maybe;
        self.thaw = Sure::Maybe;
        let seen = match self.suspicion {
            Some(suspicion) => suspicion.seen,
            None => None,
        };
        self.suspicion = Some(Suspicion {
            seen,
            from: 0,
            by: None,
        });
    }

    pub const fn is_blurred(&self) -> bool {
        self.blurred
    }

    /// None of those tried so far is of use: if there is another, it is tried at once.
    pub fn falls_back(&mut self, now: u64) -> bool {
        if self.copied || !self.has_more() {
            return false;
        }
        self.suspicion = None;
        self.due = now;
        true
    }

    /// The next address is tried.
    pub const fn tries_next(&mut self, now: u64) {
        self.tried += 1;
        self.due = now + BESIDE;
    }

    /// One of its addresses failed: the next is begun at once.
    pub const fn fails_over(&mut self, now: u64) {
        self.due = now;
    }

    pub const fn has_more(&self) -> bool {
        self.tried < self.order.len()
    }

    const fn wakes(&mut self, now: u64, sure: Sure) {
        let until = now + SUSPECT_MAX;
        let sure = if self.blurred { Sure::Maybe } else { sure };
        match (sure, &mut self.suspicion) {
            (Sure::No, _) | (_, Some(_)) => {}
            (Sure::Maybe, none) => {
                *none = Some(Suspicion {
                    seen: None,
                    from: until,
                    by: None,
                });
            }
            (Sure::Yes, none) => {
                *none = Some(Suspicion {
                    seen: None,
                    from: until,
                    by: Some(until),
                });
            }
        }
    }

    /// A thaw that the clocks show makes it suspect without a doubt.
    fn thawed(&mut self, frozen: u64, now: u64) {
        self.frozen = Sure::Yes;
        self.thaw = Sure::Yes;
        self.begun.0 += frozen;
        self.begun.1 += frozen;
        self.due += frozen;
        // Everything it is compared with moves as well.
        self.since = self.since.map(|(turn, mono)| (turn, mono + frozen));
        let until = now + SUSPECT_MAX;
        let (from, by) = match self.suspicion {
            Some(Suspicion { from, by, .. }) => (from + frozen, by.map(|by| by + frozen)),
            None => (until, None),
        };
        self.suspicion = Some(Suspicion {
            seen: Some(now),
            from: from.min(until),
            by: (!self.blurred).then(|| by.map_or(until, |by| by.min(until))),
        });
    }

    /// Whether it was silent for too long after a wake, and whether its time is up.
    pub fn is_over(&self, now: u64, timeout: u64) -> (Sure, Sure) {
        let late = match self.begun {
            (_, last) if now >= last + timeout => Sure::Yes,
            (first, _) if now >= first + timeout => Sure::Maybe,
            _ => Sure::No,
        };
        (self.is_silent_too_long(now), late)
    }

    /// Whether its silence may be over by now, and whether it is without a doubt.
    fn is_silent_too_long(&self, now: u64) -> Sure {
        match self.suspicion {
            _ if self.copied => Sure::Yes,
            Some(Suspicion { by: Some(by), .. }) if now >= by => Sure::Yes,
            Some(Suspicion { from, .. }) if now >= from => Sure::Maybe,
            _ => Sure::No,
        }
    }
}

impl Attempts {
    pub fn add(&mut self, attempt: Attempt) -> u64 {
        self.number += 1;
        self.all.insert(self.number, attempt);
        self.number
    }

    pub fn get_mut(&mut self, number: u64) -> &mut Attempt {
        self.all.get_mut(&number).unwrap()
    }

    pub fn end(&mut self, number: u64, turn: u64) -> Option<Attempt> {
        let attempt = self.all.remove(&number)?;
        if attempt.payload.is_none() {
            self.unknown.push(turn);
        }
        Some(attempt)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Attempt)> {
        self.all.iter().map(|(number, attempt)| (*number, attempt))
    }

    /// Those whose next address this is, and due.
    pub fn awaiting(&self, address: SocketAddr, now: u64) -> Vec<u64> {
        let due = |(_, attempt): &(u64, &Attempt)| {
            attempt.payload.is_none()
                && attempt.tried > 0
                && attempt.order.get(attempt.tried) == Some(&address)
                && now + SLACK >= attempt.due
        };
        let due = self.iter().filter(due);
        due.map(|(number, _)| number).collect()
    }

    /// A new one begins with its first address. Whether that is the one to begin with.
    pub fn begin(&mut self, mut attempt: Attempt, address: SocketAddr, now: u64) -> (u64, bool) {
        let first = attempt.order.first() == Some(&address);
        attempt.tries_next(now);
        (self.add(attempt), first)
    }

    /// Forgets all but some.
    pub fn keep(&mut self, is: impl Fn(u64) -> bool) {
        self.all.retain(|number, _| is(*number));
    }

    /// Of none anything is sure any more.
    pub fn blur(&mut self, now: u64) {
        for attempt in self.all.values_mut() {
            attempt.blurs(now);
        }
    }

    pub fn get(&self, number: u64) -> &Attempt {
        &self.all[&number]
    }

    /// Those that may be over by now: silent for too long after a wake, or out of time.
    pub fn over(&self, now: u64, timeout: u64) -> Vec<(u64, (Sure, Sure))> {
        let all = self.iter();
        let all = all.map(|(number, attempt)| (number, attempt.is_over(now, timeout)));
        all.filter(|(_, over)| *over != (Sure::No, Sure::No))
            .collect()
    }

    pub fn thawed(&mut self, frozen: u64, now: u64) {
        for attempt in self.all.values_mut() {
            attempt.thawed(frozen, now);
        }
    }
}

/// The families in turn, and the addresses of each in the order of the name server.
pub fn in_turn(addresses: &[SocketAddr], first_v6: bool) -> Vec<SocketAddr> {
    let family = |v6| addresses.iter().filter(move |own| own.is_ipv6() == v6);
    let (mut one, mut other) = (family(first_v6), family(!first_v6));
    let mut order = Vec::new();
    while order.len() < addresses.len() {
        order.extend(one.next());
        order.extend(other.next());
    }
    order
}

impl Server {
    /// Attempts that surely count: nothing makes them suspect. Of a blurred one that is not known.
    pub fn busy_least(&self) -> u64 {
        let counts =
            |(_, attempt): &(u64, &Attempt)| attempt.suspicion.is_none() && !attempt.blurred;
        self.attempts.iter().filter(counts).count() as u64
    }

    /// Attempts that may count: all that are not suspect without a doubt.
    pub fn busy_most(&self) -> u64 {
        let suspect = |attempt: &Attempt| attempt.suspicion.is_some_and(|own| own.by.is_some());
        let counts = |(_, attempt): &(u64, &Attempt)| !suspect(attempt);
        self.attempts.iter().filter(counts).count() as u64
    }

    /// Those that surely count, and whose connection does not stand yet.
    pub fn unproven_least(&self) -> u64 {
        let counts = |(number, attempt): &(u64, &Attempt)| {
            attempt.suspicion.is_none() && !attempt.blurred && self.is_connecting(*number)
        };
        self.attempts.iter().filter(counts).count() as u64
    }

    /// Attempts of which nobody knows yet which payload they are for.
    pub fn connecting(&self) -> u64 {
        let connecting = |(_, attempt): &(u64, &Attempt)| attempt.payload.is_none();
        self.attempts.iter().filter(connecting).count() as u64
    }

    /// The same, with those that have ended since that turn.
    pub fn connecting_since(&self, turn: u64) -> u64 {
        let ended = self.attempts.unknown.iter().rev();
        let ended = ended.take_while(|then| **then >= turn).count();
        self.connecting() + ended as u64
    }
}

impl World {
    /// Lambda says something that follows on a freeze, perhaps: an attempt is suspect if its payload can still be
    /// sent again for nothing.
    pub fn server_wakes(&mut self) {
        let now = self.clock.mono();
        let waiting = self.ledger.waiting_are_free();
        self.server.woken = self.turn;
        for attempt in self.server.attempts.all.values_mut() {
            let free = attempt
                .payload
                .map_or(waiting, |at| self.ledger.payloads[at].free);
            attempt.wakes(now, free);
            attempt.frozen = Sure::Yes;
        }
    }

    /// We are a copy: what we have, the others have as well.
    pub fn server_is_copied(&mut self) {
        for attempt in self.server.attempts.all.values_mut() {
            attempt.copied = true;
            attempt.frozen = Sure::Yes;
        }
        if self.server.connections() > 0 {
            self.note("copied with connections");
        }
        self.server.closes_idle();
        self.is_not_clear();
    }

    /// Something came from the peer: nothing is wrong with it.
    pub fn shows_life(&mut self, id: ConnId) {
        let now = self.clock.mono();
        if let Some(number) = self.server.attempt_on(id) {
            let attempt = self.server.attempts.get_mut(number);
            let is_new = |own: &mut Suspicion| own.seen.is_none_or(|seen| seen < now);
            if attempt.suspicion.take_if(is_new).is_some() {
                self.note("suspect, but alive");
            }
        }
    }

    /// The system took some bytes, as it does for the dead as well: there is as much time again.
    pub fn is_patient(&mut self, id: ConnId) {
        let until = self.clock.mono() + SUSPECT_MAX;
        if let Some(number) = self.server.attempt_on(id) {
            let attempt = self.server.attempts.get_mut(number);
            if let Some(suspicion) = &mut attempt.suspicion {
                suspicion.from = until;
                suspicion.by = suspicion.by.map(|_| until);
            }
        }
    }

    /// Nobody is suspect for longer than that, and each address is tried in its turn.
    pub fn check_attempts(&self) {
        let now = self.clock.mono();
        for (number, attempt) in self.server.attempts.iter() {
            self.require(!attempt.copied, "a copy goes on with what all copies have");
            if let Some(Suspicion { by: Some(by), .. }) = attempt.suspicion {
                self.require(now < by + SLACK, "a suspect is not closed");
            }
            let late = now > attempt.begun.1 + self.set.timeout + SLACK;
            self.require(!late, format!("attempt {number} takes more than its time"));
            let ends = now + SLACK >= attempt.begun.0 + self.set.timeout;
            let waits = attempt.payload.is_none() && attempt.has_more() && !ends;
            let waits = waits && !self.server.is_full();
            if waits && now > attempt.due + SLACK {
                self.fail(format!("attempt {number} does not try its next address"));
            }
        }
    }
}
