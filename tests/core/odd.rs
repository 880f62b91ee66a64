//! The core in turns in which much comes together, and before peers that mean no good.

use std::io::ErrorKind;
use std::time::Duration;

use super::world::{
    OK, TELEMETRY_OK, World, deliver, invoke, invoke_as, named_server, sandbox_at_end,
    sandbox_with, status,
};
use pyroscope_lambda_extension::contract::{ConnId, End};
use pyroscope_lambda_extension::relay::ring::LossReason;

const SECOND: Duration = Duration::from_secs(1);

fn proxied() -> World {
    let mut world = World::new(&[
        ("PYROSCOPE_REMOTE_ADDRESS", "https://pyroscope.test"),
        ("HTTPS_PROXY", "http://proxy.test:3128"),
        ("PYROSCOPE_LOG_LEVEL", "debug"),
    ]);
    world.post("x");
    world
}

/// The share of the address before is over, and the next one takes 1 ms to connect.
#[test]
fn the_next_address_has_time_of_its_own() {
    let mut world = proxied();
    named_server(&mut world, &["[fd00::1]:3128", "10.0.0.2:3128"]);
    world.connect();
    assert_eq!(world.pass_to_deadline(), SECOND * 5);
    assert_eq!(world.connecting.len(), 1, "the next address");
    world.log();
    world.pass(Duration::from_millis(1));
    assert_eq!(world.log(), "", "nothing failed in that millisecond");
    assert_eq!(world.asleep_for(), Some(Duration::from_millis(4999)));
    let next = world.connect();
    assert!(world.seen(next).starts_with("CONNECT "));
}

/// A tunnel that is refused at once leaves the next address all the time.
#[test]
fn a_refused_tunnel_takes_no_time_from_the_next_address() {
    let mut world = proxied();
    named_server(&mut world, &["[fd00::1]:3128", "10.0.0.2:3128"]);
    let first = world.connect();
    world.answer(first, "HTTP/1.1 502 X\r\n\r\n");
    assert_eq!(world.connecting.len(), 1);
    assert_eq!(world.pass_to_deadline(), SECOND * 10);
}

/// As many connections as there may be are silent, and each has another address to try.
#[test]
fn a_timeout_is_not_hidden_by_a_connection_that_is_due() {
    let (mut world, api) = sandbox_with(&[
        ("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test"),
        ("PYROSCOPE_FLUSH_MODE", "invoke"),
    ]);
    for _ in 0..65 {
        world.post("x");
    }
    named_server(
        &mut world,
        &["[fd00::1]:80", "[fd00::2]:80", "[fd00::3]:80"],
    );
    let first = world.connect();
    assert!(world.seen(first).ends_with('x'));
    world.answer(api, &invoke(&world, 900_000));
    assert_eq!(world.connecting.len(), 63);
    world.connecting.clear(); // All of them stay silent, and the one that stands is idle in the end.
    for _ in 0..2 {
        world.answer(first, OK);
    }
    let begun = world.now.mono;
    while world.now.mono < begun + SECOND * 2 {
        world.pass_to_deadline();
    }
    assert!(world.seen(api).starts_with("GET "), "the hold is over");
    assert_eq!(world.in_hand(), 63);
    while world.now.mono < begun + SECOND * 10 {
        world.pass_to_deadline();
    }
    assert_eq!(world.now.mono - begun, SECOND * 10, "PYROSCOPE_TIMEOUT");
}

/// Its connection ended in the turn in which its answer came, as where a write failed and the answer was read then.
#[test]
fn a_connection_that_ended_with_its_answer_is_not_used_again() {
    let mut world = World::new(&[]);
    world.post("one");
    let id = world.connect();
    world.relay.space(id)[..OK.len()].copy_from_slice(OK.as_bytes());
    world.relay.received(id, OK.len(), world.now);
    world
        .relay
        .ended(id, End::Io(ErrorKind::BrokenPipe), world.now);
    world.settle();
    world.written.remove(&id);
    world.post("two");
    assert_eq!(world.connecting.len(), 1, "a new connection");
}

fn invoked_at_end() -> (World, ConnId) {
    let (mut world, api, subscription) = sandbox_at_end(&[]);
    world.answer(subscription, TELEMETRY_OK);
    world.answer(api, &invoke_as(&world, "r-1", 900_000));
    deliver(&mut world, "start", "r-1");
    (world, api)
}

/// A client that says no more is not waited for after a second, and the server is not to blame.
#[test]
fn a_silent_upload_ends_the_hold_after_a_second() {
    let (mut world, api) = invoked_at_end();
    let client = world.client();
    world.arrive(client, b"POST /ingest HTTP/1.1\r\n", usize::MAX);
    deliver(&mut world, "runtimeDone", "r-1");
    let waited = world.pass_to_deadline();
    assert!(world.seen(api).starts_with("GET "));
    let log = world.log();
    assert!(!log.contains("the server is slow"), "{log}");
    assert_eq!(waited, SECOND);
}

/// After a flush `PYROSCOPE_NUM_WORKERS` holds again.
#[test]
fn after_a_flush_the_number_of_workers_holds_again() {
    let (mut world, api) = sandbox_with(&[
        ("PYROSCOPE_FLUSH_MODE", "invoke"),
        ("PYROSCOPE_NUM_WORKERS", "2"),
    ]);
    for _ in 0..60 {
        world.post("x");
    }
    world.connect();
    world.answer(api, &invoke(&world, 900_000));
    while !world.connecting.is_empty() {
        world.connect();
    }
    let all: Vec<ConnId> = world
        .written
        .keys()
        .copied()
        .filter(|id| *id != api)
        .collect();
    for id in all {
        world.seen(id);
        world.answer(id, OK);
    }
    assert_eq!(world.totals().relayed, 60);
    assert!(world.seen(api).starts_with("GET "), "the hold is over");
    assert_eq!(world.written.len(), 2 + 1, "the others are closed");
    for _ in 0..60 {
        world.post("y");
    }
    let busy = world.seen_on_all().matches("POST /ingest").count();
    assert_eq!(busy, 2, "requests at once");
}

/// The wall clock was an hour ahead as the server asked for a second.
#[test]
fn a_clock_that_is_set_back_does_not_make_a_retry_after_longer() {
    let mut world = World::new(&[]);
    world.post("x");
    let id = world.connect();
    world.seen(id);
    world.answer(
        id,
        "HTTP/1.1 503 X\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n",
    );
    world.now.unix_ms -= 3_600_000;
    world.pass(SECOND * 31);
    assert!(
        world.seen(id).ends_with('x'),
        "30 s is the longest, then {:?}",
        world.asleep_for()
    );
}

/// One that a freeze may have killed is not one of those that are left over.
#[test]
fn an_idle_connection_stays_while_there_are_no_more_than_workers() {
    let (mut world, api) = sandbox_with(&[("PYROSCOPE_NUM_WORKERS", "2")]);
    for _ in 0..2 {
        world.post("x");
        world.connect();
    }
    let all: Vec<ConnId> = world.written.keys().copied().collect();
    let (slow, idle) = (all[all.len() - 2], all[all.len() - 1]);
    world.answer(idle, OK);
    world.answer(api, &invoke(&world, 900_000));
    world.post("fresh");
    world.post("more");
    let other = world.connect();
    world.answer(idle, OK);
    assert!(
        world.written.contains_key(&idle),
        "two live, and {slow:?} is suspect"
    );
    world.answer(other, OK);
    assert!(world.written.contains_key(&other));
}

/// One of two addresses was taken at the start.
#[test]
fn an_address_that_was_taken_is_tried_again_though_the_other_is_bound() {
    let (mut world, api) = sandbox_with(&[]);
    let taken = "127.0.0.1:4040".parse().unwrap();
    let kind = ErrorKind::AddrInUse;
    for _ in 0..2 {
        world.relay.unbound(&[(taken, kind)], world.now);
        world.answer(api, &invoke(&world, 900_000));
        assert_eq!(world.listens.pop(), Some(vec![taken]));
    }
    world.relay.unbound(&[], world.now);
    world.relay.started(&[taken], world.now);
    world.answer(api, &invoke(&world, 900_000));
    assert!(world.listens.is_empty(), "it is bound by now");
}

/// Freezes killed five exchanges twice; the server has answered all else at once.
#[test]
fn what_freezes_killed_says_nothing_about_the_server() {
    let (mut world, _api) = sandbox_with(&[]);
    world.post("first");
    let id = world.connect();
    world.seen(id);
    world.answer(
        id,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    );
    for _ in 0..5 {
        world.post("x");
        world.connect();
    }
    for _ in 0..2 {
        let frozen = SECOND * 300;
        world.now.mono += frozen;
        world.now.unix_ms += 300_000;
        world.relay.thawed(frozen, world.now);
        world.settle();
        world.relay_another();
        world.pass(SECOND);
        while !world.connecting.is_empty() {
            world.connect();
        }
        world.seen_on_all();
    }
    let log = world.log();
    assert!(!log.contains("Cannot reach the server"), "{log}");
}

/// The status line says 200, then there is garbage, and the end.
#[test]
fn a_readable_2xx_before_garbage_that_is_no_field() {
    for rest in ["\0\x01garbage", "garbage\r\n", "\u{15}\u{3}\u{3}"] {
        let mut world = World::new(&[]);
        world.post("x");
        let id = world.connect();
        world.answer(id, &format!("HTTP/1.1 200 OK\r\n{rest}"));
        world.close(id, End::Eof);
        assert_eq!(world.totals().relayed, 1, "{rest:?}");
    }
}

/// A 2xx whose length cannot be read: the profile is stored again and again, without an end.
#[test]
fn a_2xx_with_an_odd_length_is_not_stored_for_ever() {
    let mut world = World::new(&[]);
    world.post("x");
    let mut times = 0;
    for _ in 0..300 {
        if world.in_hand() == 0 {
            break;
        }
        let id = world.next_attempt();
        times += 1;
        world.answer(id, "HTTP/1.1 200 OK\r\nContent-Length: 2, 0\r\n\r\n{}");
    }
    assert!(times <= 5, "the server has stored it {times} times");
}

/// A label that a server quotes stops everything for the life of the sandbox, SHUTDOWN included.
#[test]
fn a_quotation_of_a_limit_in_the_year_9999_does_not_silence_the_relay() {
    for code in [400, 422, 429] {
        let mut world = World::new(&[]);
        world.post("x");
        let id = world.connect();
        let body = "invalid_argument: label value 'next reset at 9999-12-31T23:59:59Z' is too long";
        world.answer(
            id,
            &format!(
                "HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        );
        for _ in 0..25 {
            world.post("good");
            world.pass(SECOND * 3600);
            while !world.connecting.is_empty() {
                world.connect();
            }
        }
        assert!(
            world.seen_on_all().contains("good"),
            "{code}: silent for 25 hours"
        );
    }
}

/// A refusal (here of HTTP itself) by a server that answered before all was sent, with a limit in the past.
#[test]
fn a_limit_whose_reset_is_over_by_our_clock_is_still_a_limit() {
    let mut world = World::new(&[]);
    world.now.unix_ms = 1_795_305_600_000; // 2026-11-22T00:00:00Z: our clock is a moment ahead of the server's.
    world.post("x");
    let id = world.connect();
    let body = r#"{"code":"resource_exhausted","message":"limit of 1.0 GB/day reached, next reset at 2026-11-22T00:00:00Z"}"#;
    world.answer(
        id,
        &format!(
            "HTTP/1.1 422 X\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    assert_eq!(world.totals().lost_sum(), 0);
}

/// The freeze hit a client in the middle of its upload; it goes on right after the thaw.
#[test]
fn an_upload_that_a_freeze_cut_is_waited_for() {
    let (mut world, api) = sandbox_with(&[("PYROSCOPE_FLUSH_MODE", "invoke")]);
    let client = world.client();
    let request = b"POST /ingest HTTP/1.1\r\nHost: l\r\nContent-Length: 10\r\n\r\n0123456789";
    world.arrive(client, &request[..60], usize::MAX);
    let frozen = SECOND * 300;
    world.now.mono += frozen;
    world.now.unix_ms += 300_000;
    world.relay.thawed(frozen, world.now);
    world.answer(api, &invoke(&world, 900_000));
    assert_eq!(world.seen(api), "", "held");
}

/// One died with the wake and another has answered in the same turn.
#[test]
fn what_died_goes_out_on_a_new_connection_and_not_on_another_old_one() {
    let (mut world, api) = sandbox_with(&[]);
    world.post("first");
    let id = world.connect();
    world.seen(id);
    world.answer(
        id,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    );
    let both = [(); 2].map(|()| {
        world.post("x");
        let id = world.connect();
        world.seen(id);
        id
    });
    world.answer(api, &invoke(&world, 900_000));
    let [died, answered] = both;
    world
        .relay
        .ended(died, End::Io(ErrorKind::ConnectionReset), world.now);
    world.written.remove(&died);
    world.relay.space(answered)[..OK.len()].copy_from_slice(OK.as_bytes());
    world.relay.received(answered, OK.len(), world.now);
    world.settle();
    assert_eq!(world.connecting.len(), 1, "{:?}", world.seen_on_all());
}

/// A password with a slash, as it stands in the redirect of a server that puts the user before the host.
#[test]
fn no_part_of_a_password_is_logged() {
    for location in [
        "https://user:pass/word@elsewhere.example/path",
        "//user:pass/word@elsewhere.example/path",
        "/go//https://user:password@elsewhere.example/",
    ] {
        let mut world = World::new(&[]);
        world.post("x");
        let id = world.connect();
        world.answer(
            id,
            &format!("HTTP/1.1 302 X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"),
        );
        let log = world.log();
        assert!(!log.contains("pass"), "{location}: {log}");
    }
}

/// After the drain has begun, one profile gets 429 while others get through: no attempt is paused, all are spent.
#[test]
fn a_rate_limit_at_shutdown_does_not_use_up_five_attempts_in_a_moment() {
    let (mut world, api) = sandbox_with(&[]);
    for _ in 0..40 {
        world.post("x");
    }
    let at = world.now.unix_ms + 2000;
    world.answer(
        api,
        &super::world::event(&format!(
            r#"{{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":{at}}}"#
        )),
    );
    let mut requests = 0;
    let begun = world.now.mono;
    // Ten a second get through, evenly; to all else it says 429 at once.
    let mut passed = 0;
    while world.exit.is_none() {
        while !world.connecting.is_empty() {
            world.connect();
        }
        let mut any = false;
        for id in world.written.keys().copied().collect::<Vec<_>>() {
            if id != api
                && world.written.contains_key(&id)
                && world.seen(id).starts_with("POST /in")
            {
                requests += 1;
                any = true;
                let may = (world.now.mono - begun).as_millis() as u32 / 100 + 1;
                if passed < may {
                    passed += 1;
                    world.answer(id, OK);
                } else {
                    world.answer(id, &status(429));
                }
            }
        }
        if !any && world.connecting.is_empty() {
            world.pass_to_deadline();
        }
    }
    let totals = world.totals();
    assert_eq!(totals.lost[LossReason::Attempts as usize], 0);
    assert!(requests < 400, "{requests} requests");
}

/// Two reads in one turn: what comes after an answer is nobody's answer, and no request may wait for it there.
#[test]
fn what_comes_after_an_answer_in_the_same_turn_ends_the_connection() {
    let mut world = World::new(&[]);
    world.post("x");
    let id = world.connect();
    let mut unread = Vec::new();
    for bytes in [OK, &status(500)] {
        let space = world.relay.space(id);
        if space.is_empty() {
            unread.extend_from_slice(bytes.as_bytes());
            continue;
        }
        space[..bytes.len()].copy_from_slice(bytes.as_bytes());
        world.relay.received(id, bytes.len(), world.now);
    }
    world.settle();
    assert_eq!(world.totals().relayed, 1);
    world.offer(id, &unread, usize::MAX);
    assert!(!world.written.contains_key(&id));
    world.post("y");
    assert_eq!(world.connecting.len(), 1);
}

/// Whatever becomes of the rest: a final status was said, and it counts.
#[test]
fn a_final_status_counts_though_its_body_breaks_off() {
    for (status, relayed, lost) in [(200, 1, 0), (400, 0, 1)] {
        for why in [End::Eof, End::Io(ErrorKind::ConnectionReset)] {
            let mut world = World::new(&[]);
            world.post("x");
            let id = world.connect();
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 9\r\n\r\nhalf");
            world.answer(id, &answer);
            world.close(id, why);
            let totals = world.totals();
            assert_eq!((totals.relayed, totals.lost_sum()), (relayed, lost));
            assert_eq!((totals.resent, world.connecting.len()), (0, 0), "{status}");
        }
    }
}

/// A reset that is named after the first kilobyte of an answer is not looked for.
#[test]
fn the_first_kilobyte_of_an_answer_is_looked_at() {
    let limit = "limit of 1.0 GB/day reached, next reset at 2027-01-16T00:00:00Z";
    for (before, waits) in [(1024 - limit.len(), true), (1024, false)] {
        let mut world = World::new(&[]);
        world.post("x");
        let id = world.connect();
        let body = " ".repeat(before) + limit;
        let length = body.len();
        let answer = format!("HTTP/1.1 422 X\r\nContent-Length: {length}\r\n\r\n{body}");
        world.arrive(id, answer.as_bytes(), 700);
        assert_eq!(world.totals().lost_sum(), u64::from(!waits), "{before}");
    }
}
