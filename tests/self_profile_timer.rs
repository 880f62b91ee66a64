//! When the extension's profile of itself goes out, under a made-up clock: every 15 s while there is work, in
//! nobody's way, and last of all at the end. No socket, no thread, no waiting.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pyroscope_lambda_extension::config::Config;
use pyroscope_lambda_extension::contract::{Command, ConnId, End, Now};
use pyroscope_lambda_extension::profile::{Spent, Stage};
use pyroscope_lambda_extension::relay::Relay;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const EVERY: Duration = Duration::from_secs(15);

/// A relay, the time, and the requests that have been written to its remote.
struct World {
    relay: Relay,
    now: Now,
    connecting: Vec<ConnId>,
    written: BTreeMap<ConnId, Vec<u8>>,
    exit: Option<u8>,
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "a made-up clock has to start somewhere"
    )]
    fn new(profiling: &str) -> Self {
        let config = Config::read(|name| {
            let value = match name {
                "PYROSCOPE_DEV_MODE" => "true",
                "PYROSCOPE_REMOTE_ADDRESS" => "http://10.0.0.1:4040",
                "PYROSCOPE_SELF_PROFILING" => profiling,
                _ => return None,
            };
            Some(value.to_owned())
        });
        let now = Now {
            mono: Instant::now(),
            unix_ms: 1_800_000_000_000,
        };
        let mut world = Self {
            relay: Relay::new(config, "extension".to_owned(), || 0x0123_4567_89ab_cdef),
            now,
            connecting: Vec::new(),
            written: BTreeMap::new(),
            exit: None,
        };
        world
            .relay
            .started(&["127.0.0.1:4040".parse().unwrap()], now);
        world.settle();
        world
    }

    /// Does what the core says until it says nothing. Every turn costs a millisecond of CPU time.
    fn settle(&mut self) {
        let mut spent = Spent::default();
        spent.charge(Stage::Step, 1_000_000);
        self.relay.spent(&spent);
        loop {
            let mut moved = false;
            while let Some(command) = self.relay.step(self.now) {
                moved = true;
                match command {
                    Command::Close(id) => drop(self.written.remove(&id)),
                    Command::Connect(id, _) => self.connecting.push(id),
                    Command::Exit(status) => {
                        self.exit = Some(status);
                        return;
                    }
                    other => panic!("{other:?} is not asked for here"),
                }
            }
            for (id, written) in &mut self.written {
                let sent = self.relay.pending(*id).concat();
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

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.unix_ms += time.as_millis() as u64;
        self.relay.expire(self.now);
        self.settle();
    }

    /// How long the core would sleep.
    fn asleep_for(&self) -> Option<Duration> {
        let at = self.relay.deadline(self.now)?;
        Some(at.saturating_duration_since(self.now.mono))
    }

    fn arrive(&mut self, id: ConnId, bytes: &str) {
        self.relay.space(id)[..bytes.len()].copy_from_slice(bytes.as_bytes());
        self.relay.received(id, bytes.len(), self.now);
        self.settle();
    }

    /// One upload of `x`, acknowledged.
    fn post(&mut self) {
        let id = self.relay.accepted(self.now);
        self.written.insert(id, Vec::new());
        self.arrive(
            id,
            "POST /ingest?name=shop HTTP/1.1\r\nHost: l\r\nContent-Length: 1\r\n\r\nx",
        );
        assert_eq!(String::from_utf8_lossy(&self.written[&id]), OK);
        self.relay.ended(id, End::Eof, self.now);
        self.settle();
    }

    /// Lets every connection that is asked for stand.
    fn connect(&mut self) {
        while let Some(id) = self.connecting.pop() {
            self.written.insert(id, Vec::new());
            self.relay.connected(id, self.now);
            self.settle();
        }
    }

    /// The remote takes what was written to it. Says of each request whether it is the extension's own.
    fn take(&mut self) -> Vec<bool> {
        self.connect();
        let mut own = Vec::new();
        while let Some((&id, request)) = self.written.iter_mut().find(|(_, w)| !w.is_empty()) {
            let request = String::from_utf8_lossy(&std::mem::take(request)).into_owned();
            own.push(request.contains("name=pyroscope.lambda.extension%7B__session_id__%3D"));
            self.arrive(id, OK);
            self.connect();
        }
        own
    }

    /// The remote takes nothing, and says so.
    fn refuse(&mut self) {
        while let Some(id) = self.connecting.pop() {
            let refused = End::Io(std::io::ErrorKind::ConnectionRefused);
            self.relay.ended(id, refused, self.now);
            self.settle();
        }
    }
}

#[test]
fn fifteen_seconds_after_work_began_and_never_while_idle() {
    let mut world = World::new("true");
    assert_eq!(world.asleep_for(), None, "nothing has been done yet");
    world.pass(EVERY * 4);
    world.post();
    assert_eq!(world.take(), [false]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.asleep_for(), Some(Duration::from_secs(13)));
    world.pass(Duration::from_secs(13));
    assert_eq!(world.take(), [true]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.asleep_for(), None, "its own profile is no work");
    world.pass(EVERY * 100);
    assert_eq!(world.take(), []);
}

#[test]
fn every_fifteen_seconds_while_there_is_work() {
    let mut world = World::new("true");
    let mut own = 0;
    for _ in 0..60 {
        world.post();
        world.pass(Duration::from_secs(1));
        own += world.take().into_iter().filter(|own| *own).count();
    }
    assert_eq!(own, 4);
    let totals = world.relay.totals();
    assert_eq!(
        (totals.acknowledged, totals.relayed),
        (64, 64),
        "payloads like any"
    );
}

#[test]
fn time_frozen_does_not_count() {
    let mut world = World::new("true");
    world.post();
    world.take();
    let hour = Duration::from_secs(3600);
    world.now.mono += hour;
    world.now.unix_ms += 3_600_000;
    world.relay.thawed(hour, world.now);
    world.pass(Duration::from_secs(14));
    assert_eq!(world.take(), []);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.take(), [true]);
}

#[test]
fn it_waits_until_no_payload_waits() {
    let mut world = World::new("true");
    for _ in 0..300 {
        world.post();
        world.refuse();
    }
    world.pass(EVERY * 2);
    world.refuse();
    let lost = world.relay.totals().lost_sum();
    assert_eq!(lost, 300 - 256, "the ring's places are the clients'");
    assert_eq!(world.relay.totals().acknowledged, 300);
    while world.connecting.is_empty() {
        let time = world.asleep_for().expect("the remote is tried again");
        world.pass(time);
    }
    let taken = world.take();
    assert_eq!(taken.len(), 257);
    assert_eq!(taken.iter().filter(|own| **own).count(), 1);
}

#[test]
fn the_last_one_goes_behind_everything_else() {
    let mut world = World::new("true");
    world.post();
    world.post();
    world.relay.terminated(world.now);
    world.settle();
    assert_eq!(world.take(), [false, false, true]);
    assert_eq!(world.exit, Some(0));
    let log = String::from_utf8(std::mem::take(world.relay.log().take())).unwrap();
    let closed = log.lines().last().unwrap();
    for field in [" acknowledged=3", " relayed=3", " self_profiles=1"] {
        assert!(closed.contains(field), "{closed}");
    }
}

#[test]
fn the_last_one_holds_nobody_up_beyond_the_deadline() {
    let mut world = World::new("true");
    world.post();
    world.take();
    world.relay.terminated(world.now);
    world.settle();
    assert_eq!(world.exit, None, "the remote has two seconds to answer");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.exit, Some(0));
    assert_eq!(world.relay.totals().lost_sum(), 1);
}

#[test]
fn off_it_does_nothing() {
    let mut world = World::new("no");
    world.post();
    world.take();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.asleep_for(), None);
    world.pass(EVERY);
    assert_eq!(world.take(), []);
    world.relay.terminated(world.now);
    world.settle();
    assert_eq!(world.exit, Some(0));
    let log = String::from_utf8(std::mem::take(world.relay.log().take())).unwrap();
    assert!(!log.contains("self_profiles"), "{log}");
}
