//! The core and a server that fails, asks for patience, or is slow: nothing is lost by it, and it is not asked in vain.
//! Under a made-up clock.

use std::time::Duration;

use pyroscope_lambda_extension::contract::End;
use pyroscope_lambda_extension::relay::ring::LossReason;

use super::server::{Server, with_retry_after};
use super::world::{OK, World, sandbox, status};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn a_server_that_fails_for_a_minute_loses_nothing() {
    for code in [429, 500, 502, 503, 507, 529] {
        for answers_after in [Duration::ZERO, SECOND / 2] {
            let mut world = World::new(&[]);
            let mut server = Server::new(answers_after);
            for _ in 0..30 {
                world.post("x");
                server.serve(&mut world, SECOND * 2, |_| status(code));
            }
            assert!(server.requests < 80, "{} requests", server.requests);
            server.serve(&mut world, SECOND * 10, |_| OK.to_owned());
            let totals = world.totals();
            assert_eq!((totals.relayed, totals.lost_sum()), (30, 0), "{code}");
        }
    }
}

#[test]
fn one_bad_profile_among_good_ones_ends_after_its_attempts() {
    let mut world = World::new(&[]);
    let mut server = Server::new(Duration::ZERO);
    world.post("bad");
    let answer = |body: &str| {
        if body == "bad" {
            status(500)
        } else {
            OK.to_owned()
        }
    };
    for _ in 0..20 {
        server.serve(&mut world, SECOND, answer);
        world.post("good");
    }
    server.serve(&mut world, SECOND, answer);
    assert_eq!(
        (world.totals().relayed, world.lost(LossReason::Attempts)),
        (20, 1)
    );
    let bad = server.came.iter().filter(|body| *body == "bad").count();
    assert!((5..=10).contains(&bad), "sent {bad} times");

    let log = world.log();
    let line = "msg=\"Profiles are lost, all attempts failed\" ";
    assert_eq!(log.matches(line).count(), 1, "{log}");
    assert_eq!(last_level(&mut world), "warning");
}

/// At which level the account is logged at the end.
fn last_level(world: &mut World) -> String {
    world.relay.terminated(world.now);
    world.settle();
    let log = world.log();
    let (before, _) = log.split_once(" msg=\"Relay closed\" ").expect(&log);
    let (_, level) = before.rsplit_once("level=").expect(before);
    level.to_owned()
}

#[test]
fn an_account_without_losses_is_no_warning() {
    let mut world = World::new(&[]);
    world.post("x");
    let id = world.connect();
    world.answer(id, OK);
    assert_eq!(last_level(&mut world), "info");
}

/// One profile that the server cannot take must not be all that is tried.
#[test]
fn each_probe_is_another_profile() {
    let mut world = World::new(&[]);
    let mut server = Server::new(Duration::ZERO);
    for body in ["a", "b", "c"] {
        world.post(body);
    }
    server.serve(&mut world, SECOND * 20, |_| status(503));
    for body in ["a", "b", "c"] {
        let times = server.came.iter().filter(|came| *came == body).count();
        assert!(times >= 4, "{body}: {times} of {}", server.requests);
    }
    assert_eq!(world.totals().lost_sum(), 0);
}

#[test]
fn retry_after_holds_for_the_server() {
    for code in [429, 503] {
        let mut world = World::new(&[]);
        let mut server = Server::new(Duration::ZERO);
        for _ in 0..5 {
            world.post("x");
        }
        server.serve(&mut world, SECOND * 24, |_| with_retry_after(code, "30"));
        assert_eq!(server.requests, 5, "{code}: those that were under way");
        server.serve(&mut world, SECOND * 10, |_| with_retry_after(code, "30"));
        assert_eq!(server.requests, 6, "{code}: one goes ahead");
        server.serve(&mut world, SECOND * 31, |_| OK.to_owned());
        assert_eq!((world.totals().relayed, world.totals().lost_sum()), (5, 0));
    }
}

/// It is the server that counts the time, so frozen time counts, whichever clock shows it.
#[test]
fn frozen_time_counts_towards_retry_after() {
    for mono_stands_still in [false, true] {
        let mut world = World::new(&[]);
        world.post("x");
        let id = world.connect();
        world.answer(id, &with_retry_after(503, "20"));
        let frozen = Duration::from_secs(20);
        world.now.unix_ms += frozen.as_millis() as u64;
        if mono_stands_still {
            world.relay.thawed(Duration::ZERO, world.now);
        } else {
            world.now.mono += frozen;
            world.relay.thawed(frozen, world.now);
        }
        world.settle();
        world.pass(SECOND);
        world.connect();
    }
}

#[test]
fn retry_after_is_honoured_up_to_half_a_minute() {
    for (seconds, expected) in [("7", 7), ("3600", 30), ("99999999999999999999", 0)] {
        let mut world = World::new(&[]);
        world.post("x");
        let id = world.connect();
        world.seen(id);
        world.answer(id, &with_retry_after(503, seconds));
        if expected > 0 {
            world.pass(Duration::from_millis(expected * 1000 - 1));
            assert_eq!(world.seen(id), "");
        }
        world.pass(Duration::from_millis(1));
        world.pass(Duration::from_millis(200));
        assert!(world.seen(id).ends_with("x"), "{seconds}");
    }
}

#[test]
fn retry_after_changes_nothing_for_who_is_refused_and_nothing_if_it_is_now() {
    let mut world = World::new(&[]);
    world.post("x");
    let id = world.connect();
    world.seen(id);
    world.answer(id, &with_retry_after(400, "9"));
    assert_eq!(world.lost(LossReason::Refused), 1);
    world.post("y");
    assert!(world.seen(id).ends_with('y'), "at once");
    world.answer(id, &with_retry_after(503, "0"));
    world.post("z");
    assert!(world.seen(id).ends_with('z'), "nobody waits");
}

/// What Pyroscope says when a day's limit is reached.
#[test]
fn until_a_limit_begins_anew_nothing_is_sent() {
    for code in [422, 429] {
        let (mut world, _api) = sandbox();
        world.now.unix_ms = 1_795_305_600_000 - 3_600_000; // 2026-11-21T23:00:00Z
        world.post("x");
        world.post("y");
        let id = world.connect();
        let body = r#"{"code":"resource_exhausted","message":"limit of 1.0 GB/day reached, next reset at 2026-11-22T00:00:00Z"}"#;
        world.seen(id);
        world.answer(
            id,
            &format!(
                "HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        );
        for pending in std::mem::take(&mut world.connecting) {
            world.connecting.push(pending);
            let other = world.connect();
            assert!(world.seen(other).ends_with('y'), "was under way");
            world.answer(other, &with_retry_after(429, "1"));
        }
        world.pass(Duration::from_mins(59));
        assert_eq!(world.seen_on_all(), "", "{code}: an hour is left");
        world.pass(Duration::from_secs(59));
        assert_eq!(world.seen_on_all(), "", "{code}: a second is left");
        world.pass(SECOND);
        while !world.connecting.is_empty() {
            world.connect();
        }
        assert!(world.seen_on_all().contains("POST /ingest"), "{code}");
        assert_eq!(world.totals().lost_sum(), 0);
    }
}

#[test]
fn timeouts_name_their_stage() {
    let named = ("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test");
    let proxied = [
        ("PYROSCOPE_REMOTE_ADDRESS", "https://pyroscope.test"),
        ("HTTPS_PROXY", "http://10.0.0.9:3128"),
    ];
    type Case<'c> = (&'c [(&'c str, &'c str)], fn(&mut World), &'c str);
    let encrypted = ("PYROSCOPE_REMOTE_ADDRESS", "https://10.0.0.1:443");
    let cases: [Case; 5] = [
        (&[named], |_| (), "timed out: name lookup"),
        (&[], |_| (), "timed out: connect"),
        (
            &proxied,
            |world| _ = world.connect(),
            "timed out: the proxy's answer",
        ),
        (
            &[encrypted],
            |world| _ = world.connect(),
            "timed out: TLS handshake",
        ),
        (&[], |world| _ = world.connect(), "timed out: answer"),
    ];
    for (vars, begin, cause) in cases {
        let vars = [vars, &[("PYROSCOPE_LOG_LEVEL", "debug")]].concat();
        let mut world = World::new(&vars);
        world.post("x");
        begin(&mut world);
        world.pass(SECOND * 10);
        let log = world.log();
        assert!(log.contains(cause), "{cause}: {log}");
    }
}

/// What a label says is no limit, nor is what a server says that fails.
#[test]
fn only_a_limit_that_is_one_is_waited_for() {
    for (code, why, lost) in [(500, "", 0), (422, "invalid_argument", 1)] {
        let mut world = World::new(&[]);
        world.post("x");
        let id = world.connect();
        world.seen(id);
        let body = format!("{why} limit of 1.0 GB/day reached, next reset at 2027-01-15T09:00:00Z");
        let length = body.len();
        let answer = format!("HTTP/1.1 {code} X\r\nContent-Length: {length}\r\n\r\n{body}");
        world.answer(id, &answer);
        assert_eq!(world.lost(LossReason::Refused), lost, "{code}");
        if lost == 0 {
            assert!(world.pass_to_deadline() < SECOND);
            world.next_attempt();
        }
    }
}

/// Where no freeze can be why: it is the server's doing.
#[test]
fn three_answers_in_a_row_that_break_off_are_a_server_that_is_down() {
    let mut world = World::new(&[("PYROSCOPE_NUM_WORKERS", "1")]);
    for body in ["a", "b", "c", "d"] {
        world.post(body);
    }
    for _ in 0..3 {
        assert_eq!(world.connecting.len(), 1, "the next one is tried at once");
        let id = world.connect();
        world.offer(id, b"HTTP/1.1 2", usize::MAX);
        world.close(id, End::Eof);
    }
    assert_eq!(world.connecting, [], "though one waits that was not tried");
    assert!(world.pass_to_deadline() >= Duration::from_millis(75));
}

/// What Pyroscope says when a day's limit is reached; in between, each second is looked at.
#[test]
fn until_a_limit_begins_anew_no_connection_is_begun_either() {
    let body = r#"{"code":"resource_exhausted","message":"limit of 1.0 GB/day reached, next reset at 2026-11-22T00:00:00Z"}"#;
    for code in [422, 429] {
        let reached = format!(
            "HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (mut world, _api) = sandbox();
        world.now.unix_ms = 1_795_305_600_000 - 3_600_000; // 2026-11-21T23:00:00Z
        let mut server = Server::new(Duration::ZERO);
        world.post("x");
        server.serve(&mut world, SECOND, |_| reached.clone());
        world.post("y");
        server.serve(&mut world, MINUTE * 59, |_| reached.clone());
        assert_eq!(server.requests, 1, "{code}");
        server.serve(&mut world, SECOND * 61, |_| OK.to_owned());
        assert_eq!(
            (world.totals().relayed, world.totals().lost_sum()),
            (2, 0),
            "{code}"
        );
    }
}

/// Profiles that come while the server wants nothing are not sent either.
#[test]
fn fresh_profiles_wait_for_the_end_of_retry_after_too() {
    for code in [429, 503] {
        let mut world = World::new(&[]);
        let mut server = Server::new(Duration::ZERO);
        for _ in 0..20 {
            world.post("x");
            server.serve(&mut world, SECOND * 6 / 5, |_| with_retry_after(code, "30"));
        }
        assert_eq!(server.requests, 1, "{code}: in 24 s");
    }
}
