//! The remote, its name and the network before it: well, down, silent, flaky, or without a name.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;

use pyroscope_lambda_extension::contract::{ConnId, End, Peer};

use super::chance::Chance;
use super::ledger::Outcome;
use super::world::{Happening, Who, World};

/// How the remote is these seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Weather {
    #[default]
    Good,
    Refuses,
    Silent,
    Flaky,
    /// It can be reached, and is of no use.
    Failing,
    Nameless,
}

#[derive(Default)]
pub struct Remote {
    weather: Weather,
    lines: BTreeMap<ConnId, Line>,
    /// What the name stands for, as last told; none if it has to be looked up.
    addresses: Vec<SocketAddr>,
    looking_up: bool,
    /// Turn in which a look-up ended.
    looked_up: u64,
    /// When the look-up began that is under way, or was the last.
    looking_since: u64,
    dying: Vec<Death>,
}

/// One connection to the remote.
struct Line {
    connecting: bool,
    /// Which of the addresses it goes to.
    address: usize,
    /// Turn and time in which its payload was given to it, where that is known.
    since: Option<(u64, u64)>,
    /// The same, as far as it bears on the time it has.
    begun: (u64, u64),
    served: u32,
    frozen: Frozen,
    probe: bool,
    /// The remote has ended it, though the core need not know yet.
    gone: bool,
    exchange: Option<Exchange>,
    /// The core has nothing to expect of it any more, and must close it.
    done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frozen {
    No,
    Maybe,
    Yes,
}

struct Exchange {
    payload: usize,
    sent: usize,
    plan: Plan,
    heard: usize,
    /// Least and most that the attempt's deadline can be.
    deadline: (u64, u64),
    /// The plan has been carried out.
    acted: bool,
}

/// What the remote does about a request.
struct Plan {
    /// After so many bytes of the request.
    at: usize,
    /// After so long.
    pause: u64,
    answer: Option<Answer>,
    /// So much of the answer is sent.
    cut: usize,
    end: Option<End>,
    /// Stops reading when it has so much.
    stops: Option<usize>,
}

#[derive(Debug)]
struct Answer {
    bytes: Vec<u8>,
    /// Where the final head ends, or what cannot be read becomes clear.
    head_end: usize,
    status: u16,
    retry_after: Option<u64>,
    keep_alive: bool,
    until_close: bool,
    garbage: bool,
}

/// A connection that died before a byte of an answer: what that means depends on what else came in that turn.
#[derive(Debug, Clone, Copy)]
struct Death {
    /// None if it never stood.
    payload: Option<usize>,
    /// No other address is tried instead.
    last_address: bool,
    served: u32,
    frozen: Frozen,
    probe: bool,
    /// Not a byte was written on it.
    unsent: bool,
}

impl Death {
    const fn of(line: &Line, payload: Option<usize>) -> Self {
        Self {
            payload,
            last_address: true,
            served: line.served,
            frozen: line.frozen,
            probe: line.probe,
            unsent: false,
        }
    }
}

const ANSWER_BODY_MAX: usize = 64 * 1024;

impl Remote {
    pub const LITERAL: &'static str = "10.0.0.1:4100";
    pub const NAMED: &'static str = "remote.test:4100";

    pub const fn is_looking_up(&self) -> bool {
        self.looking_up
    }

    /// Connections being made.
    pub fn connecting(&self) -> u64 {
        self.lines.values().filter(|line| line.connecting).count() as u64
    }

    /// Whether a request has been begun on that connection.
    pub fn is_asked(&self, id: ConnId) -> bool {
        self.lines
            .get(&id)
            .is_some_and(|line| line.exchange.is_some())
    }

    /// Attempts that can be seen.
    pub fn busy(&self) -> u64 {
        let busy = |line: &&Line| line.connecting || line.exchange.is_some();
        self.lines.values().filter(busy).count() as u64
    }

    pub fn thawed(&mut self, frozen: u64) {
        for line in self.lines.values_mut() {
            line.frozen = Frozen::Yes;
            line.begun.0 += frozen;
            line.begun.1 += frozen;
            // Everything it is compared with moves as well.
            line.since = line.since.map(|(turn, mono)| (turn, mono + frozen));
            if let Some(exchange) = &mut line.exchange {
                exchange.deadline.0 += frozen;
                exchange.deadline.1 += frozen;
            } else if !line.connecting {
                // Not used again.
                line.done = true;
            }
        }
        self.addresses.clear();
    }

    /// An invocation began, perhaps after a freeze too short to be seen.
    pub fn may_have_frozen(&mut self) {
        for line in self.lines.values_mut() {
            line.frozen = Frozen::Yes;
        }
        for death in &mut self.dying {
            death.frozen = Frozen::Yes;
        }
    }
}

impl World {
    pub fn weather_changes(&mut self) {
        let good = self.good_for_ever || self.chance.below(5) < 2;
        self.remote.weather = if good {
            Weather::Good
        } else {
            self.chance.pick(&[
                Weather::Refuses,
                Weather::Silent,
                Weather::Flaky,
                Weather::Flaky,
                Weather::Failing,
                Weather::Failing,
                Weather::Nameless,
            ])
        };
        let weather = self.remote.weather;
        self.tell(|| format!("weather: {weather:?}"));
        if !self.good_for_ever {
            let least = if weather == Weather::Failing {
                8_000_000
            } else {
                50_000
            };
            let lasts = self.chance.between(least, 20_000_000);
            self.clock.outside(lasts, Happening::Weather);
        }
    }

    pub fn remote_looked_up(&mut self) {
        self.require(!self.remote.looking_up, "two look-ups at once");
        self.remote.looking_up = true;
        self.remote.looking_since = self.clock.mono();
        let addresses: Vec<SocketAddr> = ["10.0.0.1:4100", "10.0.0.2:4100", "10.0.0.3:4100"]
            [..self.chance.between(1, 3) as usize]
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        let (result, after) = match self.remote.weather {
            Weather::Nameless => match self.chance.below(3) {
                0 => (Err("no such name".to_owned()), self.chance.below(2_000_000)),
                1 => (Ok(Vec::new()), self.chance.below(2_000_000)),
                _ => (Ok(addresses), self.chance.below(20_000_000)),
            },
            _ => (Ok(addresses), self.chance.any_scale(50_000)),
        };
        self.clock
            .outside(after, Happening::Looked(Peer::Remote, result));
    }

    /// A look-up ended.
    pub fn looked(&mut self, peer: Peer, result: &Result<Vec<SocketAddr>, String>) {
        if peer == Peer::Lambda {
            return self.lambda_found(result.is_ok());
        }
        self.remote.looking_up = false;
        self.remote.looked_up = self.turn;
        self.remote.addresses = result.clone().unwrap_or_default();
        if self.remote.addresses.is_empty() {
            self.note("no address");
        } else if self.clock.mono() - self.remote.looking_since >= self.set.timeout {
            self.note("address too late");
        }
        // Even where there are addresses, they may come too late for one of those who wait.
        self.unreached(false);
    }

    pub fn remote_connects(&mut self, id: ConnId, address: SocketAddr) {
        let (now, turn) = (self.clock.mono(), self.turn);
        let literal = !self.set.named;
        let index = self.remote.addresses.iter().position(|own| *own == address);
        let first = literal || index == Some(0);
        // Asked for at once where the address was known; else some time after its payload was given to it.
        let known = first && (literal || self.remote.looked_up != turn);
        let since = known.then_some((turn, now));
        let begun = if known {
            (now, now)
        } else {
            (now.saturating_sub(self.set.timeout), now)
        };
        let busy = self.remote.busy();
        let probe = if known { self.probes(busy) } else { false };
        if !first {
            self.note("another address");
        }
        let line = Line {
            connecting: true,
            address: index.unwrap_or(0),
            since,
            begun,
            served: 0,
            frozen: if known { Frozen::No } else { Frozen::Maybe },
            probe,
            gone: false,
            exchange: None,
            done: false,
        };
        self.remote.lines.insert(id, line);
        let rtt = self.chance.any_scale(40_000);
        let landed = match self.remote.weather {
            Weather::Silent => return,
            Weather::Flaky if self.chance.one_in(8) => return,
            Weather::Refuses => Some(ErrorKind::ConnectionRefused),
            Weather::Flaky if self.chance.one_in(6) => Some(ErrorKind::HostUnreachable),
            _ => None,
        };
        self.clock.outside(rtt, Happening::Landed(id, landed));
        // Some accept only to reset.
        if self.remote.weather == Weather::Flaky && self.chance.one_in(12) {
            let reset = End::Io(ErrorKind::ConnectionReset);
            self.remote.lines.get_mut(&id).unwrap().gone = true;
            self.clock.outside(rtt, Happening::Cut(id, reset));
        }
    }

    /// A connection could not be made.
    pub fn remote_unconnected(&mut self, id: ConnId) {
        let line = self.remote.lines.remove(&id).unwrap();
        let mut death = Death::of(&line, None);
        death.last_address = self.is_last_address(&line);
        self.remote.dying.push(death);
    }

    /// Whether no other address is left to be tried.
    const fn is_last_address(&self, line: &Line) -> bool {
        let known = self.remote.addresses.len();
        !self.set.named || known > 0 && line.address + 1 >= known
    }

    /// Bytes are written, with so many to go: they must be what is left of the request.
    pub fn remote_is_sent(&mut self, id: ConnId, bytes: &[u8], left: usize) {
        let exchange = self
            .remote
            .lines
            .get_mut(&id)
            .unwrap()
            .exchange
            .as_mut()
            .unwrap();
        let (payload, sent) = (exchange.payload, exchange.sent);
        exchange.sent += bytes.len();
        let rest = &self.ledger.payloads[payload].request[sent..];
        if rest.len() != left || !rest.starts_with(bytes) {
            self.fail(format!(
                "payload {payload} is not what the client sent, from byte {sent}"
            ));
        }
    }

    pub const fn remote_host(&self) -> &'static str {
        if self.set.named {
            Remote::NAMED
        } else {
            Remote::LITERAL
        }
    }

    /// A request is to be written, and this is the whole of it.
    pub fn remote_begins(&mut self, id: ConnId, pending: &[u8]) {
        let Some(line) = self.remote.lines.get_mut(&id).filter(|line| !line.done) else {
            self.fail("a connection is used that is over");
        };
        let new = std::mem::take(&mut line.connecting);
        let Some(payload) = number(pending) else {
            self.fail("a request that nobody sent");
        };
        let (now, turn) = (self.clock.mono(), self.turn);
        let busy = self.remote.busy();
        let mut line = self.remote.lines.remove(&id).unwrap();
        if !new {
            (line.since, line.begun) = (Some((turn, now)), (now, now));
            line.probe = self.probes(busy);
        }
        let timeout = self.set.timeout;
        let request = self.ledger.payloads[payload].request.len();
        let plan = self.remote_plans(payload, request);
        if let Some(most) = plan.stops {
            self.wires.get_mut(&id).unwrap().room = most;
        } else if self.chance.one_in(3) {
            self.wires.get_mut(&id).unwrap().room = self.chance.any_scale(5000) as usize + 1;
        } else {
            self.wires.get_mut(&id).unwrap().room = usize::MAX;
        }
        let since = line.since;
        line.exchange = Some(Exchange {
            payload,
            sent: 0,
            plan,
            heard: 0,
            deadline: (line.begun.0 + timeout, line.begun.1 + timeout),
            acted: false,
        });
        self.remote.lines.insert(id, line);
        self.begins(payload, id, since, new);
    }

    /// What the remote will do about this request.
    fn remote_plans(&mut self, payload: usize, whole: usize) -> Plan {
        let to_head = self.ledger.payloads[payload].to_head;
        let (flaky, failing) = match self.remote.weather {
            _ if self.good_for_ever => (false, false),
            weather => (weather == Weather::Flaky, weather == Weather::Failing),
        };
        let chance = &mut self.chance;
        let mut plan = Plan {
            at: whole,
            pause: chance.any_scale(if flaky { 4_000_000 } else { 100_000 }),
            answer: None,
            cut: usize::MAX,
            end: None,
            stops: None,
        };
        let reset = End::Io(ErrorKind::ConnectionReset);
        let status = if failing {
            chance.pick(&[500, 503, 503, 504])
        } else if !flaky {
            chance.pick(&[200, 200, 200, 204])
        } else {
            match chance.below(16) {
                // Taken or not, and never answered.
                0 => {
                    plan.at = chance.between(1, whole as u64) as usize;
                    plan.end = Some(chance.pick(&[End::Eof, reset]));
                    return plan;
                }
                // The answer is lost.
                1 => {
                    plan.end = Some(chance.pick(&[End::Eof, reset]));
                    return plan;
                }
                2 => {
                    plan.at = usize::MAX;
                    plan.stops = chance
                        .one_in(2)
                        .then(|| chance.below(whole as u64) as usize);
                    return plan;
                }
                // An answer before the whole request is read.
                3 | 14 | 15 => {
                    plan.at = chance.between(1, whole as u64) as usize;
                    plan.stops = Some(plan.at);
                    chance.pick(&[200, 401, 413, 503])
                }
                4..=6 => chance.pick(&[400, 401, 403, 404, 413, 415, 422, 302]),
                7..=10 => chance.pick(&[408, 429, 429, 500, 502, 503, 504]),
                _ => chance.pick(&[200, 204]),
            }
        };
        let answer = answer(chance, status, to_head, flaky);
        if answer.until_close || !answer.keep_alive && chance.one_in(2) {
            plan.end = Some(End::Eof);
        }
        if flaky && chance.one_in(5) {
            plan.cut = chance.below(answer.bytes.len() as u64) as usize;
            plan.end = chance.pick(&[Some(End::Eof), Some(reset), None]);
        }
        plan.answer = Some(answer);
        plan
    }

    /// The remote's side of the system has taken more of a request.
    pub fn remote_took(&mut self, id: ConnId, n: usize) {
        let (wire, line) = (&self.wires[&id], self.remote.lines.get_mut(&id).unwrap());
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
        let (mut pause, end) = (exchange.plan.pause, exchange.plan.end);
        if let Some(answer) = &exchange.plan.answer {
            let most = exchange.plan.cut.min(answer.bytes.len());
            let mut rest = &answer.bytes[..most];
            let piece = if rest.len() > 1000 {
                30_000
            } else {
                self.chance.pick(&[1, 10, 1000, 1000])
            };
            let beat = self.chance.pick(&[0, 0, 100, 20_000]);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(piece));
                self.clock
                    .outside(pause, Happening::Arrive(id, now.to_vec()));
                pause += beat;
                rest = later;
            }
        }
        if let Some(end) = end {
            self.clock.outside(pause, Happening::Cut(id, end));
        }
    }

    /// The core has read `n` more bytes of an answer.
    pub fn remote_was_read(&mut self, id: ConnId, n: usize) {
        let line = self.remote.lines.get_mut(&id).unwrap();
        let Some(exchange) = &mut line.exchange else {
            // It spoke without being asked.
            line.done = true;
            return self.note("spoke without being asked");
        };
        exchange.heard += n;
        let request = self.ledger.payloads[exchange.payload].request.len();
        let unsent = exchange.sent < request;
        let (heard, payload) = (exchange.heard, exchange.payload);
        let Some(answer) = &exchange.plan.answer else {
            self.fail("an answer that was never sent");
        };
        if heard < answer.head_end {
            return;
        }
        let whole = heard == answer.bytes.len() && !answer.until_close;
        let long = heard - answer.head_end > ANSWER_BODY_MAX;
        let good = answer.status / 100 == 2;
        let answered = Outcome::Answered(answer.status, answer.retry_after);
        let keep_alive = answer.keep_alive;
        let (outcome, reusable, what) = match () {
            () if answer.garbage => (Outcome::Broken, false, "garbage"),
            () if unsent && good => (Outcome::Broken, false, "early success"),
            () if unsent => (answered, false, "early answer"),
            () if whole => (answered, keep_alive, "answered"),
            () if long => (answered, false, "answer cut short"),
            () => return,
        };
        self.note(what);
        self.remote_concludes(id, payload, outcome, reusable);
    }

    fn remote_concludes(&mut self, id: ConnId, payload: usize, outcome: Outcome, reusable: bool) {
        let line = self.remote.lines.get_mut(&id).unwrap();
        line.exchange = None;
        let probe = line.probe;
        if reusable {
            line.served += 1;
            self.idle_line(id);
        } else {
            line.done = true;
        }
        self.concludes(payload, outcome);
        if probe {
            self.probe_failed();
        }
    }

    /// An idle connection may be closed by the remote, or worse, any time later.
    fn idle_line(&mut self, id: ConnId) {
        let line = self.remote.lines.get_mut(&id).unwrap();
        if line.gone || !self.chance.one_in(3) {
            return;
        }
        let reset = End::Io(ErrorKind::ConnectionReset);
        let after = self.chance.any_scale(60_000_000);
        let end = self.chance.pick(&[End::Eof, End::Eof, reset]);
        self.clock.outside(after, Happening::Fades(id, end));
    }

    /// The remote closes an idle connection; the news take their time. Or it speaks without being asked.
    pub fn line_fades(&mut self, id: ConnId, end: End) {
        let travel = self.chance.any_scale(60_000);
        let rude = self.chance.one_in(5);
        let Some(line) = self.remote.lines.get_mut(&id) else {
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
    pub fn remote_ends(&mut self, id: ConnId) {
        let line = self.remote.lines.get_mut(&id).unwrap();
        line.done = true;
        let Some(exchange) = line.exchange.take() else {
            let line = self.remote.lines.remove(&id).unwrap();
            if line.connecting {
                // It stood, and was gone before the first byte: no other address is tried.
                self.note("accepted, then gone");
                self.remote.dying.push(Death::of(&line, None));
            }
            return;
        };
        let (payload, heard) = (exchange.payload, exchange.heard);
        let (probe, mut death) = (line.probe, Death::of(line, Some(payload)));
        death.unsent = exchange.sent == 0;
        self.remote.lines.remove(&id);
        match exchange.plan.answer {
            Some(answer) if heard >= answer.head_end && heard > 0 => {
                self.note("answered, then cut off");
                self.concludes(
                    payload,
                    Outcome::Answered(answer.status, answer.retry_after),
                );
            }
            _ if heard > 0 => self.concludes(payload, Outcome::Broken),
            _ => {
                self.remote.dying.push(death);
                return;
            }
        }
        if probe {
            self.probe_failed();
        }
    }

    /// All that came in this turn is known: whether those that died without a word were stale.
    pub fn settle_deaths(&mut self) {
        for death in std::mem::take(&mut self.remote.dying) {
            let Some(payload) = death.payload.filter(|_| !death.unsent) else {
                self.settle_unreached(death);
                continue;
            };
            let outcome = match death.frozen {
                _ if death.served > 0 => Outcome::Stale,
                Frozen::Yes => Outcome::Stale,
                Frozen::No => Outcome::Broken,
                Frozen::Maybe => Outcome::BrokenOrStale,
            };
            self.concludes(payload, outcome);
            if death.probe && outcome == Outcome::Broken {
                self.probe_failed();
            }
        }
    }

    fn settle_unreached(&mut self, death: Death) {
        if let Some(payload) = death.payload {
            self.concludes(payload, Outcome::Unsent);
        }
        if death.frozen == Frozen::Yes || death.served > 0 {
            return self.note("frozen while connecting");
        }
        let surely = death.last_address && death.frozen == Frozen::No;
        self.unreached(surely);
        if death.probe && surely {
            self.probe_failed();
        }
    }

    /// The core closed a connection: because it is over, or because its time is up.
    pub fn remote_closed(&mut self, id: ConnId, connecting: bool) {
        let Some(mut line) = self.remote.lines.remove(&id) else {
            return;
        };
        let (now, timeout) = (self.clock.mono(), self.set.timeout);
        if connecting {
            self.note("connection given up");
            let surely = self.is_last_address(&line)
                && line.frozen == Frozen::No
                && now >= line.begun.1 + timeout;
            return self.unreached(surely);
        }
        let Some(exchange) = line.exchange.take() else {
            // Unless it was idle, it stood and was not used: as if it had not been reached.
            if line.connecting {
                self.note("too late to be used");
                self.unreached(true);
            }
            return;
        };
        if now + 2 < exchange.deadline.0 {
            self.fail(format!(
                "{id:?} is closed in the middle of an attempt, in time"
            ));
        }
        if exchange.sent == 0 {
            self.concludes(exchange.payload, Outcome::Unsent);
            return self.unreached(true);
        }
        let outcome = match exchange.plan.answer {
            Some(answer) if exchange.heard >= answer.head_end && exchange.heard > 0 => {
                self.note("answered, then time was up");
                Outcome::Answered(answer.status, answer.retry_after)
            }
            _ => {
                self.note("attempt timed out");
                Outcome::Broken
            }
        };
        self.concludes(exchange.payload, outcome);
        if line.probe {
            self.probe_failed();
        }
    }

    /// Connections that are over are closed, attempts end in time, and there are not too many.
    pub fn check_remote(&mut self) {
        let wires = self.wires.values().filter(|wire| wire.who == Who::Remote);
        let workers = self.set.workers;
        self.require(wires.count() <= workers, "more connections than workers");
        let now = self.clock.mono();
        for (id, wire) in &self.wires {
            let known = wire.who != Who::Remote || self.remote.lines.contains_key(id);
            self.require(known, "a connection that has ended is not closed");
        }
        for (id, line) in &self.remote.lines {
            let late = line.connecting && now > line.begun.1 + self.set.timeout + 2;
            self.require(!late, "a connection takes more than its time");
            self.require(!line.done, format!("{id:?} is over, and not closed"));
            if let Some(exchange) = &line.exchange {
                let late = now > exchange.deadline.1 + 2;
                self.require(!late, format!("an attempt on {id:?} is over its time"));
            }
        }
    }

    /// We are gone: a yes counts, whatever is missing of it.
    pub fn remote_settles(&mut self) {
        for line in std::mem::take(&mut self.remote.lines).into_values() {
            if let Some(exchange) = line.exchange
                && let Some(answer) = exchange.plan.answer
                && exchange.heard >= answer.head_end
                && answer.status / 100 == 2
            {
                self.note("a yes at the last moment");
                let outcome = Outcome::Answered(answer.status, None);
                self.concludes(exchange.payload, outcome);
            }
        }
    }
}

/// The number in a request's target.
fn number(request: &[u8]) -> Option<usize> {
    let line = request.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let (_, rest) = line.split_once(" /ingest/")?;
    rest.split_once('?')?.0.parse().ok()
}

fn answer(chance: &mut Chance, status: u16, to_head: bool, flaky: bool) -> Answer {
    let mut bytes = Vec::new();
    if chance.one_in(6) {
        for _ in 0..chance.between(1, 3) {
            bytes.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
        }
    }
    let garbage = flaky && chance.one_in(8);
    let keep_alive = !chance.one_in(4);
    let retry_after = (matches!(status, 429 | 503) && chance.one_in(2))
        .then(|| chance.pick(&[0, 0, 1, 3, 86_400]));
    let (mut body, mut until_close) = (Vec::new(), false);
    let mut head = format!("HTTP/1.1 {status} Whatever\r\n");
    if garbage {
        head = chance
            .pick(&["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 999 X\r\n"])
            .to_owned();
    } else if status != 204 {
        let long = chance.one_in(20);
        let length = if long { 150_000 } else { chance.below(300) };
        let kind = chance.below(if to_head { 1 } else { 4 });
        if !to_head {
            body = vec![b'x'; length as usize];
        }
        match kind {
            1 if !long => {
                head.push_str("Transfer-Encoding: chunked\r\n");
                let mut chunked = format!("{length:x}\r\n").into_bytes();
                chunked.append(&mut body);
                chunked.extend_from_slice(b"\r\n0\r\n\r\n");
                body = if length == 0 {
                    b"0\r\n\r\n".to_vec()
                } else {
                    chunked
                };
            }
            2 => until_close = true,
            _ => head.push_str(&format!("Content-Length: {length}\r\n")),
        }
    }
    if let Some(seconds) = retry_after {
        head.push_str(&format!("Retry-After: {seconds}\r\n"));
    }
    if !keep_alive {
        head.push_str("Connection: close\r\n");
    }
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    let head_end = bytes.len();
    bytes.append(&mut body);
    Answer {
        bytes,
        head_end,
        status: if garbage { 0 } else { status },
        retry_after,
        keep_alive: keep_alive && !until_close,
        until_close,
        garbage,
    }
}
