//! Limits of the core that only show when somebody is slow, or when much has happened before.

use super::world::{OK, World};
use pyroscope_lambda_extension::contract::ConnId;

const REQUEST: &str = "POST /ingest HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";

/// A relay asked to leave that has nothing in hand.
fn leave(world: &mut World) {
    assert_eq!(world.totals().acknowledged, world.totals().relayed);
    world.relay.terminated(world.now);
    world.settle();
}

/// What the last payloads took goes back to the system a second later.
#[test]
fn memory_is_given_back_a_second_after_the_last_payload() {
    let mut world = World::new(&[]);
    for _ in 0..2 {
        world.relay_another();
        assert_eq!(world.asleep_for(), Some(std::time::Duration::from_secs(1)));
        assert_eq!(world.pass_to_deadline(), std::time::Duration::from_secs(1));
        let next = world.asleep_for();
        assert!(next > Some(std::time::Duration::from_secs(2)), "{next:?}");
    }
}

#[test]
fn leaving_waits_for_an_upload_that_has_begun() {
    for begun in 1..REQUEST.len() {
        let mut world = World::new(&[]);
        let client = world.client();
        world.arrive(client, &REQUEST.as_bytes()[..begun], usize::MAX);
        leave(&mut world);
        assert_eq!(world.exit, None, "{begun} bytes had come");
        world.arrive(client, &REQUEST.as_bytes()[begun..], usize::MAX);
        assert_eq!(world.seen(client), OK);
        let remote = world.connect();
        world.answer(remote, OK);
        assert_eq!((world.exit, world.totals().relayed), (Some(0), 1));
    }
}

#[test]
fn leaving_waits_for_an_answer_to_be_written() {
    let mut world = World::new(&[]);
    let client = world.client();
    world.room.insert(client, 0);
    world.arrive(client, REQUEST.as_bytes(), usize::MAX);
    let remote = world.connect();
    world.answer(remote, OK);
    leave(&mut world);
    assert_eq!(world.exit, None, "the client does not know yet");
    world.room.remove(&client);
    world.settle();
    assert_eq!((world.seen(client).as_str(), world.exit), (OK, Some(0)));
}

#[test]
fn a_client_that_does_not_read_its_answers_is_not_read_any_further() {
    const COUNT: usize = 1000;
    let wire = "GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(COUNT);
    for step in [1, 100, usize::MAX] {
        let mut world = World::new(&[]);
        let client = world.client();
        world.room.insert(client, 0);
        let mut taken = world.offer(client, wire.as_bytes(), step);
        assert!(
            taken <= 8192,
            "{taken} bytes of requests in steps of {step}"
        );
        let waiting = world.relay.pending(client).concat().len();
        assert!(waiting <= 1024 + OK.len(), "{waiting} bytes of answers");
        assert!(!world.relay.wants(client));

        // As it reads on, so do we; and every request is answered.
        let mut read = 0;
        while read < COUNT * OK.len() {
            world.room.insert(client, 5000);
            world.settle();
            let seen = world.seen(client);
            assert!(!seen.is_empty(), "{read} bytes read, {taken} bytes taken");
            read += seen.len();
            taken += world.offer(client, &wire.as_bytes()[taken..], step);
        }
        assert_eq!(taken, wire.len());
        assert_eq!(read, COUNT * OK.len());
    }
}

/// A world with Lambda in it, to be asked to register.
fn sandbox() -> World {
    World::new(&[
        ("PYROSCOPE_DEV_MODE", ""),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ])
}

/// Lambda's API breaks off one answer after another; the pauses before it is asked again.
fn pauses(world: &mut World, api: &mut ConnId, failures: usize) -> Vec<u128> {
    let mut pauses = Vec::new();
    for _ in 0..failures {
        world.answer(*api, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n");
        assert!(!world.written.contains_key(api), "the connection is closed");
        pauses.push(world.pass_to_deadline().as_millis());
        *api = world.connect();
        world.seen(*api);
    }
    pauses
}

#[test]
fn lambdas_answer_ends_the_count_of_its_failures() {
    let growing = [100, 200, 400, 800, 1000, 1000];
    let mut world = sandbox();
    let mut api = world.connect();
    world.seen(api);
    assert_eq!(pauses(&mut world, &mut api, 6), growing);
    world.answer(
        api,
        "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: i\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert!(world.seen(api).starts_with("GET "));
    assert_eq!(pauses(&mut world, &mut api, 6), growing, "once registered");
    let event = r#"{"eventType":"INVOKE","requestId":"r","deadlineMs":1}"#;
    let length = event.len();
    world.answer(
        api,
        &format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{event}"),
    );
    assert!(world.seen(api).starts_with("GET "));
    assert_eq!(
        pauses(&mut world, &mut api, 3),
        growing[..3],
        "after an event"
    );
    assert_eq!(world.exit, None);
}
