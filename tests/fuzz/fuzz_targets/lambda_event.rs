//! Lambda's events: whatever the cut, the same follows; an INVOKE is followed by the next question, a SHUTDOWN
//! by leaving, as serde_json understands the event; and nothing makes us ask without end.
#![no_main]

#[path = "../../support/world.rs"]
mod world;

use libfuzzer_sys::fuzz_target;
use pyroscope_lambda_extension::contract::ConnId;
use pyroscope_lambda_extension::json;
use world::{World, draw_anew};

const REGISTERED: &str =
    "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: an-id\r\nContent-Length: 2\r\n\r\n{}";

const NEXT: &str = "GET /2020-01-01/extension/event/next HTTP/1.1\r\n";

/// What followed an event.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    exit: Option<u8>,
    asked_again: bool,
    log: String,
}

fuzz_target!(|event: &str| {
    let whole = outcome(event, usize::MAX);
    for step in [1, 7] {
        assert_eq!(whole, outcome(event, step), "in pieces of {step}");
    }
    let (mut fields, mut known) = (0, 0);
    let read = json::object(event, |_, _| fields += 1);
    let reference = serde_json::from_str::<serde_json::Value>(event);
    let kind = reference.as_ref().ok().and_then(|event| {
        known = event.as_object()?.len();
        event["eventType"].as_str()
    });
    match kind {
        // One reader sees the first of two fields, the other the last: no telling.
        _ if fields != known => {}
        Some("INVOKE") => assert!(whole.asked_again && whole.exit.is_none()),
        Some("SHUTDOWN") => assert_eq!((whole.exit, whole.asked_again), (Some(0), false)),
        _ if read.is_ok() || reference.is_ok() => {
            assert_eq!((whole.exit, whole.asked_again), (None, false));
        }
        _ => {}
    }
});

fn outcome(event: &str, step: usize) -> Outcome {
    draw_anew();
    let mut world = World::new(&[
        ("PYROSCOPE_DEV_MODE", "false"),
        ("PYROSCOPE_LOG_LEVEL", "trace"),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ]);
    let id = world.connect();
    assert!(
        world
            .seen(id)
            .starts_with("POST /2020-01-01/extension/register ")
    );
    world.arrive(id, REGISTERED.as_bytes(), step);
    assert!(world.seen(id).starts_with(NEXT));
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", event.len());
    world.offer(id, (head + event).as_bytes(), step);

    let asked_again = is_asking(&mut world, id);
    if world.exit.is_none() && !asked_again {
        assert!(world.connecting.is_empty(), "it asks again without a pause");
        world.pass_to_deadline();
        let id = world.connect();
        assert!(is_asking(&mut world, id), "it never asks again");
    }
    Outcome {
        exit: world.exit,
        asked_again,
        log: world.log(),
    }
}

fn is_asking(world: &mut World, id: ConnId) -> bool {
    let written = world.written.get(&id);
    written.is_some_and(|written| {
        let questions = String::from_utf8_lossy(written).matches(NEXT).count();
        assert!(questions <= 1, "it asks twice");
        questions == 1
    })
}
