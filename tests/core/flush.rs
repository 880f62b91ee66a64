//! The core while Lambda waits for it: the budget of a hold, what ends it, and copies of a snapshot. Under a made-up
//! clock.

use std::time::Duration;

use super::world::{
    OK, TELEMETRY_OK, World, deliver, invoke, invoke_as, sandbox_at_end, sandbox_with, status,
};
use pyroscope_lambda_extension::contract::ConnId;

const SECOND: Duration = Duration::from_secs(1);
const NOT_FINISHED: &str = "Flush not finished, the invocation is no longer held";

/// A sandbox in flush mode `end`, whose telemetry comes, in the invocation `r-1` that may take a quarter of an hour.
fn invoked_at_end() -> (World, ConnId) {
    let (mut world, api, subscription) = sandbox_at_end(&[]);
    world.answer(subscription, TELEMETRY_OK);
    world.answer(api, &invoke_as(&world, "r-1", 900_000));
    deliver(&mut world, "start", "r-1");
    assert_eq!(world.seen(api), "", "held");
    (world, api)
}

/// How long it is until the next event is asked for.
fn until_asked(world: &mut World, api: ConnId) -> Duration {
    let began = world.now.mono;
    while !world.seen(api).starts_with("GET ") {
        while !world.connecting.is_empty() {
            world.connect();
        }
        world.pass_to_deadline();
    }
    world.now.mono - began
}

#[test]
fn a_silent_server_holds_an_invocation_for_two_seconds() {
    let (mut world, api) = sandbox_with(&[("PYROSCOPE_FLUSH_MODE", "invoke")]);
    world.post("x");
    world.connect();
    world.answer(api, &invoke(&world, 900_000));
    assert_eq!(until_asked(&mut world, api), SECOND * 2);
    let log = world.log();
    assert!(log.contains(NOT_FINISHED), "{log}");
    assert!(
        log.contains(r#"cause="the server is slow" count=1"#),
        "{log}"
    );
    assert!(log.contains(" waiting=1"), "{log}");

    let (mut world, api) = invoked_at_end();
    world.post("x");
    world.connect();
    world.pass(SECOND * 5);
    deliver(&mut world, "runtimeDone", "r-1");
    assert_eq!(until_asked(&mut world, api), SECOND * 2);
    assert!(world.log().contains(NOT_FINISHED));
}

/// What a freeze killed is given up after a second; the server answers the resend in half a second.
#[test]
fn the_budget_is_enough_for_what_a_freeze_killed() {
    let (mut world, api) = sandbox_with(&[("PYROSCOPE_FLUSH_MODE", "invoke")]);
    world.post("x");
    world.connect();
    world.relay.thawed(SECOND * 300, world.now);
    world.answer(api, &invoke(&world, 900_000));
    assert_eq!(world.pass_to_deadline(), SECOND);
    let id = world.connect();
    world.pass(SECOND / 2);
    assert_eq!(world.seen(api), "");
    world.answer(id, OK);
    assert!(world.seen(api).starts_with("GET "));
    assert!(!world.log().contains(NOT_FINISHED));
}

#[test]
fn an_end_that_is_never_reported_is_waited_for_for_a_minute() {
    let (mut world, api) = invoked_at_end();
    assert_eq!(until_asked(&mut world, api), SECOND * 60);
    let log = world.log();
    assert!(log.contains("no platform.runtimeDone arrived"), "{log}");
    // The next one is as ever.
    world.answer(api, &invoke_as(&world, "r-2", 900_000));
    world.pass(SECOND * 5);
    assert_eq!(world.seen(api), "");
    deliver(&mut world, "runtimeDone", "r-2");
    assert!(world.seen(api).starts_with("GET "));
}

#[test]
fn dropped_telemetry_ends_the_wait() {
    let (mut world, api) = invoked_at_end();
    deliver(&mut world, "logsDropped", "whatever");
    assert!(world.seen(api).starts_with("GET "));
    world.answer(api, &invoke_as(&world, "r-2", 900_000));
    assert_eq!(world.seen(api), "", "that was then");
}

#[test]
fn an_upload_that_is_half_read_as_the_function_ends_is_waited_for() {
    for cut in [10, 60] {
        let (mut world, api) = invoked_at_end();
        let client = world.client();
        let request = b"POST /ingest HTTP/1.1\r\nHost: l\r\nContent-Length: 10\r\n\r\n0123456789";
        world.arrive(client, &request[..cut], usize::MAX);
        deliver(&mut world, "runtimeDone", "r-1");
        assert_eq!(world.seen(api), "", "{cut}");
        world.pass(SECOND / 10);
        world.arrive(client, &request[cut..], usize::MAX);
        assert_eq!(world.seen(api), "", "{cut}: it is to be sent, too");
        let server = world.connect();
        world.answer(server, OK);
        assert!(world.seen(api).starts_with("GET "), "{cut}");
    }
}

#[test]
fn an_upload_that_never_goes_on_is_waited_for_once_and_for_a_second() {
    let (mut world, api) = invoked_at_end();
    let client = world.client();
    world.arrive(client, b"POST /ingest HTTP/1.1\r\n", usize::MAX);
    deliver(&mut world, "runtimeDone", "r-1");
    assert_eq!(until_asked(&mut world, api), SECOND);
    world.answer(api, &invoke_as(&world, "r-2", 900_000));
    deliver(&mut world, "runtimeDone", "r-2");
    assert!(world.seen(api).starts_with("GET "), "not again");
}

/// Sixty wait as the function ends, and the server takes half a second for each.
#[test]
fn a_flush_opens_as_many_connections_as_it_needs() {
    for end in [false, true] {
        let (mut world, api) = if end {
            invoked_at_end()
        } else {
            sandbox_with(&[("PYROSCOPE_FLUSH_MODE", "invoke")])
        };
        for _ in 0..60 {
            world.post("x");
        }
        world.connect();
        assert_eq!(world.connecting.len(), 1, "one after the other, as ever");
        if end {
            deliver(&mut world, "runtimeDone", "r-1");
        } else {
            world.answer(api, &invoke(&world, 900_000));
        }
        assert_eq!(world.connecting.len(), 59);
        while !world.connecting.is_empty() {
            world.connect();
        }
        world.pass(SECOND / 2);
        for id in world.written.keys().copied().collect::<Vec<_>>() {
            if id != api && world.written.contains_key(&id) {
                world.answer(id, OK);
            }
        }
        assert_eq!(world.totals().relayed, 60, "{end}");
        assert!(world.seen(api).starts_with("GET "));
    }
}

#[test]
fn while_the_function_runs_there_are_no_more_connections_than_workers() {
    let (mut world, api) = invoked_at_end();
    for _ in 0..20 {
        world.post("x");
    }
    let first = world.connect();
    world.answer(first, OK);
    while !world.connecting.is_empty() {
        world.connect();
    }
    assert_eq!(world.written.len(), 5 + 1, "five, and the one to Lambda");
    assert_eq!(world.seen(api), "");
}

// Copies of a snapshot.

const NAMED: &str = "POST /ingest?name=app HTTP/1.1\r\nHost: l\r\nContent-Length: 0\r\n\r\n";

fn session(request: &str) -> &str {
    let (_, rest) = request.split_once("__session_id__%3D").expect("a session");
    &rest[..16]
}

/// Between the restore and the first INVOKE a copy has not been told that it is one.
#[test]
fn no_upload_before_the_first_invoke_has_the_session_of_another() {
    let (mut world, api) = sandbox_with(&[("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")]);
    let client = world.client();
    let mut sessions = Vec::new();
    world.arrive(client, NAMED.as_bytes(), usize::MAX);
    let server = world.connect();
    sessions.push(session(&world.seen(server)).to_owned());
    world.answer(server, OK);
    world.arrive(client, NAMED.as_bytes(), usize::MAX);
    sessions.push(session(&world.seen(server)).to_owned());
    world.answer(server, OK);
    world.answer(api, &invoke(&world, 3000));
    for _ in 0..2 {
        world.arrive(client, NAMED.as_bytes(), usize::MAX);
        if !world.connecting.is_empty() {
            world.connect();
        }
        let seen = world.seen_on_all();
        let upload = &seen[seen.find("POST /ingest").unwrap()..];
        sessions.push(session(upload).to_owned());
        let id = *world.written.keys().next_back().unwrap();
        world.answer(id, OK);
    }
    assert_eq!(sessions[2], sessions[3], "from then on it is the sandbox's");
    sessions.pop();
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions.len(), 3, "and before it is nobody's: {sessions:?}");
}

/// What was received before the snapshot is the same bytes in each copy: one profile at the server.
#[test]
fn what_was_received_before_the_snapshot_is_the_same_in_each_copy() {
    let (mut world, api) = sandbox_with(&[("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")]);
    let client = world.client();
    world.arrive(client, NAMED.as_bytes(), usize::MAX);
    let server = world.connect();
    let before = world.seen(server);
    world.answer(api, &invoke(&world, 3000));
    assert!(!world.written.contains_key(&server));
    let server = world.connect();
    assert_eq!(world.seen(server), before);
}

/// The upload began before the invocation: it is among what that one waits for.
#[test]
fn an_upload_that_is_half_read_at_the_invoke_is_waited_for() {
    for cut in [60, 70] {
        let (mut world, api) = sandbox_with(&[("PYROSCOPE_FLUSH_MODE", "invoke")]);
        let client = world.client();
        let request =
            b"POST /ingest HTTP/1.1\r\nHost: l\r\nContent-Length: 20\r\n\r\n01234567890123456789";
        world.arrive(client, &request[..cut], usize::MAX);
        world.answer(api, &invoke(&world, 900_000));
        assert_eq!(world.seen(api), "", "{cut}");
        world.arrive(client, &request[cut..], usize::MAX);
        assert_eq!(world.seen(api), "", "{cut}: it is to be sent, too");
        let server = world.connect();
        world.answer(server, OK);
        assert!(world.seen(api).starts_with("GET "), "{cut}");
    }
}

/// What mode `end` waited for will never be said; what mode `invoke` waits for has its own time.
#[test]
fn where_telemetry_is_refused_in_a_hold_the_budget_of_mode_invoke_begins() {
    let (mut world, api, subscription) = sandbox_at_end(&[]);
    world.answer(api, &invoke_as(&world, "r-1", 60_000));
    world.post("x");
    world.pass(SECOND);
    assert_eq!(world.seen(api), "", "runtimeDone may come yet");
    world.offer(subscription, b"HTTP/1.1 nonsense\r\n\r\n", usize::MAX);
    assert_eq!(world.seen(api), "", "a profile is under way");
    world.pass(SECOND * 2 - Duration::from_millis(1));
    assert_eq!(world.seen(api), "");
    world.pass(Duration::from_millis(1));
    assert!(world.seen(api).starts_with("GET "), "the budget is used up");
}

#[test]
fn a_hold_waits_out_a_pause_of_less_than_a_second() {
    let (mut world, api) = sandbox_with(&[("PYROSCOPE_FLUSH_MODE", "invoke")]);
    world.post("x");
    let id = world.connect();
    world.seen(id);
    world.answer(api, &invoke(&world, 900_000));
    world.answer(id, &status(503));
    assert_eq!(world.seen(api), "", "it is tried again soon");
    let id = world.next_attempt();
    assert_eq!(world.seen(api), "");
    world.answer(id, OK);
    assert!(world.seen(api).starts_with("GET "));
}

/// What came before the INVOKE is waited for; an upload that begins after it is the next one's.
#[test]
fn an_upload_that_begins_in_a_hold_does_not_make_it_longer() {
    let (mut world, api) = sandbox_with(&[("PYROSCOPE_FLUSH_MODE", "invoke")]);
    world.post("x");
    let id = world.connect();
    world.answer(api, &invoke(&world, 900_000));
    let client = world.client();
    let request = b"POST /ingest HTTP/1.1\r\nHost: l\r\nContent-Length: 10\r\n\r\n01234";
    world.arrive(client, request, usize::MAX);
    assert_eq!(world.seen(api), "");
    world.answer(id, OK);
    assert!(world.seen(api).starts_with("GET "));
}

/// The moment in which an upload has been silent for long enough does not hide the one in which the hold ends.
#[test]
fn a_hold_ends_in_time_though_an_upload_in_it_is_silent() {
    let (mut world, api) = sandbox_with(&[("PYROSCOPE_FLUSH_MODE", "invoke")]);
    world.post("x");
    world.connect();
    let client = world.client();
    let request = b"POST /ingest HTTP/1.1\r\nHost: l\r\nContent-Length: 10\r\n\r\n01234";
    world.arrive(client, request, usize::MAX);
    world.answer(api, &invoke(&world, 900_000));
    world.pass(SECOND);
    assert_eq!(world.seen(api), "", "the other one is under way");
    assert_eq!(world.asleep_for(), Some(SECOND));
    world.pass(SECOND);
    assert!(world.seen(api).starts_with("GET "));
}
