//! The core: Lambda's events and its telemetry.

use std::time::Duration;

use pyroscope_lambda_extension::contract::{End, Peer};

use super::world::{
    TELEMETRY_OK, World, deliver, event, invoke_as, sandbox, sandbox_at_end, status,
};

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
