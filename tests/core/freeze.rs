//! The core: freezes, and copies of a snapshot.

use std::time::Duration;

use pyroscope_lambda_extension::contract::End;

use super::world::{OK, World, event, invoke, named_server, sandbox, sandbox_with};

#[test]
fn frozen_time_does_not_count() {
    let mut world = World::new(&[]);
    world.post("x");
    let id = world.connect();
    let frozen = Duration::from_secs(3600);
    world.now.mono += frozen;
    world.now.unix_ms += 3_600_000;
    world.relay.thawed(frozen, world.now);
    world.relay.expire(world.now);
    world.settle();
    world.answer(id, OK);
    assert_eq!(
        (world.totals().relayed, world.totals().resent),
        (1, 0),
        "the answer was there at the thaw"
    );
    world.post("y");
    world.now.mono += frozen;
    world.relay.thawed(frozen, world.now);
    world.close(id, End::Io(std::io::ErrorKind::ConnectionReset));
    let id = world.connect();
    world.answer(id, OK);
    assert_eq!(world.totals().relayed, 2);
}

#[test]
fn an_idle_connection_does_not_survive_a_freeze() {
    let mut world = World::new(&[]);
    world.post("x");
    let id = world.connect();
    world.answer(id, OK);
    world.relay.thawed(Duration::ZERO, world.now);
    world.settle();
    assert!(!world.written.contains_key(&id));
}

#[test]
fn what_a_freeze_killed_is_nobodys_fault() {
    for noticed in [true, false] {
        let (mut world, api) = sandbox();
        let mut dying = Vec::new();
        for body in ["a", "b", "c", "d"] {
            world.post(body);
            dying.push(world.connect());
        }
        if noticed {
            world.relay.thawed(Duration::from_secs(4), world.now);
        }
        let invoke = event(r#"{"eventType":"INVOKE"}"#);
        let space = world.relay.space(api);
        space[..invoke.len()].copy_from_slice(invoke.as_bytes());
        // In one turn, as after a thaw: the resets, and the event.
        for id in dying {
            world.written.remove(&id);
            world
                .relay
                .ended(id, End::Io(std::io::ErrorKind::ConnectionReset), world.now);
        }
        world.relay.received(api, invoke.len(), world.now);
        world.settle();
        while world.totals().relayed < 4 {
            if !world.connecting.is_empty() {
                world.connect();
            }
            let id = *world.written.keys().next_back().unwrap();
            world.answer(id, OK);
        }
        assert_eq!(
            (world.totals().relayed, world.totals().resent),
            (4, 4),
            "at once"
        );
        assert!(!world.log().contains("level=error"));
    }
}

/// The connection asked for before a freeze failed in it: another is made at once, but nothing is sent *again*.
#[test]
fn what_a_freeze_kept_from_connecting_was_never_sent() {
    let mut world = World::new(&[]);
    world.post("x");
    world.relay.thawed(Duration::from_secs(70), world.now);
    world.refuse();
    let id = world.connect();
    world.answer(id, OK);
    assert_eq!((world.totals().relayed, world.totals().resent), (1, 0));
    assert!(!world.log().contains("level=error"));
}

#[test]
fn the_session_is_drawn_anew_after_the_first_invoke() {
    let (mut world, api) = sandbox();
    let name = "POST /ingest?name=app HTTP/1.1\r\nHost: l\r\nContent-Length: 0\r\n\r\n";
    let client = world.client();
    world.arrive(client, name.as_bytes(), usize::MAX);
    let server = world.connect();
    assert!(
        world
            .seen(server)
            .contains("name=app%7B__session_id__%3D0123456789abcdef%7D")
    );
    world.answer(server, OK);
    world.answer(api, &event(r#"{"eventType":"INVOKE"}"#));
    world.arrive(client, name.as_bytes(), usize::MAX);
    let relayed = world.seen(server);
    assert!(relayed.contains("__session_id__%3D"), "{relayed}");
    assert!(!relayed.contains("0123456789abcdef"), "{relayed}");
}

/// With SnapStart, a sandbox is copied after its init: no copy uses what all copies have.
#[test]
fn a_copied_sandbox_begins_with_nothing_of_the_original() {
    for (kind, connections) in [("snap-start", 1), ("on-demand", 0)] {
        let (mut world, api) = sandbox_with(&[
            ("PYROSCOPE_REMOTE_ADDRESS", "http://server.example"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", kind),
        ]);
        let address = "10.0.0.1:80";
        world.post("in the init");
        named_server(&mut world, &[address]);
        let idle = world.connect();
        world.answer(idle, OK);
        world.post("still under way");
        world.seen(idle);
        world.answer(api, &invoke(&world, 3000));
        assert_eq!(
            world.written.contains_key(&idle),
            connections == 0,
            "{kind}: the connection is every copy's"
        );
        assert_eq!(
            world.resolving.len(),
            connections,
            "{kind}: so are addresses"
        );
        let other = if connections == 1 {
            named_server(&mut world, &[address]);
            world.connect()
        } else {
            idle
        };
        world.answer(other, OK);
        assert_eq!(world.totals().relayed, 2, "{kind}");
        // The next invocation is an ordinary one.
        world.answer(api, &invoke(&world, 3000));
        assert!(world.written.contains_key(&other), "{kind}");
    }
}
