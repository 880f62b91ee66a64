//! The core: the end: what is left is sent, then the account is closed.

use std::time::Duration;

use pyroscope_lambda_extension::contract::ConnId;
use pyroscope_lambda_extension::relay::ring::LossReason;

use super::server::{Server, with_retry_after};
use super::world::{OK, World, event, sandbox, status};

const SECOND: Duration = Duration::from_secs(1);

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
    assert_eq!((world.exit, world.lost(LossReason::Shutdown)), (Some(0), 2));
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
    assert_eq!((world.exit, world.lost(LossReason::Shutdown)), (Some(0), 1));
}

#[test]
fn leaving_tries_a_server_that_is_down_at_once() {
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
fn a_refused_registration_closes_the_account() {
    let mut world = World::new(&[
        ("PYROSCOPE_DEV_MODE", ""),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ]);
    let api = world.connect();
    world.post("x");
    world.answer(api, &status(500));
    assert_eq!((world.exit, world.lost(LossReason::Shutdown)), (Some(1), 1));
    assert!(world.log().contains("acknowledged=1 "));
}

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

/// Nobody knows yet whether the server is there: a crowd at its door would not help.
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
    // Those to the server, the one to Lambda, and none of a client.
    assert_eq!(most, 64 + 1);
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

/// A client may have connected since the last turn: the shell is told to look before the process ends.
#[test]
fn it_looks_for_clients_once_more_before_it_leaves() {
    let (mut world, api) = sandbox();
    world.answer(api, &shutdown_at(&world, 2000));
    assert_eq!((world.looks, world.exit), (1, Some(0)));
}
