//! The core: one payload and its connection: exchanges, answers, addresses that are tried.

use std::time::Duration;

use pyroscope_lambda_extension::contract::End;
use pyroscope_lambda_extension::relay::ring::LossReason;

use super::world::{ELSEWHERE, OK, World, status};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_payload_goes_through_and_its_connection_is_used_again() {
    let mut world = World::new(&[]);
    world.post("one");
    let id = world.connect();
    assert_eq!(
        world.seen(id),
        "POST /ingest HTTP/1.1\r\nHost: 10.0.0.1:4040\r\nX-Forwarded-Host: localhost:4040\r\nContent-Length: 3\r\n\r\none"
    );
    world.answer(id, OK);
    world.post("two");
    assert!(world.seen(id).ends_with("\r\n\r\ntwo"));
    assert!(world.connecting.is_empty());
    world.answer(id, OK);
    assert_eq!(
        (
            world.totals().acknowledged,
            world.totals().relayed,
            world.totals().relayed_bytes
        ),
        (2, 2, 6)
    );
}

#[test]
fn requests_cut_anywhere_and_pipelined() {
    let wire = "POST /a HTTP/1.1\r\nHost: l\r\nContent-Length: 3\r\n\r\nabc\
                POST /b HTTP/1.1\r\nHost: l\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1;x=y\r\nf\r\n0\r\nT: v\r\n\r\n\
                \r\nGET /c HTTP/1.1\r\nHost: l\r\n\r\n\
                POST /d HTTP/1.1\r\nHost: l\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for step in (1..=wire.len()).rev() {
        let mut world = World::new(&[("PYROSCOPE_NUM_WORKERS", "1")]);
        let client = world.client();
        world.arrive(client, wire.as_bytes(), step);
        let close = OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        assert_eq!(
            world.seen(client),
            OK.repeat(3) + &close,
            "in steps of {step}"
        );
        assert_eq!(world.half_closed, [client]);
        let server = world.connect();
        for (path, end) in [
            ("/a", "3\r\n\r\nabc"),
            ("/b", "3\r\n\r\ndef"),
            ("/c", "l\r\n\r\n"),
            ("/d", "0\r\n\r\n"),
        ] {
            let seen = world.seen(server);
            assert!(
                seen.contains(&format!("T {path} HTTP/1.1\r\n")) && seen.ends_with(end),
                "{step}: {seen:?}"
            );
            world.answer(server, OK);
        }
        assert_eq!(world.totals().relayed, 4);
    }
}

#[test]
fn one_connection_goes_ahead_of_the_others() {
    let mut world = World::new(&[("PYROSCOPE_NUM_WORKERS", "3")]);
    for body in ["a", "b", "c", "d", "e"] {
        world.post(body);
    }
    assert_eq!(
        world.connecting.len(),
        1,
        "nobody knows yet whether the server is there"
    );
    let first = world.connect();
    assert_eq!(
        world.connecting.len(),
        1,
        "the next connection is made when the first stands"
    );
    let second = world.connect();
    let third = world.connect();
    assert_eq!(world.connecting.len(), 0, "PYROSCOPE_NUM_WORKERS at most");
    for id in [first, second, third, first, second] {
        world.answer(id, OK);
    }
    assert_eq!(world.totals().relayed, 5);
}

#[test]
fn a_reused_connection_that_died_costs_nothing() {
    let mut world = World::new(&[]);
    world.post("one");
    let id = world.connect();
    world.answer(id, OK);
    world.post("two");
    world.close(id, End::Io(std::io::ErrorKind::ConnectionReset));
    let id = world.connect();
    assert!(
        world.seen(id).ends_with("two"),
        "at once, on a new connection"
    );
    world.answer(id, OK);
    assert_eq!((world.totals().relayed, world.totals().resent), (2, 1));
    assert!(!world.log().contains("level=error"));
}

#[test]
fn an_idle_connection_that_the_server_closes_is_let_go() {
    let mut world = World::new(&[]);
    world.post("one");
    let id = world.connect();
    world.answer(id, OK);
    world.close(id, End::Eof);
    assert!(!world.written.contains_key(&id));
    world.post("two");
    world.connect();
    assert_eq!(world.totals().resent, 0);
}

#[test]
fn an_idle_connection_ages_by_either_clock() {
    for mono_stands_still in [false, true] {
        let mut world = World::new(&[]);
        world.post("one");
        let id = world.connect();
        world.answer(id, OK);
        world.now.unix_ms += 51_000;
        if !mono_stands_still {
            world.now.mono += Duration::from_secs(51);
        }
        world.post("two");
        assert!(!world.written.contains_key(&id));
        assert_eq!(world.connecting.len(), 1);
    }
}

#[test]
fn an_idle_connection_is_closed_when_it_is_too_old_to_be_used() {
    let mut world = World::new(&[]);
    assert!(!world.relay.has_connections());
    world.post("x");
    let id = world.connect();
    assert!(world.relay.has_connections(), "one that is busy");
    world.answer(id, OK);
    assert!(world.relay.has_connections(), "one that is idle");
    let mut waited = Duration::ZERO;
    while world.asleep_for().is_some() {
        waited += world.pass_to_deadline();
    }
    assert_eq!(waited, Duration::from_secs(50));
    assert!(!world.written.contains_key(&id));
    assert!(!world.relay.has_connections(), "nothing to watch over");
}

#[test]
fn an_attempt_has_its_time_and_a_broken_one_is_repeated() {
    let mut world = World::new(&[("PYROSCOPE_TIMEOUT", "3s")]);
    world.post("x");
    let first = world.connect();
    world.seen(first);
    world.pass(Duration::from_millis(2999));
    assert!(world.written.contains_key(&first));
    world.pass(Duration::from_millis(1));
    assert!(!world.written.contains_key(&first), "given up");
    world.pass_to_deadline();
    let second = world.connect();
    assert!(world.seen(second).ends_with("x"));
    world.answer(second, OK);
    assert_eq!((world.totals().relayed, world.totals().resent), (1, 1));
}

#[test]
fn a_connection_that_comes_too_late_is_no_attempt() {
    let mut world = World::new(&[("PYROSCOPE_TIMEOUT", "3s")]);
    world.post("x");
    for _ in 0..6 {
        while world.connecting.is_empty() {
            world.pass_to_deadline();
        }
        let (id, _) = world.connecting.pop().unwrap();
        world.written.insert(id, Vec::new());
        // In one turn, as after a freeze too short to be seen: it stands, and time is up.
        world.now.mono += Duration::from_secs(3);
        world.relay.connected(id, ELSEWHERE, world.now);
        world.relay.expire(world.now);
        world.settle();
        assert!(!world.written.contains_key(&id), "given up");
    }
    let id = world.next_attempt();
    world.answer(id, OK);
    assert_eq!((world.totals().relayed, world.totals().resent), (1, 0));
}

#[test]
fn an_early_answer_counts_and_closes() {
    let mut world = World::new(&[]);
    world.post("x");
    let (id, _) = world.connecting.pop().unwrap();
    // Not in `written`: nothing is taken off the connection.
    world.relay.connected(id, ELSEWHERE, world.now);
    world.arrive(id, status(401).as_bytes(), usize::MAX);
    assert_eq!(world.lost(LossReason::Refused), 1);
    assert!(!world.relay.wants(id), "and the connection is closed");
}

#[test]
fn answers_that_cannot_be_read_are_broken_attempts() {
    for answer in [
        "SSH-2.0\r\n\r\n",
        "HTTP/1.1 101 X\r\n\r\n",
        "HTTP/1.1 503 No\r\nContent-Length: a\r\n\r\n",
    ] {
        let mut world = World::new(&[]);
        world.post("x");
        let id = world.connect();
        world.answer(id, answer);
        assert!(!world.written.contains_key(&id), "{answer:?}");
        let id = world.next_attempt();
        world.answer(id, OK);
        assert_eq!(
            (world.totals().resent, world.totals().relayed),
            (1, 1),
            "{answer:?}"
        );
    }
}

#[test]
fn an_answer_until_close_is_whole_at_the_close() {
    let mut world = World::new(&[]);
    world.post("x");
    let id = world.connect();
    world.answer(id, "HTTP/1.1 200 OK\r\n\r\nbody");
    assert_eq!(world.totals().relayed, 0);
    world.close(id, End::Eof);
    assert_eq!(world.totals().relayed, 1);
}

#[test]
fn success_before_the_request_is_sent_is_no_success() {
    let mut world = World::new(&[]);
    world.post("x");
    let (id, _) = world.connecting.pop().unwrap();
    world.relay.connected(id, ELSEWHERE, world.now);
    world.offer(id, OK.as_bytes(), usize::MAX);
    assert_eq!(world.totals().relayed, 0);
    let id = world.next_attempt();
    world.answer(id, OK);
    assert_eq!(world.totals().relayed, 1);
}

#[test]
fn a_yes_whose_body_is_missing_counts_when_time_is_up() {
    let mut world = World::new(&[]);
    world.post("x");
    let id = world.connect();
    world.answer(id, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal");
    world.relay.terminated(world.now);
    world.settle();
    world.pass_to_deadline();
    assert_eq!((world.exit, world.totals().relayed), (Some(0), 1));
}

#[test]
fn only_what_was_sent_before_is_sent_again() {
    let mut world = World::new(&[]);
    world.post("x");
    let id = world.connect();
    world.close(id, End::Io(std::io::ErrorKind::ConnectionReset));
    for _ in 0..3 {
        world.pass_to_deadline();
        world.refuse();
    }
    let id = world.next_attempt();
    world.answer(id, OK);
    assert_eq!((world.totals().relayed, world.totals().resent), (1, 1));
}

/// A server that accepts and closes at once was not reached: that costs the payload no attempt.
#[test]
fn a_connection_that_ends_before_sending_begins_is_none() {
    let mut world = World::new(&[]);
    world.post("x");
    for _ in 0..10 {
        let (id, _) = world.connecting.pop().expect("a connection is asked for");
        // In one turn: it stands, and it has ended.
        world.relay.connected(id, ELSEWHERE, world.now);
        world.close(id, End::Eof);
        world.pass_to_deadline();
    }
    let id = world.connect();
    world.answer(id, OK);
    assert_eq!((world.totals().relayed, world.totals().resent), (1, 0));
}

#[test]
fn what_is_answered_is_in_the_totals() {
    let mut world = World::new(&[]);
    // A client that pipelines and does not read.
    let client = world.relay.accepted(world.now);
    let wire = "POST / HTTP/1.1\r\nHost: l\r\nContent-Length: 1\r\n\r\nx".repeat(60);
    world.offer(client, wire.as_bytes(), usize::MAX);
    world.relay.terminated(world.now);
    world.settle();
    world.pass(Duration::from_secs(3));
    assert_eq!(world.exit, Some(0));
    let told = world.totals().acknowledged;
    // What is still pending is written as we leave.
    world.written.insert(client, Vec::new());
    world.settle();
    let answered = world.seen(client).matches("200 OK").count() as u64;
    assert!(answered > 0);
    assert_eq!(told, answered, "the closing line had told it");
}

#[test]
fn the_connection_that_was_idle_last_is_used_first() {
    let mut world = World::new(&[]);
    let both = [(); 2].map(|()| {
        world.post("x");
        world.connect()
    });
    for turn in [[0, 1], [1, 0]] {
        for at in turn {
            world.answer(both[at], OK);
            world.seen(both[at]);
            world.pass(SECOND);
        }
        world.post("next");
        assert!(world.seen(both[turn[1]]).ends_with("next"));
        world.post("one more");
        assert!(world.seen(both[turn[0]]).ends_with("one more"));
    }
}
