//! Telemetry: whatever the cut, a delivery has the same answers and the same consequence; and the invocation is
//! over exactly when the batch says so, as serde_json understands it.
#![no_main]

#[path = "../../support/world.rs"]
mod world;

use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;
use world::{OK, World, draw_anew};

const REGISTERED: &str =
    "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: an-id\r\nContent-Length: 2\r\n\r\n{}";

const INVOKE: &str = r#"{"eventType":"INVOKE","deadlineMs":1800000009000,"requestId":"this"}"#;

const NEXT: &str = "GET /2020-01-01/extension/event/next HTTP/1.1\r\n";

/// Says only that the body is wanted. It is not said where the body has begun (RFC 9110 section 10.1.1), which
/// depends on the cut.
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// What followed a delivery.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// Final answers.
    answers: String,
    is_over: bool,
    log: String,
}

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((&kind, rest)) = input.split_first() else {
        return Corpus::Reject;
    };
    let wire = match kind % 4 {
        0 => rest.to_vec(),
        1 => {
            let mut wire = head("Transfer-Encoding: chunked");
            for piece in rest.chunks(usize::from(kind) + 1) {
                wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            [wire, b"0\r\n\r\n".to_vec()].concat()
        }
        _ => [
            head(&format!("Content-Length: {}", rest.len())),
            rest.to_vec(),
        ]
        .concat(),
    };
    let whole = outcome(&wire, usize::MAX);
    for step in [1, 7] {
        assert_eq!(whole, outcome(&wire, step), "in pieces of {step}");
    }
    if kind % 4 == 0 {
        return Corpus::Keep;
    }
    let is_taken = whole.answers == OK;
    let first = whole.answers.lines().next();
    assert!(
        is_taken || first == Some("HTTP/1.1 400 Bad Request"),
        "{first:?}"
    );
    let Some((good, last)) = reference(rest) else {
        return Corpus::Keep;
    };
    assert_eq!(is_taken, good, "a batch as it should be");
    if good {
        assert_eq!(whole.is_over, last.as_deref() == Some("this"));
    }
    Corpus::Keep
});

fn head(length: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: sandbox:4041\r\n{length}\r\n\r\n").into_bytes()
}

fn answer(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// An invocation in flush mode end, while which Lambda delivers that.
fn outcome(wire: &[u8], step: usize) -> Outcome {
    draw_anew();
    let mut world = World::new(&[
        ("PYROSCOPE_DEV_MODE", "false"),
        ("PYROSCOPE_FLUSH_MODE", "end"),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ]);
    let lambda = world.connect();
    world.answer(lambda, REGISTERED);
    let subscription = world.connect();
    world.arrive(subscription, &answer("OK"), usize::MAX);
    assert!(world.seen(lambda).contains(NEXT));
    world.arrive(lambda, &answer(INVOKE), usize::MAX);
    assert!(
        !world.seen(lambda).contains(NEXT),
        "the function still runs"
    );
    world.log();

    let delivery = world.relay.telemetry_accepted();
    world.written.insert(delivery, Vec::new());
    world.settle();
    // The last answer is written before the connection is closed, and must be seen.
    let (mut answers, mut taken) = (Vec::new(), 0);
    while taken < wire.len() {
        let n = step.min(wire.len() - taken);
        let mut offered = world.relay.space(delivery).len().min(n);
        if offered == 0 {
            break;
        }
        world.relay.space(delivery)[..offered].copy_from_slice(&wire[taken..taken + offered]);
        world.relay.received(delivery, offered, world.now);
        taken += std::mem::take(&mut offered);
        answers.extend_from_slice(&world.relay.pending(delivery).concat());
        world.settle();
    }
    let is_over = world
        .written
        .get(&lambda)
        .is_some_and(|written| String::from_utf8_lossy(written).contains(NEXT));
    let answers = String::from_utf8(answers).expect("answers are text");
    Outcome {
        answers: answers.replace(CONTINUE, ""),
        is_over,
        log: world.log(),
    }
}

/// Whether the batch is one, and the invocation that it says is over last. `None` where there is no telling: it is
/// no JSON to serde_json, or a field comes twice.
fn reference(batch: &[u8]) -> Option<(bool, Option<String>)> {
    let text = str::from_utf8(batch).ok()?;
    let value: Value = serde_json::from_str(text).ok()?;
    if text.contains('\\') || text.matches('"').count() != 2 * strings(&value) {
        return None;
    }
    let Some(events) = value.as_array() else {
        return Some((false, None));
    };
    let mut last = None;
    for event in events {
        if !event.is_object() {
            return Some((false, None));
        }
        if event["type"] == "platform.runtimeDone" {
            if !event["record"].is_object() {
                return Some((false, None));
            }
            let id = event["record"]["requestId"].as_str();
            last = id.map(str::to_owned).or(last);
        }
    }
    Some((true, last))
}

/// How many strings there are in it, names of fields among them.
fn strings(value: &Value) -> usize {
    match value {
        Value::String(_) => 1,
        Value::Array(all) => all.iter().map(strings).sum(),
        Value::Object(all) => all.values().map(|value| 1 + strings(value)).sum(),
        _ => 0,
    }
}
