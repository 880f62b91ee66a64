//! The core and a server that fails, asks for patience, or is slow: nothing is lost by it, and it is not asked in vain.
//! Under a made-up clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{ELSEWHERE, OK, World, event, named_remote, sandbox, status};
use pyroscope_lambda_extension::contract::{ConnId, End, Peer};
use pyroscope_lambda_extension::relay::ring::Loss;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// A server that answers each request after a time.
struct Server {
    answers_after: Duration,
    asked: BTreeMap<ConnId, std::time::Instant>,
    requests: u32,
    /// Bodies in the order in which they came.
    came: Vec<String>,
}

impl Server {
    fn new(answers_after: Duration) -> Self {
        Self {
            answers_after,
            asked: BTreeMap::new(),
            requests: 0,
            came: Vec::new(),
        }
    }

    /// Lets the world go on for so long, with connections that stand at once and this answer to each request.
    fn serve(&mut self, world: &mut World, time: Duration, answer: impl Fn(&str) -> String) {
        let end = world.now.mono + time;
        loop {
            while !world.connecting.is_empty() {
                world.connect();
            }
            for id in world.written.keys().copied().collect::<Vec<_>>() {
                let seen = world.seen(id);
                if seen.starts_with("POST /ingest") {
                    self.requests += 1;
                    self.came
                        .push(seen.rsplit("\r\n\r\n").next().unwrap().to_owned());
                    self.asked.insert(id, world.now.mono + self.answers_after);
                }
            }
            let now = world.now.mono;
            let due: Vec<ConnId> = self
                .asked
                .extract_if(.., |_, at| *at <= now)
                .map(|(id, _)| id)
                .collect();
            for id in &due {
                if world.written.contains_key(id) {
                    let body = self.came.last().cloned().unwrap_or_default();
                    world.answer(*id, &answer(&body));
                }
            }
            if !due.is_empty() || !world.connecting.is_empty() {
                continue;
            }
            if now >= end || world.exit.is_some() {
                return;
            }
            let next = self
                .asked
                .values()
                .copied()
                .chain(world.relay.deadline(world.now));
            let until = next.min().map_or(end, |at| at.min(end));
            world.pass(until - now);
        }
    }
}

fn with_retry_after(code: u16, seconds: &str) -> String {
    format!("HTTP/1.1 {code} X\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n")
}

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
        (world.totals().relayed, world.lost(Loss::Attempts)),
        (20, 1)
    );
    let bad = server.came.iter().filter(|body| *body == "bad").count();
    assert!((5..=10).contains(&bad), "sent {bad} times");
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
    assert_eq!(world.lost(Loss::Refused), 1);
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
        assert_eq!(world.lost(Loss::Refused), lost, "{code}");
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

// Several addresses.

#[test]
fn the_family_that_worked_is_tried_first() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    let addresses = ["[fd00::1]:80", "[fd00::2]:80", "10.0.0.1:80", "10.0.0.2:80"];
    world.post("x");
    named_remote(&mut world, &addresses);
    assert_eq!(world.connecting[0].1, addresses[0].parse().unwrap());
    assert_eq!(world.pass_to_deadline(), Duration::from_millis(250));
    assert_eq!(world.connecting[1].1, addresses[2].parse().unwrap());
    let id = world.connect();
    assert_eq!(world.connecting, [], "the other one is let go");
    world.answer(id, OK);
    world.close(id, End::Eof);
    world.pass(MINUTE);
    world.post("y");
    named_remote(&mut world, &addresses);
    assert_eq!(world.connecting[0].1, addresses[2].parse().unwrap());
    assert_eq!(world.pass_to_deadline(), Duration::from_millis(250));
    assert_eq!(
        world.connecting[1].1,
        addresses[0].parse().unwrap(),
        "in turns"
    );
}

#[test]
fn a_name_without_an_address_is_no_remote() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    named_remote(&mut world, &[]);
    let log = world.log();
    assert!(log.contains("cause=\"name lookup: no address\""), "{log}");
    assert!(world.pass_to_deadline() < SECOND);
    named_remote(&mut world, &["10.0.0.1:80"]);
    let id = world.connect();
    assert!(world.seen(id).ends_with('x'));
}

#[test]
fn a_refused_address_is_followed_by_the_next_at_once() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    named_remote(&mut world, &["[fd00::1]:80", "10.0.0.1:80"]);
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
    named_remote(&mut world, &["[fd00::1]:80", "10.0.0.1:80"]);
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
    named_remote(&mut world, &["10.0.0.1:80"]);
    world.refuse();
    assert!(world.pass_to_deadline() < SECOND);
    assert_eq!(world.connecting, []);
    named_remote(&mut world, &["10.0.0.2:80"]);
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
    named_remote(
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
    named_remote(&mut world, &["[fd00::1]:80", "10.0.0.1:80"]);
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

// The end.

fn shutdown_at(world: &World, left_ms: i64) -> String {
    let at = world.now.unix_ms.cast_signed() + left_ms;
    event(&format!(
        r#"{{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":{at}}}"#
    ))
}

/// Sixty profiles wait, of which as many are under way as there are workers.
fn sixty_wait() -> (World, ConnId) {
    let (mut world, api) = sandbox();
    for _ in 0..60 {
        world.post("x");
    }
    (world, api)
}

#[test]
fn at_shutdown_sixty_arrive_though_the_server_is_slow() {
    for answers_after in [500, 950] {
        let (mut world, api) = sixty_wait();
        let mut server = Server::new(Duration::from_millis(answers_after));
        world.answer(api, &shutdown_at(&world, 2000));
        server.serve(&mut world, SECOND * 2, |_| OK.to_owned());
        assert_eq!(
            (
                world.exit,
                world.totals().relayed,
                world.totals().lost_sum()
            ),
            (Some(0), 60, 0),
            "{answers_after} ms"
        );
    }
}

/// Nobody knows yet whether the remote is there: a crowd at its door would not help.
#[test]
fn at_shutdown_too_one_connection_goes_ahead() {
    let (mut world, api) = sixty_wait();
    world.answer(api, &shutdown_at(&world, 2000));
    // The first may have been killed by a freeze, and counts for nothing.
    assert_eq!(world.connecting.len(), 2);
    world.connect();
    assert!(world.connecting.len() > 2, "then the others");
}

#[test]
fn there_are_never_more_than_sixty_four_connections() {
    let (mut world, api) = sandbox();
    for _ in 0..200 {
        world.post("x");
    }
    world.answer(api, &shutdown_at(&world, 2000));
    let mut most = 0;
    for _ in 0..200 {
        most = most.max(world.connecting.len() + world.written.len());
        if world.connecting.is_empty() {
            break;
        }
        world.connect();
    }
    // Those to the remote, the one to Lambda, and none of a client.
    assert_eq!(most, 64 + 1);
}

/// Each of them has several addresses, of which the first is silent.
#[test]
fn several_addresses_make_no_more_than_sixty_four_connections() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    for _ in 0..100 {
        world.post("x");
    }
    named_remote(&mut world, &["[fd00::1]:80", "[fd00::2]:80"]);
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

/// No answer is there yet: that one connection stands is enough to know.
#[test]
fn the_family_that_connects_is_the_one_that_works() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    for _ in 0..3 {
        world.post("x");
    }
    named_remote(&mut world, &["[fd00::1]:80", "10.0.0.1:80"]);
    world.pass_to_deadline();
    world.connect();
    world.connecting.retain(|(_, address)| address.is_ipv4());
    assert_eq!(world.connecting.len(), 1, "the next begins where it works");
}

#[test]
fn no_connection_is_begun_when_there_is_no_time_for_it() {
    let (mut world, api) = sandbox();
    world.post("early");
    assert_eq!(world.connecting.len(), 1);
    world.answer(api, &shutdown_at(&world, 1000));
    world.pass(Duration::from_millis(801));
    world.post("late");
    world.connect();
    assert_eq!(world.connecting.len(), 0, "99 ms are left");
}

#[test]
fn an_absurd_deadline_means_two_seconds() {
    for left_ms in [-3_600_000, 0, 2001, 3_600_000] {
        let (mut world, api) = sandbox();
        world.post("x");
        world.answer(api, &shutdown_at(&world, left_ms));
        let began = world.now.mono;
        while world.exit.is_none() {
            world.pass_to_deadline();
        }
        assert_eq!(
            world.now.mono - began,
            Duration::from_millis(1900),
            "{left_ms} ms"
        );
    }
}

#[test]
fn of_two_deadlines_the_earlier_one_counts() {
    for signal_first in [true, false] {
        let (mut world, api) = sandbox();
        world.post("x");
        let began = world.now.mono;
        if signal_first {
            world.relay.terminated(world.now);
        }
        world.answer(api, &shutdown_at(&world, 600));
        world.relay.terminated(world.now);
        world.settle();
        while world.exit.is_none() {
            world.pass_to_deadline();
        }
        let took = world.now.mono - began;
        assert_eq!(took, Duration::from_millis(500), "{signal_first}");
    }
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
    named_remote(&mut world, &["[fd00::1]:3128", "10.0.0.1:3128"]);
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

#[test]
fn pauses_that_begin_while_leaving_are_skipped_too() {
    for (answer, least) in [(status(503), 6), (with_retry_after(503, "20"), 6)] {
        let (mut world, api) = sandbox();
        let mut server = Server::new(Duration::ZERO);
        world.post("x");
        world.answer(api, &shutdown_at(&world, 2000));
        server.serve(&mut world, Duration::from_millis(1600), |_| answer.clone());
        let requests = server.requests;
        assert!(
            (least..40).contains(&requests),
            "{requests} requests: some each second, and no more"
        );
        server.serve(&mut world, Duration::from_millis(300), |_| OK.to_owned());
        assert_eq!((world.exit, world.totals().relayed), (Some(0), 1));
    }
}

#[test]
fn a_client_that_connects_in_the_last_turn_is_served() {
    let (mut world, api) = sandbox();
    let client = world.client();
    world.answer(api, &shutdown_at(&world, 2000));
    assert_eq!(world.exit, None, "it has not said a word yet");
    world.pass(Duration::from_millis(100));
    world.arrive(
        client,
        b"POST /ingest HTTP/1.1\r\nHost: l\r\nContent-Length: 4\r\n\r\nlast",
        usize::MAX,
    );
    assert_eq!(world.seen(client), OK);
    let id = world.connect();
    world.answer(id, OK);
    assert_eq!((world.exit, world.totals().relayed), (Some(0), 1));
}

#[test]
fn a_client_that_says_nothing_is_not_waited_for() {
    let (mut world, api) = sandbox();
    world.client();
    world.answer(api, &shutdown_at(&world, 2000));
    assert_eq!(world.pass_to_deadline(), Duration::from_millis(250));
    assert_eq!(world.exit, Some(0));
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

/// A client may have connected since the last turn: the shell is told to look before the process ends.
#[test]
fn it_looks_for_clients_once_more_before_it_leaves() {
    let (mut world, api) = sandbox();
    world.answer(api, &shutdown_at(&world, 2000));
    assert_eq!((world.looks, world.exit), (1, Some(0)));
}
