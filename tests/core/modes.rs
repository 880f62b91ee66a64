//! The core: the flush modes, one by one.

use std::time::Duration;

use pyroscope_lambda_extension::contract::End;

use super::world::{OK, TELEMETRY_OK, deliver, invoke, invoke_as, sandbox_at_end, sandbox_with};

#[test]
fn flush_on_invoke_waits_for_what_was_there_and_takes_more() {
    let (mut world, api) = sandbox_with(&[("PYROSCOPE_FLUSH_ON_INVOKE", "T")]);
    world.answer(api, &invoke(&world, 3000));
    assert!(
        world.seen(api).starts_with("GET "),
        "nothing waits, nothing is held"
    );
    world.post("x");
    let server = world.connect();
    world.answer(api, &invoke(&world, 3000));
    assert_eq!(world.seen(api), "", "held");
    world.post("later: answered at once, and not waited for");
    world.pass(Duration::from_millis(250));
    world.answer(server, OK);
    assert!(world.seen(api).starts_with("GET "));
    world.relay.terminated(world.now);
    world.settle();
    world.pass_to_deadline();
    assert!(world.log().contains(" held_ms=250 "));
}

#[test]
fn flush_on_invoke_knows_the_deadline_and_a_dead_server() {
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
    let server = world.connect();
    deliver(&mut world, "runtimeDone", "r-0");
    world.pass(Duration::from_millis(100));
    assert_eq!(world.seen(api), "", "that was another invocation");
    deliver(&mut world, "runtimeDone", "r-1");
    assert_eq!(world.seen(api), "", "the profile is not there yet");
    world.answer(server, OK);
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
fn flush_at_end_does_not_wait_for_a_dead_server() {
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
        let server = world.connect();
        world.answer(api, &invoke_as(&world, "r-2", 3000));
        assert_eq!(world.seen(api), "", "as in invoke");
        world.answer(server, OK);
        assert!(world.seen(api).starts_with("GET "), "{fault}");
        assert!(!world.log().contains("level=warning"));
    }
}
