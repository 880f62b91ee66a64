//! Does the relay work on though nobody reads its log, and its pipe is full?

#![expect(
    clippy::disallowed_methods,
    reason = "how long its end takes is measured here"
)]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::client::{Client, post};
use support::extensions_api::ExtensionsApi;
use support::monitor::let_pass;
use support::play::Gate;
use support::pyroscope::Pyroscope;
use support::sandbox::{Extension, ReservedPort, Sandbox};

/// Each is a line of more than 128 bytes: far more than the pipe and the relay keep.
const INVOCATIONS: usize = 1000;

/// One upload in so many invocations.
const UPLOAD_EVERY: usize = 100;

struct Bench {
    lambda: ExtensionsApi,
    server: Pyroscope,
    extension: Extension,
    gate: Gate,
}

/// A sandbox with more to say than anybody has read.
fn flooded() -> Bench {
    let (lambda, server, gate) = (ExtensionsApi::start(), Pyroscope::http(), Gate::new());
    let port = ReservedPort::new();
    let address = SocketAddr::from(([127, 0, 0, 1], port.number));
    let extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_LISTEN_ADDRESS", address.to_string())
        .set("PYROSCOPE_LOG_LEVEL", "debug")
        .log_unread_until(&gate)
        .start();
    lambda.wait_next();
    let mut client = Client::connect(address);
    for number in 0..INVOCATIONS {
        lambda.invoke_and_wait();
        if number % UPLOAD_EVERY == 0 {
            client.send(post("/ingest", b"unheard"));
            client.expect_ok();
        }
    }
    server.wait_answered(INVOCATIONS / UPLOAD_EVERY);
    // Nothing else is left that would make it look after the log.
    server.close_all();
    Bench {
        lambda,
        server,
        extension,
        gate,
    }
}

#[test]
fn a_log_that_nobody_reads_costs_lines_and_nothing_else() {
    let mut bench = flooded();
    bench.gate.open();
    let line = bench.extension.wait_log("Log lines dropped");
    assert!(
        line.contains("level=warning") && line.contains("svc=pyroscope-lambda-ext-main"),
        "{line}"
    );
    let dropped = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("count="))
        .and_then(|count| count.parse::<usize>().ok());
    let dropped = dropped.expect("a count");
    let invoked = bench.extension.log_with(&["msg=Invoked"]).len();
    assert!(
        invoked > 0 && dropped > 0 && invoked + dropped >= INVOCATIONS,
        "{invoked} lines are here, {dropped} are missing"
    );
    // Whole lines, and none after the gap before it was filled.
    let log = bench.extension.log();
    assert!(log.lines().all(|line| line.starts_with("time=")), "{log}");
    let request_id = bench.lambda.invoke();
    bench.extension.wait_log_with(&["msg=Invoked", &request_id]);
    bench.lambda.shutdown(Duration::from_secs(2));
    bench.extension.expect_exit(0);
    let uploads = (INVOCATIONS / UPLOAD_EVERY) as u64;
    bench.extension.totals().expect(uploads, 0);
    assert_eq!(bench.server.complete().len() as u64, uploads);
}

/// Its last line would be nice to have, and is not worth Lambda's patience.
#[test]
fn a_log_that_nobody_reads_does_not_keep_it_from_leaving() {
    let mut bench = flooded();
    let since = Instant::now();
    bench.lambda.shutdown(Duration::from_secs(2));
    let status = bench.extension.wait_gone();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(since.elapsed() < Duration::from_secs(2));
    bench.gate.open();
}

#[test]
fn a_log_whose_reader_has_gone_costs_nothing() {
    let (lambda, server) = (ExtensionsApi::start(), Pyroscope::http());
    let port = ReservedPort::new();
    let address = SocketAddr::from(([127, 0, 0, 1], port.number));
    let mut extension = Sandbox::with(&lambda, &server)
        .set("PYROSCOPE_LISTEN_ADDRESS", address.to_string())
        .set("PYROSCOPE_LOG_LEVEL", "debug")
        .log_closed()
        .start();
    lambda.wait_next();
    lambda.invoke_and_wait();
    let woken = || {
        extension.wait_asleep();
        extension.status("voluntary_ctxt_switches:")
    };
    let before = woken();
    let_pass(Duration::from_millis(1600));
    assert_eq!(
        woken(),
        before,
        "it woke up, though it has nothing to write"
    );
    let mut client = Client::connect(address);
    client.send(post("/ingest", b"unheard"));
    client.expect_ok();
    server.wait_answered(1);
    lambda.shutdown(Duration::from_secs(2));
    let status = extension.wait_gone();
    assert_eq!(status.code(), Some(0), "{status}");
}
