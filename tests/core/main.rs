//! The core alone, under a made-up clock, with peers made of bytes. No socket, no thread, no waiting.
//!
//! | file | what it tries |
//! |---|---|
//! | `main` | every row of the table of failures, the freeze, the shutdown, and Lambda's events |
//! | `silence` | connections that die without a word |
//! | `failing` | servers that fail, ask for patience or are slow; several addresses; the end |
//! | `encrypted` | servers that speak TLS, or should |
//! | `flush` | what Lambda waits for, and copies of a snapshot |
//! | `labels` | labels of the settings |
//! | `limits` | what is bounded |
//! | `sampling` | the share of profiles that is kept |
//! | `times` | times that are made unique, and uploads of nothing |
//! | `odd` | much in one turn, and peers that mean no good |

#[path = "../support/certificates.rs"]
#[allow(dead_code, reason = "each program uses its own part of the bench")]
mod certificates;
mod credentials;
mod encrypted;
mod failing;
mod flush;
mod labels;
mod limits;
mod odd;
mod sampling;
mod silence;
mod times;
#[path = "../support/world.rs"]
mod world;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use pyroscope_lambda_extension::contract::{ConnId, End, Ends, Peer};
use pyroscope_lambda_extension::relay::ring::Loss;
use world::{
    ELSEWHERE, OK, TELEMETRY_OK, World, deliver, event, invoke, invoke_as, named_remote, sandbox,
    sandbox_at_end, sandbox_with, status,
};

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
        let remote = world.connect();
        for (path, end) in [
            ("/a", "3\r\n\r\nabc"),
            ("/b", "3\r\n\r\ndef"),
            ("/c", "l\r\n\r\n"),
            ("/d", "0\r\n\r\n"),
        ] {
            let seen = world.seen(remote);
            assert!(
                seen.contains(&format!("T {path} HTTP/1.1\r\n")) && seen.ends_with(end),
                "{step}: {seen:?}"
            );
            world.answer(remote, OK);
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
        "nobody knows yet whether the remote is there"
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
fn an_idle_connection_that_the_remote_closes_is_let_go() {
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
fn a_backend_that_is_down_is_probed_by_one_and_costs_no_attempt() {
    let mut world = World::new(&[]);
    for body in ["a", "b", "c"] {
        world.post(body);
    }
    world.refuse();
    let mut waited = Duration::ZERO;
    for _ in 0..20 {
        assert!(world.connecting.is_empty());
        let pause = world.pass_to_deadline();
        assert!(pause <= Duration::from_secs(2), "{pause:?}");
        waited += pause;
        assert_eq!(world.connecting.len(), 1, "one probes");
        world.refuse();
    }
    assert!(waited > Duration::from_secs(25), "{waited:?}");
    assert_eq!(
        world.log().matches("level=error").count(),
        1,
        "one line, not one per attempt"
    );
    world.pass_to_deadline();
    let id = world.connect();
    assert_eq!(world.connecting.len(), 0, "a connection is no success yet");
    world.answer(id, OK);
    assert!(world.log().contains("can be reached again"));
    assert_eq!(
        world.connecting.len(),
        1,
        "all go; the first connection is busy again"
    );
    let second = world.connect();
    world.answer(id, OK);
    world.answer(second, OK);
    assert_eq!((world.totals().relayed, world.totals().lost_sum()), (3, 0));
}

#[test]
fn statuses_that_may_pass_are_tried_five_times_while_others_get_through() {
    for code in [
        408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524, 529, 530,
    ] {
        let mut world = World::new(&[]);
        world.post("x");
        for _ in 0..5 {
            world.relay_another();
            let id = world.next_attempt();
            world.answer(id, &status(code));
        }
        assert_eq!(
            (world.lost(Loss::Attempts), world.totals().resent),
            (1, 4),
            "{code}"
        );
    }
}

#[test]
fn retry_after_is_honoured_up_to_a_bound() {
    for (seconds, expected) in [("7", 7), ("3600", 30)] {
        let mut world = World::new(&[]);
        world.post("x");
        let id = world.connect();
        world.seen(id);
        world.answer(
            id,
            &format!("HTTP/1.1 503 X\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n"),
        );
        world.pass(Duration::from_millis(expected * 1000 - 1));
        assert_eq!(world.seen(id), "");
        world.pass(Duration::from_millis(1));
        assert!(world.seen(id).ends_with("x"));
    }
}

#[test]
fn refusals_are_final_and_logged_once_a_minute() {
    for code in [301, 400, 401, 403, 404, 413, 415, 422, 499, 501] {
        let mut world = World::new(&[]);
        for _ in 0..2 {
            world.post("x");
            if !world.connecting.is_empty() {
                world.connect();
            }
            let id = *world.written.keys().next_back().unwrap();
            world.answer(
                id,
                &format!("HTTP/1.1 {code} X\r\nLocation: /there\r\nContent-Length: 3\r\n\r\nwhy"),
            );
        }
        assert_eq!(world.lost(Loss::Refused), 2, "{code}");
        let log = world.log();
        assert_eq!(log.matches("refuses").count(), 1, "{log}");
        assert!(log.contains(&format!("status {code}")), "{log}");
        assert_eq!(log.contains("status 301: /there"), code == 301, "{log}");
        assert!(!log.contains("why"), "{log}");
    }
}

/// What a Pyroscope server 1.21.1 answers, word for word.
#[test]
fn what_pyroscope_says_counts_where_its_status_misleads() {
    for (code, words, tries) in [
        // Of a profile in a pprof or a JFR, /ingest says of all that goes wrong that it cannot be processed.
        (
            422,
            "pushing IngestInput-pprof failed push series with index 0 and id  failed: unknown: empty ring",
            5,
        ),
        (
            422,
            "pushing IngestInput-pprof failed push series with index 0 and id  failed: unknown: rpc error: \
             code = Unavailable desc = service is unavailable",
            5,
        ),
        (
            422,
            "pushing IngestInput-pprof failed push series with index 0 and id  failed: resource_exhausted: \
             push rate limit (104 B) exceeded while adding 307 B",
            5,
        ),
        (
            422,
            "pushing IngestInput-pprof failed push series with index 0 and id  failed: invalid_argument: \
             profile series '{l1='1'}' has 44 label names; limit 30",
            1,
        ),
        (
            422,
            "parsing IngestInput-pprof failed invalid_argument: gzip reset: unexpected EOF",
            1,
        ),
        // Push says of what is too large what it says of what is too much.
        (
            429,
            "push rate limit (104 B) exceeded while adding 267 B",
            5,
        ),
        (
            429,
            "message size 3000000 is larger than configured max 1048576",
            1,
        ),
    ] {
        let mut world = World::new(&[]);
        world.post("x");
        let body = format!(r#"{{"code":"unknown","message":"{words}"}}"#);
        for attempt in 1..=tries {
            assert_eq!(world.totals().lost_sum(), 0, "{words}, {attempt}");
            world.relay_another();
            let id = world.next_attempt();
            let length = body.len();
            world.answer(
                id,
                &format!("HTTP/1.1 {code} X\r\nContent-Length: {length}\r\n\r\n{body}"),
            );
        }
        let loss = if tries > 1 {
            Loss::Attempts
        } else {
            Loss::Refused
        };
        assert_eq!(world.lost(loss), 1, "{words}");
    }
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
    assert_eq!(world.lost(Loss::Refused), 1);
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
fn a_name_that_is_not_found_is_a_backend_that_is_down() {
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
    assert_eq!(world.lost(Loss::Unusable), 2);
    assert_eq!(world.log().matches("PYROSCOPE_REMOTE_ADDRESS").count(), 1);
    world.relay.terminated(world.now);
    world.settle();
    assert_eq!(world.exit, Some(0));
    assert!(world.log().contains("lost=2 lost_unusable_address=2"));
}

#[test]
fn leaving_waits_for_what_is_in_hand_and_takes_more() {
    let mut world = World::new(&[]);
    world.post("x");
    let id = world.connect();
    world.relay.terminated(world.now);
    world.settle();
    assert_eq!(world.exit, None);
    world.post("last words");
    let second = world.connect();
    world.answer(id, OK);
    assert_eq!(world.exit, None);
    world.answer(second, OK);
    assert_eq!((world.exit, world.totals().relayed), (Some(0), 2));
}

#[test]
fn leaving_ends_in_time_and_counts_what_remains() {
    let mut world = World::new(&[]);
    world.post("x");
    world.post("y");
    world.connect();
    world.relay.terminated(world.now);
    world.settle();
    assert_eq!(world.pass_to_deadline(), Duration::from_millis(1900));
    assert_eq!((world.exit, world.lost(Loss::Shutdown)), (Some(0), 2));
}

#[test]
fn invocations_are_answered_at_once() {
    let (mut world, api) = sandbox();
    for _ in 0..3 {
        world.post("a payload that goes nowhere");
        world.answer(
            api,
            &event(r#"{"eventType":"INVOKE","requestId":"r","deadlineMs":1}"#),
        );
        assert!(world.seen(api).starts_with("GET "));
    }
    assert_eq!(
        world.relay.deadline(world.now),
        Some(world.now.mono + Duration::from_secs(1)),
        "only the attempt has one, which a freeze may have killed"
    );
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

#[test]
fn events_that_make_no_sense_are_passed_over() {
    let (mut world, mut api) = sandbox();
    for odd in [
        "",
        "null",
        "{",
        "{}",
        r#"{"eventType":"SNAPSHOT"}"#,
        r#"{"eventType":7}"#,
    ] {
        world.answer(api, &event(odd));
        assert!(
            !world.written.contains_key(&api),
            "not asked again at once: {odd:?}"
        );
        assert!(world.log().contains("level=warning"), "{odd:?}");
        world.pass(Duration::from_mins(1));
        api = world.connect();
        assert!(world.seen(api).starts_with("GET "), "{odd:?}");
    }
}

#[test]
fn the_next_event_is_asked_for_again_when_lambda_fails_to_answer() {
    let (mut world, api) = sandbox();
    world.close(api, End::Eof);
    let api = world.connect();
    assert!(
        world.seen(api).starts_with("GET "),
        "at once where only the connection had died"
    );
    world.answer(api, &status(500));
    assert!(!world.written.contains_key(&api));
    assert!(
        world.pass_to_deadline() > Duration::ZERO,
        "with a pause where it was refused"
    );
    let api = world.connect();
    assert!(world.seen(api).starts_with("GET "));
    assert_eq!(world.exit, None);
}

#[test]
fn shutdown_has_lambdas_deadline() {
    let (mut world, api) = sandbox();
    world.post("x");
    let at = world.now.unix_ms + 1500;
    world.answer(
        api,
        &event(&format!(
            r#"{{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":"{at}"}}"#
        )),
    );
    assert_eq!(world.seen(api), "", "no event is asked for any more");
    assert_eq!(
        world.pass_to_deadline(),
        Duration::from_secs(1),
        "then the connection counts as dead"
    );
    assert_eq!(world.connecting.len(), 1, "and another is asked for");
    assert_eq!(world.pass_to_deadline(), Duration::from_millis(400));
    assert_eq!((world.exit, world.lost(Loss::Shutdown)), (Some(0), 1));
}

#[test]
fn managed_instances_refuse_invoke() {
    let mut world = World::new(&[
        ("PYROSCOPE_DEV_MODE", ""),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ]);
    let api = world.connect();
    assert!(
        world
            .seen(api)
            .ends_with(r#"{"events":["INVOKE","SHUTDOWN"]}"#)
    );
    let refusal = r#"{"errorType":"Extension.InvalidEventType"}"#;
    world.answer(
        api,
        &format!(
            "HTTP/1.1 403 F\r\nContent-Length: {}\r\n\r\n{refusal}",
            refusal.len()
        ),
    );
    assert!(world.seen(api).ends_with(r#"{"events":["SHUTDOWN"]}"#));
    world.answer(api, "HTTP/1.1 403 F\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(world.exit, Some(1));
    assert!(world.log().contains("refused to register"));
}

#[test]
fn the_session_is_drawn_anew_after_the_first_invoke() {
    let (mut world, api) = sandbox();
    let name = "POST /ingest?name=app HTTP/1.1\r\nHost: l\r\nContent-Length: 0\r\n\r\n";
    let client = world.client();
    world.arrive(client, name.as_bytes(), usize::MAX);
    let remote = world.connect();
    assert!(
        world
            .seen(remote)
            .contains("name=app%7B__session_id__%3D0123456789abcdef%7D")
    );
    world.answer(remote, OK);
    world.answer(api, &event(r#"{"eventType":"INVOKE"}"#));
    world.arrive(client, name.as_bytes(), usize::MAX);
    let relayed = world.seen(remote);
    assert!(relayed.contains("__session_id__%3D"), "{relayed}");
    assert!(!relayed.contains("0123456789abcdef"), "{relayed}");
}

/// With SnapStart, a sandbox is copied after its init: no copy uses what all copies have.
#[test]
fn a_copied_sandbox_begins_with_nothing_of_the_original() {
    for (kind, connections) in [("snap-start", 1), ("on-demand", 0)] {
        let (mut world, api) = sandbox_with(&[
            ("PYROSCOPE_REMOTE_ADDRESS", "http://remote.example"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", kind),
        ]);
        let address = "10.0.0.1:80";
        world.post("in the init");
        named_remote(&mut world, &[address]);
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
            named_remote(&mut world, &[address]);
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

#[test]
fn leaving_tries_a_backend_that_is_down_at_once() {
    let mut world = World::new(&[]);
    world.post("x");
    for _ in 0..5 {
        world.refuse();
        world.pass_to_deadline();
    }
    world.refuse();
    world.relay.terminated(world.now);
    world.settle();
    let id = world.connect();
    world.answer(id, OK);
    assert_eq!((world.exit, world.totals().relayed), (Some(0), 1));
}

#[test]
fn leaving_ends_the_pauses_of_payloads() {
    let mut world = World::new(&[]);
    world.post("x");
    let id = world.connect();
    world.answer(
        id,
        "HTTP/1.1 503 X\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n",
    );
    world.seen(id);
    world.relay.terminated(world.now);
    world.settle();
    assert!(world.seen(id).ends_with("x"));
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

#[test]
fn a_body_that_never_fits_is_refused_whoever_else_is_there() {
    for other in [false, true] {
        let mut world = World::new(&[("PYROSCOPE_BUFFER_BYTES", "1000000")]);
        if other {
            world.post(&"y".repeat(300_000));
        }
        let client = world.client();
        world.arrive(
            client,
            b"POST / HTTP/1.1\r\nHost: l\r\nTransfer-Encoding: chunked\r\n\r\n",
            usize::MAX,
        );
        while world.written[&client].is_empty() {
            let chunk = [&b"1000\r\n"[..], &[b'x'; 0x1000], b"\r\n"].concat();
            world.offer(client, &chunk, usize::MAX);
        }
        assert!(world.seen(client).starts_with("HTTP/1.1 413 "));
        assert_eq!(world.half_closed, [client]);
        assert_eq!(world.totals().acknowledged, u64::from(other));
    }
}

#[test]
fn a_client_that_is_refused_again_and_again_is_logged_once() {
    let mut world = World::new(&[]);
    for _ in 0..10 {
        let client = world.client();
        world.arrive(client, b"POST / HTTP/3.0\r\n\r\n", usize::MAX);
        assert!(world.seen(client).starts_with("HTTP/1.1 505 "));
    }
    assert_eq!(world.log().matches("Request refused").count(), 1);
    world.pass(Duration::from_secs(60));
    let client = world.client();
    world.arrive(client, b"\0", usize::MAX);
    assert!(world.log().contains(" comp=controller count=10 "));
}

#[test]
fn ten_minutes_of_failure_are_twelve_lines_at_most() {
    for refuses_connections in [true, false] {
        let mut world = World::new(&[]);
        let mut lines = String::new();
        for _ in 0..600 {
            world.post("x");
            let second = world.now.mono + Duration::from_secs(1);
            while world.now.mono < second {
                while !world.connecting.is_empty() {
                    if refuses_connections {
                        world.refuse();
                    } else {
                        world.connect();
                    }
                }
                for id in world.written.keys().copied().collect::<Vec<_>>() {
                    if !world.seen(id).is_empty() {
                        world.answer(id, &status(401));
                    }
                }
                let next = world
                    .relay
                    .deadline(world.now)
                    .map_or(second, |at| at.min(second));
                world.pass(next - world.now.mono);
            }
            lines += &world.log();
        }
        let count = lines.lines().count();
        assert!((10..=12).contains(&count), "{count} lines:\n{lines}");
        assert_eq!(world.totals().acknowledged, 600);
    }
}

#[test]
fn flush_on_invoke_waits_for_what_was_there_and_takes_more() {
    let (mut world, api) = sandbox_with(&[("PYROSCOPE_FLUSH_ON_INVOKE", "T")]);
    world.answer(api, &invoke(&world, 3000));
    assert!(
        world.seen(api).starts_with("GET "),
        "nothing waits, nothing is held"
    );
    world.post("x");
    let remote = world.connect();
    world.answer(api, &invoke(&world, 3000));
    assert_eq!(world.seen(api), "", "held");
    world.post("later: answered at once, and not waited for");
    world.pass(Duration::from_millis(250));
    world.answer(remote, OK);
    assert!(world.seen(api).starts_with("GET "));
    world.relay.terminated(world.now);
    world.settle();
    world.pass_to_deadline();
    assert!(world.log().contains(" held_ms=250 "));
}

#[test]
fn flush_on_invoke_knows_the_deadline_and_a_dead_backend() {
    let (mut world, api) = sandbox_with(&[("PYROSCOPE_FLUSH_ON_INVOKE", "true")]);
    world.post("x");
    world.connect();
    world.answer(api, &invoke(&world, 1100));
    assert_eq!(world.pass_to_deadline(), Duration::from_millis(900));
    assert!(
        world.seen(api).starts_with("GET "),
        "in time for the function"
    );

    let (mut world, api) = sandbox_with(&[("PYROSCOPE_FLUSH_ON_INVOKE", "true")]);
    world.post("x");
    world.answer(api, &invoke(&world, 3000));
    assert_eq!(world.seen(api), "");
    // The one that was under way as the event came may have died of a freeze; the next one says it is down.
    world.refuse();
    world.refuse();
    assert!(world.seen(api).starts_with("GET "), "at once");
    world.answer(api, &invoke(&world, 3000));
    assert!(
        world.seen(api).starts_with("GET "),
        "and from then on never held"
    );
}

#[test]
fn a_silent_address_does_not_hold_up_the_next() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    named_remote(&mut world, &["10.0.0.1:80", "10.0.0.2:80"]);
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
    named_remote(&mut world, &["10.0.0.1:80", "10.0.0.2:80"]);
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
    named_remote(&mut world, &["10.0.0.1:80", "10.0.0.2:80"]);
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
        named_remote(&mut world, &["10.0.0.1:80"]);
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
    named_remote(&mut world, &["0.0.0.0:4040", "10.0.0.2:4040"]);
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
    assert_eq!(world.lost(Loss::Unusable), 4);
    let log = world.log();
    let line = "level=error msg=\"Unusable setting\" problem=\"is this relay itself\" svc=pyroscope-lambda-ext-main variable=PYROSCOPE_REMOTE_ADDRESS";
    assert_eq!(log.matches(line).count(), 1, "{log}");
    assert_eq!(log.matches("level=error").count(), 1, "{log}");
}

#[test]
fn an_extensions_api_without_an_address_is_asked_for_with_pauses() {
    let mut world = World::new(&[
        ("PYROSCOPE_DEV_MODE", ""),
        ("AWS_LAMBDA_RUNTIME_API", "lambda.test:9001"),
    ]);
    let mut lookups = 0;
    while world.exit.is_none() {
        assert_eq!(
            world.resolving.pop(),
            Some((Peer::Lambda, "lambda.test:9001".to_owned()))
        );
        lookups += 1;
        world
            .relay
            .resolved(Peer::Lambda, Err("no such name".to_owned()), world.now);
        world.settle();
        if world.exit.is_none() {
            assert!(world.resolving.is_empty(), "not at once");
            world.pass_to_deadline();
        }
    }
    assert_eq!((world.exit, lookups), (Some(1), 8));
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
fn the_idlest_client_gives_way() {
    let mut world = World::new(&[]);
    let busy = world.client();
    world.arrive(
        busy,
        b"POST / HTTP/1.1\r\nHost: l\r\nContent-Length: 2\r\n\r\nx",
        usize::MAX,
    );
    for _ in 0..200 {
        world.pass(Duration::from_millis(5));
        world.client();
    }
    world.settle();
    assert_eq!(world.written.len(), 64);
    world.arrive(busy, b"y", usize::MAX);
    assert_eq!(
        world.totals().acknowledged,
        1,
        "the oldest is in the middle of something"
    );
    assert_eq!(world.log().matches("Too many").count(), 1);
}

#[test]
fn flush_on_invoke_does_not_wait_out_a_pause() {
    let (mut world, api) = sandbox_with(&[("PYROSCOPE_FLUSH_ON_INVOKE", "true")]);
    world.post("x");
    let id = world.connect();
    world.answer(api, &invoke(&world, 900_000));
    assert_eq!(world.seen(api), "", "held");
    let patience = "HTTP/1.1 429 X\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n";
    world.answer(id, patience);
    assert!(world.seen(api).starts_with("GET "));
}

#[test]
fn a_refused_registration_closes_the_account() {
    let mut world = World::new(&[
        ("PYROSCOPE_DEV_MODE", ""),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ]);
    let api = world.connect();
    world.post("x");
    world.answer(api, &status(500));
    assert_eq!((world.exit, world.lost(Loss::Shutdown)), (Some(1), 1));
    assert!(world.log().contains("acknowledged=1 "));
}

#[test]
fn a_backend_that_refuses_is_not_down() {
    let mut world = World::new(&[]);
    for _ in 0..3 {
        world.post("x");
    }
    world.refuse();
    world.pass_to_deadline();
    let id = world.connect();
    world.answer(id, &status(401));
    assert_eq!(world.lost(Loss::Refused), 1);
    assert!(world.seen(id).ends_with("x"), "the next one goes at once");
    assert_eq!(world.connecting.len(), 1, "and the one behind it");
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

/// A client that began a body and says no more holds a connection; the room it took is others' when they need it.
#[test]
fn a_silent_client_does_not_keep_the_ring() {
    let mut world = World::new(&[("PYROSCOPE_BUFFER_BYTES", "1000000")]);
    let silent: Vec<ConnId> = (0..3).map(|_| world.client()).collect();
    let head = "POST /ingest HTTP/1.1\r\nHost: l\r\nContent-Length: 300000\r\n\r\n";
    for id in &silent {
        world.arrive(*id, head.as_bytes(), usize::MAX);
        world.arrive(*id, &vec![b'a'; 299_999], usize::MAX);
    }
    let body = "b".repeat(400_000);
    world.post(&body);
    assert_eq!(world.lost(Loss::Full), 1, "they may be quick");

    // A freeze is nobody's fault.
    world.relay.thawed(Duration::from_secs(20), world.now);
    world.now.mono += Duration::from_secs(20);
    world.post(&body);
    assert_eq!(world.lost(Loss::Full), 2);

    world.pass(Duration::from_secs(10));
    world.post(&body);
    assert_eq!(world.lost(Loss::Full), 2, "they had their time");
    // The first two gave way to it. They are still served, and told nothing: the loss is counted.
    for id in &silent {
        world.arrive(*id, b"a", usize::MAX);
        assert_eq!(world.seen(*id), OK);
    }
    assert_eq!(world.lost(Loss::Full), 4);
    assert_eq!(world.totals().acknowledged, 6);
    let remote = world.connect();
    assert!(world.seen(remote).ends_with("bbb"), "the oldest that waits");
}

#[test]
fn flush_at_end_waits_for_the_function_and_for_the_ring() {
    let (mut world, api, subscription) = sandbox_at_end(&[]);
    world.answer(subscription, TELEMETRY_OK);
    assert!(
        !world.written.contains_key(&subscription),
        "it has served its purpose"
    );

    world.answer(api, &invoke_as(&world, "r-1", 3000));
    deliver(&mut world, "start", "r-1");
    assert_eq!(world.seen(api), "", "the function runs");
    world.post("x");
    let remote = world.connect();
    deliver(&mut world, "runtimeDone", "r-0");
    world.pass(Duration::from_millis(100));
    assert_eq!(world.seen(api), "", "that was another invocation");
    deliver(&mut world, "runtimeDone", "r-1");
    assert_eq!(world.seen(api), "", "the profile is not there yet");
    world.answer(remote, OK);
    assert!(world.seen(api).starts_with("GET "), "now all is done");

    // The end may be heard of before the beginning, and before the end of another once more.
    deliver(&mut world, "runtimeDone", "r-2");
    deliver(&mut world, "runtimeDone", "r-1");
    world.answer(api, &invoke_as(&world, "r-2", 3000));
    assert!(world.seen(api).starts_with("GET "));

    // Nothing is heard: never past the function's time.
    world.answer(api, &invoke_as(&world, "r-3", 3000));
    world.pass(Duration::from_millis(1500));
    assert_eq!(world.seen(api), "");
    assert_eq!(world.pass_to_deadline(), Duration::from_millis(1300));
    assert!(world.seen(api).starts_with("GET "));
    world.relay.terminated(world.now);
    world.settle();
    let log = world.log();
    assert!(log.contains(" held_ms=2900 "), "{log}");
    assert!(!log.contains("level=warning"), "{log}");
}

#[test]
fn flush_at_end_does_not_wait_for_a_dead_backend() {
    let (mut world, api, subscription) = sandbox_at_end(&[]);
    world.answer(subscription, TELEMETRY_OK);
    world.answer(api, &invoke_as(&world, "r-1", 3000));
    deliver(&mut world, "start", "r-1");
    world.post("x");
    world.refuse();
    assert!(world.seen(api).starts_with("GET "), "at once");
    world.answer(api, &invoke_as(&world, "r-2", 3000));
    assert!(world.seen(api).starts_with("GET "), "and from then on");
}

#[test]
fn without_telemetry_flush_mode_end_is_invoke() {
    let not_supported = "HTTP/1.1 202 Accepted\r\nContent-Length: 65\r\n\r\n\
        {\"errorMessage\":\"not supported\",\"errorType\":\"Telemetry.NotSupported\"}";
    for fault in [
        not_supported,
        "HTTP/1.1 nonsense\r\n\r\n",
        "close",
        "silence",
    ] {
        let (mut world, api, subscription) = sandbox_at_end(&[]);
        match fault {
            "close" => world.close(subscription, End::Eof),
            "silence" => {}
            answer => drop(world.offer(subscription, answer.as_bytes(), usize::MAX)),
        }
        world.answer(api, &invoke_as(&world, "r-1", 3000));
        if fault == "silence" {
            assert_eq!(world.seen(api), "");
            let waited = world.pass_to_deadline();
            assert_eq!(waited, Duration::from_secs(2), "nothing was ever heard");
        }
        assert!(world.seen(api).starts_with("GET "), "{fault}");
        let log = world.log();
        let line = "No telemetry available, flush mode end becomes invoke";
        assert_eq!(log.matches("level=warning").count(), 1, "{log}");
        assert!(log.contains(line), "{log}");

        world.post("x");
        let remote = world.connect();
        world.answer(api, &invoke_as(&world, "r-2", 3000));
        assert_eq!(world.seen(api), "", "as in invoke");
        world.answer(remote, OK);
        assert!(world.seen(api).starts_with("GET "), "{fault}");
        assert!(!world.log().contains("level=warning"));
    }
}

#[test]
fn the_subscription_holds_up_the_first_event_no_longer_than_it_may() {
    let lambda = [
        ("PYROSCOPE_DEV_MODE", ""),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
        ("PYROSCOPE_FLUSH_MODE", "end"),
    ];
    let mut world = World::new(&lambda);
    let api = world.connect();
    world.seen(api);
    world.answer(
        api,
        "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: id-1\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert_eq!(world.seen(api), "");
    assert_eq!(world.pass_to_deadline(), Duration::from_secs(1));
    assert!(world.seen(api).starts_with("GET "), "it never connects");
}

#[test]
fn the_telemetry_port_takes_batches_and_nothing_else() {
    let (mut world, api, subscription) = sandbox_at_end(&[]);
    world.answer(subscription, TELEMETRY_OK);
    world.answer(api, &invoke_as(&world, "r-1", 3000));
    deliver(&mut world, "start", "r-1");
    let large = 1 << 20;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "405"),
        ("POST / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (
            "POST /ingest HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx".to_owned(),
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(),
            "400",
        ),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                large + 1
            ),
            "413",
        ),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}",
                large + 1,
                " ".repeat(large + 1)
            ),
            "413",
        ),
        (
            format!("POST / HTTP/1.1\r\nHost: {}", "a".repeat(70_000)),
            "431",
        ),
    ] {
        let id = world.relay.telemetry_accepted();
        world.written.insert(id, Vec::new());
        let mut sent = 0;
        while sent < request.len() && world.written.contains_key(&id) {
            // The connection is closed behind the answer, which is then all that was written.
            let space = world.relay.space(id);
            let n = space.len().min(request.len() - sent);
            space[..n].copy_from_slice(&request.as_bytes()[sent..sent + n]);
            world.relay.received(id, n, world.now);
            let answer = String::from_utf8(world.relay.pending(id).concat()).unwrap();
            sent += n;
            if !answer.is_empty() {
                assert_eq!(&answer[9..12], status, "{request:.80}");
                sent = usize::MAX;
            }
            world.settle();
        }
        assert_eq!(sent, usize::MAX, "never answered: {request:.80}");
        assert!(!world.written.contains_key(&id), "{request:.80}");
    }
    assert_eq!(world.totals().acknowledged, 0, "none of it is a profile");
    assert_eq!(
        world
            .log()
            .matches("Unexpected response from Lambda")
            .count(),
        1
    );

    // Many connections take no more than a few places.
    let many: Vec<_> = (0..10).map(|_| world.relay.telemetry_accepted()).collect();
    for id in &many {
        world.written.insert(*id, Vec::new());
    }
    world.settle();
    assert_eq!(
        many.iter()
            .filter(|id| world.written.contains_key(id))
            .count(),
        4
    );
    assert_eq!(world.seen(api), "", "still held");
    deliver(&mut world, "runtimeDone", "r-1");
    assert!(world.seen(api).starts_with("GET "));
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

/// A remote that accepts and closes at once was not reached: that costs the payload no attempt.
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
fn a_client_that_has_just_come_does_not_give_way() {
    let mut world = World::new(&[]);
    for _ in 0..64 {
        let id = world.client();
        world.arrive(id, b"POST /slow HT", usize::MAX);
    }
    let fresh = world.client();
    for _ in 0..63 {
        world.client();
    }
    world.arrive(
        fresh,
        b"POST /a HTTP/1.1\r\nHost: l\r\nContent-Length: 1\r\n\r\nx",
        usize::MAX,
    );
    assert_eq!(world.seen(fresh), OK);
}
