//! Connections to the server: asked for, made, used, used again, ended by either side; and its name.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;

use pyroscope_lambda_extension::contract::{ConnId, End, Peer};

use super::answers::{Answer, Plan, Verdict};
use super::attempts::{Attempt, Attempts, in_turn};
use super::ledger::{CONNECTIONS_MAX, Outcome, Sure};
use super::weather::{Sky, Weather};
use super::world::{Happening, Who, Wire, World};

#[derive(Default)]
pub struct Server {
    pub sky: Sky,
    pub attempts: Attempts,
    pub lines: BTreeMap<ConnId, Line>,
    /// What the name stands for, as last told; none if it has to be looked up.
    addresses: Vec<SocketAddr>,
    /// Whether the last address that was reached is one of IPv6.
    worked: Option<bool>,
    /// Since when there are as many connections as there may be.
    full_since: Option<u64>,
    /// It was so while there were several addresses: from then on nobody outside knows which are for one attempt.
    blurred: bool,
    looking_up: bool,
    /// Turn in which a look-up ended.
    looked_up: u64,
    /// When the look-up began that is under way, or was the last.
    looking_since: u64,
    looking_turn: u64,
    /// What was connected to in this turn, and whether as the next address of an attempt.
    asked: Vec<(u64, SocketAddr, bool)>,
    /// Turn of the last wake.
    pub woken: u64,
    pub dying: Vec<Death>,
    /// What this turn's answers mean for the payloads that are not relayed by them.
    pub failing: Vec<(usize, Outcome, Sure)>,
}

/// One connection to the server.
pub struct Line {
    /// The attempt it is for; none while it is idle.
    pub attempt: Option<u64>,
    pub address: SocketAddr,
    /// It does not stand yet.
    pub connecting: bool,
    pub served: u32,
    /// The server has ended it, though the core need not know yet.
    pub gone: bool,
    pub exchange: Option<Exchange>,
    /// The core has nothing to expect of it any more, and must close it.
    pub done: bool,
}

pub struct Exchange {
    pub payload: usize,
    pub sent: usize,
    pub plan: Plan,
    pub heard: usize,
    /// All of the request was sent when something was last heard.
    was_sent: bool,
    /// The plan has been carried out.
    acted: bool,
}

/// An attempt that died before a byte of an answer: what that means depends on what else came in that turn.
#[derive(Debug, Clone, Copy)]
pub struct Death {
    /// None if that never showed.
    pub payload: Option<usize>,
    /// Not a byte of its request was written.
    pub unsent: bool,
    /// Whether the attempt may go on with another address, for all that can be known.
    pub blurred: bool,
    /// A freeze that the clocks have shown came since it began.
    pub thaw: Sure,
    pub served: u32,
    pub frozen: Sure,
}

const ANSWER_BODY_MAX: usize = 64 * 1024;

impl Line {
    const fn new(attempt: u64, address: SocketAddr) -> Self {
        Self {
            attempt: Some(attempt),
            address,
            connecting: true,
            served: 0,
            gone: false,
            exchange: None,
            done: false,
        }
    }
}

impl Exchange {
    /// Whether a success has been heard, of which the rest may be missing.
    pub fn said_yes(&self) -> bool {
        let said = |answer: &Answer| answer.status / 100 == 2 && self.heard >= answer.line_end;
        self.plan.answer.as_ref().is_some_and(said) && self.heard > 0 && self.was_sent
    }

    /// Whether the answer's head has been heard.
    pub fn is_answered(&self) -> bool {
        let answer = self.plan.answer.as_ref();
        self.heard > 0 && answer.is_some_and(|answer| self.heard >= answer.head_end)
    }
}

impl Death {
    fn of(line: &Line, attempt: &Attempt, payload: Option<usize>) -> Self {
        Self {
            payload,
            unsent: false,
            served: line.served,
            frozen: attempt.frozen,
            blurred: attempt.is_blurred(),
            thaw: attempt.thaw,
        }
    }
}

impl Server {
    pub const LITERAL: &'static str = "10.0.0.1:4100";
    pub const NAMED: &'static str = "remote.test:4100";

    /// Whether attempts may be under way of which nothing is to be seen: they wait for addresses, or for their turn.
    pub const fn hides_attempts(&self) -> bool {
        self.looking_up || self.full_since.is_some() || self.blurred
    }

    /// Whether nobody outside knows which connections are for one attempt.
    pub const fn is_blurred(&self) -> bool {
        self.blurred
    }

    pub const fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// The attempt that connection is for.
    pub fn attempt_on(&self, id: ConnId) -> Option<u64> {
        self.lines.get(&id)?.attempt
    }

    /// Whether no connection stands for that attempt.
    pub fn is_connecting(&self, attempt: u64) -> bool {
        let own = |line: &&Line| line.attempt == Some(attempt);
        self.lines.values().filter(own).all(|line| line.connecting)
    }

    /// Whether a request has been begun on that connection.
    pub fn is_asked(&self, id: ConnId) -> bool {
        let line = self.lines.get(&id);
        line.is_some_and(|line| line.exchange.is_some())
    }

    /// The server has ended it, or will never be heard on it again.
    pub fn is_gone(&mut self, id: ConnId) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.gone = true;
        }
    }

    /// Connections that are open, or being made.
    pub fn connections(&self) -> u64 {
        self.lines.values().filter(|line| !line.done).count() as u64
    }

    /// Whether no attempt under way is older than that.
    pub fn all_begun_since(&self, then: u64) -> bool {
        self.attempts
            .iter()
            .all(|(_, attempt)| attempt.begun.0 >= then)
    }

    /// Whether no connection has gone silent, and no attempt is suspect.
    pub fn all_speak(&self, wires: &BTreeMap<ConnId, Wire>) -> bool {
        let speak = |id: &ConnId| wires.get(id).is_none_or(|wire| !wire.silent);
        let suspect = |(_, attempt): (u64, &Attempt)| attempt.suspicion.is_some();
        self.lines.keys().all(speak) && !self.attempts.iter().any(suspect)
    }

    fn idle(&self) -> u64 {
        let idle = |line: &&Line| line.attempt.is_none() && !line.done;
        self.lines.values().filter(idle).count() as u64
    }

    /// Which connections are for one attempt is not known any more: each is taken for one of its own.
    fn blurs(&mut self, now: u64) {
        self.blurred = true;
        for line in self.lines.values_mut().filter(|line| line.connecting) {
            let mut attempt = Attempt::on_new(Vec::new(), (0, now), None);
            attempt.blurs(now);
            line.attempt = Some(self.attempts.add(attempt));
            line.done = false;
        }
        let lines = self.lines.values();
        let going_on: Vec<u64> = lines.filter_map(|line| line.attempt).collect();
        self.attempts.keep(|number| going_on.contains(&number));
        self.attempts.blur(now);
    }

    /// An address was reached.
    const fn is_reached(&mut self, address: SocketAddr) {
        self.worked = Some(address.is_ipv6());
    }

    /// Whether addresses of IPv6 go first.
    fn first_family(&self) -> bool {
        let first = self.addresses.first().is_some_and(SocketAddr::is_ipv6);
        self.worked.unwrap_or(first)
    }

    /// A freeze killed one: those that are idle are not to be used any more.
    pub fn closes_idle(&mut self) {
        for line in self.lines.values_mut() {
            line.done |= line.attempt.is_none();
        }
    }

    pub fn thawed(&mut self, frozen: u64, now: u64, turn: u64) {
        self.woken = turn;
        for line in self.lines.values_mut() {
            // Not used again.
            line.done |= line.attempt.is_none();
        }
        self.attempts.thawed(frozen, now);
        self.looking_since += frozen;
        self.full_since = self.full_since.map(|since| since + frozen);
        self.addresses.clear();
    }
}

impl World {
    pub fn server_looked_up(&mut self) {
        self.require(!self.server.looking_up, "two look-ups at once");
        self.server.looking_up = true;
        if self.server.looked_up != self.turn {
            self.server.looking_since = self.clock.mono();
            self.server.looking_turn = self.turn;
        }
        let all = [
            "10.0.0.1:4100",
            "10.0.0.2:4100",
            "[fd00::3]:4100",
            "10.0.0.4:4100",
            "[fd00::5]:4100",
        ];
        let first = self.chance.below(all.len() as u64) as usize;
        let count = self.chance.pick(&[1, 1, 2, 2, 3, 5]);
        let addresses: Vec<SocketAddr> = (first..first + count)
            .map(|at| all[at % all.len()].parse().unwrap())
            .collect();
        let (result, after) = match self.server.sky.weather {
            Weather::Nameless => match self.chance.below(3) {
                0 => (Err("no such name".to_owned()), self.chance.below(2_000_000)),
                1 => (Ok(Vec::new()), self.chance.below(2_000_000)),
                _ => (Ok(addresses), self.chance.below(20_000_000)),
            },
            _ => (Ok(addresses), self.chance.any_scale(50_000)),
        };
        let result = Happening::Looked(Peer::Remote, result);
        self.clock.outside(after, result);
    }

    /// A look-up ended.
    pub fn looked(&mut self, peer: Peer, result: &Result<Vec<SocketAddr>, String>) {
        if peer == Peer::Lambda {
            return self.lambda_found(result.is_ok());
        }
        self.server.looking_up = false;
        self.server.looked_up = self.turn;
        self.server.addresses = result.clone().unwrap_or_default();
        // The one for whom it was asked waits for it, unless its time is up.
        let late = self.clock.mono() - self.server.looking_since >= self.set.timeout;
        if self.server.addresses.is_empty() {
            self.note("no address");
        } else if late {
            self.note("address too late");
        }
        if late {
            let (now, turn) = (self.clock.mono(), self.turn);
            self.ledger.opinion.failed_unseen(turn, now);
        } else if self.server.addresses.is_empty() {
            self.unreached(true);
        }
    }

    pub fn server_connects(&mut self, id: ConnId, address: SocketAddr) {
        let now = self.clock.mono();
        let mut awaiting = self.server.attempts.awaiting(address, now);
        let addresses = in_turn(&self.server.addresses, self.server.first_family());
        if awaiting.len() == 1 && addresses.first() == Some(&address) {
            // It may be the first of another one: the look-up may have had another answer since.
            awaiting.clear();
            self.note("the next address of one attempt, or the first of another");
            self.server.blurs(now);
        }
        if awaiting.len() > 1 {
            // Which of them it is for shows only later, if ever.
            self.note("several attempts at once for one address");
            self.server.blurs(now);
        }
        let next = awaiting.len() == 1;
        let number = if let [number] = awaiting[..] {
            self.server.attempts.get_mut(number).tries_next(now);
            self.note("another address");
            number
        } else {
            self.attempt_begins(address)
        };
        let line = Line::new(number, address);
        self.server.lines.insert(id, line);
        if self.set.named && self.server.lines.len() as u64 >= CONNECTIONS_MAX {
            self.note("as many connections as there may be");
            self.server.blurs(now);
        }
        // The next address of one attempt and the first of another: which is which does not show either.
        let same = |own: &(u64, SocketAddr, bool)| *own == (self.turn, address, !next);
        if self.server.asked.iter().any(same) {
            self.server.blurs(now);
        }
        self.server.asked.retain(|(turn, ..)| *turn == self.turn);
        self.server.asked.push((self.turn, address, next));
        let rtt = self.chance.any_scale(40_000);
        if self.is_silent(address) {
            return;
        }
        let landed = match self.server.sky.weather {
            Weather::Flaky if self.chance.one_in(8) => return,
            Weather::Refuses => Some(ErrorKind::ConnectionRefused),
            Weather::Flaky if self.chance.one_in(6) => Some(ErrorKind::HostUnreachable),
            _ => None,
        };
        self.clock.outside(rtt, Happening::Landed(id, landed));
        if self.server.sky.weather == Weather::BlackHole {
            let after = self.chance.any_scale(200_000);
            self.clock.outside(after, Happening::Silence(id));
        }
        // Some accept only to reset.
        if self.server.sky.weather == Weather::Flaky && self.chance.one_in(12) {
            let reset = End::Io(ErrorKind::ConnectionReset);
            self.server.lines.get_mut(&id).unwrap().gone = true;
            self.clock.outside(rtt, Happening::Cut(id, reset));
        }
    }

    /// A payload was given to a new connection, and this is its first address.
    fn attempt_begins(&mut self, address: SocketAddr) -> u64 {
        let (now, turn) = (self.clock.mono(), self.turn);
        let blurred = self.server.blurred;
        let order = if self.set.named && !blurred {
            in_turn(&self.server.addresses, self.server.first_family())
        } else {
            vec![address]
        };
        // Asked for at once where the address was known; else some time after its payload was given to it.
        let looked_up = self.set.named && self.server.looked_up == turn;
        let looking = looked_up.then_some(self.server.looking_since);
        let waiting = self.server.full_since.or(looking);
        let earliest = now.saturating_sub(self.set.timeout);
        let waiting = waiting.or(blurred.then_some(earliest));
        let known = waiting.is_none();
        let begun = waiting.map_or((now, now), |since| (earliest.max(since), now));
        let (busy, unproven) = (self.server.busy_least(), self.server.unproven_least());
        let standing = self.dispatches(known, begun.0, busy, unproven);
        if known {
            let suspects = self.server.attempts.iter().count() as u64 - busy;
            if busy + suspects >= self.set.workers as u64 && suspects > 0 {
                self.note("fresh payloads beside suspects");
            }
            let used = busy + self.server.idle();
            let room = used < self.connections_most();
            self.require(room, "more connections than workers");
            self.require(!self.is_too_late(), "a connection is begun at the very end");
        }
        let mut attempt = Attempt::on_new(order, begun, known.then_some((turn, now)));
        attempt.standing = standing;
        if !known && self.server.woken > self.server.looking_turn {
            // It waited for its address, perhaps through a wake.
            attempt.frozen = Sure::Maybe;
            attempt.thaw = Sure::Maybe;
        }
        if blurred {
            attempt.blurs(now);
        }
        let (number, first) = self.server.attempts.begin(attempt, address, now);
        self.require(
            first || blurred,
            format!("{address} is not the address to begin with"),
        );
        number
    }

    /// A connection stands.
    pub fn server_lands(&mut self, id: ConnId) {
        let Some(line) = self.server.lines.get_mut(&id) else {
            return;
        };
        line.connecting = false;
        if line.done {
            return;
        }
        let (attempt, address) = (line.attempt, line.address);
        self.server.is_reached(address);
        self.ledger.opinion.is_proven();
        self.shows_life(id);
        let mut losers = false;
        for (other, line) in &mut self.server.lines {
            if *other != id && line.attempt == attempt {
                line.done = true;
                losers = true;
            }
        }
        if losers {
            self.note("the first of several connections");
        }
    }

    /// A connection could not be made.
    pub fn server_unconnected(&mut self, id: ConnId) {
        let line = self.server.lines.remove(&id).unwrap();
        let Some(number) = line.attempt.filter(|_| !line.done) else {
            return;
        };
        let now = self.clock.mono();
        let others = self.server.lines.values();
        let goes_on = others.filter(|line| line.attempt == Some(number)).count() > 0;
        let attempt = self.server.attempts.get_mut(number);
        attempt.fails_over(now);
        if !goes_on && !attempt.has_more() {
            let death = Death::of(&line, attempt, None);
            self.server.dying.push(death);
            self.server.attempts.end(number, self.turn);
        }
    }

    /// Bytes are written, with so many to go: they must be what is left of the request.
    pub fn server_is_sent(&mut self, id: ConnId, bytes: &[u8], left: usize) {
        self.is_patient(id);
        let line = self.server.lines.get_mut(&id).unwrap();
        let exchange = line.exchange.as_mut().unwrap();
        let (payload, sent) = (exchange.payload, exchange.sent);
        exchange.sent += bytes.len();
        let rest = &self.ledger.payloads[payload].request[sent..];
        if rest.len() != left || !rest.starts_with(bytes) {
            self.fail(format!(
                "payload {payload} is not what the client sent, from byte {sent}"
            ));
        }
    }

    pub const fn server_host(&self) -> &'static str {
        if self.set.named {
            Server::NAMED
        } else {
            Server::LITERAL
        }
    }

    /// A request is to be written, and this is the whole of it.
    pub fn server_begins(&mut self, id: ConnId, pending: &[u8]) {
        let Some(payload) = number(pending) else {
            self.fail("a request that nobody sent");
        };
        self.times_arrive(payload, pending);
        let Some(line) = self.server.lines.get(&id).filter(|line| !line.done) else {
            self.fail("a connection is used that is over");
        };
        let (now, turn) = (self.clock.mono(), self.turn);
        let (new, own) = (line.attempt.is_some(), line.attempt);
        let number = own.unwrap_or_else(|| {
            let (busy, unproven) = (self.server.busy_least(), self.server.unproven_least());
            let room = busy < self.connections_most();
            self.require(room, "more requests at once than workers");
            let standing = self.dispatches(true, now, busy, unproven);
            let mut attempt = Attempt::on_new(Vec::new(), (now, now), Some((turn, now)));
            attempt.standing = standing;
            self.server.attempts.add(attempt)
        });
        let attempt = self.server.attempts.get_mut(number);
        attempt.payload = Some(payload);
        let (since, standing) = (attempt.since, attempt.standing);
        let request = self.ledger.payloads[payload].request.len();
        let plan = self.server_plans(payload, request);
        let room = self.server_room(&plan);
        let wire = self.wires.get_mut(&id).unwrap();
        if !wire.silent {
            wire.room = room;
        }
        let line = self.server.lines.get_mut(&id).unwrap();
        line.attempt = Some(number);
        line.exchange = Some(Exchange {
            payload,
            sent: 0,
            plan,
            heard: 0,
            was_sent: false,
            acted: false,
        });
        self.begins(payload, id, since, standing, new);
    }

    /// The server's side of the system has taken more of a request.
    pub fn server_took(&mut self, id: ConnId, n: usize) {
        let (wire, line) = (&self.wires[&id], self.server.lines.get_mut(&id).unwrap());
        let Some(exchange) = &mut line.exchange else {
            return;
        };
        if wire.room == 0 && exchange.plan.stops.is_none() {
            let (pause, more) = (
                self.chance.any_scale(20_000),
                self.chance.any_scale(9000) + 1,
            );
            self.clock
                .outside(pause, Happening::Room(id, more as usize + n));
        }
        if line.gone || exchange.acted || exchange.sent < exchange.plan.at {
            return;
        }
        exchange.acted = true;
        line.gone = exchange.plan.end.is_some();
        let (pause, end) = (exchange.plan.pause, exchange.plan.end);
        let bytes = exchange.plan.answer.as_ref().map_or(Vec::new(), |answer| {
            answer.bytes[..exchange.plan.cut.min(answer.bytes.len())].to_vec()
        });
        self.server_acts(id, &bytes, pause, end);
    }

    /// The core has read `n` more bytes of an answer.
    pub fn server_was_read(&mut self, id: ConnId, n: usize) {
        self.shows_life(id);
        let line = self.server.lines.get_mut(&id).unwrap();
        let Some(exchange) = &mut line.exchange else {
            // It spoke without being asked.
            line.done = true;
            return self.note("spoke without being asked");
        };
        exchange.heard += n;
        let request = self.ledger.payloads[exchange.payload].request.len();
        let unsent = exchange.sent < request;
        exchange.was_sent = !unsent;
        let (heard, payload) = (exchange.heard, exchange.payload);
        let Some(answer) = &exchange.plan.answer else {
            self.fail("an answer that was never sent");
        };
        if heard < answer.head_end {
            let address = line.address;
            return self.server.is_reached(address);
        }
        let whole = heard == answer.bytes.len() && !answer.until_close;
        let long = heard - answer.head_end > ANSWER_BODY_MAX;
        let good = answer.status / 100 == 2;
        let answered = Outcome::Answered(answer.verdict(heard));
        let keep_alive = answer.keep_alive;
        let slow = exchange.plan.pause >= 300_000;
        let (outcome, reusable, what) = match () {
            () if answer.garbage => (Outcome::Broken, false, "garbage"),
            () if unsent && good => (Outcome::Broken, false, "early success"),
            () if unsent => (answered, false, "early answer"),
            () if answer.odd => (answered, false, "odd success"),
            () if whole => (answered, keep_alive, "answered"),
            () if long => (answered, false, "answer cut short"),
            () => {
                let address = line.address;
                return self.server.is_reached(address);
            }
        };
        if slow && outcome == Outcome::Answered(Verdict::Taken) {
            self.note("half a second for an answer");
        }
        self.note(what);
        self.server_concludes(id, payload, outcome, reusable);
    }

    fn server_concludes(&mut self, id: ConnId, payload: usize, outcome: Outcome, reusable: bool) {
        let line = self.server.lines.get_mut(&id).unwrap();
        line.exchange = None;
        let attempt = line.attempt.take().unwrap();
        // What is read as it wakes may have come before a freeze that has killed the connection since.
        let suspect = self.server.attempts.get(attempt).suspicion.is_some();
        if suspect {
            self.note("not trusted after a freeze");
        }
        let line = self.server.lines.get_mut(&id).unwrap();
        if reusable && !suspect {
            line.served += 1;
            self.idle_line(id);
        } else {
            line.done = true;
        }
        self.server.attempts.end(attempt, self.turn);
        self.is_known(payload, outcome, Sure::No);
    }

    /// An idle connection may be closed by the server, or worse, any time later.
    fn idle_line(&mut self, id: ConnId) {
        let line = self.server.lines.get_mut(&id).unwrap();
        if line.gone || !self.chance.one_in(3) {
            return;
        }
        let reset = End::Io(ErrorKind::ConnectionReset);
        let after = self.chance.any_scale(60_000_000);
        let end = self.chance.pick(&[End::Eof, End::Eof, reset]);
        self.clock.outside(after, Happening::Fades(id, end));
    }

    /// The server closes an idle connection; the news take their time. Or it speaks without being asked.
    pub fn line_fades(&mut self, id: ConnId, end: End) {
        let travel = self.chance.any_scale(60_000);
        let rude = self.chance.one_in(5);
        let Some(line) = self.server.lines.get_mut(&id) else {
            return;
        };
        if line.exchange.is_none() && !line.gone {
            line.gone = true;
            if rude {
                let bytes = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
                self.clock.outside(0, Happening::Arrive(id, bytes.to_vec()));
            }
            self.clock.outside(travel, Happening::Cut(id, end));
        }
    }

    /// The core learns that a connection has ended.
    pub fn server_ends(&mut self, id: ConnId) {
        let line = self.server.lines.remove(&id).unwrap();
        let Some(number) = line.attempt.filter(|_| !line.done) else {
            return;
        };
        let attempt = self.server.attempts.end(number, self.turn).unwrap();
        let Some(exchange) = &line.exchange else {
            // It stood, and was gone before the first byte: no other address is tried.
            self.note("accepted, then gone");
            let death = Death::of(&line, &attempt, None);
            return self.server.dying.push(death);
        };
        let (payload, heard) = (exchange.payload, exchange.heard);
        match &exchange.plan.answer {
            Some(answer) if heard >= answer.head_end && heard > 0 => {
                let outcome = Outcome::Answered(answer.verdict(heard));
                self.note("answered, then cut off");
                self.is_known(payload, outcome, Sure::No);
            }
            _ if exchange.said_yes() => {
                self.note("a yes, and no more of it");
                self.is_known(payload, Outcome::Answered(Verdict::Taken), Sure::No);
            }
            _ if heard > 0 => self.is_known(payload, Outcome::Broken, attempt.thaw),
            _ => {
                let mut death = Death::of(&line, &attempt, Some(payload));
                death.unsent = exchange.sent == 0;
                self.server.dying.push(death);
            }
        }
    }

    /// Connections that are over are closed, attempts end in time, and there are not too many.
    pub fn check_server(&mut self) {
        let wires = self.wires.values().filter(|wire| wire.who == Who::Server);
        let count = wires.count() as u64;
        self.require(
            count <= CONNECTIONS_MAX,
            "more connections than there may be",
        );
        let (now, timeout) = (self.clock.mono(), self.set.timeout);
        if count < CONNECTIONS_MAX {
            self.server.full_since = None;
        } else if now >= *self.server.full_since.get_or_insert(now) + timeout {
            // Whoever waited for so long has failed.
            self.ledger.opinion.is_out_of_sight(now);
        }
        if !self.server.lines.values().any(|line| line.connecting) {
            self.server.blurred &= self.server.full_since.is_some();
        }
        let most = self.connections_most();
        let idle = self.server.idle();
        let surplus = idle > 0 && idle + self.server.busy_least() > most;
        self.require(!surplus, "idle connections of a flush are kept");
        if count > self.set.workers as u64 {
            self.note("more connections than workers");
        }
        for (id, wire) in &self.wires {
            let known = wire.who != Who::Server || self.server.lines.contains_key(id);
            self.require(known, "a connection that has ended is not closed");
        }
        for (id, line) in &self.server.lines {
            self.require(!line.done, format!("{id:?} is over, and not closed"));
        }
        self.check_attempts();
    }

    /// We are gone: a yes counts, whatever is missing of it.
    pub fn server_settles(&mut self) {
        for line in std::mem::take(&mut self.server.lines).into_values() {
            if let Some(exchange) = line.exchange
                && let Some(answer) = exchange.plan.answer
                && exchange.heard >= answer.head_end
                && answer.status / 100 == 2
            {
                self.note("a yes at the last moment");
                let taken = Outcome::Answered(Verdict::Taken);
                self.concludes(exchange.payload, taken, Sure::No);
            }
        }
    }
}

/// The number of a request's payload.
fn number(request: &[u8]) -> Option<usize> {
    let mut lines = request.split(|byte| *byte == b'\n');
    let number = lines.find_map(|line| line.strip_prefix(b"X-Number: "))?;
    std::str::from_utf8(number).ok()?.trim_end().parse().ok()
}
