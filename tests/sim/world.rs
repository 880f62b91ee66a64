//! The shell's part, played by hand: does what the core says, moves bytes in pieces, sleeps, and reports.
//!
//! As in the shell, one turn is: act until nothing moves; sleep until the core's deadline or until something
//! happens; report what happened, time last. What the peers do is in `clients`, `server` and `lambda`; all they
//! can do to a connection is in [`Happening`].

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use pyroscope_lambda_extension::config::Config;
use pyroscope_lambda_extension::contract::{Command, ConnId, End, Ends, Now, Peer};
use pyroscope_lambda_extension::relay::Relay;

use super::chance::Chance;
use super::clients::Client;
use super::clock::Clock;
use super::lambda::Api;
use super::ledger::{Ledger, Range};
use super::server::Server;
use super::telemetry::{Flush, News, Telemetry};

/// The ends of a connection to another machine.
const ELSEWHERE: Ends = Ends {
    local: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 99)), 50_000),
    peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 4040),
};

/// Everything that can happen to the extension.
#[derive(Debug)]
pub enum Happening {
    /// A client's next move.
    Client(usize),
    Looked(Peer, Result<Vec<SocketAddr>, String>),
    /// A connection stands, or could not be made.
    Landed(ConnId, Option<ErrorKind>),
    Arrive(ConnId, Vec<u8>),
    Cut(ConnId, End),
    /// The peer has read, so that much more can be written.
    Room(ConnId, usize),
    /// The server closes an idle connection.
    Fades(ConnId, End),
    /// Nothing comes back on that connection any more.
    Silence(ConnId),
    /// The server's weather changes.
    Weather,
    Invoke,
    FunctionEnds,
    /// There is telemetry: that this invocation is done, or something else.
    Event(News),
    Deliver,
    /// Frozen for so long; whether the monotonic clock stands still.
    Freeze(u64, bool),
    /// The run nears its end, in the way its settings say.
    Finale,
    Shutdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Client(usize),
    Server,
    Lambda,
    Subscription,
    Delivery,
}

/// One connection, as the system would keep it.
#[derive(Debug)]
pub struct Wire {
    pub who: Who,
    pub connecting: bool,
    pub inbound: VecDeque<u8>,
    pub end: Option<End>,
    /// Nothing comes from the peer any more, not even its end.
    pub silent: bool,
    /// Where it goes to, if it is ours to make.
    pub address: Option<SocketAddr>,
    /// Bytes the system takes before the peer reads.
    pub room: usize,
    /// Most bytes read or written at once.
    pub piece: usize,
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finale {
    /// Never, until it has come to rest.
    Rest,
    Shutdown,
    Signal,
}

/// What a run is set to.
#[derive(Debug)]
pub struct Settings {
    pub workers: usize,
    pub bytes_max: usize,
    pub timeout: u64,
    pub flush: Flush,
    pub usable: bool,
    pub named: bool,
    pub unique_times: bool,
    /// The sandbox is copied between its init and its first invocation.
    pub copied: bool,
    pub finale: Finale,
}

pub struct World {
    pub relay: Relay,
    pub clock: Clock<Happening>,
    pub chance: Chance,
    pub set: Settings,
    pub wires: BTreeMap<ConnId, Wire>,
    pub clients: Vec<Client>,
    /// Clients of whom one too many came, so that another has to go.
    pub crowding: u64,
    /// Clients of whom something was read in this turn.
    pub read_clients: Vec<usize>,
    pub server: Server,
    pub api: Api,
    pub telemetry: Telemetry,
    pub ledger: Ledger,
    pub seen: BTreeMap<&'static str, u64>,
    pub turn: u64,
    /// When we have to be gone, by the monotonic clock, once we were told to.
    pub leave_by: Option<Range>,
    /// The core has been told something before which there may have been a freeze, and has not taken it in yet.
    pub wakes: bool,
    /// That this is a copy, perhaps one of many.
    pub is_copy: bool,
    /// That this is another copy of the same snapshot: it draws other numbers from then on.
    other_copy: bool,
    /// Turn in which the core last looked whether there is more to do.
    pub looked: u64,
    pub exit: Option<u8>,
    pub good_for_ever: bool,
    rested: bool,
    idle_turns: u32,
    traced: bool,
    decisions: DefaultHasher,
}

/// Wake-ups in a row in which nothing happens. Each payload and each connection may have a deadline of its own.
const IDLE_TURNS_MAX: u32 = 600;

/// Commands and writes in one turn.
const MOVES_MAX: u32 = 20_000;

/// Turns in one run, many times what the longest takes.
const TURNS_MAX: u64 = 1_000_000;

/// As in the shell.
const FREEZE_MIN: u64 = 1_000_000;
const WATCH_EVERY: u64 = 500_000;

/// Longest time in which everything comes to rest once the server is well: five attempts, pauses of 30 s.
const REST_MAX: u64 = 600_000_000;

thread_local! {
    static ENTROPY: Cell<u64> = const { Cell::new(0) };
}

fn entropy() -> u64 {
    ENTROPY.set(ENTROPY.get() + 1);
    Chance::new(ENTROPY.get()).draw()
}

impl World {
    pub fn new(seed: u64, traced: bool) -> Self {
        ENTROPY.set(seed << 20);
        let mut chance = Chance::new(seed);
        let (set, vars, api) = settings(&mut chance, traced);
        let config = Config::read(|name| {
            let found = vars.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| value.clone())
        });
        let mut world = Self {
            relay: Relay::new(config, "extension".to_owned(), entropy),
            clock: Clock::new(),
            chance,
            set,
            wires: BTreeMap::new(),
            clients: Vec::new(),
            crowding: 0,
            read_clients: Vec::new(),
            server: Server::default(),
            api,
            telemetry: Telemetry::default(),
            ledger: Ledger::default(),
            seen: BTreeMap::new(),
            turn: 0,
            leave_by: None,
            wakes: false,
            is_copy: false,
            other_copy: false,
            looked: 0,
            exit: None,
            good_for_ever: false,
            rested: false,
            idle_turns: 0,
            decisions: DefaultHasher::new(),
            traced,
        };
        let listening = "127.0.0.1:4040".parse().unwrap();
        world.relay.started(&[listening], world.clock.now());
        world.clock.outside(0, Happening::Weather);
        world.plan();
        world
    }

    /// Another copy of the snapshot that was made of this sandbox, if there was one: the same until then.
    pub fn other_copy(seed: u64) -> Self {
        let mut world = Self::new(seed, false);
        world.other_copy = true;
        world
    }

    /// Lives until the extension has left.
    pub fn live(&mut self) {
        loop {
            self.act();
            self.check_connecting();
            self.check();
            self.write_log();
            if self.exit.is_some() {
                return self.check_exit();
            }
            if self.sleep() {
                self.turn += 1;
                self.require(self.turn < TURNS_MAX, "it never ends");
                self.report();
            } else {
                self.rest();
            }
        }
    }

    pub fn now(&self) -> Now {
        self.clock.now()
    }

    pub fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// The core did this, in this turn and at this time.
    fn decided(&mut self, what: &impl Hash) {
        (self.turn, self.clock.mono(), what).hash(&mut self.decisions);
    }

    /// All that the core did, in one number: the same code does the same.
    pub fn digest(&self) -> u64 {
        self.decisions.finish()
    }

    /// A line of the trace, put together only if it is wanted.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.traced {
            let ms = self.clock.mono() as f64 / 1000.0;
            println!("{ms:12.3} ms  turn {:5}  {}", self.turn, what());
        }
    }

    pub fn fail(&self, why: impl Display) -> ! {
        panic!(
            "turn {}, {} ms: {why}\nset: {:?}\ntotals: {:?}",
            self.turn,
            self.clock.mono() / 1000,
            self.set,
            self.relay.totals()
        );
    }

    pub fn require(&self, holds: bool, what: impl Display) {
        if !holds {
            self.fail(what);
        }
    }

    /// Does what the core says, and writes what it has, until nothing moves.
    fn act(&mut self) {
        let mut moves = 0;
        let mut moved = self.write_all();
        // Before the first step, what is written counts; then Lambda is heard.
        if std::mem::replace(&mut self.wakes, false) {
            self.server_wakes();
            self.lambda_wakes();
        }
        if std::mem::replace(&mut self.is_copy, false) {
            self.server_is_copied();
            if self.other_copy {
                ENTROPY.set(ENTROPY.get() | 1 << 60);
            }
        }
        loop {
            while let Some(command) = self.relay.step(self.now()) {
                moved = true;
                moves += 1;
                self.require(moves < MOVES_MAX, "the core goes round in circles");
                self.perform(command);
                if self.exit.is_some() {
                    self.write_all();
                    return;
                }
            }
            moved |= self.write_all();
            moves += 1;
            self.require(moves < MOVES_MAX, "the core goes round in circles");
            if !moved && !self.relay.has_finished() {
                return;
            }
            self.idle_turns = 0;
            moved = false;
        }
    }

    fn perform(&mut self, command: Command) {
        self.tell(|| format!("  core: {command:?}"));
        self.decided(&format!("{command:?}"));
        match command {
            Command::Close(id) => self.closed(id),
            Command::HalfClose(id) => self.half_closed(id),
            Command::Connect(id, address) if address.port() == Api::PORT => {
                if self.telemetry.takes_connection() {
                    self.open(id, Who::Subscription, true);
                    return self.subscription_connects(id);
                }
                self.open(id, Who::Lambda, true);
                self.lambda_connects(id);
            }
            Command::Connect(id, address) => {
                self.open(id, Who::Server, true);
                self.wires.get_mut(&id).unwrap().address = Some(address);
                self.server_connects(id, address);
            }
            Command::Resolve(Peer::Remote, _) => self.server_looked_up(),
            Command::Resolve(Peer::Lambda, _) => self.lambda_looked_up(),
            Command::Resolve(Peer::Store, _) | Command::ReadFile(_) => {
                self.fail("no setting names the place of a credential");
            }
            Command::Listen(_) => self.fail("it listens already"),
            Command::ListenForTelemetry => self.listen_for_telemetry(),
            Command::ReadRoots(..) => self.fail("roots are read without TLS"),
            Command::LookOnceMore => self.look_once_more(),
            Command::Exit(status) => self.exit = Some(status),
        }
    }

    /// The core is about to leave, and wants to know what has come by now. Perhaps somebody comes just then.
    fn look_once_more(&mut self) {
        self.looked = self.turn;
        if self.chance.one_in(4) {
            self.note("came at the last moment");
            let at = self.clients.len();
            self.crowd_comes(1, true, 0);
            self.client_moves(at);
        }
        while let Some(what) = self.clock.due() {
            self.happens(what);
        }
        self.read_all();
        self.settle_deaths();
    }

    pub fn open(&mut self, id: ConnId, who: Who, connecting: bool) {
        let wire = Wire {
            who,
            connecting,
            inbound: VecDeque::new(),
            end: None,
            silent: false,
            address: None,
            room: usize::MAX,
            piece: self
                .chance
                .pick(&[1, 3, 50, 2000, 9000, usize::MAX, usize::MAX]),
        };
        let before = self.wires.insert(id, wire);
        self.require(before.is_none(), "a name of a connection is used twice");
    }

    fn closed(&mut self, id: ConnId) {
        let Some(wire) = self.wires.remove(&id) else {
            return;
        };
        match wire.who {
            Who::Client(at) => self.client_closed(at, id),
            Who::Server => self.server_closed(id),
            Who::Lambda => self.lambda_gone(id),
            Who::Subscription | Who::Delivery => self.telemetry_gone(id),
        }
    }

    /// Writes as far as the system takes it. Whether anything moved.
    fn write_all(&mut self) -> bool {
        let mut moved = false;
        // What is asked of the server decides anew how much it takes.
        let takes = |wire: &Wire| !wire.connecting && (wire.room > 0 || wire.who == Who::Server);
        let wires = self.wires.iter().filter(|(_, wire)| takes(wire));
        let ids: Vec<ConnId> = wires.map(|(id, _)| *id).collect();
        for id in ids {
            while self.write(id) {
                moved = true;
            }
        }
        moved
    }

    fn write(&mut self, id: ConnId) -> bool {
        let Wire { who, piece, .. } = self.wires[&id];
        let [head, body] = self.relay.pending(id);
        let whole = head.len() + body.len();
        if whole == 0 {
            return false;
        }
        if who == Who::Server && !self.server.is_asked(id) {
            let request = [head, body].concat();
            self.server_begins(id, &request);
        }
        let n = whole
            .min(self.wires[&id].room)
            .min(piece.max(50).max(whole / 10));
        if n == 0 {
            return false;
        }
        let [head, body] = self.relay.pending(id);
        let mut bytes = head[..n.min(head.len())].to_vec();
        bytes.extend_from_slice(&body[..n - bytes.len()]);
        self.decided(&(format!("{id:?}"), &bytes));
        if who == Who::Server {
            self.server_is_sent(id, &bytes, whole);
        }
        if n < whole {
            self.note("partial write");
        }
        if let Some(wire) = self.wires.get_mut(&id)
            && wire.room != usize::MAX
        {
            wire.room -= n;
        }
        self.relay.sent(id, n, self.clock.now());
        match who {
            Who::Client(at) => self.client_hears(at, &bytes),
            Who::Server => self.server_took(id, n),
            Who::Lambda => self.lambda_is_asked(id, &bytes),
            Who::Subscription => self.subscription_is_asked(id, &bytes),
            Who::Delivery => self.delivery_is_answered(&bytes),
        }
        true
    }

    /// Nothing is to be written on a connection that does not stand.
    fn check_connecting(&mut self) {
        let mut early = 0;
        for (id, _) in self.wires.iter().filter(|(_, wire)| wire.connecting) {
            early += self.relay.pending(*id).concat().len();
        }
        self.require(early == 0, "bytes for a connection that does not stand");
    }

    /// Sleeps as the shell does. Whether anything will ever happen.
    fn sleep(&mut self) -> bool {
        let now = self.now();
        let deadline = self.relay.deadline(now);
        if let Some(at) = deadline {
            self.require(at > now.mono, "a deadline that is over");
        }
        let unread = self.wires.iter().any(|(id, wire)| {
            !wire.connecting
                && (!wire.inbound.is_empty() || wire.end.is_some())
                && self.relay.wants(*id)
        });
        let mut timeout = deadline.map(|at| (at - now.mono).as_nanos().div_ceil(1000) as u64);
        if unread {
            timeout = Some(0);
        }
        if self.relay.has_connections() {
            timeout = Some(timeout.unwrap_or(WATCH_EVERY).min(WATCH_EVERY));
        }
        let (mono, wall) = (self.clock.mono(), self.clock.wall());
        let target = timeout.map(|time| mono + time);
        loop {
            let left = target.map(|at| at.saturating_sub(self.clock.mono()));
            let next = self.clock.until_next();
            let Some(time) = [left, next].into_iter().flatten().min() else {
                return false;
            };
            self.check_sleep(time);
            self.check_hold_ends(time);
            self.clock.pass(time);
            if !self.frozen() {
                break;
            }
        }
        if self.clock.until_next() != Some(0) {
            self.idle_turns += 1;
            self.require(self.idle_turns < IDLE_TURNS_MAX, "it spins");
        }
        let slept = self.clock.mono() - mono;
        let overslept = timeout.map_or(0, |timeout| slept.saturating_sub(timeout));
        let drift = (self.clock.wall() - wall).saturating_sub(slept);
        if overslept > FREEZE_MIN {
            self.thaw(overslept, drift);
        } else if drift > FREEZE_MIN {
            self.note("thaw after the clock stood still");
            self.thaw(0, drift);
        }
        true
    }

    /// Freezes if that is what happens next. Whether we sleep on.
    fn frozen(&mut self) -> bool {
        let freeze = |what: &Happening| matches!(what, Happening::Freeze(..));
        let Some(Happening::Freeze(time, still)) = self.clock.due_if(freeze) else {
            return false;
        };
        self.tell(|| format!("FROZEN for {} ms, clock stands still: {still}", time / 1000));
        self.server_freezes(time);
        self.clock.freeze(time, still);
        self.note(if time < FREEZE_MIN {
            "freeze too short to see"
        } else {
            "freeze"
        });
        if time >= 300_000_000 {
            self.note("five minutes frozen");
        }
        true
    }

    fn thaw(&mut self, frozen: u64, stood_still: u64) {
        self.tell(|| format!("thawed, {} ms", frozen / 1000));
        self.note("thaw");
        self.idle_turns = 0;
        let frozen_for = Duration::from_micros(frozen);
        self.relay.thawed(frozen_for, self.clock.now());
        self.ledger.thawed(frozen);
        self.times_thaw(frozen, stood_still);
        if self.chance.one_in(3) {
            self.java_catches_up();
        }
        self.clients_thaw(frozen);
        // It happened in the sleep before the next turn.
        self.server.thawed(frozen, self.clock.mono(), self.turn + 1);
        self.is_not_clear();
    }

    /// Tells the core what happened, time last.
    fn report(&mut self) {
        self.ledger.turns(self.turn);
        while let Some(what) = self.clock.due() {
            self.idle_turns = 0;
            self.happens(what);
        }
        self.read_all();
        self.settle_overdue();
        self.settle_deaths();
        self.ledger.settle_hold();
        self.relay.expire(self.clock.now());
    }

    /// Reads what has come, in any order.
    fn read_all(&mut self) {
        let news = |wire: &Wire| !wire.inbound.is_empty() || wire.end.is_some();
        let readable = self.wires.iter().filter(|(_, wire)| news(wire));
        let mut ids: Vec<ConnId> = readable.map(|(id, _)| *id).collect();
        while !ids.is_empty() {
            let at = self.chance.below(ids.len() as u64) as usize;
            self.read(ids.swap_remove(at));
        }
    }

    fn happens(&mut self, what: Happening) {
        if !matches!(
            what,
            Happening::Arrive(..) | Happening::Room(..) | Happening::Client(_)
        ) {
            self.tell(|| format!("{what:?}"));
        }
        let now = self.now();
        if self.is_swallowed(&what) {
            return;
        }
        match what {
            Happening::Client(at) => self.client_moves(at),
            Happening::Looked(peer, result) => {
                self.looked(peer, &result);
                self.relay.resolved(peer, result, now);
            }
            Happening::Landed(id, None) => {
                if let Some(wire) = self.wires.get_mut(&id) {
                    wire.connecting = false;
                    let (who, address) = (wire.who, wire.address);
                    if who == Who::Server {
                        self.server_lands(id);
                    }
                    let mut ends = ELSEWHERE;
                    ends.peer = address.unwrap_or(ends.peer);
                    self.relay.connected(id, ends, now);
                }
            }
            Happening::Landed(id, Some(kind)) => {
                if let Some(wire) = self.wires.remove(&id) {
                    match wire.who {
                        Who::Lambda => self.lambda_gone(id),
                        Who::Subscription => self.subscription_fails(),
                        _ => self.server_unconnected(id),
                    }
                    self.relay.ended(id, End::Io(kind), now);
                }
            }
            Happening::Arrive(id, bytes) => {
                if let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.end.is_none()) {
                    wire.inbound.extend(bytes);
                }
            }
            Happening::Cut(id, end) => self.cut(id, end),
            Happening::Fades(id, end) => self.line_fades(id, end),
            Happening::Room(id, more) => {
                if let Some(wire) = self.wires.get_mut(&id) {
                    wire.room = wire.room.saturating_add(more);
                }
            }
            Happening::Silence(id) => self.goes_silent(id),
            Happening::Weather => self.weather_changes(),
            Happening::Invoke => self.invoke(),
            Happening::FunctionEnds => self.function_ends(),
            Happening::Event(news) => self.event(news),
            Happening::Deliver => self.deliver(),
            // Something woke us just before.
            Happening::Freeze(..) => self.clock.inside(1, what),
            Happening::Finale => self.finale(),
            Happening::Shutdown => self.shut_down(),
        }
    }

    /// Whether it does not get here, because the connection has gone silent.
    fn is_swallowed(&self, what: &Happening) -> bool {
        let (Happening::Landed(id, _)
        | Happening::Arrive(id, _)
        | Happening::Cut(id, _)
        | Happening::Room(id, _)) = what
        else {
            return false;
        };
        self.wires.get(id).is_some_and(|wire| wire.silent)
    }

    /// A peer closes, or resets: what was under way may be lost with it.
    fn cut(&mut self, id: ConnId, end: End) {
        let lossy = end != End::Eof && self.chance.one_in(2);
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.end.is_none()) else {
            return;
        };
        if lossy {
            let left = self.chance.below(wire.inbound.len() as u64 + 1) as usize;
            wire.inbound.truncate(left);
        }
        wire.end = Some(end);
    }

    /// Reads as far as the core wants, in pieces, and perhaps not all of it.
    fn read(&mut self, id: ConnId) {
        loop {
            let now = self.now();
            let Some(wire) = self.wires.get_mut(&id) else {
                return;
            };
            if wire.connecting || wire.inbound.is_empty() && wire.end.is_none() {
                return;
            }
            let space = self.relay.space(id);
            if space.is_empty() {
                return;
            }
            if wire.inbound.is_empty() {
                if let Some(end) = wire.end.take() {
                    self.end(id, end);
                }
                return;
            }
            let piece = wire.piece.max(wire.inbound.len() / 20);
            let most = space.len().min(wire.inbound.len()).min(piece);
            let n = self.chance.between(1, most as u64) as usize;
            let n = n.min(wire.inbound.as_slices().0.len());
            assert_eq!(wire.inbound.read(&mut space[..n]).unwrap(), n);
            let (who, read_on) = (wire.who, !self.chance.one_in(5));
            self.idle_turns = 0;
            self.relay.received(id, n, now);
            match who {
                Who::Client(at) => self.client_was_read(at, n),
                Who::Server => self.server_was_read(id, n),
                Who::Lambda => self.lambda_was_read(id, n),
                Who::Subscription => self.subscription_was_read(n),
                Who::Delivery => self.delivery_was_read(id, n),
            }
            if !read_on {
                return;
            }
        }
    }

    fn end(&mut self, id: ConnId, end: End) {
        self.tell(|| format!("{id:?} of {:?} ends: {end:?}", self.wires[&id].who));
        let who = self.wires[&id].who;
        match who {
            Who::Client(at) => self.client_ends(at, id, end),
            Who::Server => self.server_ends(id),
            Who::Lambda => self.lambda_ends(id),
            Who::Subscription => self.subscription_ends(),
            Who::Delivery => {}
        }
        if end != End::Eof {
            self.wires.remove(&id);
        }
        self.relay.ended(id, end, self.clock.now());
    }

    /// Nothing is left to happen: everything must be as it should.
    fn rest(&mut self) {
        self.require(
            self.good_for_ever,
            "it sleeps for ever, in the middle of things",
        );
        self.require(!self.rested, "it sleeps for ever instead of leaving");
        self.rested = true;
        self.note("came to rest");
        self.check_rest();
        self.check_lambda_rest();
        self.tell(|| "at rest; now the signal".to_owned());
        self.terminate();
    }

    /// SIGTERM.
    pub fn terminate(&mut self) {
        self.relay.terminated(self.clock.now());
        let until = self.clock.mono() + 1_900_000;
        self.leaves_by(Range {
            least: until,
            most: until,
        });
    }

    /// Lambda says what it says after a freeze, perhaps.
    pub fn wakes(&mut self) {
        self.wakes = true;
    }

    /// We are told to leave: no pause is waited for any more.
    pub fn leaves_by(&mut self, until: Range) {
        let until = self.leave_by.map_or(until, |before| Range {
            least: before.least.min(until.least),
            most: before.most.min(until.most),
        });
        self.leave_by = Some(until);
        self.ledger.hurries(self.clock.mono());
        self.promises_delivery(until);
    }

    /// After the finale: all is well from here on, and it must come to rest in time.
    pub fn check_time(&self, since: u64) {
        self.require(
            self.clock.awake_since(since) < REST_MAX + self.ledger.opinion.rests_max(),
            "it does not come to rest",
        );
    }

    fn write_log(&mut self) {
        let lines = self.relay.log().take();
        if self.traced && !lines.is_empty() {
            print!("{}", String::from_utf8_lossy(lines));
        }
        let mut each = lines.split(|byte| *byte == b'\n');
        if let Some(line) = each.find(|line| line.windows(12).any(|part| part == b"Relay closed")) {
            self.ledger.clockwork.closing = String::from_utf8_lossy(line).into_owned();
        }
        lines.clear();
    }
}

/// What the extension is set to in this run.
fn settings(chance: &mut Chance, traced: bool) -> (Settings, Vec<(&'static str, String)>, Api) {
    let set = Settings {
        workers: chance.between(1, 8) as usize,
        bytes_max: chance.pick(&[64 << 10, 64 << 10, 100_000, 300_000, 4 << 20, 4 << 20]),
        timeout: chance.pick(&[300_000, 3_000_000, 3_000_000, 10_000_000]),
        flush: chance.pick(&[Flush::None, Flush::Invoke, Flush::End, Flush::End]),
        usable: !chance.one_in(24),
        named: chance.one_in(2),
        unique_times: !chance.one_in(8),
        copied: chance.one_in(8),
        finale: chance.pick(&[
            Finale::Rest,
            Finale::Shutdown,
            Finale::Shutdown,
            Finale::Signal,
        ]),
    };
    let api = Api::draw(chance);
    let level = if traced { "trace" } else { "info" };
    let mut vars = vec![
        ("PYROSCOPE_LOG_LEVEL", level.to_owned()),
        ("PYROSCOPE_NUM_WORKERS", set.workers.to_string()),
        ("PYROSCOPE_BUFFER_BYTES", set.bytes_max.to_string()),
        ("PYROSCOPE_TIMEOUT", format!("{}us", set.timeout)),
        ("PYROSCOPE_FLUSH_MODE", set.flush.word().to_owned()),
        ("PYROSCOPE_UNIQUE_TIMES", set.unique_times.to_string()),
    ];
    let server = match (set.usable, set.named) {
        (false, _) => "ftp://remote".to_owned(),
        (true, true) => format!("http://{}", Server::NAMED),
        (true, false) => format!("http://{}", Server::LITERAL),
    };
    vars.push(("PYROSCOPE_REMOTE_ADDRESS", server));
    if set.copied {
        vars.push(("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start".to_owned()));
    }
    match api.authority() {
        Some(authority) => vars.push(("AWS_LAMBDA_RUNTIME_API", authority.to_owned())),
        None => vars.push(("PYROSCOPE_DEV_MODE", "true".to_owned())),
    }
    (set, vars, api)
}
