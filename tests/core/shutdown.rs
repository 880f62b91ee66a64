//! The core: the end: what is left is sent, then the account is closed.

use std::time::Duration;

use pyroscope_lambda_extension::relay::ring::Loss;

use super::world::{OK, World, event, sandbox, status};

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
