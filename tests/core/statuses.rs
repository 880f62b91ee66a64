//! The core: what an answer's status means, and a server that is down.

use std::time::Duration;

use pyroscope_lambda_extension::relay::ring::LossReason;

use super::world::{OK, World, status};

#[test]
fn a_server_that_is_down_is_probed_by_one_and_costs_no_attempt() {
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
            (world.lost(LossReason::Attempts), world.totals().resent),
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
        assert_eq!(world.lost(LossReason::Refused), 2, "{code}");
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
            LossReason::Attempts
        } else {
            LossReason::Refused
        };
        assert_eq!(world.lost(loss), 1, "{words}");
    }
}

#[test]
fn a_server_that_refuses_is_not_down() {
    let mut world = World::new(&[]);
    for _ in 0..3 {
        world.post("x");
    }
    world.refuse();
    world.pass_to_deadline();
    let id = world.connect();
    world.answer(id, &status(401));
    assert_eq!(world.lost(LossReason::Refused), 1);
    assert!(world.seen(id).ends_with("x"), "the next one goes at once");
    assert_eq!(world.connecting.len(), 1, "and the one behind it");
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
