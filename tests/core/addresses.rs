//! The core: names, addresses, settings that cannot be used, and the relay itself.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use pyroscope_lambda_extension::contract::{End, Ends, Peer};
use pyroscope_lambda_extension::relay::ring::LossReason;

use super::world::{ELSEWHERE, OK, World, invoke, named_server, sandbox};

#[test]
fn names_are_looked_up_and_every_address_is_tried() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test:99")]);
    world.post("x");
    assert_eq!(
        world.resolving,
        [(Peer::Remote, "pyroscope.test:99".to_owned())]
    );
    let addresses: Vec<SocketAddr> =
        vec!["[::1]:99".parse().unwrap(), "127.0.0.1:99".parse().unwrap()];
    world
        .relay
        .resolved(Peer::Remote, Ok(addresses.clone()), world.now);
    world.settle();
    assert_eq!(world.connecting[0].1, addresses[0]);
    world.refuse();
    assert_eq!(world.connecting[0].1, addresses[1]);
    let id = world.connect();
    world.answer(id, OK);
    assert_eq!(world.totals().relayed, 1);
}

#[test]
fn a_name_that_is_not_found_is_a_server_that_is_down() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    for _ in 0..3 {
        world.resolving.pop().expect("it is looked up");
        world
            .relay
            .resolved(Peer::Remote, Err("no thread: why".to_owned()), world.now);
        world.settle();
        assert!(world.resolving.is_empty());
        world.pass_to_deadline();
    }
    // In the words of who was to look it up.
    assert!(world.log().contains("cause=\"no thread: why\""));
    assert_eq!(world.totals().lost_sum(), 0);
}

#[test]
fn an_unusable_address_is_said_once_and_losses_are_counted() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "nonsense")]);
    world.post("x");
    world.post("y");
    assert_eq!(world.lost(LossReason::Unusable), 2);
    assert_eq!(world.log().matches("PYROSCOPE_REMOTE_ADDRESS").count(), 1);
    world.relay.terminated(world.now);
    world.settle();
    assert_eq!(world.exit, Some(0));
    assert!(world.log().contains("lost=2 lost_unusable_address=2"));
}

#[test]
fn a_silent_address_does_not_hold_up_the_next() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    named_server(&mut world, &["10.0.0.1:80", "10.0.0.2:80"]);
    let (silent, _) = world.connecting.pop().unwrap();
    assert_eq!(
        world.pass_to_deadline(),
        Duration::from_millis(250),
        "the delay of RFC 8305"
    );
    assert_eq!(world.connecting[0].1, "10.0.0.2:80".parse().unwrap());
    let id = world.connect();
    // Too late: the other one goes on.
    world.relay.connected(silent, ELSEWHERE, world.now);
    world.settle();
    world.answer(id, OK);
    assert_eq!((world.totals().relayed, world.totals().resent), (1, 0));
}

#[test]
fn no_next_address_is_tried_once_time_is_up() {
    let mut world = World::new(&[
        ("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test"),
        ("PYROSCOPE_TIMEOUT", "3s"),
    ]);
    world.post("x");
    named_server(&mut world, &["10.0.0.1:80", "10.0.0.2:80"]);
    let (id, _) = world.connecting.pop().unwrap();
    // In one turn, as after a freeze too short to be seen: it is refused, and time is up.
    world.now.mono += Duration::from_secs(3);
    let refused = End::Io(std::io::ErrorKind::ConnectionRefused);
    world.relay.ended(id, refused, world.now);
    world.relay.expire(world.now);
    world.settle();
    assert_eq!(world.connecting, [], "nobody would close it");
}

#[test]
fn two_connections_that_fail_in_one_turn_each_get_their_next_address() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    named_server(&mut world, &["10.0.0.1:80", "10.0.0.2:80"]);
    let id = world.connect();
    world.answer(
        id,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    );
    world.post("a");
    world.refuse();
    let (last, _) = world.connecting.pop().unwrap();
    world.post("b");
    let (first, _) = world.connecting.pop().unwrap();
    let refused = End::Io(std::io::ErrorKind::ConnectionRefused);
    world.relay.ended(last, refused, world.now);
    world.relay.ended(first, refused, world.now);
    world.settle();
    assert_eq!(
        world.connecting.len(),
        1,
        "the one whose first address failed goes on"
    );
    assert_eq!(world.connecting[0].1, "10.0.0.2:80".parse().unwrap());
}

#[test]
fn addresses_are_looked_up_anew_after_a_while() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    for _ in 0..3 {
        world.post("x");
        named_server(&mut world, &["10.0.0.1:80"]);
        let id = world.connect();
        world.answer(id, OK);
        world.pass(Duration::from_mins(1));
    }
}

/// What was taken before is lost as what comes later is, and so is what was half taken.
#[test]
fn a_relay_pointed_at_itself_sends_nothing_and_says_so_once() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test:4040")]);
    let half = world.client();
    let head = "POST / HTTP/1.1\r\nHost: l\r\nContent-Length: 4\r\n\r\n";
    world.arrive(half, head.as_bytes(), usize::MAX);
    world.arrive(half, b"ha", usize::MAX);
    for body in ["one", "two"] {
        world.post(body);
    }
    named_server(&mut world, &["0.0.0.0:4040", "10.0.0.2:4040"]);
    let (id, _) = world.connecting.pop().unwrap();
    world.written.insert(id, Vec::new());
    let ends = Ends {
        local: "127.0.0.1:50000".parse().unwrap(),
        peer: "127.0.0.1:4040".parse().unwrap(),
    };
    world.relay.connected(id, ends, world.now);
    assert_eq!(world.relay.pending(id).concat(), b"", "not a byte");
    world.settle();
    assert!(!world.written.contains_key(&id), "and it is closed");
    world.arrive(half, b"lf", usize::MAX);
    world.post("three");
    for _ in 0..3 {
        world.pass(Duration::from_mins(1));
    }
    assert!(world.connecting.is_empty() && world.resolving.is_empty());
    assert!(!world.relay.has_connections());
    assert_eq!(world.totals().acknowledged, 4);
    assert_eq!(world.lost(LossReason::Unusable), 4);
    let log = world.log();
    let line = "level=error msg=\"Unusable setting\" problem=\"is this relay itself\" svc=pyroscope-lambda-ext-main variable=PYROSCOPE_REMOTE_ADDRESS";
    assert_eq!(log.matches(line).count(), 1, "{log}");
    assert_eq!(log.matches("level=error").count(), 1, "{log}");
}

#[test]
fn settings_that_are_wrong_and_addresses_are_logged_at_the_start() {
    let mut world = World::new(&[
        ("PYROSCOPE_TIMEOUT", "nonsense"),
        ("PYROSCOPE_REMOTE_ADDRESS", "nonsense"),
    ]);
    let log = world.log();
    for line in [
        "level=warning msg=\"Bad setting\" ",
        "level=error msg=\"Unusable setting\" ",
        "level=info msg=\"Starting relay\" address=\"127.0.0.1:4040\" ",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
    let more = ["[::1]:4040", "10.0.0.5:4040"].map(|address| address.parse().unwrap());
    world.relay.started(&more, world.now);
    let log = world.log();
    assert!(
        log.contains(" address=\"[::1]:4040, 10.0.0.5:4040\" "),
        "{log}"
    );
    assert_eq!(log.lines().count(), 1, "the rest has been said: {log}");
}

#[test]
fn a_port_that_was_taken_at_the_start_is_tried_again_at_each_invoke() {
    let (mut world, api) = sandbox();
    let address: SocketAddr = "127.0.0.1:4040".parse().unwrap();
    let taken = [(address, ErrorKind::AddrInUse)];
    world.log();
    world.relay.unbound(&taken, world.now);
    world.relay.started(&[], world.now);
    let line =
        "msg=\"Cannot listen on this address\" address=\"127.0.0.1:4040\" cause=\"address in use\"";
    let log = world.log();
    assert!(
        log.contains(line) && !log.contains("Starting relay"),
        "{log}"
    );
    let mut lines = 0;
    for times in 1..=180 {
        let event = invoke(&world, 500);
        world.answer(api, &event);
        assert!(world.listens.len() == times && world.listens[0].contains(&address));
        assert!(world.seen(api).contains("/event/next"), "in no way of it");
        world.relay.unbound(&taken, world.now);
        world.relay.started(&[], world.now);
        world.pass(Duration::from_secs(1));
        lines += world.log().matches(line).count();
    }
    assert_eq!(lines, 2, "once a minute after the first");
    world.relay.started(&[address], world.now);
    assert!(world.log().contains("Starting relay"));
    let event = invoke(&world, 500);
    world.answer(api, &event);
    assert_eq!(world.listens.len(), 180, "it listens");
}
