//! The core and a server with several addresses: which is tried first, which is next, and which is used.

use std::time::Duration;

use pyroscope_lambda_extension::contract::{End, Peer};

use super::world::{ELSEWHERE, OK, World, named_server};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn the_family_that_worked_is_tried_first() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    let addresses = ["[fd00::1]:80", "[fd00::2]:80", "10.0.0.1:80", "10.0.0.2:80"];
    world.post("x");
    named_server(&mut world, &addresses);
    assert_eq!(world.connecting[0].1, addresses[0].parse().unwrap());
    assert_eq!(world.pass_to_deadline(), Duration::from_millis(250));
    assert_eq!(world.connecting[1].1, addresses[2].parse().unwrap());
    let id = world.connect();
    assert_eq!(world.connecting, [], "the other one is let go");
    world.answer(id, OK);
    world.close(id, End::Eof);
    world.pass(MINUTE);
    world.post("y");
    named_server(&mut world, &addresses);
    assert_eq!(world.connecting[0].1, addresses[2].parse().unwrap());
    assert_eq!(world.pass_to_deadline(), Duration::from_millis(250));
    assert_eq!(
        world.connecting[1].1,
        addresses[0].parse().unwrap(),
        "in turns"
    );
}

/// No answer is there yet: that one connection stands is enough to know.
#[test]
fn the_family_that_connects_is_the_one_that_works() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    for _ in 0..3 {
        world.post("x");
    }
    named_server(&mut world, &["[fd00::1]:80", "10.0.0.1:80"]);
    world.pass_to_deadline();
    world.connect();
    world.connecting.retain(|(_, address)| address.is_ipv4());
    assert_eq!(world.connecting.len(), 1, "the next begins where it works");
}

#[test]
fn a_name_without_an_address_is_no_server() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    named_server(&mut world, &[]);
    let log = world.log();
    assert!(log.contains("cause=\"name lookup: no address\""), "{log}");
    assert!(world.pass_to_deadline() < SECOND);
    named_server(&mut world, &["10.0.0.1:80"]);
    let id = world.connect();
    assert!(world.seen(id).ends_with('x'));
}

#[test]
fn a_refused_address_is_followed_by_the_next_at_once() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    named_server(&mut world, &["[fd00::1]:80", "10.0.0.1:80"]);
    world.refuse();
    assert_eq!(world.connecting[0].1, "10.0.0.1:80".parse().unwrap());
    world.refuse();
    assert!(world.connecting.is_empty(), "and that was all");
    assert!(world.log().contains("connection refused"));
}

#[test]
fn while_one_address_is_silent_another_that_refuses_ends_nothing() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    named_server(&mut world, &["[fd00::1]:80", "10.0.0.1:80"]);
    world.pass_to_deadline();
    assert_eq!(world.connecting.len(), 2);
    world.refuse();
    assert!(!world.log().contains("connection refused"));
    let id = world.connect();
    assert!(world.seen(id).ends_with('x'));
}

/// The server may have moved: its name is looked up again before the next try.
#[test]
fn addresses_that_cannot_be_reached_are_not_kept() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    named_server(&mut world, &["10.0.0.1:80"]);
    world.refuse();
    assert!(world.pass_to_deadline() < SECOND);
    assert_eq!(world.connecting, []);
    named_server(&mut world, &["10.0.0.2:80"]);
    let id = world.connect();
    assert!(world.seen(id).ends_with('x'));
}

#[test]
fn an_address_whose_tunnel_fails_is_followed_by_the_next() {
    let mut world = World::new(&[
        ("PYROSCOPE_REMOTE_ADDRESS", "https://pyroscope.test"),
        ("HTTPS_PROXY", "http://proxy.test:3128"),
    ]);
    world.post("x");
    named_server(
        &mut world,
        &["[fd00::1]:3128", "10.0.0.1:3128", "10.0.0.2:3128"],
    );
    let first = world.connect();
    world.answer(first, "HTTP/1.1 502 X\r\n\r\n");
    assert!(!world.written.contains_key(&first));
    assert_eq!(world.connecting[0].1, "10.0.0.1:3128".parse().unwrap());
    // This one is silent: it has its share of the time, not all of it.
    let second = world.connect();
    assert_eq!(world.pass_to_deadline(), SECOND * 5);
    assert!(!world.written.contains_key(&second));
    assert_eq!(world.connecting[0].1, "10.0.0.2:3128".parse().unwrap());
    let third = world.connect();
    assert!(world.seen(third).starts_with("CONNECT "));
}

#[test]
fn of_connections_that_stand_in_one_turn_one_is_used() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    named_server(&mut world, &["[fd00::1]:80", "10.0.0.1:80"]);
    world.pass_to_deadline();
    let both = [world.connecting[0].0, world.connecting[1].0];
    for id in both {
        world.written.insert(id, Vec::new());
        world.relay.connected(id, ELSEWHERE, world.now);
    }
    world.settle();
    assert!(world.seen(both[0]).ends_with('x'));
    assert!(!world.written.contains_key(&both[1]));
    assert_eq!(world.resolving, [] as [(Peer, String); 0]);
}

/// Each of them has several addresses, of which the first is silent.
#[test]
fn several_addresses_make_no_more_than_sixty_four_connections() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    for _ in 0..100 {
        world.post("x");
    }
    named_server(&mut world, &["[fd00::1]:80", "[fd00::2]:80"]);
    let first = world.connect();
    assert!(world.seen(first).ends_with('x'));
    world.relay.terminated(world.now);
    world.settle();
    for _ in 0..4 {
        world.pass(Duration::from_millis(250));
    }
    assert_eq!(world.connecting.len() + 1, 64);
    world.answer(first, OK);
}

#[test]
fn frozen_time_moves_the_turn_of_an_address_and_its_share() {
    let freeze = |world: &mut World| {
        let frozen = SECOND * 300;
        world.now.mono += frozen;
        world.now.unix_ms += 300_000;
        world.relay.thawed(frozen, world.now);
        world.settle();
    };
    let mut world = World::new(&[
        ("PYROSCOPE_REMOTE_ADDRESS", "https://pyroscope.test"),
        ("HTTPS_PROXY", "http://proxy.test:3128"),
    ]);
    world.post("x");
    named_server(&mut world, &["[fd00::1]:3128", "10.0.0.1:3128"]);
    world.pass(Duration::from_millis(100));
    freeze(&mut world);
    assert_eq!(world.connecting.len(), 1);
    world.pass(Duration::from_millis(149));
    assert_eq!(world.connecting.len(), 1);
    let first = world.connect();
    // It has half of the time: 4.8 s of the 9.7 that are left. Its answer begins late, and goes on slowly.
    freeze(&mut world);
    for _ in 0..9 {
        world.pass(SECOND / 2);
        world.arrive(first, b"H", usize::MAX);
        assert!(world.written.contains_key(&first));
    }
    world.pass(SECOND / 2);
    assert!(!world.written.contains_key(&first), "its share is over");
    assert_eq!(world.connecting[0].1, "10.0.0.1:3128".parse().unwrap());
}
