//! When is Lambda asked for the next event, which permits it to freeze us? In flush mode `end`: when the function
//! is done and everything has been relayed, in time, and never for a server that is down.

#![expect(
    clippy::disallowed_methods,
    reason = "how long things take is measured here"
)]

mod support;

use std::time::{Duration, Instant};

use support::extensions_api::{ExtensionsApi, Fault, Kind};
use support::play::{Gate, Play};
use support::pyroscope::Pyroscope;
use support::sandbox::{Extension, ReservedPort, Sandbox};

const TWO_SECONDS: Duration = Duration::from_secs(2);

const DEGRADED: &str = "No telemetry available, flush mode end becomes invoke";

/// The INVOKE has been read, and behind it an upload was answered: nothing was asked for in between.
#[track_caller]
fn assert_held(lambda: &ExtensionsApi, extension: &Extension, request_id: &str) {
    extension.wait_log(request_id);
    let calls = lambda.calls().len();
    assert_eq!(extension.post("/ingest", b"while held").status, 200);
    assert_eq!(
        lambda.calls().len(),
        calls,
        "asked for while {request_id} is held"
    );
}

#[test]
fn the_next_event_is_asked_for_after_the_function_and_an_empty_ring() {
    let (lambda, server) = (ExtensionsApi::with_telemetry(), Pyroscope::http());
    let mut extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_FLUSH_MODE", "end")
        .listening();
    extension.wait_log("Subscribed to telemetry");
    let mut relayed = 0;
    for round in 0..3 {
        let request_id = lambda.invoke();
        assert_eq!(lambda.deliver("start", &request_id).status, 200);
        assert_held(&lambda, &extension, &request_id);
        relayed += 1;
        server.wait_answered(relayed);
        // Relayed, but the function goes on.
        assert_held(&lambda, &extension, &request_id);
        relayed += 1;
        server.wait_answered(relayed);

        let gate = Gate::new();
        server.next(Play::answer(200).unanswered_until(&gate));
        assert_eq!(extension.post("/ingest", b"the last one").status, 200);
        server.wait_complete(relayed + 1);
        if round == 1 {
            // It ends of its own before anything is relayed, and another's end is not its end.
            assert_eq!(lambda.deliver("runtimeDone", "another").status, 200);
            assert_held(&lambda, &extension, &request_id);
            relayed += 1;
        }
        assert_eq!(lambda.deliver("runtimeDone", &request_id).status, 200);
        // The function is done, but one profile is not there.
        assert_held(&lambda, &extension, &request_id);
        gate.open();
        lambda.wait_next();
        relayed += 2;
        // Not how many were answered: the stand-in notes that behind the answer.
        assert_eq!(server.complete().len(), relayed, "all had arrived");
        server.wait_answered(relayed);
    }
    lambda.shutdown(TWO_SECONDS);
    extension.expect_exit(0);
    extension.totals().expect(relayed as u64, 0);
    assert_eq!(extension.complaints(), Vec::<String>::new());
}

#[test]
fn the_next_event_is_asked_for_in_time_whatever_the_function_does() {
    let (lambda, server) = (ExtensionsApi::with_telemetry(), Pyroscope::http());
    let extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_FLUSH_MODE", "end")
        .listening();
    lambda.wait_next();
    let since = Instant::now();
    let request_id = lambda.invoke();
    lambda.deliver("start", &request_id);
    lambda.wait_next();
    let waited = since.elapsed();
    // The INVOKE leaves three seconds; 200 ms are kept back, so 100 remain for a busy machine.
    let (least, most) = (Duration::from_millis(2700), Duration::from_millis(2900));
    assert!((least..most).contains(&waited), "{waited:?}");
    assert_eq!(extension.complaints(), Vec::<String>::new());
}

/// How fast is printed; that nothing else than the server's state ends the hold is what is asserted.
#[test]
fn a_dead_server_holds_nothing_up() {
    let lambda = ExtensionsApi::with_telemetry();
    let nobody = ReservedPort::new();
    let extension = Sandbox::new()
        .lambda(&lambda)
        .set(
            "PYROSCOPE_REMOTE_ADDRESS",
            format!("http://127.0.0.1:{}", nobody.number),
        )
        .set("PYROSCOPE_FLUSH_MODE", "end")
        .listening();
    lambda.wait_next();
    let request_id = lambda.invoke();
    lambda.deliver("start", &request_id);
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    // No runtimeDone ever: the failure of the first attempt has ended the hold.
    lambda.wait_next();
    extension.wait_complaint(&["cannot reach the server"]);
    for _ in 0..20 {
        let waited = lambda.invoke_and_wait();
        println!("INVOKE to next: {waited:?}");
        assert!(waited < Duration::from_secs(1), "{waited:?}");
    }
}

#[test]
fn without_telemetry_it_is_invoke_and_one_line_says_so() {
    type Make = fn(&ExtensionsApi);
    let faults: [(&str, Make); 4] = [
        ("Telemetry.NotSupported", |_| {}),
        ("SubscriptionClosed", |lambda| {
            lambda.fault(
                Kind::Telemetry,
                Fault::Refuse(403, "Telemetry.SubscriptionClosed"),
            );
        }),
        ("connection closed", |lambda| {
            lambda.fault(Kind::Telemetry, Fault::Close)
        }),
        ("status line", |lambda| {
            lambda.fault(Kind::Telemetry, Fault::Raw(b"nonsense\r\n\r\n".to_vec()));
        }),
    ];
    for (cause, make) in faults {
        let (lambda, server, gate) = (ExtensionsApi::start(), Pyroscope::http(), Gate::new());
        make(&lambda);
        server.next(Play::answer(200).unanswered_until(&gate));
        let mut extension = Sandbox::with(&lambda, &server)
            .set("PYROSCOPE_FLUSH_MODE", "end")
            .listening();
        let line = extension.wait_log(DEGRADED);
        println!("{line}");
        lambda.invoke_and_wait();
        assert_eq!(extension.post("/ingest", b"payload").status, 200);
        server.wait_complete(1);
        let request_id = lambda.invoke();
        assert_held(&lambda, &extension, &request_id);
        gate.open();
        lambda.wait_next();
        server.wait_answered(2);
        lambda.shutdown(TWO_SECONDS);
        extension.expect_exit(0);
        extension.totals().expect(2, 0);
        assert_eq!(extension.complaints(), [line], "{cause}");
    }
}

/// Managed Instances tell of no invocation: there is nothing to hold, and nothing to subscribe for.
#[test]
fn where_no_invocation_is_told_of_nothing_is_subscribed() {
    let (lambda, server) = (ExtensionsApi::with_telemetry(), Pyroscope::http());
    lambda.fault(
        Kind::Register,
        Fault::Refuse(403, "Extension.InvalidEventType"),
    );
    let mut extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_FLUSH_MODE", "end")
        .listening();
    lambda.wait_next();
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    lambda.shutdown(TWO_SECONDS);
    extension.expect_exit(0);
    extension.totals().expect(1, 0);
    assert_eq!(lambda.calls().len(), 3, "register twice, next once");
}
