//! The core under a made-up clock, with peers made of bytes: no socket, no thread, no waiting.
//!
//! Apart from the rest of the bench, which surrounds the real program; taken in through `#[path]`.

#![allow(dead_code, reason = "each program uses its own part of the bench")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use pyroscope_lambda_extension::config::Config;
use pyroscope_lambda_extension::contract::{Command, ConnId, End, Ends, Now, Peer, RootSource};
use pyroscope_lambda_extension::profile::{CpuTimes, Stage};
use pyroscope_lambda_extension::relay::Relay;
use pyroscope_lambda_extension::relay::ring::{LossReason, Totals};

/// The ends of a connection to another machine.
pub const ELSEWHERE: Ends = Ends {
    local: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 99)), 50_000),
    peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 4040),
};

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A relay, the time, and what the world has seen of it.
pub struct World {
    pub relay: Relay,
    pub now: Now,
    /// Connections asked for and not yet reported.
    pub connecting: Vec<(ConnId, SocketAddr)>,
    /// What was written on each open connection.
    pub written: BTreeMap<ConnId, Vec<u8>>,
    pub half_closed: Vec<ConnId>,
    /// Connections whose peer reads slowly, and how many bytes it still takes.
    pub room: BTreeMap<ConnId, usize>,
    pub resolving: Vec<(Peer, String)>,
    /// Where the trusted roots are to be read from, until they are: see [`World::roots`].
    pub reading_roots: Option<(Option<String>, Vec<String>)>,
    /// Addresses it asked to listen on, each time.
    pub listens: Vec<Vec<SocketAddr>>,
    pub exit: Option<u8>,
    /// How often it was told to look once more before it leaves.
    pub looks: u32,
    /// CPU time the shell says each turn took.
    pub turn_costs_ns: u64,
    /// Files it asked to be read.
    pub files: Vec<String>,
    /// What is in every file.
    pub file: Result<Vec<u8>, ErrorKind>,
}

/// A random number, another one each time, and the same ones in every test.
fn drawn() -> u64 {
    DRAWN.replace(DRAWN.get() + 1)
}

const DRAWN_FIRST: u64 = 0x0123_4567_89ab_cdef;

thread_local!(static DRAWN: Cell<u64> = const { Cell::new(DRAWN_FIRST) });

/// Begins with the random numbers anew, for a program that makes many worlds of which each is to be alike.
pub fn draw_anew() {
    DRAWN.set(DRAWN_FIRST);
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "a made-up clock has to start somewhere"
    )]
    pub fn new(vars: &[(&str, &str)]) -> Self {
        let defaults = [
            ("PYROSCOPE_DEV_MODE", "true"),
            ("PYROSCOPE_REMOTE_ADDRESS", "http://10.0.0.1:4040"),
            ("PYROSCOPE_LOG_LEVEL", "info"),
        ];
        let config = Config::read(|name| {
            let mut all = vars.iter().chain(&defaults);
            all.find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        });
        let now = Now {
            mono: Instant::now(),
            unix_ms: 1_800_000_000_000,
        };
        let mut world = Self {
            relay: Relay::new(config, "extension".to_owned(), drawn),
            now,
            connecting: Vec::new(),
            written: BTreeMap::new(),
            half_closed: Vec::new(),
            room: BTreeMap::new(),
            resolving: Vec::new(),
            reading_roots: None,
            listens: Vec::new(),
            exit: None,
            looks: 0,
            turn_costs_ns: 0,
            files: Vec::new(),
            file: Err(ErrorKind::NotFound),
        };
        world
            .relay
            .started(&["127.0.0.1:4040".parse().unwrap()], now);
        world.settle();
        world
    }

    /// Does what the core says until it says nothing.
    pub fn settle(&mut self) {
        if self.turn_costs_ns > 0 {
            let mut spent = CpuTimes::default();
            spent.charge(Stage::Step, self.turn_costs_ns);
            self.relay.cpu_used(&spent);
        }
        loop {
            let mut moved = false;
            while let Some(command) = self.relay.step(self.now) {
                moved = true;
                match command {
                    Command::Close(id) => {
                        self.written.remove(&id);
                        self.connecting.retain(|(connecting, _)| *connecting != id);
                    }
                    Command::HalfClose(id) => self.half_closed.push(id),
                    Command::Connect(id, address) => self.connecting.push((id, address)),
                    Command::Resolve(peer, name) => self.resolving.push((peer, name)),
                    Command::Listen(addresses) => self.listens.push(addresses),
                    Command::ListenForTelemetry => self.relay.telemetry_bound(Ok(4041)),
                    Command::ReadRoots(file, directories) => {
                        self.reading_roots = Some((file, directories));
                    }
                    Command::ReadFile(path) => {
                        self.files.push(path);
                        let read = self.file.clone();
                        self.relay.file_read(read, self.now);
                    }
                    Command::LookOnceMore => self.looks += 1,
                    Command::Exit(status) => self.exit = Some(status),
                }
            }
            for (id, written) in &mut self.written {
                let mut sent = self.relay.pending(*id).concat();
                if let Some(room) = self.room.get_mut(id) {
                    sent.truncate(*room);
                    *room -= sent.len();
                }
                if !sent.is_empty() {
                    moved = true;
                    self.relay.sent(*id, sent.len(), self.now);
                    written.extend_from_slice(&sent);
                }
            }
            if !moved {
                return;
            }
        }
    }

    pub fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.unix_ms += time.as_millis() as u64;
        self.relay.expire(self.now);
        self.settle();
    }

    /// How long the core would sleep.
    pub fn asleep_for(&self) -> Option<Duration> {
        let at = self.relay.deadline(self.now)?;
        Some(at.saturating_duration_since(self.now.mono))
    }

    /// Lets time pass until the core has something to do, and says how long that was.
    pub fn pass_to_deadline(&mut self) -> Duration {
        let time = self.asleep_for().expect("the core waits for something");
        self.pass(time);
        time
    }

    pub fn client(&mut self) -> ConnId {
        let id = self.relay.accepted(self.now);
        self.written.insert(id, Vec::new());
        id
    }

    /// Bytes arrive on a connection, as many at a time as `step`, and all of them are wanted.
    pub fn arrive(&mut self, id: ConnId, bytes: &[u8], step: usize) {
        let taken = self.offer(id, bytes, step);
        assert_eq!(taken, bytes.len(), "the rest is not wanted");
    }

    /// Bytes arrive on a connection for as long as they are wanted, and nobody reads after the exit. Says how many were.
    pub fn offer(&mut self, id: ConnId, bytes: &[u8], step: usize) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && self.exit.is_none() {
            let rest = &bytes[taken..];
            let is_full = self.relay.space(id).is_empty();
            assert_eq!(self.relay.wants(id), !is_full, "wanted where it has space");
            let space = self.relay.space(id);
            let n = space.len().min(rest.len()).min(step);
            if n == 0 {
                break;
            }
            space[..n].copy_from_slice(&rest[..n]);
            self.relay.received(id, n, self.now);
            self.settle();
            taken += n;
        }
        self.settle();
        taken
    }

    pub fn close(&mut self, id: ConnId, why: End) {
        if why != End::Eof {
            self.written.remove(&id);
        }
        self.relay.ended(id, why, self.now);
        self.settle();
    }

    /// One upload from a client of its own, acknowledged.
    pub fn post(&mut self, body: &str) {
        self.upload("/ingest", body.as_bytes());
    }

    /// The same to another target.
    pub fn upload(&mut self, target: &str, body: &[u8]) {
        let id = self.client();
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost:4040\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.arrive(id, &[head.as_bytes(), body].concat(), usize::MAX);
        assert_eq!(String::from_utf8_lossy(&self.written[&id]), OK);
        self.close(id, End::Eof);
        assert!(
            !self.written.contains_key(&id),
            "a client that left is let go"
        );
    }

    /// The one connection asked for stands.
    pub fn connect(&mut self) -> ConnId {
        let (id, _) = self.connecting.pop().expect("a connection is asked for");
        self.written.insert(id, Vec::new());
        self.relay.connected(id, ELSEWHERE, self.now);
        self.settle();
        id
    }

    /// The trusted roots that were asked for are read.
    pub fn roots(&mut self, pem: Result<Vec<u8>, ErrorKind>) {
        self.reading_roots.take().expect("roots are asked for");
        let variable = "SSL_CERT_FILE";
        self.relay
            .roots(vec![RootSource { variable, pem }], self.now);
        self.settle();
    }

    pub fn refuse(&mut self) {
        let (id, _) = self.connecting.pop().expect("a connection is asked for");
        self.close(id, End::Io(std::io::ErrorKind::ConnectionRefused));
    }

    /// What was written on a connection since the last look.
    pub fn seen(&mut self, id: ConnId) -> String {
        String::from_utf8(std::mem::take(
            self.written.get_mut(&id).expect("the connection is open"),
        ))
        .unwrap()
    }

    /// The same for all open connections.
    pub fn seen_on_all(&mut self) -> String {
        let all: Vec<ConnId> = self.written.keys().copied().collect();
        all.into_iter().map(|id| self.seen(id)).collect()
    }

    pub fn answer(&mut self, id: ConnId, answer: &str) {
        self.arrive(id, answer.as_bytes(), usize::MAX);
    }

    /// Lets time pass until a whole request, whose body is `x`, is written; the connection it is on.
    pub fn next_attempt(&mut self) -> ConnId {
        for _ in 0..20 {
            if !self.connecting.is_empty() {
                self.connect();
            }
            if let Some((&id, written)) = self
                .written
                .iter_mut()
                .find(|(_, written)| written.ends_with(b"\r\n\r\nx"))
            {
                written.clear();
                return id;
            }
            self.pass_to_deadline();
        }
        panic!("no attempt is made");
    }

    /// Another payload goes through, on whatever connection there is for it.
    pub fn relay_another(&mut self) {
        let relayed = self.totals().relayed;
        self.post("another");
        for _ in 0..20 {
            while !self.connecting.is_empty() {
                self.connect();
            }
            let on = self
                .written
                .iter()
                .find(|(_, written)| written.ends_with(b"\r\n\r\nanother"));
            if let Some((&id, _)) = on {
                self.written.get_mut(&id).unwrap().clear();
                self.answer(id, OK);
                assert_eq!(self.totals().relayed, relayed + 1);
                return;
            }
            self.pass_to_deadline();
        }
        panic!("it is not sent");
    }

    pub fn totals(&self) -> Totals {
        *self.relay.totals()
    }

    /// Payloads acknowledged, and neither relayed nor lost yet.
    pub fn in_hand(&self) -> u64 {
        let totals = self.totals();
        totals.acknowledged - totals.relayed - totals.lost_sum() - totals.left_out_sum()
    }

    pub fn lost(&self, loss: LossReason) -> u64 {
        self.totals().lost[loss as usize]
    }

    pub fn log(&mut self) -> String {
        String::from_utf8(std::mem::take(self.relay.log().take())).unwrap()
    }
}

pub fn status(status: u16) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")
}

/// A world with Lambda in it, registered and asked for the first event.
pub fn sandbox() -> (World, ConnId) {
    sandbox_with(&[])
}

pub fn sandbox_with(vars: &[(&str, &str)]) -> (World, ConnId) {
    let lambda = [
        ("PYROSCOPE_DEV_MODE", ""),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ];
    let mut world = World::new(&[vars, &lambda].concat());
    let api = world.connect();
    assert!(
        world.seen(api).starts_with(
            "POST /2020-01-01/extension/register HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n"
        )
    );
    world.answer(
        api,
        "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: id-1\r\nContent-Length: 2\r\n\r\n{}",
    );
    let next = world.seen(api);
    assert!(
        next.starts_with("GET /2020-01-01/extension/event/next HTTP/1.1\r\n"),
        "{next}"
    );
    assert!(
        next.contains("\r\nLambda-Extension-Identifier: id-1\r\n"),
        "{next}"
    );
    (world, api)
}

pub fn event(json: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json}",
        json.len()
    )
}

/// An INVOKE that times out in so many milliseconds.
pub fn invoke(world: &World, ms: u64) -> String {
    event(&format!(
        r#"{{"eventType":"INVOKE","deadlineMs":{}}}"#,
        world.now.unix_ms + ms
    ))
}

pub fn named_server(world: &mut World, addresses: &[&str]) {
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    world.resolving.pop().expect("it is looked up");
    world.relay.resolved(Peer::Remote, Ok(addresses), world.now);
    world.settle();
}

pub const TELEMETRY_OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\"OK\"";

/// A sandbox in flush mode `end` that is parked, its connection to the API, and the one of the subscription.
pub fn sandbox_at_end(vars: &[(&str, &str)]) -> (World, ConnId, ConnId) {
    let lambda = [
        ("PYROSCOPE_DEV_MODE", ""),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
        ("PYROSCOPE_FLUSH_MODE", "End"),
    ];
    let mut world = World::new(&[vars, &lambda].concat());
    let api = world.connect();
    world.seen(api);
    world.answer(
        api,
        "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: id-1\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert_eq!(world.seen(api), "", "not before the subscription is out");
    let subscription = world.connect();
    let put = world.seen(subscription);
    assert!(
        put.starts_with("PUT /2022-07-01/telemetry HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nLambda-Extension-Identifier: id-1\r\n"),
        "{put}"
    );
    assert!(
        put.ends_with(
            "\r\n\r\n{\"schemaVersion\":\"2022-12-13\",\"types\":[\"platform\"],\
             \"buffering\":{\"maxItems\":1000,\"maxBytes\":262144,\"timeoutMs\":25},\
             \"destination\":{\"protocol\":\"HTTP\",\"URI\":\"http://sandbox.localdomain:4041\"}}"
        ),
        "{put}"
    );
    assert!(
        world.seen(api).starts_with("GET "),
        "without waiting for the answer"
    );
    (world, api, subscription)
}

pub fn invoke_as(world: &World, request_id: &str, ms: u64) -> String {
    event(&format!(
        r#"{{"eventType":"INVOKE","requestId":"{request_id}","deadlineMs":{}}}"#,
        world.now.unix_ms + ms
    ))
}

/// Lambda delivers one event about that request, on a connection of its own.
pub fn deliver(world: &mut World, kind: &str, request_id: &str) {
    let id = world.relay.telemetry_accepted();
    world.written.insert(id, Vec::new());
    let batch = format!(
        r#"[{{"time":"2026-01-01T00:00:00.000Z","type":"platform.{kind}","record":{{"requestId":"{request_id}"}}}}]"#
    );
    let post = format!(
        "POST / HTTP/1.1\r\nHost: sandbox.localdomain:4041\r\nContent-Length: {}\r\n\r\n{batch}",
        batch.len()
    );
    world.arrive(id, post.as_bytes(), 7);
    assert_eq!(world.seen(id), OK);
    world.close(id, End::Eof);
}
