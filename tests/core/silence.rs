//! The core where connections die without a word: frozen, woken, and nothing comes any more. Under a made-up clock.

use std::time::Duration;

use super::world::{
    ELSEWHERE, OK, World, event, invoke, named_server, sandbox, sandbox_with, status,
};
use pyroscope_lambda_extension::contract::{ConnId, End, Peer};

const SECOND: Duration = Duration::from_secs(1);

/// What a healthy server takes for its answer.
const ANSWERS_AFTER: Duration = Duration::from_millis(500);

/// A freeze of five minutes that the clocks show.
fn freeze(world: &mut World) {
    let frozen = Duration::from_mins(5);
    world.now.mono += frozen;
    world.now.unix_ms += frozen.as_millis() as u64;
    world.relay.thawed(frozen, world.now);
    world.settle();
}

const CLOSING: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

fn shutdown(world: &World) -> String {
    let at = world.now.unix_ms + 2000;
    event(&format!(
        r#"{{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":{at}}}"#
    ))
}

/// So many profiles, each on a connection of its own and written whole.
fn under_way(world: &mut World, count: usize) -> Vec<ConnId> {
    // The server has been reached before, and has closed that connection.
    world.post("first");
    let id = world.connect();
    world.seen(id);
    world.answer(id, CLOSING);
    let all: Vec<ConnId> = (0..count)
        .map(|_| {
            world.post("under way");
            world.connect()
        })
        .collect();
    for id in &all {
        assert!(world.seen(*id).ends_with("under way"));
    }
    all
}

/// Everything that is asked for connects at once, and every request is answered after half a second.
fn serve_all(world: &mut World) {
    let mut asked = Vec::new();
    for _ in 0..200 {
        while !world.connecting.is_empty() {
            world.connect();
        }
        for id in world.written.keys().copied().collect::<Vec<_>>() {
            if world.seen(id).starts_with("POST /ingest") {
                asked.push((id, world.now.mono + ANSWERS_AFTER));
            }
        }
        let due = asked.iter().map(|(_, at)| *at).min();
        let in_hand = world.in_hand();
        let Some(until) = due.into_iter().chain(world.relay.deadline(world.now)).min() else {
            assert_eq!(in_hand, 0, "nothing more is done");
            return;
        };
        if in_hand == 0 {
            return;
        }
        world.pass(until - world.now.mono);
        let now = world.now.mono;
        for (id, _) in asked
            .extract_if(.., |(_, at)| *at <= now)
            .collect::<Vec<_>>()
        {
            if world.written.contains_key(&id) {
                world.answer(id, OK);
            }
        }
    }
    panic!("it never comes to rest");
}

#[test]
fn what_a_freeze_killed_in_silence_arrives_within_a_second_and_a_half() {
    let (mut world, api) = sandbox();
    under_way(&mut world, 5);
    freeze(&mut world);
    world.answer(api, &invoke(&world, 900_000));
    let began = world.now.mono;
    world.pass(Duration::from_millis(999));
    assert!(world.connecting.is_empty(), "they have a second");
    world.pass(Duration::from_millis(1));
    assert_eq!(world.connecting.len(), 5, "then they are sent anew");
    serve_all(&mut world);
    assert_eq!(
        world.now.mono - began,
        SECOND + ANSWERS_AFTER,
        "all of them"
    );
    let totals = world.totals();
    assert_eq!(
        (totals.relayed, totals.resent, totals.lost_sum()),
        (6, 5, 0)
    );
    assert!(!world.log().contains("level=error"));
}

#[test]
fn fresh_profiles_do_not_wait_for_what_a_freeze_may_have_killed() {
    let (mut world, api) = sandbox();
    under_way(&mut world, 5);
    freeze(&mut world);
    world.answer(api, &invoke(&world, 900_000));
    for _ in 0..5 {
        world.post("fresh");
        let id = world.connect();
        assert!(world.seen(id).ends_with("fresh"), "at once");
        world.answer(id, CLOSING);
    }
    assert_eq!(world.totals().relayed, 6);
}

/// The five that are silent are killed in the second of awake time that they have, however short each wake is.
#[test]
fn many_short_wakes_are_no_longer_than_one() {
    let (mut world, api) = sandbox();
    under_way(&mut world, 5);
    for _ in 0..100 {
        freeze(&mut world);
        world.answer(api, &invoke(&world, 900_000));
        assert!(world.seen(api).starts_with("GET "));
        assert!(world.connecting.is_empty());
        world.pass(Duration::from_millis(10));
    }
    assert_eq!(world.connecting.len(), 5);
}

#[test]
fn an_invoke_alone_is_reason_enough_to_doubt() {
    let (mut world, api) = sandbox();
    let id = under_way(&mut world, 1)[0];
    world.answer(api, &invoke(&world, 900_000));
    assert_eq!(world.pass_to_deadline(), SECOND);
    assert!(!world.written.contains_key(&id));
    let second = world.connect();
    // One doubt is enough: a server that takes longer than a second is heard out.
    world.answer(api, &invoke(&world, 900_000));
    world.pass(SECOND * 3);
    world.answer(second, OK);
    let totals = world.totals();
    assert_eq!(
        (totals.relayed, totals.resent, totals.lost_sum()),
        (2, 1, 0)
    );
}

#[test]
fn a_freeze_that_is_seen_is_reason_enough_each_time() {
    let (mut world, _api) = sandbox();
    under_way(&mut world, 1);
    for pause in [Duration::ZERO, Duration::from_millis(200)] {
        freeze(&mut world);
        assert_eq!(world.pass_to_deadline(), SECOND);
        if pause > Duration::ZERO {
            assert!(world.connecting.is_empty(), "the second time it failed");
            assert!(world.pass_to_deadline() <= pause);
        }
        world.connect();
    }
    serve_all(&mut world);
    assert_eq!(world.totals().lost_sum(), 0);
}

#[test]
fn shutdown_leaves_time_for_another_connection() {
    let (mut world, api) = sandbox();
    under_way(&mut world, 3);
    world.answer(api, &shutdown(&world));
    serve_all(&mut world);
    assert_eq!((world.exit, world.totals().relayed), (Some(0), 4));
}

#[test]
fn a_silent_connect_is_doubted_as_well() {
    let (mut world, api) = sandbox();
    world.post("x");
    let (silent, _) = world.connecting.pop().unwrap();
    freeze(&mut world);
    world.answer(api, &invoke(&world, 900_000));
    world.post("fresh");
    assert_eq!(
        world.connecting.len(),
        1,
        "who is fresh does not wait for it"
    );
    let id = world.connect();
    world.answer(id, OK);
    world.pass(SECOND);
    let id = world.connect();
    assert!(world.seen(id).ends_with("x"), "on a connection of its own");
    world.answer(id, OK);
    world.relay.connected(silent, ELSEWHERE, world.now);
    world.settle();
    let totals = world.totals();
    assert_eq!((totals.relayed, totals.resent), (2, 0), "it was never sent");
}

#[test]
fn a_silent_tunnel_is_doubted_as_well() {
    let (mut world, api) = sandbox_with(&[
        ("PYROSCOPE_REMOTE_ADDRESS", "https://server.example"),
        ("HTTPS_PROXY", "http://10.0.0.9:3128"),
    ]);
    world.post("x");
    let silent = world.connect();
    assert!(world.seen(silent).starts_with("CONNECT "));
    freeze(&mut world);
    world.answer(api, &invoke(&world, 900_000));
    assert_eq!(world.pass_to_deadline(), SECOND);
    assert!(!world.written.contains_key(&silent));
    assert_eq!(world.connecting.len(), 1);
}

#[test]
fn an_answer_that_comes_in_time_ends_the_doubt() {
    let (mut world, api) = sandbox();
    let id = under_way(&mut world, 1)[0];
    freeze(&mut world);
    world.answer(api, &invoke(&world, 900_000));
    world.pass(Duration::from_millis(900));
    world.arrive(id, b"HTTP/1.1 200 OK\r\nContent-Le", usize::MAX);
    world.pass(SECOND * 2);
    world.arrive(id, b"ngth: 0\r\n\r\n", usize::MAX);
    let totals = world.totals();
    assert_eq!((totals.relayed, totals.resent), (2, 0));
}

/// What is read in the wake's own turn may have come before the freeze.
#[test]
fn an_old_byte_does_not_end_the_doubt() {
    let (mut world, _api) = sandbox();
    let id = under_way(&mut world, 1)[0];
    freeze(&mut world);
    world.arrive(id, b"HTTP/1.1 ", usize::MAX);
    assert_eq!(world.pass_to_deadline(), SECOND);
    assert!(!world.written.contains_key(&id));
}

/// A large body that goes out slowly is no silence: the peer takes it.
#[test]
fn bytes_that_go_out_put_the_end_of_the_doubt_off() {
    let (mut world, _api) = sandbox();
    world.post(&"y".repeat(4000));
    let (id, _) = world.connecting.pop().unwrap();
    world.written.insert(id, Vec::new());
    world.room.insert(id, 1000);
    world.relay.connected(id, ELSEWHERE, world.now);
    world.settle();
    freeze(&mut world);
    for _ in 0..3 {
        world.pass(Duration::from_millis(800));
        world.room.insert(id, 1000);
        world.settle();
    }
    assert!(world.written.contains_key(&id));
    world.pass(SECOND);
    assert!(!world.written.contains_key(&id), "now it is silent");
}

/// An answer that is read in the wake's own turn may have come before the freeze, and its connection have died since.
#[test]
fn what_answered_before_the_freeze_is_not_used_after_it() {
    let (mut world, _api) = sandbox();
    let id = under_way(&mut world, 1)[0];
    freeze(&mut world);
    world.answer(id, OK);
    assert_eq!(world.totals().relayed, 2);
    assert!(!world.written.contains_key(&id));
    world.post("fresh");
    let other = world.connect();
    assert!(world.seen(other).ends_with("fresh"));
}

/// Those that were idle through the same freeze are not trusted either.
#[test]
fn what_died_goes_out_on_a_new_connection() {
    let (mut world, api) = sandbox();
    let all = under_way(&mut world, 3);
    world.answer(all[0], OK);
    world.answer(all[1], OK);
    world.answer(api, &invoke(&world, 900_000));
    world.close(all[2], End::Io(std::io::ErrorKind::ConnectionReset));
    assert!(world.written.keys().all(|id| !all.contains(id)));
    let id = world.connect();
    assert!(world.seen(id).ends_with("under way"));
}

#[test]
fn a_server_that_resets_gets_no_more_requests_for_the_invokes() {
    let mut requests = [0_u32; 2];
    for (invokes, requests) in [false, true].into_iter().zip(&mut requests) {
        let (mut world, mut api) = sandbox();
        for _ in 0..5 {
            world.post("x");
        }
        let begin = world.now.mono;
        let mut next_invoke = begin;
        while world.now.mono < begin + SECOND * 12 {
            while !world.connecting.is_empty() {
                let (_, address) = *world.connecting.last().unwrap();
                let id = world.connect();
                if address.port() == 9001 {
                    api = id;
                }
            }
            if invokes && next_invoke <= world.now.mono {
                next_invoke += Duration::from_millis(200);
                world.answer(api, &invoke(&world, 900_000));
            }
            for id in world.written.keys().copied().collect::<Vec<_>>() {
                if id != api && world.seen(id).starts_with("POST /ingest") {
                    *requests += 1;
                    assert!(*requests < 1000, "without end");
                    // The INVOKE falls into the attempt each time.
                    if invokes {
                        world.answer(api, &invoke(&world, 900_000));
                    }
                    world.close(id, End::Io(std::io::ErrorKind::ConnectionReset));
                }
            }
            if !world.connecting.is_empty() {
                continue;
            }
            let next = world.relay.deadline(world.now);
            let until = next.unwrap_or(begin + SECOND * 12).min(begin + SECOND * 12);
            let until = if invokes {
                until.min(next_invoke)
            } else {
                until
            };
            world.pass(until.saturating_duration_since(world.now.mono));
        }
        assert_eq!(world.totals().lost_sum(), 0);
    }
    let [without, with] = requests;
    assert!(
        with <= without + 5,
        "{with} requests with INVOKEs, {without} without: one more for each profile"
    );
}

#[test]
fn after_its_free_resend_a_failure_has_its_pause_its_count_and_its_line() {
    let (mut world, api) = sandbox_with(&[("PYROSCOPE_LOG_LEVEL", "debug")]);
    world.post("x");
    for free in [true, false] {
        let id = world.connect();
        world.seen(id);
        world.answer(api, &invoke(&world, 900_000));
        world.log();
        world.close(id, End::Io(std::io::ErrorKind::ConnectionReset));
        assert_eq!(world.connecting.is_empty(), !free, "at once, or not");
        assert_eq!(world.log().contains("An attempt failed"), !free);
    }
    let pause = world.pass_to_deadline();
    assert!(pause >= Duration::from_millis(150), "{pause:?}");
    world.connect();
}

#[test]
fn an_address_that_went_silent_in_a_freeze_makes_way_for_the_next() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    named_server(&mut world, &["[fe80::1]:80", "10.0.0.2:80"]);
    assert_eq!(world.connecting.len(), 1);
    freeze(&mut world);
    assert_eq!(world.pass_to_deadline(), Duration::from_millis(250));
    let id = world.connect();
    world.answer(id, OK);
    assert_eq!(world.totals().relayed, 1);
    assert!(world.resolving.is_empty(), "{:?}", Peer::Remote);
}

/// A status is an answer like any: it was not the freeze.
#[test]
fn a_status_after_a_freeze_is_no_free_resend() {
    let (mut world, api) = sandbox();
    let id = under_way(&mut world, 1)[0];
    world.answer(api, &invoke(&world, 900_000));
    world.answer(id, &status(503));
    assert_eq!(world.seen(id), "", "not at once");
    world.pass(Duration::from_millis(200));
    assert!(world.seen(id).ends_with("under way"));
}

/// Nothing of it is connected yet: there is nothing that a freeze could have killed.
#[test]
fn a_name_lookup_is_not_doubted() {
    let mut world = World::new(&[("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.test")]);
    world.post("x");
    freeze(&mut world);
    world.pass(SECOND * 5);
    named_server(&mut world, &["10.0.0.1:80"]);
    let id = world.connect();
    assert!(world.seen(id).ends_with('x'));
    assert_eq!(world.totals().resent, 0);
    // So the free resend is still there, for a connection that a freeze does kill.
    freeze(&mut world);
    world.pass(SECOND);
    assert!(!world.written.contains_key(&id));
    named_server(&mut world, &["10.0.0.1:80"]);
    let id = world.connect();
    world.answer(id, OK);
    assert_eq!((world.totals().relayed, world.totals().resent), (1, 1));
    assert!(!world.log().contains("level=error"));
}
