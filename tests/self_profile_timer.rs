//! When the extension's profile of itself goes out, under a made-up clock: every 15 s while there is work, in
//! nobody's way, and last of all at the end. No socket, no thread, no waiting.

#[path = "support/world.rs"]
mod world;

use std::time::Duration;

use pyroscope_lambda_extension::profile::Stage;
use world::{OK, World};

const EVERY: Duration = Duration::from_secs(15);

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(50);

/// A relay that profiles itself or not, and whose every turn costs a millisecond of CPU time.
fn profiled(profiling: &str) -> World {
    let mut world = World::new(&[("PYROSCOPE_SELF_PROFILING", profiling)]);
    world.turn_costs_ns = 1_000_000;
    world
}

fn connect_all(world: &mut World) {
    while !world.connecting.is_empty() {
        world.connect();
    }
}

/// The server takes what was written to it. Says of each request whether it is the extension's own.
fn take(world: &mut World) -> Vec<bool> {
    connect_all(world);
    let mut own = Vec::new();
    while let Some((&id, request)) = world.written.iter_mut().find(|(_, w)| !w.is_empty()) {
        let request = String::from_utf8_lossy(&std::mem::take(request)).into_owned();
        own.push(request.contains("name=pyroscope.lambda.extension%7B__session_id__%3D"));
        world.answer(id, OK);
        connect_all(world);
    }
    own
}

/// The server takes nothing, and says so.
fn refuse_all(world: &mut World) {
    while !world.connecting.is_empty() {
        world.refuse();
    }
}

#[test]
fn fifteen_seconds_after_work_began_and_never_while_idle() {
    let mut world = profiled("true");
    assert_eq!(world.asleep_for(), None, "nothing has been done yet");
    world.pass(EVERY * 4);
    world.post("x");
    assert_eq!(take(&mut world), [false]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.asleep_for(), Some(Duration::from_secs(13)));
    world.pass(Duration::from_secs(13));
    assert_eq!(take(&mut world), [true]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.pass_to_deadline() + Duration::from_secs(2), IDLE);
    assert_eq!(world.asleep_for(), None, "its own profile is no work");
    world.pass(EVERY * 100);
    assert_eq!(take(&mut world), []);
}

#[test]
fn every_fifteen_seconds_while_there_is_work() {
    let mut world = profiled("true");
    let mut own = 0;
    for _ in 0..60 {
        world.post("x");
        world.pass(Duration::from_secs(1));
        own += take(&mut world).into_iter().filter(|own| *own).count();
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
    let mut world = profiled("true");
    world.post("x");
    take(&mut world);
    let hour = Duration::from_secs(3600);
    world.now.mono += hour;
    world.now.unix_ms += 3_600_000;
    world.relay.thawed(hour, world.now);
    world.pass(Duration::from_secs(14));
    assert_eq!(take(&mut world), []);
    world.pass(Duration::from_secs(1));
    assert_eq!(take(&mut world), [true]);
}

#[test]
fn it_waits_until_no_payload_waits() {
    let mut world = profiled("true");
    for _ in 0..300 {
        world.post("x");
        refuse_all(&mut world);
    }
    world.pass(EVERY * 2);
    refuse_all(&mut world);
    let lost = world.relay.totals().lost_sum();
    assert_eq!(lost, 300 - 256, "the ring's places are the clients'");
    assert_eq!(world.relay.totals().acknowledged, 300);
    while world.connecting.is_empty() {
        let time = world.asleep_for().expect("the server is tried again");
        world.pass(time);
    }
    let taken = take(&mut world);
    assert_eq!(taken.len(), 257);
    assert_eq!(taken.iter().filter(|own| **own).count(), 1);
}

#[test]
fn the_last_one_goes_behind_everything_else() {
    let mut world = profiled("true");
    world.post("x");
    world.post("x");
    world.relay.terminated(world.now);
    world.settle();
    assert_eq!(take(&mut world), [false, false, true]);
    assert_eq!(world.exit, Some(0));
    let log = String::from_utf8(std::mem::take(world.relay.log().take())).unwrap();
    let closed = log.lines().last().unwrap();
    for field in [" acknowledged=3", " relayed=3", " self_profiles=1"] {
        assert!(closed.contains(field), "{closed}");
    }
}

#[test]
fn the_last_one_holds_nobody_up_beyond_the_deadline() {
    let mut world = profiled("true");
    world.post("x");
    take(&mut world);
    world.relay.terminated(world.now);
    world.settle();
    assert_eq!(world.exit, None, "the server has two seconds to answer");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.exit, Some(0));
    assert_eq!(world.relay.totals().lost_sum(), 1);
}

#[test]
fn off_it_does_nothing() {
    let mut world = profiled("no");
    world.post("x");
    take(&mut world);
    world.pass(IDLE);
    assert_eq!(world.asleep_for(), None);
    world.pass(EVERY);
    assert_eq!(take(&mut world), []);
    world.relay.terminated(world.now);
    world.settle();
    assert_eq!(world.exit, Some(0));
    let log = String::from_utf8(std::mem::take(world.relay.log().take())).unwrap();
    assert!(!log.contains("self_profiles"), "{log}");
}

#[test]
fn it_has_the_labels_of_the_settings() {
    let mut world = World::new(&[
        ("PYROSCOPE_SELF_PROFILING", "true"),
        ("PYROSCOPE_LABELS", r#"{"env": "prod"}"#),
    ]);
    world.turn_costs_ns = 1_000_000;
    world.post("x");
    take(&mut world);
    world.pass(EVERY);
    let own: Vec<u8> = world.written.into_values().flatten().collect();
    let own = String::from_utf8_lossy(&own);
    assert!(own.contains("name=pyroscope.lambda.extension%7B"), "{own}");
    assert!(own.contains("%2Cenv%3Dprod%7D&"), "{own}");
}

/// Whether bytes for the server are encrypted depends on its address; those for clients never are.
#[test]
fn what_is_read_and_written_counts_for_its_stage() {
    for (address, received, pending) in [
        ("http://10.0.0.1:4040", Stage::Answer, Stage::Write),
        ("https://10.0.0.1:4040", Stage::Handshake, Stage::Encrypt),
    ] {
        let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", address)]);
        let client = world.client();
        world.post("x");
        let server = world.connect();
        let stages = |id| {
            let relay = &world.relay;
            (relay.stage_of_received(id), relay.stage_of_pending(id))
        };
        assert_eq!(stages(client), (Stage::Parse, Stage::Write), "{address}");
        assert_eq!(stages(server), (received, pending), "{address}");
    }
}
